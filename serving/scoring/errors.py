"""The service's error responses: each says in words what is wrong and how to fix it.

Belongs here: exceptions of scoring, and the response that each one becomes. Does not belong here: deciding that a row
is refused (``request_parsing.py``, ``bodies.py``).
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from resources.request_log import LogError
from serving.scoring.entity_events import TooOldError
from serving.scoring.request_parsing import RefusedRows

RETRY_AFTER_S = 5
"""Value of the ``Retry-After`` header, in seconds, when no version serves yet or the log cannot be written."""

_log = logging.getLogger("assetline.service")


class Json(Response):
    """A JSON response in ASCII only, because a lone surrogate from a request cannot be encoded otherwise."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The response body. Raises :class:`ValueError` for NaN and infinity, which JSON does not support."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


class NoAnswerError(Exception):
    """The version has no finite score for a row; the message lists the rows."""


class NotExplainedError(Exception):
    """The version cannot explain its scores; the message gives the reason and the fix. Nothing was recorded."""


def handle_errors(app: FastAPI) -> None:
    """Registers the error responses for rows that cannot be scored."""

    @app.exception_handler(RefusedRows)
    async def refused(_: Request, error: RefusedRows) -> Json:
        return Json({"detail": str(error), "problems": [asdict(problem) for problem in error.problems]}, 422)

    @app.exception_handler(TooOldError)
    async def too_old(_: Request, error: TooOldError) -> Json:
        return Json({"detail": str(error)}, 422)

    @app.exception_handler(NoAnswerError)
    async def no_answer(_: Request, error: NoAnswerError) -> Json:
        _log.error("%s", error)
        return Json({"detail": str(error)}, 500)

    @app.exception_handler(NotExplainedError)
    async def not_explained(_: Request, error: NotExplainedError) -> Json:
        return Json({"detail": str(error)}, 409)

    @app.exception_handler(LogError)
    async def not_logged(_: Request, error: LogError) -> Json:
        return Json({"detail": str(error)}, 503, headers={"Retry-After": str(RETRY_AFTER_S)})

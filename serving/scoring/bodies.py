"""What a request asks for: its JSON body within the limits, and its query.

Belongs here: limits of one request, and reading JSON. Does not belong here: the values of a raw row
(``request_parsing.py``), limits over several requests (``limits.py``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fastapi import HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_ROWS = 1000
"""Maximum number of rows in one request; a long request delays the others."""
MAX_BYTES = 8 * 1024 * 1024
"""Maximum size of a request body in bytes; it fits ``MAX_ROWS`` rows of a few hundred columns."""
MAX_EXPLAINED_ROWS = 50
"""Maximum number of rows in one request that asks for explanations; an explanation takes as long as hundreds of
scores."""


class FeatureRows(BaseModel):
    """Rows of features in the model's input format, for the parity check of a candidate."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    features: list[list[float | None]] = Field(description="Features in the declared order; null means missing.")


def explains(request: Request, rows: Sequence[Any]) -> bool:
    """Whether a request asks for explanations of its ``rows``. Raises HTTP 422 for another value or too many rows."""
    if not request.url.query:
        return False
    asked = request.query_params.get("explain", "false")
    if asked not in ("true", "false"):
        raise HTTPException(422, f"explain={asked!r} is invalid; send explain=true or explain=false")
    if asked == "true" and len(rows) > MAX_EXPLAINED_ROWS:
        raise HTTPException(
            422, f"{len(rows)} rows to explain in one request; send at most {MAX_EXPLAINED_ROWS} with explain=true"
        )
    return asked == "true"


async def read_body(request: Request) -> bytes:
    """Reads the request body. Raises HTTP 415 if it is not declared as JSON, and 413 if it exceeds ``MAX_BYTES``."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        # A web page of another origin cannot send this header without permission, so it cannot submit rows.
        raise HTTPException(415, "send JSON, with the header Content-Type: application/json")
    too_large = HTTPException(
        413,
        f"the body is larger than {MAX_BYTES:,} bytes; send fewer rows in a request",
        headers={"Connection": "close"},
    )
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > MAX_BYTES:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BYTES:
            raise too_large
        parts.append(part)
    return b"".join(parts)


def parsed(body: bytes) -> Any:
    """Parses a JSON body. Raises HTTP 422 for invalid JSON, NaN and infinity included."""
    try:
        return json.loads(body, parse_constant=_no_json)
    except (ValueError, RecursionError) as error:
        raise HTTPException(422, f"the body cannot be read as JSON ({error}); see /docs") from error


def _no_json(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON; send null for a missing value")


def not_understood(request: Request, what: str) -> HTTPException:
    """The HTTP 422 for a body of another form than its path takes."""
    return HTTPException(422, f"the body is not valid for {request.url.path}: {what}; see /docs")


def first_of(error: ValidationError) -> str:
    """The first problem that pydantic found, with its place in the body."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'body'}: {first['msg']}"


def few(rows: list[Any]) -> list[Any]:
    """Returns the rows. Raises HTTP 422 if there are more than ``MAX_ROWS``."""
    if len(rows) > MAX_ROWS:
        raise HTTPException(422, f"{len(rows)} rows in one request; send at most {MAX_ROWS}")
    return rows

"""What a request passes before it reaches the application.

Belongs here: the order of the middleware, and where access lines go. Does not belong here: what each one does.
"""

from __future__ import annotations

from fastapi import FastAPI
from starlette.routing import Route
from starlette.types import ASGIApp

from resources.audit import AuditLog
from resources.settings import Settings
from serving.scoring.access import RequireToken, Tokens
from serving.scoring.access_log import AccessLog, LineFile, write_to_stdout
from serving.scoring.limits import RateLimit
from serving.scoring.metrics import ServiceMetrics
from serving.scoring.score_audit import ScoreAudit
from serving.scoring.shared import Seat


def guarded(
    app: FastAPI, settings: Settings, tokens: Tokens | None, metrics: ServiceMetrics, seat: Seat | None = None,
    audit: AuditLog | None = None,
) -> ASGIApp:  # fmt: skip
    """Wraps the application. The middleware is outside of FastAPI's own, so that nothing of it runs for a stranger.

    Args:
        app: the application.
        settings: the rate limit, and where access lines go.
        tokens: the valid tokens; ``None``: requests need none.
        metrics: counts the refused requests and the lines that could not be written.
        seat: the place of this process if the service has several.
        audit: where scores are recorded; ``None``: nowhere, e.g. for a service of one bundle, which has no database.
    """
    paths = [route.path for route in app.routes if isinstance(route, Route) and "{" not in route.path]
    wrapped: ASGIApp = app
    if audit is not None:
        wrapped = ScoreAudit(wrapped, audit)
    if settings.rate_limit:
        wrapped = RateLimit(wrapped, settings.rate_limit, metrics.refused, shared=seat.buckets if seat else None)
    if tokens is not None:
        wrapped = RequireToken(wrapped, tokens, metrics.refused)
    write = {
        "file": LineFile(settings.serving / "access.jsonl").write,
        "stdout": write_to_stdout,
        "off": None,
    }[settings.access_log]
    return AccessLog(wrapped, paths, write, metrics.access_line_failed)

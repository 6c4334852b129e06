"""What the pages of the watch record in the audit log, and the page that shows the log.

Belongs here: which requests become a line, and the page. Does not belong here: the log (``resources/audit.py``);
approvals and the handling of alerts, which write their lines in their own transactions.
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes, which are local to a function.
import threading
import time
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from resources.audit import AuditError, AuditLog, coming_from

ONCE_IN_S = 600.0
"""A person who opens the same page again within this time adds no line: pages are reloaded often."""
_SHOWN = 200
_MOST_REMEMBERED = 10_000


class OriginOfRequests:
    """ASGI middleware: lines that are written during a request say which address it came from."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI connection."""
        with coming_from(f"{client_of(scope)} by the alerts page"):
            await self._app(scope, receive, send)


def client_of(scope: Scope) -> str:
    """The address that a request came from."""
    return str(scope["client"][0]) if scope.get("client") else "unknown"


class Looks:
    """Records who looked at which page.

    Args:
        log: the audit log.
        clock: seconds, for tests.
    """

    def __init__(self, log: AuditLog, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._clock = log, clock
        self._seen: dict[tuple[str, ...], float] = {}
        self._lock = threading.Lock()

    def looked(self, request: Request, who: str) -> None:
        """Records a GET of a page by a person, before the page is made.

        Raises:
            HTTPException: 503, the line cannot be written; nothing is shown then.
        """
        if request.method == "GET":
            page = request.url.path
            self._once("read", "UI of Dagster or MLflow" if page == "/authorize" else f"page {page}", who, request)

    def denied(self, request: Request, who: str = "unknown") -> None:
        """Records a request whose token is wrong, or whose role may not do it."""
        self._once("denied", f"page {request.url.path}", who, request)

    def _once(self, action: str, subject: str, who: str, request: Request) -> None:
        # An unknown client has one line, whatever it asks for, so that it cannot fill the log.
        key = (action, "" if who == "unknown" else subject, who, client_of(request.scope))
        now = self._clock()
        with self._lock:
            if now - self._seen.get(key, -ONCE_IN_S) < ONCE_IN_S:
                return
            try:
                self._log.record(action, subject, who=who)
            except AuditError as error:
                raise HTTPException(503, str(error)) from error
            if len(self._seen) >= _MOST_REMEMBERED:
                self._seen.clear()
            self._seen[key] = now


def add_audit_page(app: FastAPI, log: AuditLog, who_is: Any, page: Callable[..., str]) -> None:
    """Adds the page ``/audit``, and ``/audit.json`` for programs: the newest lines that match.

    Args:
        app: the application.
        log: the audit log.
        who_is: annotated dependency that refuses clients without the token.
        page: renders a template to HTML.
    """

    @app.get("/audit")
    def shown(_: who_is, who: str = "", action: str = "", subject: str = "") -> HTMLResponse:
        lines = log.latest(_SHOWN, who=who, action=action, subject=subject)[::-1]
        given = {"who": who, "action": action, "subject": subject}
        return HTMLResponse(page("audit.html", lines=lines, given=given, most=_SHOWN))

    @app.get("/audit.json")
    def for_programs(_: who_is, who: str = "", action: str = "", subject: str = "", last: int = _SHOWN) -> JSONResponse:
        lines = log.latest(max(1, min(last, 10_000)), who=who, action=action, subject=subject)
        return JSONResponse([line.to_json() for line in lines])

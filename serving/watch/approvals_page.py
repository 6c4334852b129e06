"""The page of approvals: versions that wait for a person, and the buttons to approve or reject them.

Belongs here: the HTTP interface to decisions. Does not belong here: their conditions
(``assets/lifecycle/release/approval.py``), the access to the page (``alerts_page.py``).
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes, which are local to a function.
import datetime as dt
from collections.abc import Callable, Sequence
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import FastAPI, Form, HTTPException
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from assets.declaration import Model
from assets.lifecycle.release.approval import ApprovalError, decide, waiting_states
from resources.access import Access
from resources.ledger import Ledger


def add_approvals_page(
    app: FastAPI, ledger: Ledger, models: Sequence[Model], who_is: Any, page: Callable[..., str]
) -> None:
    """Adds ``/approvals`` and ``/api/approvals``.

    Args:
        app: the application of the watch.
        ledger: the ledger that holds requests and decisions.
        models: the declared models.
        who_is: dependency that refuses a request without access, and returns who it is.
        page: renders a template.
    """
    by_name = {model.name: model for model in models if model.approval is not None}

    def states(who: Access) -> dict[str, Any]:
        seen = [model for name, model in by_name.items() if who.may("read", name)]
        return waiting_states(ledger, seen, dt.datetime.now(dt.UTC))

    def decided(name: str, decision: str, who: str, comment: str, version: str) -> None:
        if name not in by_name or decision not in ("approve", "reject"):
            raise HTTPException(
                404, f"there is no {decision!r} of {name!r}; models that need approval: {', '.join(by_name) or 'none'}"
            )
        decide(ledger, by_name[name], approve=decision == "approve", who=who, comment=comment, version=version)

    @app.exception_handler(ApprovalError)
    async def cannot(_: Any, error: ApprovalError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 409)

    @app.get("/approvals")
    def approvals(who: who_is, failed: str = "") -> HTMLResponse:
        return HTMLResponse(page("approvals.html", states=states(who), models=by_name, who=who.name, failed=failed))

    @app.post("/approvals/{name}/{decision}")
    def handle(
        name: str,
        decision: str,
        who: who_is,
        version: Annotated[str, Form()] = "",
        comment: Annotated[str, Form()] = "",
    ) -> Response:
        try:
            decided(name, decision, who.name, comment, version)
        except ApprovalError as error:
            return RedirectResponse(f"/approvals?failed={quote(str(error))}", 303)
        return RedirectResponse("/approvals", 303)

    @app.get("/api/approvals")
    def api_list(who: who_is) -> JSONResponse:
        return JSONResponse(
            {
                name: {
                    "version": state.request.version,
                    "status": state.status,
                    "until": state.until.isoformat(),
                    "message": state.message,
                }
                for name, state in states(who).items()
            }
        )

    @app.post("/api/approvals/{name}/{decision}")
    def api_handle(name: str, decision: str, who: who_is, given: dict[str, str]) -> JSONResponse:
        person = given.get("who", who.name) if who.role == "admin" else who.name
        decided(name, decision, person, given.get("comment", ""), given.get("version", ""))
        return JSONResponse({"message": states(who)[name].message})

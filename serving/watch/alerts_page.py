"""The alerts' page and its API: list, filter, acknowledge, silence and resolve alerts, show history and reports.

Belongs here: the HTTP interface to alerts. Does not belong here: the lifecycle of an alert (``resources/alerts``), the
other parts of the watch (``app.py``).

The alert pages, the runbooks and the JSON API require a token; ``/health`` does not. A person enters the token once on
the login page; a program sends it as ``Authorization: Bearer …``.
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes, which are local to a function.
import contextlib
import datetime as dt
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends, FastAPI, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from assets.declaration import Model
from metadata.catalogue import Catalogue
from metadata.facts import Metadata
from resources.access import Access, AccessDenied
from resources.alerts import AlertError, AlertStore
from resources.audit import AuditLog
from resources.ledger import Ledger
from resources.service_tokens import Token
from resources.settings import project_name, project_root
from resources.tables import ParquetTables, TableError, TableKeyError
from serving.watch.approvals_page import add_approvals_page
from serving.watch.audit_page import Looks, OriginOfRequests, add_audit_page
from serving.watch.catalogue_page import add_catalogue_page
from serving.watch.compliance_page import add_compliance_page
from serving.watch.login import Login, add_login_page
from serving.watch.templates import render
from serving.watch.versions_page import add_versions_page

MOST_HOURS = 90 * 24


def create_app(
    store: AlertStore,
    token: str,
    *,
    reports: ParquetTables | None = None,
    ui_url: str = "",
    ledger: Ledger | None = None,
    models: Sequence[Model] = (),
    metadata: Callable[[], Metadata] | None = None,
    audit: AuditLog | None = None,
    tokens: Callable[[], Mapping[str, Token]] | None = None,
) -> FastAPI:
    """Creates the application with the page and its API.

    Args:
        store: alert store.
        token: access token that clients must send.
        reports: the tables, for their catalogue, and beside them the reports that alerts link to.
        ui_url: address of the Dagster UI, for links.
        ledger, models: the ledger and the declared models, for the page of approvals; ``None``: there is no such page.
        metadata: returns new facts for each question on the pages about versions; ``None``: there are no such pages.
        audit: where it is recorded who looked at which page; ``None``: nowhere, and there is no page of the audit log.
        tokens: returns the named tokens; ``None``: only ``token`` is accepted.
    """
    app = FastAPI(title=f"{project_name()}: alerts")

    def model_of_alert(number: int) -> str | None:
        with contextlib.suppress(AlertError):
            return store.get(number).model
        return None

    login = Login(token, Looks(audit) if audit is not None else None, tokens, model_of_alert)
    app.add_middleware(OriginOfRequests)
    who_is = Annotated[Access, Depends(login.allowed)]
    page = functools.partial(
        render,
        ui_url=ui_url,
        name=project_name(),
        has_approvals=ledger is not None,
        has_versions=metadata is not None,
        has_catalogue=reports is not None,
        has_audit=audit is not None,
    )

    @app.exception_handler(AlertError)
    async def cannot(_: Request, error: AlertError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 409)

    @app.get("/")
    def listing(_: who_is, state: str = "open", model: str = "", severity: str = "", text: str = "") -> HTMLResponse:
        found = select(store, state=state, model=model, severity=severity, text=text)
        models = sorted({alert.model for alert in store.alerts(limit=1000)})
        given = {"state": state, "model": model, "severity": severity, "text": text}
        return HTMLResponse(
            page("alerts.html", alerts=found, models=models, given=given, backlog=store.outbox.backlog())
        )

    @app.get("/alerts/{number}")
    def one(number: int, _: who_is, failed: str = "") -> HTMLResponse:
        alert = _found(store, number)
        report = _link_of_report(reports, alert)
        return HTMLResponse(
            page("alert.html", alert=alert, history=store.history(number), report=report, failed=failed,
                 runbook=_runbook(alert.runbook))
        )  # fmt: skip

    @app.get("/alerts/{number}/report")
    def report(number: int, who: who_is, request: Request) -> Response:
        alert = _found(store, number)
        try:
            _require_report(reports, alert, who)
        except AccessDenied as error:
            raise login.refusal(request, who, error) from error
        if (html := _report(reports, alert)) is None:
            raise HTTPException(404, "this alert has no report here; see its run in Dagster")
        # Evidently's page runs its own scripts; the sandbox keeps them away from our pages.
        return HTMLResponse(html, headers={"Content-Security-Policy": "sandbox allow-scripts"})

    @app.post("/alerts/{number}/{what}")
    def handle(
        number: int, what: str, who: who_is, comment: Annotated[str, Form()] = "", hours: Annotated[float, Form()] = 8.0
    ) -> Response:
        _found(store, number)
        try:
            act(store, number, what, who=who.name, comment=comment, hours=hours)
        except AlertError as error:
            return RedirectResponse(f"/alerts/{number}?failed={quote(str(error))}", 303)
        return RedirectResponse(f"/alerts/{number}", 303)

    @app.get("/runbooks/{name}")
    def runbook(name: str, _: who_is) -> HTMLResponse:
        text = _runbook(f"docs/runbooks/{name}.md")
        if not text:
            raise HTTPException(404, f"there is no runbook {name!r}; see docs/runbooks")
        return HTMLResponse(page("runbook.html", runbook=text, called=name))

    @app.get("/health")
    def health() -> JSONResponse:
        backlog = {
            name: {"waiting": waits.waiting, "since": waits.since.isoformat(), "error": waits.error}
            for name, waits in store.outbox.backlog().items()
        }
        return JSONResponse({"status": "ok", "open": len(store.open_alerts()), "waiting": backlog})

    add_login_page(app, login, page)
    _add_api(app, store, who_is)
    _add_pages(app, reports, ledger, models, metadata, who_is, page)
    if audit is not None:
        add_audit_page(app, audit, who_is, page)
    return app


def _add_pages(
    app: FastAPI, tables: ParquetTables | None, ledger: Ledger | None, models: Sequence[Model],
    metadata: Callable[[], Metadata] | None, who_is: Any, page: Callable[..., str],
) -> None:  # fmt: skip
    """Adds the pages of other modules, where there is what they show."""
    if ledger is not None:
        add_approvals_page(app, ledger, models, who_is, page)
    if metadata is not None:
        add_versions_page(app, metadata, who_is, page)
        add_compliance_page(app, metadata, who_is, page)
    if tables is not None:
        add_catalogue_page(app, Catalogue(tables, models), who_is, page)


def _add_api(app: FastAPI, store: AlertStore, who_is: Any) -> None:
    """Adds the JSON API: the same actions for programs."""

    @app.get("/api/alerts")
    def api_list(_: who_is, state: str = "open", model: str = "", severity: str = "", text: str = "") -> JSONResponse:
        found = select(store, state=state, model=model, severity=severity, text=text)
        return JSONResponse([alert.to_json() for alert in found])

    @app.get("/api/alerts/{number}")
    def api_one(number: int, _: who_is) -> JSONResponse:
        history = [
            {"change": e.change, "message": e.message, "who": e.who, "at": e.at.isoformat()}
            for e in store.history(number)
        ]
        return JSONResponse({**_found(store, number).to_json(), "history": history})

    @app.post("/api/alerts/{number}/{what}")
    async def api_handle(number: int, what: str, request: Request, who: who_is) -> JSONResponse:
        given = await request.json() if await request.body() else {}
        _found(store, number)
        act(
            store,
            number,
            what,
            who=given.get("who", who.name) if who.role == "admin" else who.name,
            comment=given.get("comment", ""),
            hours=given.get("hours", 8.0),
        )
        return JSONResponse(store.get(number).to_json())


def select(store: AlertStore, *, state: str, model: str, severity: str, text: str) -> list[Any]:
    """Alerts that match the filters, of the latest 2000: unresolved first, then pages, then newest.

    Args:
        store: alert store.
        state: ``open`` (not resolved), ``acknowledged``, ``silenced``, ``resolved`` or ``all``.
        model, severity: exact values; empty matches any.
        text: case-insensitive text to find in cause, column, owner or summary; empty matches any.
    """

    def fits(alert: Any) -> bool:
        states = {
            "all": True,
            "open": alert.state != "resolved",
            "silenced": alert.is_silenced() and alert.state != "resolved",
        }
        searched = f"{alert.cause} {alert.column} {alert.owner} {alert.summary}".lower()
        return (
            states.get(state, alert.state == state)
            and model in ("", alert.model)
            and severity in ("", alert.severity)
            and text.lower() in searched
        )

    found = [alert for alert in store.alerts(limit=2000) if fits(alert)]
    return sorted(found, key=lambda alert: (alert.state == "resolved", alert.severity != "page", -alert.id))


def act(store: AlertStore, number: int, what: str, *, who: str, comment: str, hours: float) -> None:
    """Applies an action to an alert: ``acknowledge``, ``silence`` or ``resolve``.

    Raises:
        AlertError: the action is unknown or cannot be applied, or ``hours`` is not in (0, 2160].
    """
    if what == "acknowledge":
        store.acknowledge(number, who=who, comment=comment)
    elif what == "silence":
        if not 0 < hours <= MOST_HOURS:
            raise AlertError(f"a silence of {hours:g} hours is not possible; give more than 0 and at most {MOST_HOURS}")
        store.silence(number, until=dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours), who=who, comment=comment)
    elif what == "resolve":
        store.close(number, who=who, comment=comment)
    else:
        raise AlertError(f"{what!r} is not an action on alerts; use acknowledge, silence or resolve")


def _found(store: AlertStore, number: int) -> Any:
    try:
        return store.get(number)
    except AlertError as error:
        raise HTTPException(404, str(error)) from error


def _link_of_report(reports: ParquetTables | None, alert: Any) -> str | None:
    """The link to the report of an alert; ``None`` if there is none, or if the tables cannot be read now."""
    link = alert.links.get("report")
    try:
        return link if reports and link and reports.has_report(link) else None
    except TableError:
        return None  # the alert is shown without it


def _require_report(reports: ParquetTables | None, alert: Any, who: Access) -> None:
    """Raises :class:`AccessDenied` if a person may not see the report of an alert, which shows all columns."""
    table = reports.table_of_report(alert.links.get("report", "")) if reports else ""
    if table:
        who.require_table(table)
        if who.hidden_columns:
            raise AccessDenied(f"the report shows all columns, and some are hidden from {who.name}; ask an admin")


def _report(reports: ParquetTables | None, alert: Any) -> bytes | None:
    """The report of an alert; ``None`` under the same conditions."""
    link = _link_of_report(reports, alert)
    try:
        return reports.report(link) if reports and link else None
    except TableKeyError as error:
        raise HTTPException(503, str(error)) from error


def _runbook(path: str) -> str:
    """The text of a runbook page; empty if there is none."""
    folder = (project_root() / "docs" / "runbooks").resolve()
    file = (project_root() / path).resolve()
    return file.read_text(encoding="utf-8") if path and file.is_relative_to(folder) and file.is_file() else ""

"""The catalogue of tables as a page of the watch, and as a file of its own.

Belongs here: the route, and the page without a server. Does not belong here: the facts (``metadata/catalogue.py``).
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes, which are local to a function.
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse, JSONResponse

from metadata.catalogue import Catalogue, CatalogueTable
from resources.access import Access
from resources.settings import project_name
from resources.tables import TableError
from serving.watch.templates import render


def add_catalogue_page(app: FastAPI, catalogue: Catalogue, who_is: Any, page: Callable[..., str]) -> None:
    """Adds the page ``/catalogue``, and ``/catalogue.json`` for programs.

    Args:
        app: the application.
        catalogue: the tables.
        who_is: annotated dependency that refuses clients without the token.
        page: renders a template to HTML.
    """

    def listing(who: Access, model: str = "") -> list[CatalogueTable]:
        try:
            found = catalogue.listing(who)
        except TableError as error:
            raise HTTPException(409, str(error)) from error
        return [table for table in found if model in ("", table.model)]

    @app.get("/catalogue")
    def shown(who: who_is, model: str = "") -> HTMLResponse:
        found = listing(who)
        return HTMLResponse(page("catalogue.html", **_given(found, model)))

    @app.get("/catalogue.json")
    def for_programs(who: who_is, model: str = "") -> JSONResponse:
        return JSONResponse([table.to_json() for table in listing(who, model)])


def standalone_page(found: Sequence[CatalogueTable]) -> str:
    """The catalogue as one HTML page that needs no server."""
    links = {"has_approvals": False, "has_versions": False, "has_catalogue": False, "has_audit": False, "ui_url": ""}
    return render("catalogue.html", **_given(found, "", standalone=True), **links, name=project_name())


def _given(found: Sequence[CatalogueTable], model: str, *, standalone: bool = False) -> dict[str, Any]:
    shown = [table for table in found if model in ("", table.model)]
    models = list(dict.fromkeys(table.model for table in found if table.model))
    return {"tables": shown, "models": models, "model": model, "standalone": standalone}

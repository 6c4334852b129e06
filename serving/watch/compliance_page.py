"""The page of the questions of GDPR, art. 30, and of the EU AI Act, annex IV, in the watch and as a file of its own.

Belongs here: the route, and the page without a server. Does not belong here: the questions and answers
(``metadata/compliance.py``).
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes, which are local to a function.
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse

from metadata.compliance import Row, compliance_rows, read_compliance
from metadata.facts import Metadata, MetadataError, UnknownError
from resources.defaults import RETENTION
from resources.settings import project_name
from serving.watch.login import RIGHTS
from serving.watch.templates import render


def add_compliance_page(app: FastAPI, ask: Callable[[], Metadata], who_is: Any, page: Callable[..., str]) -> None:
    """Adds the page ``/compliance/{model}``.

    Args:
        app: the application.
        ask: returns new facts for each question.
        who_is: annotated dependency that refuses clients without the token.
        page: renders a template to HTML.
    """

    @app.get("/compliance/{model}")
    def shown(model: str, who: who_is) -> HTMLResponse:
        try:
            rows = compliance_rows(read_compliance(ask().of_person(who), model, RETENTION))
        except UnknownError as error:
            raise HTTPException(404, str(error)) from error
        except MetadataError as error:
            raise HTTPException(409, str(error)) from error
        there = {str(getattr(route, "path", "")) for route in app.routes}

        def opens(link: str) -> bool:
            """Whether this person may open the page of a link, and the watch has it."""
            path = link.partition("?")[0]
            if path.startswith(("/versions/", "/views/")):
                return True
            return path in there and who.may(RIGHTS.get(("GET", path), "read"), model)

        return HTMLResponse(page("compliance.html", **_given(model, rows), opens=opens, standalone=False))


def standalone_page(model: str, rows: Sequence[Row]) -> str:
    """The answers as one HTML page that needs no server, so without links."""
    links = {"has_approvals": False, "has_versions": False, "has_catalogue": False, "has_audit": False, "ui_url": ""}
    given = {**_given(model, rows), "opens": lambda _: False, "standalone": True}
    return render("compliance.html", **given, **links, name=project_name())


def _given(model: str, rows: Sequence[Row]) -> dict[str, Any]:
    laws = [(law, list(items)) for law, items in itertools.groupby(rows, lambda row: row.law)]
    return {"model": model, "laws": laws}

"""The pages about versions, and the read-only endpoint of the views, beside the alerts page and behind its token.

Belongs here: the HTTP interface to the facts. Does not belong here: the facts (``metadata/``), the positions of the
pictures (``pictures.py``), access (``alerts_page.py``).
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of the routes, which are local to a function.
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query
from fastapi.responses import HTMLResponse, JSONResponse

from assets.metrics import DEFAULT_METRIC, METRICS
from metadata.comparison import Comparison, compare, positive_rate
from metadata.facts import Metadata, MetadataError, UnknownError
from metadata.lineage import lineage_of
from metadata.query import MOST_ROWS
from metadata.views import VIEWS, MetricRow, columns_of, meaning_of
from metadata.wording import days_in_words, figure_in_words
from resources.access import Access
from resources.ledger import action_in_words
from serving.watch.pictures import Dots, dots, dots_of_pairs, picture_of

ROWS_OF_PAGE = 100
"""Number of rows of a view on one page; the first page has the last rows, which are the latest."""


def add_versions_page(app: FastAPI, ask: Callable[[], Metadata], who_is: Any, page: Callable[..., str]) -> None:
    """Adds the pages ``/versions``, ``/compare`` and ``/views``, and ``/metadata/…`` for programs.

    Args:
        app: the application.
        ask: returns new facts for each question.
        who_is: annotated dependency that refuses clients without the token.
        page: renders a template to HTML.
    """

    @contextlib.contextmanager
    def answered(who: Access) -> Iterator[Metadata]:
        try:
            yield ask().of_person(who)
        except UnknownError as error:
            raise HTTPException(404, str(error)) from error
        except MetadataError as error:
            raise HTTPException(409, str(error)) from error

    @app.get("/versions")
    def versions(who: who_is, model: str = "") -> HTMLResponse:
        with answered(who) as metadata:
            if model:
                metadata.known_model(model)
            models, rows, metrics = metadata.models(), metadata.versions(), metadata.metrics()
            charts = {name: _chart(metadata, name, metrics) for name in metadata.model_names}
        return HTMLResponse(page("versions.html", models=models, versions=rows, charts=charts, model=model))

    @app.get("/versions/{model}/{number}")
    def version(model: str, number: str, who: who_is) -> HTMLResponse:
        with answered(who) as metadata:
            found = lineage_of(metadata, model, number)
        return HTMLResponse(
            page(
                "version.html",
                found=found,
                v=found.version,
                picture=picture_of(found),
                days=days_in_words,
                action_in_words=action_in_words,
            )
        )

    @app.get("/compare")
    def comparison(who: who_is, model: str, a: str, b: str, score: bool = False) -> HTMLResponse:
        with answered(who) as metadata:
            found = compare(metadata, model, a, b, score=score)
            metrics = _main_metrics(metadata, model)
        given = {
            "found": found,
            "a": found.a,
            "b": found.b,
            "data": _data(found),
            "days": days_in_words,
            "figure": figure_in_words,
            "scored": score,
        }
        charts = {
            "own_chart": dots_of_pairs("figures on own rows", found.own_rows, metrics),
            "same_chart": dots_of_pairs("figures on the same rows", found.same_rows, metrics),
        }
        return HTMLResponse(page("compare.html", **given, **charts))

    @app.get("/views")
    def listing(_: who_is) -> HTMLResponse:
        return HTMLResponse(page("views.html", views=[(view, meaning_of(view), columns_of(view)) for view in VIEWS]))

    @app.get("/views/{view}")
    def one_view(
        view: str, who: who_is, model: str = "", offset: Annotated[int | None, Query(ge=0)] = None
    ) -> HTMLResponse:
        with answered(who) as metadata:
            rows = metadata.rows(view, model or None)
            names = metadata.model_names
        begin = max(len(rows) - ROWS_OF_PAGE, 0) if offset is None else offset
        given = {"view": view, "meaning": meaning_of(view), "columns": columns_of(view), "models": names,
                 "model": model, "offset": begin, "total": len(rows), "step": ROWS_OF_PAGE,
                 "rows": [astuple(row) for row in rows[begin : begin + ROWS_OF_PAGE]]}  # fmt: skip
        return HTMLResponse(page("view.html", **given))

    @app.get("/metadata/views")
    def views(_: who_is) -> JSONResponse:
        described = [
            {"view": view, "meaning": meaning_of(view), "columns": [asdict(column) for column in columns_of(view)]}
            for view in VIEWS
        ]
        return JSONResponse(described)

    @app.get("/metadata/{view}")
    def rows_of_view(
        view: str, who: who_is, model: str | None = None,
        limit: Annotated[int, Query(ge=1, le=MOST_ROWS)] = 1_000, offset: Annotated[int, Query(ge=0)] = 0,
    ) -> JSONResponse:  # fmt: skip
        with answered(who) as metadata:
            rows = metadata.rows(view, model)
        shown = [asdict(row) for row in rows[offset : offset + limit]]
        return JSONResponse({"view": view, "rows": shown, "more": len(rows) > offset + limit})


def _main_metrics(metadata: Metadata, model: str) -> list[str]:
    """All metrics, that of the gate first."""
    declared = metadata.declared.get(model)
    first = declared.gate.metric or DEFAULT_METRIC[declared.task.kind] if declared else next(iter(METRICS))
    return list(dict.fromkeys([first, *METRICS]))


def _chart(metadata: Metadata, model: str, metrics: list[MetricRow]) -> Dots | None:
    """The main metric of each version on its test rows, beside that of the champion at that time on the same rows."""
    mine = [row for row in metrics if row.model == model and row.measured_on == "test" and not row.slice]
    there = {row.metric for row in mine if row.score == "torch"}
    metric = next((name for name in _main_metrics(metadata, model) if name in there), None)
    if metric is None:
        return None
    series = {"torch": "b", "champion": "a"}
    points = [
        (f"version {row.version}", metric, series[row.score], row)
        for row in mine
        if row.metric == metric and row.score in series
    ]
    return dots(
        "Each version on its own test rows (blue), and the champion at that time on the same rows (orange)", points
    )


def _data(found: Comparison) -> list[tuple[str, str, str]]:
    """The lines of the table about the data, without those that neither version has."""

    def number(n: int | None) -> str:
        return "" if n is None else f"{n:,}"

    def lines(version: Any) -> dict[str, str]:
        rate = positive_rate(version)
        return {
            "data version": version.data_version, "rows": number(version.rows), "fit days": version.fit_days or "",
            "fit rows": number(version.fit_rows), "positive": "" if rate is None else f"{rate:.2%}",
            "test days": version.test_days or "", "test rows": number(version.test_rows),
        }  # fmt: skip

    of_a, of_b = lines(found.a), lines(found.b)
    return [(name, of_a[name], of_b[name]) for name in of_a if of_a[name] or of_b[name]]

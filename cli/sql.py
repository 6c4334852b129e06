"""``assetline sql``: SQL over the rows of the tables.

Belongs here: arguments, and output as text, CSV or JSON. Does not belong here: the query (``metadata/table_sql.py``),
SQL over versions, runs and alerts (``assetline query``, ``cli/metadata.py``).
"""

from __future__ import annotations

import csv
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.audited import person_of, record, refusing
from cli.errors import read_settings, reported
from cli.metadata import AsJson, format_result, format_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from resources.access import Access
    from resources.tables import ParquetTables

Format = Literal["table", "csv", "json"]


def sql(
    select: Annotated[
        str, typer.Argument(metavar="SELECT", help="One SELECT; without it, the tables are listed.")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Maximum number of rows.")] = 1_000,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time after which the query is stopped.")] = 60.0,
    as_of: Annotated[
        str, typer.Option(metavar="VERSION", help="Rows as of a version or a time (UTC), for tables with versions.")
    ] = "",
    output: Annotated[Format, typer.Option("--format", help="How to print the rows.")] = "table",
    as_json: AsJson = False,
) -> None:
    """Answer one SELECT on the rows of the tables, or list the tables."""
    settings = read_settings("assetline sql")
    from metadata.query import QueryError
    from metadata.table_sql import ask
    from resources.tables import ParquetTables, TableError

    output = "json" if as_json else output
    tables = ParquetTables(root=settings.tables, as_of=as_of)
    with reported("assetline sql", QueryError, TableError), refusing("assetline sql", "tables", {}, settings):
        person = person_of(settings)
        if not select:
            record("assetline sql", "read", "tables", {}, settings)
            _print_tables(tables, output, person)
            return
        result = ask(
            tables, select, cache=settings.home / ".tables-cache", limit=limit, seconds=seconds,
            reading=lambda names: record("assetline sql", "read", "tables", {"tables": names}, settings),
            access=person,
        )  # fmt: skip
    if output == "json":
        print(json.dumps(result.to_json(), indent=1))
    elif output == "csv":
        _print_csv([result.columns, *result.rows])
    else:
        print(format_result(result))
    if result.more:
        print(f"assetline sql: there are more than {limit:,} rows; raise --limit, or ask for fewer", file=sys.stderr)


def _print_tables(tables: ParquetTables, output: Format, person: Access | None) -> None:
    import dagster as dg

    from metadata.table_sql import OWN_VIEWS, meaning_of_view, meanings_of, name_of
    from resources.tables import WHOLE

    columns = ("table_name", "days", "first_day", "last_day", "bytes")
    rows = []
    for table in tables.names():
        if person is not None and not person.sees(table):
            continue
        states = tables.states(dg.AssetKey(table.split("/")))
        days = [day for day in states if day != WHOLE]
        size = sum(state.size for state in states.values())
        rows.append((name_of(table), len(days) or None, days[0] if days else None, days[-1] if days else None, size))
    if output == "json":
        print(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], indent=1))
    elif output == "csv":
        _print_csv([columns, *rows])
    else:
        text = [["" if value is None else str(value) for value in row] for row in rows]
        print(format_table([columns, *text]) if rows else "there is no table yet; materialise one")
        for view in OWN_VIEWS:
            print(f"\n{view}: {meaning_of_view(view)}")
            for name, meaning in meanings_of(view).items():
                print(f"  {name:13} {meaning}")


def _print_csv(rows: Sequence[Sequence[Any]]) -> None:
    csv.writer(sys.stdout, lineterminator="\n").writerows(rows)

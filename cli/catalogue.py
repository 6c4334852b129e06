"""``assetline catalogue``: the tables and their columns, as text, JSON or one HTML page.

Belongs here: arguments and output. Does not belong here: the facts (``metadata/catalogue.py``), the page
(``serving/watch/catalogue_page.py``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.audited import person_of, refusing
from cli.errors import read_settings, reported
from cli.metadata import AsJson, format_table
from cli.state import format_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metadata.catalogue import CatalogueTable


class CatalogueError(Exception):
    """The catalogue cannot be shown or written. The message gives the reason and the fix."""


def catalogue(
    table: Annotated[
        str, typer.Argument(metavar="TABLE", help="Name of a table, e.g. fraud.payments (default: list all).")
    ] = "",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="HTML file to write, with all tables.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the tables: owner, freshness, rows; or one table: columns, contract, checks, source."""
    settings = read_settings("assetline catalogue")
    from assets.models import declared_models
    from metadata.catalogue import Catalogue
    from resources.tables import ParquetTables, TableError

    with (
        reported("assetline catalogue", CatalogueError, TableError, OSError),
        refusing("assetline catalogue", table or "tables", {}, settings),
    ):
        if out is not None and (table or out.suffix != ".html"):
            mend = "leave out the table" if table else "give a file that ends with .html"
            raise CatalogueError(f"--out {out}: the page has all tables; {mend}")
        person = person_of(settings)
        if person is not None and table:
            person.require_table(table.replace(".", "/"))
        found = Catalogue(ParquetTables(root=settings.tables), declared_models()).listing(person)
        if table:
            found = [one for one in found if one.name == table.replace("/", ".")]
            if not found:
                raise CatalogueError(f"there is no table {table}; `assetline catalogue` lists them")
        if out is not None:
            from serving.watch.catalogue_page import standalone_page

            out.write_text(standalone_page(found), encoding="utf-8")
            print(f"wrote {out}: {len(found)} tables")
        elif as_json:
            print(json.dumps([one.to_json() for one in found], indent=1))
        else:
            print(format_one(found[0]) if table else format_listing(found))


def format_listing(found: Sequence[CatalogueTable]) -> str:
    """All tables as a text table."""
    if not found:
        return "there is no table yet; `make new-model` writes a declaration"
    lines: list[Sequence[str]] = [("table", "owner", "days", "latest day", "rows", "size", "written (UTC)")]
    for one in found:
        if one.written_at is None:
            lines.append((one.name, one.owner, "", "", "", "", "not made yet"))
            continue
        days = f"{one.days:,}" if one.latest_day else ""
        size, written = format_size(one.bytes), f"{one.written_at:%Y-%m-%d %H:%M}"
        lines.append((one.name, one.owner, days, one.latest_day or "", f"{one.rows:,}", size, written))
    return format_table(lines)


def format_one(one: CatalogueTable) -> str:
    """A table as text."""
    tags = [*one.kinds, *(f"{tag}={value}" if value else tag for tag, value in one.tags.items())]
    files = "none yet"
    if one.written_at:
        days = f"{one.days:,} days, {one.first_day} to {one.latest_day}; " if one.latest_day else ""
        files = f"{days}{one.rows:,} rows, {format_size(one.bytes)}; written {one.written_at:%Y-%m-%d %H:%M} UTC"
    facts = {
        "owner": one.owner, "source": one.source, "made from": ", ".join(one.reads), "files": files,
        "data version": one.data_version, "freshness": one.expected, "group": one.group, "tags": ", ".join(tags),
    }  # fmt: skip
    lines = [f"{one.name}{'' if one.declared else ' (no declaration has it)'}"]
    lines += [f"  {one.description}"] if one.description else []
    lines += [f"  {name:13} {value}" for name, value in facts.items() if value]
    if one.checks:
        lines += ["checks", *(f"  {c.name}{'' if c.blocking else ' (warns)'}: {c.description}" for c in one.checks)]
    if one.columns:
        rows = [
            ("column", "type", "meaning", "contract", "personal"),
            *((c.name, c.type, c.meaning, c.rules, c.personal) for c in one.columns),
        ]
        table = format_table(rows if any(c.personal for c in one.columns) else [row[:-1] for row in rows])
        lines += ["columns", *(f"  {line}" for line in table.splitlines())]
    return "\n".join(lines)

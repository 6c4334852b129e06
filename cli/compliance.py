"""``assetline compliance``: what the project knows of the questions of GDPR, art. 30, and of the EU AI Act, annex IV.

Belongs here: arguments, Markdown and files. Does not belong here: the questions and answers
(``metadata/compliance.py``), the page (``serving/watch/compliance_page.py``).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.errors import reported
from cli.metadata import AsJson, opened

if TYPE_CHECKING:
    from metadata.compliance import Row


def compliance(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    as_json: AsJson = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write: .md, .html or .json (default: print Markdown).")
    ] = None,
) -> None:
    """Show what is known of the questions of GDPR, art. 30, and of the EU AI Act, annex IV."""
    with opened("assetline compliance") as metadata:
        from metadata.compliance import compliance_rows, read_compliance
        from metadata.facts import MetadataError
        from resources.defaults import RETENTION

        kinds = (".json",) if as_json else (".md", ".html", ".json")
        if out is not None and out.suffix not in kinds:
            raise MetadataError(f"--out {out}: give a file that ends with {' or '.join(kinds)}")
        rows = compliance_rows(read_compliance(metadata, model, RETENTION))
    with reported("assetline compliance", OSError):
        if out is None:
            print(_json(rows) if as_json else markdown(model, rows))
            return
        if out.suffix == ".html":
            from serving.watch.compliance_page import standalone_page

            text = standalone_page(model, rows)
        else:
            text = _json(rows) if out.suffix == ".json" else markdown(model, rows)
        out.write_text(text + "\n", encoding="utf-8")
        print(f"wrote {out}")


def markdown(model: str, rows: Sequence[Row]) -> str:
    """The rows as Markdown, a list of answers below each question."""
    blocks = [f"# {model}: records and technical documentation"]
    for law, items in itertools.groupby(rows, lambda row: row.law):
        blocks.append(f"## {law}")
        for row in items:
            blocks.append(f"### {row.item} {row.question}")
            blocks.append(
                "\n".join(
                    f"- {one.about}: {_text(one.text) or '**not known**'} (`{one.source}`)" for one in row.answers
                )
            )
    return "\n\n".join(blocks)


def _text(text: str) -> str:
    """Text of others, on one line, without the signs that would begin a tag, a link or bold letters."""
    return " ".join(text.split()).replace("<", "&lt;").replace("[", "\\[").replace("*", "\\*")


def _json(rows: Sequence[Row]) -> str:
    return json.dumps([row.to_json() for row in rows], indent=1)

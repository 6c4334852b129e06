"""``assetline models``, ``versions``, ``runs``, ``compare``, ``lineage``, ``rows`` and ``query``: what there is.

Belongs here: arguments, and text output. Does not belong here: the facts (``metadata/``).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.audited import person_of, refusing
from cli.errors import read_settings, reported

if TYPE_CHECKING:
    from metadata.comparison import Comparison, Figure, Pair
    from metadata.facts import Metadata
    from metadata.lineage import Lineage
    from metadata.query import Result

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OfModel = Annotated[str | None, typer.Argument(help="Name of the model (default: all models).")]
Model = Annotated[
    str | None, typer.Option(help="Name of the model (may be left out if there is only one).", show_default=False)
]
Version = Annotated[str, typer.Option(metavar="NUMBER", help="Number of the version.")]


@contextlib.contextmanager
def opened(command: str) -> Iterator[Metadata]:
    """Yields the facts of the state folder; an error that the user can fix ends the command."""
    settings = read_settings(command)
    import dagster as dg

    from assets.models import declared_models
    from metadata.facts import Metadata, MetadataError
    from resources import home

    with contextlib.ExitStack() as stack, reported(command, MetadataError):
        instance = None
        if settings.dagster_home.exists():  # a question creates nothing
            home.prepare(settings)
            instance = stack.enter_context(dg.DagsterInstance.get())
        with refusing(command, "metadata", {}, settings):
            yield Metadata(settings, declared_models(), instance).of_person(person_of(settings))


def models(as_json: AsJson = False) -> None:
    """List the models: versions, what is in production, open alerts."""
    with opened("assetline models") as metadata:
        rows = metadata.models()
    columns = ("model", "table_name", "target", "versions", "latest", "production", "production_since", "open_alerts")
    _print_rows(rows, columns, as_json, empty="there is no model yet; `make new-model` writes one")


def versions(model: OfModel = None, as_json: AsJson = False) -> None:
    """List the versions of one model or of all models: data, commit, verdicts, status."""
    with opened("assetline versions") as metadata:
        rows = metadata.rows("versions", model)
    columns = (
        "model", "version", "status", "created_at", "rows", "fit_days", "test_days", "data_version", "git_commit",
        "git_branch", "gate", "staging",
    )  # fmt: skip
    _print_rows(rows, columns, as_json, empty="no version is registered yet")


def runs(
    model: OfModel = None,
    last: Annotated[int, typer.Option(min=1, help="Number of runs, the latest ones.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the Dagster runs of one model or of all models, with the version that each one trained."""
    with opened("assetline runs") as metadata:
        rows = metadata.rows("runs", model)[-last:]
    columns = ("dagster_run_id", "model", "job", "status", "started_at", "seconds", "version", "reason")
    _print_rows(rows, columns, as_json, empty="there is no run yet")


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="Number of a version, or a branch: its latest version.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another number or branch.")],
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """Compare two versions: what differs in data, code, recipe and figures, by slice."""
    with opened("assetline compare") as metadata:
        from metadata.comparison import compare as compare_versions

        found = compare_versions(metadata, metadata.only_model(model), a, b)
    print(json.dumps(found.to_json(), indent=1) if as_json else format_comparison(found))


def lineage(version: Version, model: Model = None, as_json: AsJson = False) -> None:
    """Show what a version was made of, and what became of it."""
    with opened("assetline lineage") as metadata:
        from metadata.lineage import lineage_of

        found = lineage_of(metadata, metadata.only_model(model), version)
    print(json.dumps(found.to_json(), indent=1) if as_json else format_lineage(found))


def rows(
    version: Version,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Parquet file to write; it must not exist yet.")],
    model: Model = None,
    as_json: AsJson = False,
) -> None:
    """Write exactly the rows that a version was trained on, or say which days have changed since."""
    with opened("assetline rows") as metadata:
        from assets.lifecycle.model.version.bundle import Bundle, BundleError
        from assets.lifecycle.model.version.training_rows import RowsError, find_rows
        from metadata.facts import MetadataError

        row = metadata.version(metadata.only_model(model), version)
        if out.exists():
            raise MetadataError(f"{out} exists already; remove it, or give another file")
        if not out.parent.is_dir():
            raise MetadataError(f"{out.parent} is not a folder; create it, or give another file")
        with reported("assetline rows", RowsError, BundleError, OSError):
            found = find_rows(metadata.tables, Bundle.load(metadata.folder(row)), str(row.version))
            metadata.require_rows(f"{row.model}/training_set", found.frame.columns)
            _write(out, found.encoded)
    facts = {"model": row.model, "version": row.version, "file": str(out), "rows": found.stamp.rows,
             "data_version": found.stamp.data_version}  # fmt: skip
    if as_json:
        print(json.dumps(facts, indent=1))
    else:
        print(
            f"{out}: the {found.stamp.rows:,} rows of version {row.version} of {row.model}, "
            f"data version {found.stamp.data_version}"
        )


def query(
    sql: Annotated[str, typer.Argument(metavar="SELECT", help="One SELECT; without it, the views are listed.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Maximum number of rows.")] = 1_000,
    as_json: AsJson = False,
) -> None:
    """Answer one SELECT on the views, or list the views and their columns."""
    with opened("assetline query") as metadata:
        from metadata.query import query as answer

        if not sql:
            print(json.dumps(described_views(), indent=1) if as_json else format_views())
            return
        result = answer(metadata, sql, limit=limit)
    print(json.dumps(result.to_json(), indent=1) if as_json else format_result(result))
    if result.more:
        print(f"assetline query: there are more than {limit:,} rows; raise --limit, or ask for fewer", file=sys.stderr)


def _write(out: Path, content: bytes) -> None:
    """Writes a new file under a temporary name first, so that it is complete or absent."""
    scratch = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        scratch.write_bytes(content)
        os.replace(scratch, out)
    finally:
        scratch.unlink(missing_ok=True)


def described_views() -> list[dict[str, Any]]:
    """The views with their columns, for JSON."""
    from metadata.views import VIEWS, columns_of, meaning_of

    return [
        {"view": view, "meaning": meaning_of(view), "columns": [asdict(column) for column in columns_of(view)]}
        for view in VIEWS
    ]


def format_views() -> str:
    """The views with their columns as text."""
    from metadata.views import VIEWS, columns_of, meaning_of

    blocks = []
    for view in VIEWS:
        lines = [f"  {column.name:17} {column.type:8} {column.meaning}" for column in columns_of(view)]
        blocks.append("\n".join([f"{view}: {meaning_of(view)}", *lines]))
    return "\n\n".join(blocks)


def format_result(result: Result) -> str:
    """The rows of a query as a text table."""
    return format_table([result.columns, *([_cell(value) for value in row] for row in result.rows)])


def format_table(lines: Sequence[Sequence[str]]) -> str:
    """Rows as a text table; the first row is the header, and the last column is not padded."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(line, widths, strict=False)), line[-1]]).rstrip()
        for line in lines
    )


def _print_rows(rows: Sequence[Any], columns: Sequence[str], as_json: bool, *, empty: str) -> None:
    """Prints rows of a view: all columns as JSON, the given ones as text."""
    if as_json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    elif not rows:
        print(empty)
    else:
        print(format_table([columns, *([_short(name, getattr(row, name)) for name in columns] for row in rows)]))


def _short(column: str, value: Any) -> str:
    """A cell of the lists: ids are cut to what tells them apart, verdicts are words."""
    if column in ("dagster_run_id", "git_commit"):
        return str(value)[:8]
    if column in ("gate", "staging"):
        return "" if value is None else "passed" if value else "failed"
    return _cell(value)


def _cell(value: Any) -> str:
    """A value as text in one line; missing values are blank."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return " ".join(str(value).split())


def format_lineage(found: Lineage) -> str:
    """The lineage of a version as text."""
    from metadata.wording import days_in_words
    from resources.ledger import action_in_words

    version = found.version
    facts: list[tuple[str, str]] = []
    for table in found.upstream:
        days = table.first if table.first == table.last else f"{table.first} to {table.last}, {len(table.days)} days"
        changed = f"; changed since: {days_in_words(table.changed)}" if table.changed else ""
        facts.append((table.table, f"{days}{changed}"))
    if not found.upstream:
        facts.append(("tables", "not recorded: this version was trained before versions recorded their days"))
    lines = [f"version {version.version} of {version.model}: {version.status}", "trained on"]
    lines += _facts(facts)
    counts = f"{version.rows:,} rows" if version.rows is not None else "unknown"
    made: list[tuple[str, str]] = [("training set", f"{counts}, data version {version.data_version}")]
    for part in ("fit", "test"):
        days, n, positives = (getattr(version, f"{part}_{what}") for what in ("days", "rows", "positives"))
        said = [
            days,
            f"{n:,} rows" if n is not None else None,
            f"{positives:,} positive" if positives is not None else None,
        ]
        if any(said):
            made.append((part, ", ".join(one for one in said if one)))
    dirty = {True: ", with changes that were not committed", False: "", None: ""}[version.git_dirty]
    made += [
        ("code", f"{version.code}, commit {version.git_commit or 'unknown'}{dirty}"),
        ("branch", version.git_branch or "unknown"),
        ("recipe", ", ".join(f"{name} {value}" for name, value in found.params.items())),
        ("MLflow run", version.mlflow_run_id),
        ("Dagster run", f"{version.dagster_run_id or 'unknown'}, registered {version.created_at} UTC"),
    ]
    lines += ["made by", *_facts(made), "then"]
    then = [
        (one.verdict, f"{'passed' if one.passed else 'failed'}: {one.reason}") for one in found.verdicts
    ] or [("verdicts", "none yet")]  # fmt: skip
    for entry in found.deployments:
        until = f" until {entry.until}" if entry.until else ""
        what = action_in_words(entry.action)
        then.append(("ledger", f"{what} {entry.at}{until} UTC by {entry.who}: {entry.reason}"))
    scored = found.predictions
    then.append(
        ("predictions", f"{scored.rows:,} rows on {scored.days} days, {scored.first} to {scored.last}")
        if scored
        else ("predictions", "none")
    )
    return "\n".join([*lines, *_facts(then)])


def _facts(facts: Sequence[tuple[str, str]]) -> list[str]:
    return [f"  {name:15} {value}" for name, value in facts]


def format_comparison(found: Comparison) -> str:
    """A comparison as text."""
    a, b = found.a, found.b
    blocks = [f"version {a.version} ({a.status}) and version {b.version} ({b.status}) of {a.model}"]
    blocks += ["Data\n" + _indented(_data_lines(found)), "Code\n" + _indented(_code_lines(found))]
    recipe = [["", f"version {a.version}", f"version {b.version}"]]
    recipe += [[name, mine or "", other or ""] for name, (mine, other) in found.recipe.items()]
    blocks.append("Recipe\n" + _indented(format_table(recipe) if found.recipe else "the same"))
    title = f"Figures, each version on its own test rows ({a.test_days or 'holdout'}; {b.test_days or 'holdout'})"
    blocks.append(f"{title}\n" + _indented(_figures_table(found, found.own_rows)))
    if found.same_rows:
        days = b.test_days if found.same_rows_of == b.version else a.test_days
        title = f"Figures, both on the test rows of version {found.same_rows_of} ({days or 'holdout'})"
        blocks.append(f"{title}\n" + _indented(_figures_table(found, found.same_rows)))
    else:
        blocks.append(f"Figures, both on the same rows\n  not possible: {found.not_on_same_rows}")
    return "\n\n".join(blocks)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())


def _data_lines(found: Comparison) -> str:
    from metadata.comparison import positive_rate
    from metadata.wording import days_in_words

    a, b = found.a, found.b
    lines = [["", f"version {a.version}", f"version {b.version}"]]
    for name, of in (
        ("data version", lambda v: v.data_version), ("rows", lambda v: _number(v.rows)),
        ("fit days", lambda v: v.fit_days), ("fit rows", lambda v: _number(v.fit_rows)),
        ("positive", lambda v: None if positive_rate(v) is None else f"{positive_rate(v):.2%}"),
        ("test days", lambda v: v.test_days), ("test rows", lambda v: _number(v.test_rows)),
    ):  # fmt: skip
        if of(a) is not None or of(b) is not None:
            lines.append([name, of(a) or "", of(b) or ""])
    text = [format_table(lines)]
    if found.same_data:
        text.append("both were trained on identical rows")
    for table in found.tables:
        parts = [f"{table.same} days are the same"]
        different = {
            "changed": table.changed,
            f"only in {a.version}": table.only_a,
            f"only in {b.version}": table.only_b,
        }
        parts += [f"{len(days)} {what} ({days_in_words(days)})" for what, days in different.items() if days]
        text.append(f"{table.table}: {', '.join(parts)}")
    if not found.tables:
        text.append("the days cannot be compared: a version was trained before versions recorded their days")
    return "\n".join(text)


def _code_lines(found: Comparison) -> str:
    a, b = found.a, found.b
    lines = [f"{one.path}: {one.change}" for one in found.code] or ["no file of the model folder differs"]
    commits = [f"{v.git_commit[:10] or 'unknown'}{' with uncommitted changes' if v.git_dirty else ''}" for v in (a, b)]
    lines.append(f"commit {commits[0]}" + (", the same" if commits[0] == commits[1] else f" and {commits[1]}"))
    if a.git_branch or b.git_branch:
        branches = [v.git_branch or "unknown" for v in (a, b)]
        lines.append(f"branch {branches[0]}" + (", the same" if branches[0] == branches[1] else f" and {branches[1]}"))
    return "\n".join(lines)


def _figures_table(found: Comparison, pairs: Sequence[Pair]) -> str:
    if not pairs:
        return "not evaluated yet"
    differences = any(pair.difference for pair in pairs)
    header = ["slice", "metric", f"version {found.a.version}", f"version {found.b.version}"]
    lines = [[*header, "difference"] if differences else header]
    for pair in pairs:
        line = [pair.slice, pair.metric, _figure(pair.a), _figure(pair.b)]
        lines.append([*line, _figure(pair.difference, signed=True)] if differences else line)
    return format_table(lines)


def _figure(figure: Figure | None, *, signed: bool = False) -> str:
    from metadata.wording import figure_in_words

    if figure is None:
        return ""
    value, low, high = (
        None if one is None else figure_in_words(one, signed=signed) for one in (figure.value, figure.low, figure.high)
    )
    return f"{value}" if low is None else f"{value} [{low}, {high}]"


def _number(n: int | None) -> str | None:
    return None if n is None else f"{n:,}"

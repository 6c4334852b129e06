"""``assetline forget``: removes a person from everything that is stored.

Belongs here: arguments, and text output. Does not belong here: the removal (``assets/lifecycle/erasure``).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cli.audited import needs, record, user
from cli.errors import read_settings, reported

if TYPE_CHECKING:
    from assets.lifecycle.erasure.forget import Findings


@needs("administer")
def forget(
    entity: Annotated[
        str, typer.Option(metavar="COLUMN=VALUE", help="Who, e.g. customer_id=42; COLUMN=- reads the value from input.")
    ],
    why: Annotated[str, typer.Option(help="Why, for the audit log; without the value.")] = "",
    model: Annotated[
        list[str] | None, typer.Option(help="A model, if not all that have the column (may be repeated).")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
) -> None:
    """Remove a person's rows from all tables, logs and samples, and prove it by a search."""
    settings = read_settings("assetline forget")
    import dagster as dg

    from assets.lifecycle.erasure.forget import Erasure, ErasureError
    from assets.models import declared_models
    from resources.home import prepare
    from resources.keys import KeyProblem
    from resources.request_log import LogError
    from resources.table_files import TableError

    with reported("assetline forget", ErasureError, TableError, LogError, KeyProblem):
        column, equals, value = entity.partition("=")
        if not column or not equals:
            raise ErasureError(f"--entity {entity!r} names nobody; write COLUMN=VALUE, e.g. customer_id=42")
        if value == "-":
            value = sys.stdin.readline().rstrip("\n")
        if not dry_run and not why.strip():
            raise ErasureError("say why with --why, for the audit log; or look first with --dry-run")
        if value.strip() and value.strip() in why:
            raise ErasureError("--why holds the value itself, and the audit log stays; say it without the value")
        if not settings.home.is_dir():
            raise ErasureError(f"there is no state folder {settings.home}; ASSETLINE_HOME names another one")
        prepare(settings)
        with dg.DagsterInstance.get() as instance:
            erasure = Erasure(settings, declared_models(), instance, column=column, value=value, only=model or [])
            details = {"person": erasure.name, "column": column, "why": why[:500], "dry_run": dry_run}
            subject = ", ".join(one.name for one in erasure.scope.models)
            record("assetline forget", "read" if dry_run else "delete", subject, details, settings)
            found = erasure.find() if dry_run else erasure.forget(user())
    print(format_findings(found, erasure.name, column, dry_run=dry_run, goes_on=erasure.before is not None))


def format_findings(found: Findings, name: str, column: str, *, dry_run: bool, goes_on: bool = False) -> str:
    """What was found of a person as text; values and keys are not in it."""
    lines = []
    for table, days in found.rows.items():
        span = "" if list(days) == ["all"] else f", {min(days)} … {max(days)}" if len(days) > 1 else f", {min(days)}"
        number = f" of {len(days)} days" if len(days) > 1 else ""
        lines.append(f"  {table}: {_number(sum(days.values()), 'row')}{number}{span}")
    lines += [f"  earlier versions of tables: {_number(len(found.old_files), 'file')}"] if found.old_files else []
    lines += [f"  log of requests to {place}: {_number(count, 'line')}" for place, count in found.lines.items()]
    for label, files in (("row for explanations", found.samples), ("explained row", found.explained),
                         ("value", found.texts)):  # fmt: skip
        lines += [f"  {file}: {_number(count, label)}" for file, count in files.items()]
    lines += (
        [f"  Dagster's events: {_number(found.events, 'sample or message', 'samples or messages')}"]
        if found.events
        else []
    )
    lines += [f"  {table}: {_number(count, 'question')} without a key" for table, count in found.questions.items()]
    lines += [f"  alerts: {_number(found.alerts, 'message')}"] if found.alerts else []
    if dry_run:
        said = [f"{name} ({column}) is in:" if lines else f"nothing that is stored has this {column}", *lines]
    else:
        how = " by this run, which went on with an earlier one" if goes_on else ""
        said = [f"{name} ({column}) is forgotten; a search through the state folder finds nothing. Removed{how}:"]
        said += lines or ["  nothing"]
    said.append("versions that were trained on days with their rows:")
    said += [f"  {_version(one)}" for one in found.trained] or ["  none"]
    said.append("archives that hold their rows, and cannot be changed:")
    said += [f"  {one['file']}: {one['problem'] or 'made ' + str(one['made_at'])[:16].replace('T', ' ') + ' UTC'}"
             for one in found.backups] or ["  none in the folder for backups"]  # fmt: skip
    said.append("not searched and not changed:")
    said += [f"  {one}" for one in ("the ledger, the audit log, and code, which stay", *found.not_reached)]
    if dry_run:
        said.append("nothing was changed")
    return "\n".join(said)


def _version(one: object) -> str:
    assert isinstance(one, dict)
    if one["days"] is None:
        return f"version {one['version']} of {one['model']}: it has no record of its days"
    return (f"version {one['version']} of {one['model']}: {_number(one['rows'], 'row')} on "
            f"{_number(one['days'], 'day')} of its window")  # fmt: skip


def _number(count: int, one: str, more: str = "") -> str:
    return f"{count:,} {one if count == 1 else more or one + 's'}"

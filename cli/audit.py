"""``assetline audit …``: show, verify and export the audit log.

Belongs here: arguments, and text output. Does not belong here: the log (``resources/audit.py``).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.audited import needs, record
from cli.errors import read_settings, reported

if TYPE_CHECKING:
    from resources.audit import AuditLog, Line

audit_app = typer.Typer(help="Show, verify and export the audit log.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]


@contextlib.contextmanager
def _log(command: str, reading: str = "") -> Iterator[AuditLog]:
    """Yields the audit log; records that it is read if ``reading`` names an action."""
    command = f"assetline audit {command}"
    settings = read_settings(command)
    from resources.audit import AuditError, AuditLog

    with reported(command, AuditError, OSError):
        if settings.database_url.startswith("sqlite") and not settings.home.is_dir():
            raise AuditError(f"there is no state folder {settings.home}; ASSETLINE_HOME names another one")
        if reading:
            record(command, reading, "audit log", {}, settings)
        yield AuditLog(settings.database_url)


@audit_app.command("list", epilog="Example: `assetline audit list --subject fraud --last 20`")
@needs("administer")
def list_lines(
    last: Annotated[int, typer.Option(min=1, help="Number of lines, the newest ones.")] = 50,
    who: Annotated[str, typer.Option(help="Only lines of this person or token.")] = "",
    action: Annotated[str, typer.Option(help="Only this action, e.g. export.")] = "",
    subject: Annotated[str, typer.Option(help="Only this subject, e.g. fraud, and what is below it.")] = "",
    since: Annotated[dt.datetime | None, typer.Option(help="Only lines from this time on (UTC).")] = None,
    as_json: AsJson = False,
) -> None:
    """List who read, exported, changed or deleted what, oldest first."""
    with _log("list", "read") as log:
        lines = log.latest(last, who=who, action=action, subject=subject, since=since)
    print("\n".join(json.dumps(line.to_json()) for line in lines) if as_json else format_lines(lines))


@audit_app.command(epilog="Example: `assetline audit verify --against /backups/audit.jsonl`")
@needs("administer")
def verify(
    against: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="An earlier export; it also shows lines that are missing at the end."),
    ] = None,
) -> None:
    """Find altered and missing lines; exit code 1 if there is one."""
    with _log("verify") as log:
        from resources.audit import faults, read_export

        lines = list(log.lines())
        with contextlib.ExitStack() as stack:
            text: Iterable[str] = stack.enter_context(against.open(encoding="utf-8")) if against else ()
            found = list(faults(lines, exported=read_export(text)))
    for fault in found:
        print(fault)
    if found:
        raise typer.Exit(1)
    head = f"; the last digest is {lines[-1].digest}" if lines else ""
    print(f"{len(lines):,} lines, none altered or missing{head}")
    if not against:
        print("Lines missing at the end are found only with --against FILE, an earlier export kept elsewhere.")


@audit_app.command(epilog="Example: `assetline audit export --out audit.jsonl`")
@needs("administer")
def export(
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write, JSON lines; it must not exist yet.")],
    after: Annotated[int, typer.Option(min=0, help="Only lines with a higher number.")] = 0,
) -> None:
    """Write the audit log to a file of JSON lines. The export is a line of the log, too."""
    with _log("export", "export") as log:
        partial = out.with_name(f".{out.name}.partial")
        try:
            count = 0
            with partial.open("x", encoding="utf-8") as file:
                for line in log.lines(after=after):
                    file.write(json.dumps(line.to_json()) + "\n")
                    count += 1
            out.hardlink_to(partial)  # unlike a rename, it does not replace a file
        finally:
            partial.unlink(missing_ok=True)
    print(f"{out}: {count:,} lines")


def format_lines(lines: Sequence[Line]) -> str:
    """Lines of the audit log as a text table."""
    if not lines:
        return "no line matches"
    rows = [("#", "time (UTC)", "who", "from", "action", "subject", "details")]
    for one in lines:
        at = f"{dt.datetime.fromisoformat(one.at):%Y-%m-%d %H:%M:%S}"
        details = ", ".join(f"{name} {value}" for name, value in one.to_json()["details"].items())
        rows.append((str(one.number), at, one.who, one.origin, one.action, one.subject, details))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]).rstrip() for row in rows
    )

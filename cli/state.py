"""``assetline backup``, ``restore`` and ``prune``: the state folder as one archive, and removing what is old in it.

Belongs here: arguments, and text output. Does not belong here: the archive (``resources/backup.py``), what is removed
(``resources/retention``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.audited import record
from cli.errors import read_settings, reported
from resources.settings import Settings

if TYPE_CHECKING:
    from resources.retention import Removal

Archive = Annotated[Path, typer.Argument(metavar="FILE", help="Path of the archive.")]


def backup(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="Path of the archive, ending with .tar.gz or, encrypted, .tar.gz.sealed "
            "(default: in the folder ASSETLINE_BACKUP).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write the state folder to one archive; runs and services may go on."""
    settings = read_settings("assetline backup")
    from resources.backup import BackupError, back_up, default_archive, tables_left_out

    with reported("assetline backup", BackupError):
        file = file or default_archive(settings)
        manifest = back_up(settings, file)
    print(f"{file}: {len(manifest.files):,} files of {settings.home}, {format_size(manifest.size)} in "
          f"{format_size(file.stat().st_size)}; database revision {manifest.revision or 'none yet'}")  # fmt: skip
    for store in ("mlflow_store", "dagster_store"):
        if getattr(settings, store):
            print(f"Not in this archive: the database of {store}. Back it up with pg_dump at the same time.")
    if left_out := tables_left_out(settings):
        print(f"Not in this archive: {left_out}")


def restore(
    file: Archive,
    into: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Restore to this folder (default: the state folder).")
    ] = None,
) -> None:
    """Restore a backup to an empty state folder, after every file in it was verified."""
    settings = read_settings("assetline restore")
    from resources.restore import RestoreError, other_packages
    from resources.restore import restore as restore_folder

    target = (into or settings.home).expanduser().absolute()
    with reported("assetline restore", RestoreError):
        if target == settings.home:
            _refuse_running(settings)
        manifest = restore_folder(settings, file, target)
    if target == settings.home:
        record("assetline restore", "restore", "state folder", {"file": file, "as_of": manifest.made_at}, settings)
    print(f"{target}: {len(manifest.files):,} files, {format_size(manifest.size)}, as of {manifest.made_at}")
    if settings.tables_elsewhere:
        print(f"Not restored: the tables in {settings.tables}; bring them back to that time yourself.")
    for package, (then, now) in other_packages(manifest).items():
        command = {
            "mlflow": f"mlflow db upgrade sqlite:///{target}/mlflow/mlflow.db",
            "dagster": "dagster instance migrate",
        }
        print(f"The backup was made with {package} {then}, and {now} is installed: run `{command[package]}`.")


def prune(
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; otherwise only show what would go.")] = False,
    details: Annotated[bool, typer.Option("--list", help="List each thing.")] = False,
) -> None:
    """Show what is old and not needed any more, and remove it with --yes; the periods are in resources/defaults.py."""
    settings = read_settings("assetline prune")
    import dagster as dg

    from resources.defaults import RETENTION
    from resources.home import prepare
    from resources.retention import RetentionError, plan
    from resources.retention import prune as prune_state

    with reported("assetline prune", RetentionError):
        if not settings.home.is_dir():
            raise RetentionError(f"there is no state folder {settings.home}; ASSETLINE_HOME names another one")
        prepare(settings)
        with dg.DagsterInstance.get() as instance:
            removals = (prune_state if yes else plan)(settings, RETENTION, instance)
    print(format_removals(removals, removed=yes, details=details))


def format_removals(removals: Sequence[Removal], *, removed: bool, details: bool) -> str:
    """Removals as text: a line for each kind, or for each thing."""
    if not removals:
        return "nothing is old enough to go"
    lines = [f"{one.rule:11} {format_size(one.size):>10}  {one.what}" for one in removals] if details else []
    for rule in dict.fromkeys(one.rule for one in removals):
        of_rule = [one for one in removals if one.rule == rule]
        first = of_rule[0].what if len(of_rule) == 1 else f"{len(of_rule):,}, e.g. {of_rule[-1].what}"
        lines += [] if details else [f"{rule:11} {format_size(sum(one.size for one in of_rule)):>10}  {first}"]
    total = format_size(sum(one.size for one in removals))
    end = f"{total} removed" if removed else f"{total} would go; nothing was removed (--yes removes it)"
    return "\n".join([*lines, end])


def _refuse_running(settings: Settings) -> None:
    """Refuses to restore under processes that still run; the files that they have open may be deleted already."""
    from resources.restore import RestoreError
    from serving.supervisor import SupervisorError, programs, refuse_taken_ports

    try:
        refuse_taken_ports(programs(settings))
    except SupervisorError as error:
        taken = str(error).splitlines()[0].partition(";")[0]
        raise RestoreError(f"{taken}: stop `assetline dev` before you restore, or use --into") from error


def format_size(size: int) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000  # type: ignore[assignment]
    return f"{size:.1f} GB"

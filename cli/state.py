"""``assetline backup`` and ``restore``: the state folder as one archive.

Belongs here: arguments, and text output. Does not belong here: the archive (``resources/backup.py``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.errors import read_settings, reported
from resources.settings import Settings

Archive = Annotated[Path, typer.Argument(metavar="FILE", help="Path of the archive, ending with .tar.gz.")]


def backup(file: Archive) -> None:
    """Write the state folder to one archive; runs and services may go on."""
    settings = read_settings("assetline backup")
    from resources.backup import BackupError, back_up

    with reported("assetline backup", BackupError):
        manifest = back_up(settings, file)
    print(f"{file}: {len(manifest.files):,} files of {settings.home}, {format_size(manifest.size)} in "
          f"{format_size(file.stat().st_size)}; database revision {manifest.revision}")  # fmt: skip


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
    print(f"{target}: {len(manifest.files):,} files, {format_size(manifest.size)}, as of {manifest.made_at}")
    for package, (then, now) in other_packages(manifest).items():
        command = {
            "mlflow": f"mlflow db upgrade sqlite:///{target}/mlflow/mlflow.db",
            "dagster": "dagster instance migrate",
        }
        print(f"The backup was made with {package} {then}, and {now} is installed: run `{command[package]}`.")


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

"""Brings all files to the newest keys: after a rotation, after `encrypt` was switched on, or off again.

Each file is read with the key that it names, and replaced whole by one with the newest key. Rows, types and stamps stay
as they are, so nothing becomes stale. A rewriting that was killed is begun again, and finds the files that are left: a
file says itself by which key it is encrypted.

Belongs here: which files, in which order, and which keys are still needed. Does not belong here: how one is encrypted.
Archives of backups are not rewritten: they need their key for as long as they are kept.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import dagster as dg

from resources.encryption import in_use
from resources.encryption.clear import in_clear, seal_file
from resources.encryption.sealed import HEAD, key_of
from resources.keys import Key, KeyProblem, KeyRing, Purpose
from resources.settings import Settings
from resources.tables import ParquetTables

Kind = Literal["table file", "report", "artifact"]

_SCRATCH = ".artifact.uploading."
"""Begins the name of a file that MLflow does not list."""


class RewriteError(Exception):
    """Files cannot be rewritten now. The message gives the reason and the fix."""


@dataclass(frozen=True)
class Outdated:
    """A file that is not encrypted by the newest keys.

    Attributes:
        kind: what it is.
        name: its table and day, or its path, for people.
        rewrite: replaces it. Raises :class:`~resources.tables.TableError` or :class:`~resources.keys.KeyProblem`, and
            leaves it as it is then.
    """

    kind: Kind
    name: str
    rewrite: Callable[[], None]


def outdated(
    settings: Settings, personal: Callable[[dg.AssetKey], Collection[str]], *, encrypt: bool
) -> Iterator[Outdated]:
    """The files that are not as they should be, table by table. Each is looked at when it is its turn.

    Args:
        settings: the tables and artifacts.
        personal: the personal columns of a table.
        encrypt: whether they should be encrypted, by the newest keys; else they should be in the clear.

    Raises:
        TableError: a file is damaged.
        KeyProblem: a purpose has no key.
    """
    ring = in_use.ring() if encrypt else None
    tables = ParquetTables(root=settings.tables)
    for name in tables.names():
        key = dg.AssetKey(name.split("/"))
        own = personal(key)
        for day in tables.days(key):
            if tables.needs_rewriting(key, day, own, ring):
                yield Outdated("table file", f"{name} of {day}", partial(tables.rewrite, key, day, own, ring))
        for link in tables.reports(key):
            if _differs(tables.key_of_report(link), "tables", ring):
                yield Outdated("report", link, partial(tables.rewrite_report, link))
    for path in _artifacts(settings):
        if _differs(_key_of_file(path), "artifacts", ring):
            yield Outdated("artifact", str(path), partial(_rewrite_artifact, path, encrypt=encrypt))


def needed(settings: Settings) -> Counter[tuple[Purpose, str]]:
    """The number of files that need each key, by its purpose and fingerprint: tables, reports, artifacts, archives.

    Archives are those of the backup folder of the settings; others are not known. Old versions of tables that keep
    versions are not counted.

    Raises:
        TableError: a file is damaged.
    """
    found: Counter[tuple[Purpose, str]] = Counter()
    tables = ParquetTables(root=settings.tables)
    for name in tables.names():
        key = dg.AssetKey(name.split("/"))
        for day in tables.days(key):
            found.update(tables.keys_of(key, day).items())
        found.update(used for link in tables.reports(key) if (used := tables.key_of_report(link)))
    folder = settings.backup
    archives = [path for path in folder.iterdir() if path.is_file()] if folder and folder.is_dir() else []
    found.update(used for path in [*_artifacts(settings), *archives] if (used := _key_of_file(path)))
    return found


def refuse_needed(settings: Settings, purpose: Purpose, key: Key) -> None:
    """Raises :class:`~resources.keys.KeyProblem` if a file needs a key, or if that cannot be known."""
    if purpose == "pseudonyms":
        raise KeyProblem("a key for pseudonyms stays: the pseudonyms that are stored were made with all of its keys")
    if count := needed(settings)[purpose, key.fingerprint]:
        mend = "remove those archives first" if purpose == "backups" else "`assetline keys rewrite` comes first"
        raise KeyProblem(f"{count:,} files need the key {key.id} for {purpose}; {mend}")


def refuse_runs(settings: Settings) -> None:
    """Raises :class:`RewriteError` while a run is in progress: it could replace a file at the same moment."""
    if not settings.dagster_home.exists():
        return
    from resources.home import prepare

    prepare(settings)
    in_progress = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    with dg.DagsterInstance.get() as instance:
        if runs := instance.get_run_records(dg.RunsFilter(statuses=in_progress)):
            run = runs[0].dagster_run
            raise RewriteError(f"the run {run.run_id} of {run.job_name} is in progress; wait for it, or cancel it")


def _differs(used: tuple[Purpose, str] | None, purpose: Purpose, ring: KeyRing | None) -> bool:
    if ring is None:
        return used is not None
    return used is None or used[1] != ring.newest(purpose).fingerprint


def _artifacts(settings: Settings) -> list[Path]:
    found = settings.artifacts.rglob("*") if settings.artifacts.is_dir() else ()
    return sorted(path for path in found if path.is_file() and not path.name.startswith(_SCRATCH))


def _key_of_file(path: Path) -> tuple[Purpose, str] | None:
    try:
        with path.open("rb") as file:
            return key_of(file.read(HEAD))
    except FileNotFoundError:  # removed since the folder was listed
        return None


def _rewrite_artifact(path: Path, *, encrypt: bool) -> None:
    """Replaces one file of MLflow in one step; its content is never on disk in the clear, unless that is wanted."""
    new = path.with_name(f"{_SCRATCH}{os.getpid()}")
    try:
        with path.open("rb") as stored, in_clear(stored, path) as content, new.open("wb") as out:
            if encrypt:
                seal_file(content, out, path)
            else:
                shutil.copyfileobj(content, out)
        shutil.copystat(path, new)
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)

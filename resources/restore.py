"""Restores a state folder from a backup: everything is unpacked and verified beside it, then moved into place.

Belongs here: reading and verifying an archive, and adjusting absolute paths. Does not belong here: what an archive
holds (``backup.py``), whether processes of the project run (``cli/state.py``).
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import shutil
import sqlite3
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from resources.backup import DUMP, FORMAT, MANIFEST, MLFLOW_DATABASE, STATE, Manifest, hashed_copy, kind_of_database
from resources.encryption.sealed import HEAD, SealError, Unsealing, is_sealed
from resources.keys import KeyProblem, KeyRing
from resources.migrations import revisions
from resources.settings import Settings

_PATHS_IN_MLFLOW = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "model_versions": ("source", "storage_location"),
    "logged_models": ("artifact_location",),
}
"""Columns of MLflow's store that hold absolute paths, by table."""

_OF_A_VOLUME = "lost+found"
"""Folder that an empty volume may hold. The file of the keys may be there as well: archives do not hold it."""


class RestoreError(Exception):
    """A backup cannot be restored. Nothing was changed; the message gives the reason and the fix."""


def restore(settings: Settings, file: Path, into: Path | None = None) -> Manifest:
    """Restores a backup to a state folder that does not exist or is empty.

    Every hash is verified before the folder appears. MLflow's store holds absolute paths, so they are adjusted if the
    folder is not the one that was backed up.

    Args:
        settings: the settings; the project's own database must be of the kind that was backed up.
        file: the archive.
        into: the new state folder, absolute; default: that of the settings.

    Raises:
        RestoreError: the folder is not empty, the archive is damaged or of a newer release, or the database is not of
            the kind that was backed up, or the archive is encrypted and its key is missing.
    """
    target = (into or settings.home).absolute()
    if not file.is_file():
        raise RestoreError(f"there is no file {file}; give the path of a backup")
    may_be_there = {target / _OF_A_VOLUME, settings.keys, settings.keys.with_name(f".{settings.keys.name}.lock")}
    if target.exists() and (not target.is_dir() or set(target.iterdir()) - may_be_there):
        raise RestoreError(f"{target} is not empty; move it away, or restore into another folder with --into")
    try:
        place = target.resolve()  # it may be a link to an empty folder
        place.parent.mkdir(parents=True, exist_ok=True)
        is_volume = os.path.ismount(place)  # nothing outside of it can be renamed into it
        aside = Path(tempfile.mkdtemp(prefix=".assetline-restore-", dir=place if is_volume else place.parent))
        try:
            manifest = _unpacked(file, aside, settings)
            _refuse(manifest, settings)
            state = aside / STATE
            state.mkdir(exist_ok=True)
            _move_paths(state / MLFLOW_DATABASE, manifest.home, str(target))
            if manifest.database == "postgresql":
                from resources.postgres_dump import load

                load(settings.database_url, aside / DUMP, RestoreError)
            if is_volume or (place.exists() and any(place.iterdir())):
                for path in sorted(state.iterdir()):
                    os.replace(path, place / path.name)
            else:
                os.replace(state, place)  # an empty folder may be there
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        reason = error.strerror or error
        raise RestoreError(f"{error.filename or file}: {reason}; nothing was restored") from error
    return manifest


def other_packages(manifest: Manifest) -> dict[str, tuple[str, str]]:
    """Packages with another version than at the time of the backup: version then, and version now."""
    import importlib.metadata

    now = {name: importlib.metadata.version(name) for name in manifest.packages}
    return {name: (then, now[name]) for name, then in manifest.packages.items() if then != now[name]}


@contextlib.contextmanager
def _opened(file: Path, settings: Settings) -> Iterator[IO[bytes]]:
    """An archive for reading, in the clear."""
    with file.open("rb") as stored:
        head = stored.read(HEAD)
        stored.seek(0)
        if not is_sealed(head):
            yield stored
            return
        try:
            yield io.BufferedReader(Unsealing(stored, KeyRing.of(settings)), 1 << 20)
        except SealError as error:
            raise RestoreError(f"{file}: {error}; nothing was restored") from error
        except KeyProblem as error:
            raise RestoreError(f"{file} is encrypted, and {error}; nothing was restored") from error


def _unpacked(file: Path, aside: Path, settings: Settings) -> Manifest:
    """Unpacks an archive into an empty folder and verifies it against its manifest."""
    found: dict[str, tuple[str, int]] = {}
    try:
        with (
            _opened(file, settings) as stored,
            gzip.open(stored) as unpacked,
            tarfile.open(fileobj=unpacked, mode="r|") as archive,
        ):
            for member in archive:
                path = PurePosixPath(member.name)
                if not member.isreg() or path.is_absolute() or ".." in path.parts:
                    raise RestoreError(f"{file} holds {member.name!r}, which no backup does; nothing was restored")
                to, content = aside / path, archive.extractfile(member)
                if content is None or member.name in found:
                    raise RestoreError(f"{file} holds {member.name!r} twice; nothing was restored")
                to.parent.mkdir(parents=True, exist_ok=True)
                found[member.name] = hashed_copy(content, to)
                os.utime(to, (member.mtime, member.mtime))
            while unpacked.read(1 << 20):  # to the end, where gzip compares its checksum
                pass
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise RestoreError(f"{file} is damaged ({error}); nothing was restored") from error
    try:
        manifest = Manifest.from_json((aside / MANIFEST).read_bytes())
    except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
        raise RestoreError(f"{file} has no manifest that can be read, so it is no backup or incomplete") from error
    del found[MANIFEST]
    if found != dict(manifest.files):
        wrong = sorted(name for name in {*found, *manifest.files} if found.get(name) != manifest.files.get(name))
        raise RestoreError(
            f"{file} is damaged: {len(wrong)} files differ from its manifest (first: {wrong[0]}); nothing was restored"
        )
    return manifest


def _refuse(manifest: Manifest, settings: Settings) -> None:
    """Refuses a sound archive that this release or these settings cannot use."""
    if manifest.format != FORMAT:
        raise RestoreError(f"the backup has format {manifest.format}, and this release reads {FORMAT}; use its release")
    if manifest.revision is not None and manifest.revision not in revisions():
        raise RestoreError(
            f"the backup has database revision {manifest.revision} of release {manifest.version}, and this release "
            f"knows revisions up to {revisions()[-1]}; restore it with that release"
        )
    kind = kind_of_database(settings, RestoreError)
    if manifest.database != kind:
        fix = "unset it" if manifest.database == "sqlite" else "set it to an empty PostgreSQL database"
        raise RestoreError(
            f"the backup holds the ledger and the alerts of {manifest.database}, but ASSETLINE_DATABASE_URL names "
            f"{kind}; {fix}"
        )
    if kind == "postgresql":
        from resources.postgres_dump import refuse_tables

        refuse_tables(settings.database_url, RestoreError)


def _move_paths(database: Path, before: str, now: str) -> None:
    """Replaces the state folder at the start of MLflow's absolute paths."""
    if before == now or not database.exists():
        return
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        for table, columns in _PATHS_IN_MLFLOW.items():
            there = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            for column in there.intersection(columns):
                for scheme in ("", "file://"):
                    old = f"{scheme}{before}/"
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                        (f"{scheme}{now}/", len(old) + 1, len(old), old),
                    )

"""A backup of the state folder as one archive, consistent while runs and services go on writing.

Belongs here: what is in an archive, its manifest, and making it. Does not belong here: restoring it (``restore.py``),
dumps of PostgreSQL (``postgres_dump.py``).

Databases are copied first and files after them. A row is written after the file that it names, and a file is only
added or replaced by a rename. So every file that a row in the archive names is in the archive. For the same reason, a
database that names rows of another one is copied before it: the ledger names versions in MLflow and runs in Dagster.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import importlib.metadata
import io
import json
import os
import sqlite3
import stat
import tarfile
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Literal, Self

from resources.encryption.sealed import Sealing
from resources.keys import Key, KeyProblem, KeyRing
from resources.settings import Settings, project_name

FORMAT = 1
"""Version of the archive's layout."""

MANIFEST, STATE, DUMP = "manifest.json", "state", "postgresql.dump"
"""Members of the archive: the manifest, which is the last one; the folder of the state; the dump of a PostgreSQL."""

SUFFIX = ".tar.gz"
SEALED_SUFFIX = ".tar.gz.sealed"
"""End of the name of an encrypted archive (``encryption/sealed.py``)."""

PROJECT_DATABASE, MLFLOW_DATABASE = "assetline.db", "mlflow/mlflow.db"
ARTIFACTS = "mlflow/artifacts"

_ORDER = (PROJECT_DATABASE, MLFLOW_DATABASE, "dagster/schedules.db", "dagster/runs.db", "dagster/event_log.db")
"""Databases in the order in which they are copied: each may name rows of those after it."""

_SECRETS = ("token", "service-token", "keys.toml")
"""Tokens as text, and the keys: beside what they encrypt they would protect nothing.

``service-tokens.toml`` holds hashes only, and clients go on with their tokens after a restore.
"""
_SQLITE_MAGIC = b"SQLite format 3\0"
_BESIDE_A_DATABASE = ("-wal", "-shm", "-journal")
_CHUNK = 1 << 20

Kind = Literal["sqlite", "postgresql"]


class BackupError(Exception):
    """A backup cannot be made. No file was written; the message gives the reason and the fix."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an archive holds.

    Args:
        format: version of the layout.
        project: name of the project.
        version: version of the project's package.
        made_at: time of the backup, ISO 8601, UTC.
        home: absolute path of the state folder; MLflow's store holds absolute paths below it.
        database: kind of the project's own database.
        revision: revision of the project's own database; ``None`` for a release before revisions.
        packages: versions of the packages whose databases are in the archive, by package.
        files: by member, its SHA-256 in hex and its size in bytes.
    """

    format: int
    project: str
    version: str
    made_at: str
    home: str
    database: Kind
    revision: str | None
    packages: Mapping[str, str]
    files: Mapping[str, tuple[str, int]]

    def to_json(self) -> str:
        """The manifest as JSON text."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: bytes) -> Self:
        """Reads a manifest. Raises :class:`ValueError` or :class:`TypeError` if it is none."""
        values = json.loads(text)
        files = {str(name): (str(digest), int(size)) for name, (digest, size) in values.pop("files").items()}
        return cls(**values, files=files)

    @property
    def size(self) -> int:
        """Size of all files in bytes."""
        return sum(size for _, size in self.files.values())


def back_up(settings: Settings, file: Path) -> Manifest:
    """Writes an archive of the state folder; it appears under its name when it is complete.

    Left out: tokens, keys, locks, scratch files and everything else whose name starts with a dot (except artifacts),
    sockets, the captured output of steps (``compute_logs``), and tables outside of the state folder, of which
    :func:`tables_left_out` speaks.

    Args:
        settings: the state folder and the project's own database.
        file: path of the archive, which must not exist.

    Raises:
        BackupError: the file exists or cannot be written, there is no state folder, a part of it is a link or damaged,
            the database cannot be dumped, or the archive would be encrypted and there is no key.
    """
    home = settings.home
    _refuse(settings, file)
    key = _key(settings)
    kind = kind_of_database(settings, BackupError)
    try:
        with (
            maintenance(settings, BackupError),
            tempfile.TemporaryDirectory(prefix=".assetline-backup-", dir=file.parent) as scratch,
        ):
            found = [(member, path) for member, path in _files(home) if path != settings.keys]
            copies = _copied_databases(settings, kind, found, Path(scratch))
            partial = Path(scratch) / file.name
            with partial.open("wb") as raw:
                with Sealing(raw, "backups", key) if key else contextlib.nullcontext(raw) as out:
                    manifest = _written(settings, kind, copies, out)  # type: ignore[arg-type]
                raw.flush()
                os.fsync(raw.fileno())
            os.replace(partial, file)
    except OSError as error:
        raise BackupError(f"{error.filename or file}: {error.strerror or error}; no backup was made") from error
    return manifest


def manifest_of(file: Path) -> Manifest:
    """The manifest of an archive; its hashes are not verified.

    Raises:
        BackupError: it is not a backup, or it is damaged.
    """
    try:
        with tarfile.open(file, "r|gz") as archive:
            for member in archive:
                if member.name == MANIFEST and (content := archive.extractfile(member)) is not None:
                    return Manifest.from_json(content.read())
    except (tarfile.TarError, OSError, EOFError, ValueError, TypeError, KeyError) as error:
        raise BackupError(f"{file} cannot be read as a backup ({error})") from error
    raise BackupError(f"{file} cannot be read as a backup (it has no manifest)")


def tables_left_out(settings: Settings) -> str:
    """A sentence about tables that no archive holds; empty if they are in the state folder.

    A copy of a bucket would be as large as the bucket, and its objects have a better protection where they are: old
    versions that the store keeps.
    """
    from resources.table_files import BucketFiles, TableError, files_of

    if not settings.tables_elsewhere:
        return ""
    said = f"the tables in {settings.tables}"
    try:
        files = files_of(settings.tables)
        files = getattr(files, "plain", files)  # below a Delta log
        if not isinstance(files, BucketFiles):
            return f"{said}. Copy that folder with your own tools at the same time."
        versioned = files.keeps_versions()
    except TableError as error:
        return f"{said}. Whether the bucket keeps old versions is unknown: {error}."
    if versioned is None:
        return f"{said}. Switch on the bucket's own versioning, and keep old versions as long as archives."
    if versioned:
        return f"{said}. The bucket keeps old versions of its objects; those of this time are the backup."
    return f"{said}, and the bucket keeps no old versions. Switch on its versioning: until then they have no backup."


def default_archive(settings: Settings) -> Path:
    """Path of a new archive in the backup folder of the settings, named by the time (UTC).

    Raises:
        BackupError: no backup folder is set.
    """
    if settings.backup is None:
        raise BackupError("name the archive, or set ASSETLINE_BACKUP to a folder for archives")
    suffix = SEALED_SUFFIX if settings.encrypt else SUFFIX
    return settings.backup / f"{project_name()}-{settings.env}-{dt.datetime.now(dt.UTC):%Y-%m-%dT%H%M%S}{suffix}"


@contextlib.contextmanager
def maintenance(settings: Settings, refused: type[Exception]) -> Iterator[None]:
    """Keeps a backup and a removal of old state apart; raises ``refused`` if another one is running."""
    from filelock import FileLock, Timeout

    try:
        lock = FileLock(settings.home / ".maintenance.lock", timeout=0)
        with lock:
            yield
    except Timeout as error:
        raise refused(f"another backup or prune of {settings.home} is running; try again when it has ended") from error


def kind_of_database(settings: Settings, refused: type[Exception]) -> Kind:
    """Kind of the project's own database; raises ``refused`` for one that archives cannot hold."""
    from sqlalchemy import make_url

    url = make_url(settings.database_url)
    match url.get_backend_name():
        case "sqlite" if Path(url.database or "") == settings.home / PROJECT_DATABASE:
            return "sqlite"
        case "sqlite":
            raise refused(
                f"ASSETLINE_DATABASE_URL names {url.database}, outside of the state folder {settings.home}; move that "
                f"file to {settings.home / PROJECT_DATABASE} and unset the variable"
            )
        case "postgresql":
            return "postgresql"
        case other:
            raise refused(f"a database of the kind {other} is not in backups; use its own tools")


def is_database(path: Path) -> bool:
    """Whether a file is a SQLite database."""
    with path.open("rb") as file:
        return file.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC


def _is_beside_a_database(name: str, files: Collection[str]) -> bool:
    """Whether a file is one that SQLite makes and removes as it opens and closes the database of that name."""
    return any(name.endswith(end) and name.removesuffix(end) in files for end in _BESIDE_A_DATABASE)


def _refuse(settings: Settings, file: Path) -> None:
    home = settings.home
    suffixes = (SUFFIX, SEALED_SUFFIX) if settings.encrypt else (SUFFIX,)
    if not file.name.endswith(suffixes):
        raise BackupError(f"{file} does not end with {' or '.join(suffixes)}; name it so")
    if file.exists():
        raise BackupError(f"{file} exists already; give another name or move it away")
    if not home.is_dir():
        raise BackupError(f"there is no state folder {home}; ASSETLINE_HOME names another one")
    if file.resolve().is_relative_to(home.resolve()):
        raise BackupError(f"{file} lies in the state folder {home}; give a path outside of it")
    if not file.parent.is_dir():
        raise BackupError(f"there is no folder {file.parent}; make it first")


def _key(settings: Settings) -> Key | None:
    """The key that encrypts an archive; ``None`` if the setting ``encrypt`` is off."""
    if not settings.encrypt:
        return None
    try:
        return KeyRing.of(settings).newest("backups")
    except KeyProblem as error:
        raise BackupError(f"the archive cannot be encrypted: {error}; no backup was made") from error


def _files(home: Path) -> Iterator[tuple[str, Path]]:
    """The files to keep: path below the state folder with ``/``, and path."""
    for folder, names, files in os.walk(home):
        inside = Path(folder).relative_to(home)
        kept = inside.is_relative_to(ARTIFACTS)
        names[:] = sorted(n for n in names if kept or (n != "compute_logs" and not n.startswith(".")))
        for name in sorted([*names, *files]):
            path, member = Path(folder) / name, (inside / name).as_posix()
            if _is_beside_a_database(name, files):
                continue
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:  # removed since the folder was listed, as it would be a moment later
                continue
            if stat.S_ISLNK(mode):
                raise BackupError(f"{path} is a link, which an archive cannot hold; put the real folder or file there")
            if stat.S_ISREG(mode) and (kept or not name.startswith(".")) and member not in _SECRETS:
                yield member, path


def _copied_databases(settings: Settings, kind: Kind, found: list[tuple[str, Path]], scratch: Path) -> dict[str, Path]:
    """Copies the databases to ``scratch``; returns all files by member of the archive, and where to read each one."""
    databases = {member: path for member, path in found if is_database(path)}
    copies = {f"{STATE}/{member}": path for member, path in found}
    if kind == "postgresql":
        from resources.postgres_dump import dump

        databases.pop(PROJECT_DATABASE, None)  # a file from before ASSETLINE_DATABASE_URL; nothing writes to it
        copies[DUMP] = scratch / DUMP
        dump(settings.database_url, copies[DUMP], BackupError)
    in_order = sorted(databases, key=lambda member: (_ORDER.index(member) if member in _ORDER else -1, member))
    for number, member in enumerate(in_order):
        copies[f"{STATE}/{member}"] = scratch / f"{number}.db"
        _copy_database(databases[member], scratch / f"{number}.db")
    return copies


def _copy_database(source: Path, to: Path) -> None:
    """Copies a database as it is between two transactions; readers and writers go on."""
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{source.as_uri()}?mode=rw", uri=True, timeout=60)) as original,
            contextlib.closing(sqlite3.connect(to)) as copy,
        ):
            original.backup(copy)
            [(found,), *_] = copy.execute("PRAGMA quick_check").fetchall()
    except sqlite3.Error as error:
        raise BackupError(f"{source} cannot be copied ({error}); repair or restore it first") from error
    if found != "ok":
        raise BackupError(f"{source} is damaged ({found.splitlines()[0]}); repair or restore it first")


def _written(settings: Settings, kind: Kind, copies: Mapping[str, Path], raw: IO[bytes]) -> Manifest:
    """Writes all files and then the manifest."""
    files: dict[str, tuple[str, int]] = {}
    # Parquet and weights hardly shrink, so the quickest level is nearly as small.
    with tarfile.open(fileobj=raw, mode="w:gz", compresslevel=1) as archive:
        for member, path in copies.items():
            files[member] = _add(archive, member, path)
        manifest = Manifest(
            format=FORMAT, project=project_name(), version=_version("assetline"),
            made_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), home=str(settings.home), database=kind,
            revision=_revision(settings, kind, copies), files=files,
            packages={name: _version(name) for name in ("dagster", "mlflow")},
        )  # fmt: skip
        _add_bytes(archive, MANIFEST, manifest.to_json().encode())
    return manifest


def _add(archive: tarfile.TarFile, member: str, path: Path) -> tuple[str, int]:
    """Adds a file as long as it is now, because a log may grow meanwhile; returns its hash and size."""
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        info = tarfile.TarInfo(member)
        info.size, info.mtime, info.mode = found.st_size, int(found.st_mtime), stat.S_IMODE(found.st_mode)
        reader = _Hashing(file, found.st_size)
        archive.addfile(info, reader)
    return reader.digest.hexdigest(), found.st_size


def _add_bytes(archive: tarfile.TarFile, member: str, content: bytes) -> None:
    info = tarfile.TarInfo(member)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


class _Hashing:
    """Reads the first ``size`` bytes of a file and hashes them."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.digest = hashlib.sha256()
        self._file, self._left = file, size

    def read(self, size: int = _CHUNK) -> bytes:
        """The next bytes, at most ``size``."""
        block = self._file.read(min(size, self._left))
        self._left -= len(block)
        self.digest.update(block)
        return block


def _revision(settings: Settings, kind: Kind, copies: Mapping[str, Path]) -> str | None:
    """The revision of the copy, or of PostgreSQL itself. A release without revisions has none."""
    import sqlalchemy as sa

    from resources.migrations import revision_of

    url = settings.database_url
    if kind == "sqlite":
        copy = copies.get(f"{STATE}/{PROJECT_DATABASE}")
        if copy is None:
            return None
        url = f"sqlite:///{copy}"
    return revision_of(sa.create_engine(url, poolclass=sa.NullPool))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def hashed_copy(source: IO[bytes], to: Path) -> tuple[str, int]:
    """Writes what ``source`` holds to a file; returns its SHA-256 in hex and its size in bytes."""
    digest, size = hashlib.sha256(), 0
    with to.open("wb") as file:
        while block := source.read(_CHUNK):
            digest.update(block)
            size += len(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest(), size

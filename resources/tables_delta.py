"""Tables with versions: the same Parquet files, and a Delta log that says which of them are current.

Belongs here: the log, its versions and its conflicts. Does not belong here: what a file holds (``tables.py``), reading
and writing files (``table_files.py``).

Each table is a Delta table, ``<root>/<model>/<asset>``, with the partition column ``_day``. A day is one file, with the
same bytes as without Delta, stamp included. To replace a day, the new file is written under a new name, and one commit
adds it and removes the one before. Files are never changed, so a version of the log is the state of the whole table at
a time, and who reads all days of a table reads them of one version.

Two writers of two days both commit; delta-rs repeats the one that comes second. Of two writers of one day, the second
begins again on top of the first, so the last one wins, as without Delta.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import io
import json
import os
import posixpath
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from resources.table_files import FileState, LocalFiles, R, T, TableError, TableFiles, hidden_key

if TYPE_CHECKING:
    import pyarrow as pa

DAY = "_day"
"""The partition column; its value is in the log and the path, not in the files."""

ATTEMPTS = 20
"""Number of times that a commit is tried against other writers of the same day."""

_LOG = "_delta_log"
_PAGES = "_pages"
_STAMP = b"assetline"
_KEEP_VERSIONS = {"delta.enableExpiredLogCleanup": "false"}
"""By default delta-rs removes log entries after 30 days, and with them the versions that they describe."""


@dataclass(frozen=True)
class TableVersion:
    """A version of a table: its number, the time of its commit (UTC), and the day that it replaced or removed."""

    table: str
    version: int
    at: dt.datetime
    day: str
    rows: int | None
    data_version: str


@dataclass(frozen=True)
class _Snapshot:
    """A table at one version: by day, the path below the table and the state of its file."""

    version: int
    days: Mapping[str, tuple[str, FileState]]


@dataclass(frozen=True)
class DeltaFiles:
    """Files of Delta tables, as :class:`~resources.table_files.TableFiles`.

    Args:
        plain: the files themselves.
        as_of: a version, or a time (ISO 8601, UTC), as of which tables are read; empty: as they are now.
        pinned_at: versions by table, for :meth:`pinned`.
    """

    plain: TableFiles
    as_of: str = ""
    pinned_at: tuple[tuple[str, int], ...] = ()

    def states(self, folder: str) -> dict[str, FileState]:
        """See :class:`~resources.table_files.TableFiles`."""
        found = self._snapshot(folder)
        return {f"{day}.parquet": state for day, (_, state) in found.days.items()} if found else {}

    def state(self, name: str) -> FileState | None:
        """See :class:`~resources.table_files.TableFiles`."""
        if not name.endswith(".parquet"):
            return self.plain.state(_page(name))
        found = self._found(name)
        return found[1] if found else None

    def pages(self, folder: str) -> list[str]:
        """See :class:`~resources.table_files.TableFiles`."""
        return sorted(self.plain.states(_page(folder)))

    def footer(self, name: str, state: FileState) -> Any:
        """See :class:`~resources.table_files.TableFiles`; the file of a state never changes."""
        return self.plain.footer(posixpath.join(posixpath.dirname(name), state.token), state)

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[Any]:
        """See :class:`~resources.table_files.TableFiles`."""
        with self.plain.opened(self._path(name)) as file:
            yield file

    def read(self, name: str) -> bytes:
        """See :class:`~resources.table_files.TableFiles`."""
        return self.plain.read(_page(name) if not name.endswith(".parquet") else self._path(name))

    def local_path(self, name: str, state: FileState) -> str | None:
        """See :class:`~resources.table_files.TableFiles`."""
        return self.plain.local_path(posixpath.join(posixpath.dirname(name), state.token), state)

    def replace(self, name: str, content: bytes) -> None:
        """See :class:`~resources.table_files.TableFiles`."""
        self._refuse_past()
        if not name.endswith(".parquet"):
            self.plain.replace(_page(name), content)
            return
        table, day = _split(name)
        path = f"{DAY}={day}/{uuid.uuid4().hex}.parquet"
        self.plain.replace(posixpath.join(table, path), content)  # nobody sees it until the commit
        self._commit(table, day, path, content)

    def remove(self, name: str) -> None:
        """See :class:`~resources.table_files.TableFiles`. Earlier versions keep the day."""
        self._refuse_past()
        table, day = _split(name)
        self._commit(table, day, "", b"")

    def folders(self) -> list[str]:
        """See :class:`~resources.table_files.TableFiles`."""
        marker = f"/{DAY}="
        return sorted({folder.partition(marker)[0] for folder in self.plain.folders() if marker in folder})

    def each(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """See :class:`~resources.table_files.TableFiles`."""
        return self.plain.each(function, items)

    def pinned(self, folder: str) -> DeltaFiles:
        """See :class:`~resources.table_files.TableFiles`: all days of a table as of one version."""
        found = self._snapshot(folder)
        return DeltaFiles(self.plain, self.as_of, ((folder, found.version),)) if found else self

    def versions(self, table: str) -> list[TableVersion]:
        """All versions of a table, the oldest first; empty if there is no such table."""
        with _LOCK:
            opened = self._opened(table)
            if opened is None:
                return []
            with self._in_words(table):
                history = opened.history()
        found = []
        for entry in sorted(history, key=lambda one: one["version"]):
            said = json.loads(entry.get("assetline", "{}"))
            at = dt.datetime.fromtimestamp(entry["timestamp"] / 1000, dt.UTC)
            found.append(TableVersion(table, entry["version"], at, said.get("day", ""), said.get("rows"),
                                      said.get("data_version", "")))  # fmt: skip
        return found

    def old_files(self, table: str) -> list[str]:
        """Names below the root of the table's files that its latest version does not have, for :attr:`plain`.

        They are of earlier versions, or of a commit that another process is about to make.
        """
        snapshot = self._snapshot(table)
        live = {path for path, _ in snapshot.days.values()} if snapshot else set()
        days = {path.partition("/")[0] for path in live}
        days |= {one.removeprefix(f"{table}/") for one in self.plain.folders() if one.startswith(f"{table}/{DAY}=")}
        there = (f"{day}/{name}" for day in sorted(days) for name in self.plain.states(posixpath.join(table, day)))
        return [posixpath.join(table, path) for path in there if path not in live]

    # -- the log -----------------------------------------------------------------------------------------------------

    def _found(self, name: str) -> tuple[str, FileState] | None:
        table, day = _split(name)
        snapshot = self._snapshot(table)
        return snapshot.days.get(day) if snapshot else None

    def _path(self, name: str) -> str:
        found = self._found(name)
        if found is None:
            raise FileNotFoundError(name)
        return posixpath.join(_split(name)[0], found[0])

    def _snapshot(self, table: str) -> _Snapshot | None:
        """The table at the version that is read; ``None`` if there was none yet."""
        pinned = dict(self.pinned_at).get(table)
        version = pinned if pinned is not None else self._version_as_of(table) if self.as_of else None
        if version is not None:
            return _snapshot_at(self, table, version)
        if self.as_of:
            return None
        with _LOCK:
            opened = self._opened(table)
            return None if opened is None else _snapshot_of(self, table, opened)

    def _version_as_of(self, table: str) -> int | None:
        """The version that :attr:`as_of` means of a table; ``None`` if the table is younger."""
        history = self.versions(table)
        if self.as_of.isdigit():
            if not history or int(self.as_of) <= history[-1].version:
                return int(self.as_of) if history else None
            raise TableError(f"{table} has no version {self.as_of}; its latest is {history[-1].version}")
        try:
            at = dt.datetime.fromisoformat(self.as_of)
        except ValueError as error:
            example = "2026-11-27T12:00"
            raise TableError(f"'{self.as_of}' is neither a version nor a time; give a number, or {example}") from error
        at = at.replace(tzinfo=dt.UTC) if at.tzinfo is None else at
        return max((one.version for one in history if one.at <= at), default=None)

    def _opened(self, table: str) -> Any:
        """The Delta table at its latest version; ``None`` if there is none. Call it under the lock."""
        names = self.plain.states(posixpath.join(table, _LOG))  # its errors are in words, and it is one request
        commits = [int(name[:20]) for name in names if re.fullmatch(r"\d{20}\.json", name)]
        if not commits:
            _OPENED.pop((self._uri(table), os.getpid()), None)
            return None
        cached = _OPENED.get((self._uri(table), os.getpid()))
        with self._in_words(table):
            if cached is None or cached.version() > max(commits):  # removed, and made again
                from deltalake import DeltaTable

                cached = DeltaTable(self._uri(table), storage_options=_options(self.plain))
                _OPENED[self._uri(table), os.getpid()] = cached
            elif cached.version() < max(commits):
                cached.update_incremental()
        return cached

    def _uri(self, table: str) -> str:
        root = self.plain.root  # type: ignore[attr-defined]
        return posixpath.join(root, table)

    def _commit(self, table: str, day: str, path: str, content: bytes) -> None:
        """Makes a file the only one of a day, or with an empty path leaves the day without one."""
        from deltalake import exceptions

        for attempt in range(ATTEMPTS):
            try:
                with _LOCK:
                    self._try_commit(table, day, path, content)
                    self._end_doubles(table, day)
                return
            except exceptions.DeltaError as error:
                # Another process committed the same day, the columns, or the first version in between.
                if attempt == ATTEMPTS - 1 or not _is_conflict(error):
                    raise self._failed(table, error) from error
                time.sleep(random.uniform(0, 0.05 * (attempt + 1)))
            except OSError as error:
                raise self._failed(table, error) from error

    def _try_commit(self, table: str, day: str, path: str, content: bytes) -> None:
        from deltalake import CommitProperties
        from deltalake.transaction import AddAction, create_table_with_add_actions

        opened = self._opened(table)
        if opened is None and not path:
            return
        now_ms = int(time.time() * 1000)
        stamp = _stamp_in(content) if path else {}
        said = {"day": day, "rows": stamp.get("rows"), "data_version": stamp.get("data_version", "")}
        properties = CommitProperties(custom_metadata={"assetline": json.dumps(said)})
        stats = json.dumps({"numRecords": stamp.get("rows", 0)})
        adds = [AddAction(path, len(content), {DAY: day}, now_ms, True, stats)] if path else []
        if opened is None:
            create_table_with_add_actions(
                self._uri(table), _schema([_columns(content)]), adds, mode="error", partition_by=[DAY],
                configuration=_KEEP_VERSIONS, storage_options=_options(self.plain), commit_properties=properties,
            )  # fmt: skip
            return
        there = _live(opened, day)
        if any(old["path"] == path for old in there):
            return  # an earlier attempt has committed it, and failed afterwards
        before = _columns_of(opened)
        schema = _schema([before, _columns(content)] if path else [before])
        if schema != _schema([before]):
            # This kind of commit is the one that changes the columns, too. It removes the files of the day by itself.
            opened.create_write_transaction(
                adds, mode="overwrite", schema=schema, partition_by=[DAY], partition_filters=[(DAY, "=", day)],
                commit_properties=properties,
            )  # fmt: skip
            return
        removes = [_removed(old) for old in there]
        if adds or removes:
            opened.create_write_transaction(
                [*adds, *removes], mode="append", schema=schema, partition_by=[DAY], commit_properties=properties
            )

    def _end_doubles(self, table: str, day: str) -> None:
        """Leaves one file of a day whose first file two processes have committed at once; all choose the same one."""
        opened = self._opened(table)
        doubles = _live(opened, day)[1:] if opened is not None else []
        if doubles:
            opened.create_write_transaction(
                [_removed(old) for old in doubles], mode="append", schema=_schema([_columns_of(opened)]),
                partition_by=[DAY],
            )  # fmt: skip

    def _refuse_past(self) -> None:
        if self.as_of:
            raise TableError(f"tables as of {self.as_of} are read only")

    @contextlib.contextmanager
    def _in_words(self, table: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise self._failed(table, error) from error

    def _failed(self, table: str, error: Exception) -> TableError:
        lines = str(error).splitlines() or [type(error).__name__]
        return TableError(f"the Delta log of {hidden_key(self._uri(table))} cannot be used now: {hidden_key(lines[0])}")


_LOCK = threading.RLock()
"""One thread at a time uses the opened tables."""

_OPENED: dict[tuple[str, int], Any] = {}
"""Delta tables by address and process, so that only new log entries are read."""


def forget_tables() -> None:
    """Forgets the opened tables."""
    _OPENED.clear()
    _snapshot_at.cache_clear()


def _snapshot_of(files: DeltaFiles, table: str, opened: Any) -> _Snapshot:
    version = opened.version()
    key = (files._uri(table), os.getpid())
    known = _LATEST.get(key)
    if known is None or known[0] is not opened or known[1].version != version:
        known = (opened, _Snapshot(version, _days(opened)))
        _LATEST[key] = known
    return known[1]


_LATEST: dict[tuple[str, int], tuple[Any, _Snapshot]] = {}
"""The latest snapshot of each opened table."""


@functools.lru_cache(maxsize=256)
def _snapshot_at(files: DeltaFiles, table: str, version: int) -> _Snapshot:
    """A table at a version, which never changes."""
    from deltalake import DeltaTable

    with _LOCK:
        key = (files._uri(table), os.getpid())
        latest = _LATEST.get(key)
        if latest is not None and latest[1].version == version:
            return latest[1]
        with files._in_words(table):
            opened = DeltaTable(files._uri(table), version=version, storage_options=_options(files.plain))
            return _Snapshot(version, _days(opened))


def _days(opened: Any) -> dict[str, tuple[str, FileState]]:
    found: dict[str, tuple[str, FileState]] = {}
    for action in reversed(_actions(opened)):  # of two files of one day, the newer one counts
        written = dt.datetime.fromtimestamp(action["modification_time"] / 1000, dt.UTC)
        found[action[f"partition.{DAY}"]] = (action["path"], FileState(action["size_bytes"], action["path"], written))
    return dict(sorted(found.items()))


def _actions(opened: Any) -> list[dict[str, Any]]:
    """The current files, the newest first."""
    import pyarrow as pa

    columns = ["path", "size_bytes", "modification_time", f"partition.{DAY}"]
    actions = pa.table(opened.get_add_actions(flatten=True)).select(columns).to_pylist()
    return sorted(actions, key=lambda one: (one["modification_time"], one["path"]), reverse=True)


def _live(opened: Any, day: str) -> list[dict[str, Any]]:
    return [action for action in _actions(opened) if action[f"partition.{DAY}"] == day]


def _removed(action: Mapping[str, Any]) -> Any:
    from deltalake.transaction import RemoveAction

    return RemoveAction(
        action["path"], True, int(time.time() * 1000), action["size_bytes"], {DAY: action[f"partition.{DAY}"]}
    )


def _columns(content: bytes) -> pa.Schema:
    """Columns of a file as Delta has them: it knows no null type and no nanoseconds."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = []
    for field in pq.read_schema(io.BytesIO(content)):
        kind = field.type
        if pa.types.is_timestamp(kind):
            kind = pa.timestamp("us", kind.tz)
        elif pa.types.is_null(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
            kind = pa.string()
        elif pa.types.is_unsigned_integer(kind) or pa.types.is_time(kind) or pa.types.is_duration(kind):
            kind = pa.int64()
        found.append(pa.field(field.name, kind))
    return pa.schema(found)


def _columns_of(opened: Any) -> pa.Schema:
    import pyarrow as pa

    schema = pa.schema(opened.schema())
    return pa.schema([field for field in schema if field.name != DAY])


def _schema(parts: Iterable[pa.Schema]) -> Any:
    """All columns of some files, and the partition column. Where types differ, the wider one, else text."""
    import pyarrow as pa
    from deltalake import Schema

    kinds: dict[str, Any] = {}
    for part in parts:
        for field in part:
            before = kinds.get(field.name, field.type)
            try:
                merged = pa.unify_schemas(
                    [pa.schema([pa.field("x", kind)]) for kind in (before, field.type)], promote_options="permissive"
                )
                kinds[field.name] = merged.field("x").type
            except (pa.ArrowInvalid, pa.ArrowTypeError):
                kinds[field.name] = pa.string()
    return Schema.from_arrow(pa.schema([*(pa.field(n, kind) for n, kind in kinds.items()), pa.field(DAY, pa.string())]))


def _stamp_in(content: bytes) -> dict[str, Any]:
    import pyarrow.parquet as pq

    said: dict[str, Any] = json.loads((pq.read_metadata(io.BytesIO(content)).metadata or {}).get(_STAMP, b"{}"))
    return said


def _split(name: str) -> tuple[str, str]:
    folder, file = posixpath.split(name)
    return folder, file.removesuffix(".parquet")


def _page(name: str) -> str:
    """Where a page lies: outside of the tables, since a vacuum of Delta removes what the log does not know."""
    return posixpath.join(_PAGES, name)


def _is_conflict(error: Exception) -> bool:
    from deltalake.exceptions import CommitFailedError

    return isinstance(error, CommitFailedError) or "already exists" in str(error)


def _options(plain: TableFiles) -> dict[str, str] | None:
    """What delta-rs does not read from the environment by itself."""
    if isinstance(plain, LocalFiles):
        return None
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    options = {"AWS_ENDPOINT_URL": endpoint} if endpoint else {}
    return {**options, "AWS_ALLOW_HTTP": "true"} if endpoint.startswith("http://") else options

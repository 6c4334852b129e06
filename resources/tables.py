"""Tables as day-partitioned Parquet files, and the IO manager through which assets read and write them.

Belongs here: paths, stamps (code version, data version, versions of the inputs), clear errors for unreadable files.
Does not belong here: the contents of a table, how a file is replaced in a folder or a bucket (``table_files.py``), and
how one is encrypted (``encryption/parquet.py``).
Layout: ``<root>/<model>/<asset>/<day>.parquet``, and ``all.parquet`` for an unpartitioned table.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, PrivateAttr

from resources.encryption import in_use, sealed
from resources.encryption import parquet as encryption
from resources.keys import KeyProblem, KeyRing, Purpose
from resources.table_files import FileState, TableError, TableFiles, TableKeyError, files_of, hidden_key, is_url

WHOLE = "all"
"""Used as the day of an unpartitioned table."""

PERSONAL_COLUMNS = "personal_columns"
"""Definition metadata of an asset: names of its personal columns, which have a key of their own if it is encrypted."""

FEW_ROWS = 100_000
"""Files with at most this many rows are read with one thread, which is faster."""

if TYPE_CHECKING:
    from resources.tables_delta import TableVersion

_STAMP = b"assetline"

DayWindow = tuple[int, int]
"""First and last day of an input that an output reads, relative to the output's day."""

Inputs = dict[str, dict[str, str]]
"""Data versions by upstream table and day."""


@dataclass(frozen=True)
class Stamp:
    """Metadata of a file, stored in its Parquet footer so that it always stays with the rows.

    ``data_version`` is a hash of the encoded rows, ``inputs`` are the data versions of the inputs, and ``code_version``
    is that of the asset. Together they show whether a new materialisation could change the file.
    """

    code_version: str
    data_version: str
    inputs: Inputs
    rows: int


def inputs_of(windows: Mapping[str, DayWindow], versions: Mapping[str, Mapping[str, str]], day: str) -> Inputs:
    """The data versions of the inputs of ``day``'s output.

    Args:
        windows: by upstream table, the window of days that is read.
        versions: by upstream table, the data version of each existing day.
        day: ISO day, or :data:`WHOLE`.
    """
    found: Inputs = {}
    for upstream, window in sorted(windows.items()):
        there = versions.get(upstream, {})
        days = [WHOLE] if WHOLE in there else days_of_window(day, window)
        found[upstream] = {d: there[d] for d in days if d in there}
    return found


def days_of_window(day: str, window: DayWindow) -> list[str]:
    """ISO days from ``day + window[0]`` to ``day + window[1]``, both included."""
    if day == WHOLE:
        return [WHOLE]
    origin = pd.Timestamp(day)
    return [str((origin + pd.Timedelta(days=n)).date()) for n in range(window[0], window[1] + 1)]


class ParquetTables(dg.ConfigurableIOManager):
    """Reads and writes tables under one root: a folder, or a bucket (see ``table_files.py``).

    An asset returns one DataFrame. For a partitioned asset, the rows are split by the column in the definition metadata
    ``day_column``, with one file per day of the run. The metadata of an input set ``window`` (the days that one output
    day reads), ``columns`` (the columns to read) and ``optional`` (whether all days may be missing). A write replaces a
    file whole or not at all, so a killed run leaves either the old file or the new one.
    """

    root: str = Field(description="Folder, or URL (s3://, gs://, az:// or delta+s3://), that contains all tables.")
    as_of: str = Field(default="", description="Version or time as of which delta+… is read; empty: now.")

    _read: dict[str, dict[str, tuple[DayWindow, dict[str, str]]]] = PrivateAttr(default_factory=dict)
    _read_by_step: dict[str, Inputs] = PrivateAttr(default_factory=dict)

    # -- files -------------------------------------------------------------------------------------------------------

    def path(self, key: dg.AssetKey, day: str = WHOLE) -> str:
        """Path or URL of one file of a table."""
        return posixpath.join(self.root, *key.path, f"{day}.parquet")

    @property
    def files(self) -> TableFiles:
        """The files under the root. Raises :class:`TableError` for a URL that cannot be used."""
        return files_of(self.root, self.as_of)

    def names(self) -> list[str]:
        """Sorted names of all tables that have a file, e.g. ``fraud/payments``."""
        return self.files.folders()

    def states(self, key: dg.AssetKey) -> dict[str, FileState]:
        """By ISO day (``all`` for an unpartitioned table), the size, the time and a token of the state of its file."""
        found = self.files.states(posixpath.join(*key.path))
        return {name.removesuffix(".parquet"): found[name] for name in sorted(found) if name.endswith(".parquet")}

    def days(self, key: dg.AssetKey) -> list[str]:
        """Sorted ISO days that have a file; ``[WHOLE]`` for an unpartitioned table."""
        return list(self.states(key))

    def size(self, key: dg.AssetKey, day: str = WHOLE) -> int:
        """Size of a day's file in bytes; 0 if there is none."""
        state = self.files.state(_name(key, day))
        return state.size if state else 0

    def remove(self, key: dg.AssetKey, day: str = WHOLE) -> None:
        """Removes a day's file; one that is gone already is no error."""
        self.files.remove(_name(key, day))

    def old_files(self, key: dg.AssetKey) -> list[str]:
        """Names below the root of the files of earlier versions; empty if tables here have no versions."""
        from resources.tables_delta import DeltaFiles

        files = self.files
        return files.old_files(posixpath.join(*key.path)) if isinstance(files, DeltaFiles) else []

    def history(self, key: dg.AssetKey) -> list[TableVersion]:
        """All versions of a table, the oldest first; empty if there is none, or if tables here have no versions."""
        from resources.tables_delta import DeltaFiles

        files = self.files
        return files.versions(posixpath.join(*key.path)) if isinstance(files, DeltaFiles) else []

    def stamp(self, key: dg.AssetKey, day: str = WHOLE) -> Stamp | None:
        """The stamp of a day's file; ``None`` if there is no file. Raises :class:`TableError` if it is damaged."""
        files = self.files
        state = files.state(_name(key, day))
        return self._stamp(files, key, day, state) if state else None

    def stamps(self, key: dg.AssetKey, days: Iterable[str] | None = None) -> dict[str, Stamp]:
        """The stamp of each of ``days`` (default: all) that has a file.

        Raises:
            TableError: a file is damaged.
        """
        files = self.files
        if days is None or is_url(self.root):
            states: Mapping[str, FileState | None] = self.states(key)  # one request for a thousand days
            wanted = list(states if days is None else dict.fromkeys(days))
        else:
            wanted = list(dict.fromkeys(days))
            states = {day: files.state(_name(key, day)) for day in wanted}
        there = [(day, state) for day in wanted if (state := states.get(day))]
        found = files.each(lambda one: self._stamp(files, key, *one), there)
        return {day: stamp for (day, _), stamp in zip(there, found, strict=True) if stamp}

    def _stamp(self, files: TableFiles, key: dg.AssetKey, day: str, state: FileState) -> Stamp | None:
        """The stamp of a file in a state. If it is replaced meanwhile, that of the new file."""
        name = _name(key, day)
        for last in (False, False, True):
            try:
                return _stamp_of_file(files, name, state)
            except FileNotFoundError:
                return None
            except (pa.ArrowInvalid, KeyError) as error:
                now = files.state(name)
                if now is None:
                    return None
                if now == state or last:
                    raise self._unreadable(key, day, error) from error
                state = now
        raise AssertionError("the last look returns or raises")

    def types(self, key: dg.AssetKey, day: str = WHOLE) -> dict[str, str]:
        """Type of each column of a day's file, as Arrow names it; empty if there is no file.

        Raises:
            TableError: the file is damaged.
        """
        files, name = self.files, _name(key, day)
        state = files.state(name)
        try:
            schema = encryption.schema_of(pq.read_metadata(files.footer(name, state))) if state else []
        except FileNotFoundError:
            return {}
        except pa.ArrowInvalid as error:
            raise self._unreadable(key, day, error) from error
        return {column.name: _TYPES.get(str(column.type), str(column.type)) for column in schema}

    def existing_stamp(self, key: dg.AssetKey, day: str = WHOLE) -> Stamp:
        """The stamp of a day's file. Raises :class:`TableError` if there is no file or it is damaged."""
        stamp = self.stamp(key, day)
        if stamp is None:
            raise self._missing(key, day)
        return stamp

    def versions(self, key: dg.AssetKey, days: Iterable[str] | None = None) -> dict[str, str]:
        """Data version of each of ``days`` (default: all) that has a file."""
        return {day: stamp.data_version for day, stamp in self.stamps(key, days).items()}

    def read(
        self, key: dg.AssetKey, days: Sequence[str] | None = None, columns: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Rows of ``days`` (default: all existing days), in the order of the days.

        Raises :class:`TableError` if there are no days, or if a file is missing or damaged.
        """
        return frame_of(self.arrow(key, self.days(key) if days is None else days, columns))

    def arrow(self, key: dg.AssetKey, days: Sequence[str], columns: Sequence[str] | None = None) -> list[pa.Table]:
        """The rows of each of ``days`` as they are stored; the same errors as :meth:`read`."""
        if not days:
            raise TableError(f"{key.to_user_string()}: there is nothing to read yet; materialise it first")
        files = self.files.pinned(posixpath.join(*key.path))
        return files.each(lambda day: self._load(files, key, day, columns), days)

    def arrow_schema(self, key: dg.AssetKey, days: Sequence[str], columns: Sequence[str] | None = None) -> pa.Schema:
        """The types that columns (default: all) have if ``days`` are read together; the errors of :meth:`read`."""
        found = []
        for day in days:
            try:
                with self.files.opened(_name(key, day)) as file:
                    there = encryption.schema_of(pq.read_metadata(file))
            except FileNotFoundError as error:
                raise self._missing(key, day) from error
            except (pa.ArrowInvalid, OSError) as error:
                raise self._unreadable(key, day, error) from error
            found.append(pa.schema([one for one in there if columns is None or one.name in columns]))
        return pa.unify_schemas(found, promote_options="permissive").remove_metadata()

    def batches(
        self, key: dg.AssetKey, day: str = WHOLE, columns: Sequence[str] | None = None, rows: int = 262_144
    ) -> Iterator[pd.DataFrame]:
        """Yields the rows of a day in batches of at most ``rows`` rows, so that memory use is bounded.

        Raises :class:`TableError` if the file is missing or damaged.
        """
        with self._parquet(self.files, key, day) as parquet:
            for batch in parquet.batches(rows, columns):
                yield frame_of([batch])

    def write(
        self,
        key: dg.AssetKey,
        frame: pd.DataFrame,
        day: str = WHOLE,
        *,
        code_version: str = "",
        inputs: Inputs | None = None,
        personal: Collection[str] = (),
    ) -> Stamp:
        """Atomically replaces the file of ``day`` with ``frame`` and returns its stamp.

        If the setting ``encrypt`` is on, the file is encrypted, and the columns ``personal`` by a key of their own. The
        data version is that of the rows, so it is the same with and without.

        Raises:
            TableKeyError: the file would be encrypted, and there is no key; the old file stays.
        """
        made = (code_version, inputs or {})
        return self._store(key, day, _table_of(frame), *made, personal, encrypt=in_use.encrypts())

    def _store(
        self, key: dg.AssetKey, day: str, table: pa.Table, code_version: str, inputs: Inputs,
        personal: Collection[str], *, encrypt: bool,
    ) -> Stamp:  # fmt: skip
        encoded, stamp = _encoded(table, lambda digest: Stamp(code_version, digest, inputs, len(table)))
        if encrypt and table.num_columns:
            encoded = self._encrypted(key, day, table, stamp, personal)
        self.files.replace(_name(key, day), encoded)
        return stamp

    def personal_columns(self, key: dg.AssetKey, day: str) -> list[str]:
        """The columns of a day's file that have the key for personal ones; none if it is not encrypted."""
        with self._parquet(self.files, key, day) as parquet:
            return parquet.personal

    def keep_rows(self, key: dg.AssetKey, day: str, kept: np.ndarray) -> Stamp:
        """Atomically replaces a day's file with some of its rows, as they are stored; for erasure.

        The stamp keeps its code version and its inputs, because the rows were made by that code from those inputs.

        Args:
            key: the table.
            day: ISO day, or :data:`WHOLE`.
            kept: whether each row stays, boolean ``[n]``.

        Raises:
            TableError: the file is missing or damaged.
        """
        with self._parquet(self.files, key, day) as parquet:
            rows = parquet.read()
        return self.replace_rows(key, day, rows.filter(pa.array(kept)))

    def replace_rows(self, key: dg.AssetKey, day: str, rows: pa.Table) -> Stamp:
        """Atomically replaces a day's file with rows of the same columns, encrypted as it was; for erasure.

        The stamp keeps its code version and its inputs.

        Raises:
            TableError: the file is missing or damaged.
        """
        stamp = self.existing_stamp(key, day)
        with self._parquet(self.files, key, day) as parquet:
            personal, is_encrypted = parquet.personal, bool(parquet.keys)
        rows = rows.combine_chunks().replace_schema_metadata(None)
        return self._store(
            key, day, rows, stamp.code_version, stamp.inputs, personal, encrypt=is_encrypted or in_use.encrypts()
        )

    def read_bytes(self, key: dg.AssetKey, day: str = WHOLE) -> bytes:
        """A day as the bytes of a Parquet file that is not encrypted. Raises :class:`TableError` if there is none."""
        with self._parquet(self.files, key, day) as parquet:
            if parquet.keys:
                return encode_table(parquet.read(), self.existing_stamp(key, day))
        try:
            return self.files.read(_name(key, day))
        except FileNotFoundError as error:
            raise self._missing(key, day) from error

    def keys_of(self, key: dg.AssetKey, day: str = WHOLE) -> dict[Purpose, str]:
        """The fingerprint of the key of each purpose that a day's file needs; empty if it is not encrypted."""
        with self._footer(key, day) as metadata:
            return encryption.keys_of(metadata)

    def needs_rewriting(self, key: dg.AssetKey, day: str, personal: Collection[str], ring: KeyRing | None) -> bool:
        """Whether a day's file is not as :meth:`rewrite` would leave it. Raises :class:`TableError` if it is damaged.

        Args:
            key: the table.
            day: ISO day, or :data:`WHOLE`.
            personal: its personal columns; those that the file says are added.
            ring: the keys; ``None``: the file should not be encrypted.
        """
        with self._footer(key, day) as metadata:
            return encryption.differs(metadata, personal, ring)

    def rewrite(self, key: dg.AssetKey, day: str, personal: Collection[str], ring: KeyRing | None) -> None:
        """Writes a day's file again with the newest keys, or without any; rows, types and stamp stay as they are.

        A file that another process replaces meanwhile is read again, so that its new rows are kept.

        Raises:
            TableError: there is no such file, it is damaged, or a key is missing. The file stays as it is.
        """
        files, name = self.files, _name(key, day)
        while True:
            before = files.state(name)
            stamp = self.existing_stamp(key, day)
            with self._parquet(files, key, day) as parquet:
                own = {*personal, *parquet.personal}
                table = parquet.read()
            content = encode_table(table, stamp) if ring is None else self._encrypted(key, day, table, stamp, own)
            if files.state(name) == before:
                files.replace(name, content)
                return

    def _encrypted(self, key: dg.AssetKey, day: str, table: pa.Table, stamp: Stamp, personal: Collection[str]) -> bytes:
        try:
            return encryption.encrypted(table, {_STAMP: json.dumps(asdict(stamp))}, in_use.ring(), personal)
        except KeyProblem as error:
            raise TableKeyError(f"{key.to_user_string()} of {day} cannot be encrypted: {error}") from error

    def _load(self, files: TableFiles, key: dg.AssetKey, day: str, columns: Sequence[str] | None = None) -> pa.Table:
        with self._parquet(files, key, day) as parquet:
            return parquet.read(columns, use_threads=parquet.metadata.num_rows > FEW_ROWS)

    @contextlib.contextmanager
    def _footer(self, key: dg.AssetKey, day: str) -> Iterator[pq.FileMetaData]:
        """The readable footer of a day's file; errors are :class:`TableError`."""
        files, name = self.files, _name(key, day)
        state = files.state(name)
        try:
            if state is None:
                raise FileNotFoundError(name)
            yield pq.read_metadata(files.footer(name, state))
        except FileNotFoundError as error:
            raise self._missing(key, day) from error
        except (pa.ArrowInvalid, OSError) as error:
            raise self._unreadable(key, day, error) from error

    @contextlib.contextmanager
    def _parquet(self, files: TableFiles, key: dg.AssetKey, day: str) -> Iterator[encryption.Rows]:
        """A day's file for reading, with its keys if it is encrypted; errors are :class:`TableError`."""
        try:
            with files.opened(_name(key, day)) as file:
                # Reading a single file takes half the time of a dataset, which matters when sixty days are read.
                yield encryption.Rows(file, in_use.ring)
        except FileNotFoundError as error:
            raise self._missing(key, day) from error
        except KeyProblem as error:
            raise TableKeyError(f"{key.to_user_string()} of {day} is encrypted, and {error}") from error
        except (pa.ArrowInvalid, OSError) as error:
            raise self._unreadable(key, day, error) from error

    def _missing(self, key: dg.AssetKey, day: str) -> TableError:
        path = hidden_key(self.path(key, day))
        if self.as_of:
            return TableError(
                f"{key.to_user_string()}: there is no file for {day} as of {self.as_of}, or a vacuum has removed it"
            )
        return TableError(f"{key.to_user_string()}: there is no file for {day} ({path}); materialise that day first")

    def _unreadable(self, key: dg.AssetKey, day: str, error: Exception) -> TableError:
        return TableError(
            f"{self.path(key, day)} is damaged ({str(error).splitlines()[0]}); materialise "
            f"{key.to_user_string()} of {day} again to replace it"
        )

    # -- reports -----------------------------------------------------------------------------------------------------

    def keep_report(self, key: dg.AssetKey, name: str, html: str) -> str:
        """Writes a page beside the files of a table and returns its path or URL.

        Raises:
            TableKeyError: the setting ``encrypt`` is on, and there is no key.
        """
        inside = posixpath.join(*key.path, _REPORTS, f"{name}.html")
        self._keep(inside, html.encode())
        return posixpath.join(self.root, inside)

    def _keep(self, inside: str, content: bytes) -> None:
        if in_use.encrypts():
            with _with_keys(inside):
                content = sealed.seal(content, "tables", in_use.ring())
        self.files.replace(inside, content)

    def report(self, link: str) -> bytes | None:
        """The page at a path or URL that :meth:`keep_report` has returned; ``None`` for any other file.

        Raises:
            TableKeyError: it is encrypted, and its key is missing.
        """
        inside = self._report(link)
        try:
            content = self.files.read(inside) if inside else None
        except FileNotFoundError:
            return None
        if content is None or not sealed.is_sealed(content):
            return content
        with _with_keys(inside or ""):
            return sealed.unseal(content, in_use.ring())

    def has_report(self, link: str) -> bool:
        """Whether there is such a page."""
        inside = self._report(link)
        return inside is not None and self.files.state(inside) is not None

    def reports(self, key: dg.AssetKey) -> list[str]:
        """Paths or URLs of the pages beside the files of a table."""
        folder = posixpath.join(*key.path, _REPORTS)
        return [posixpath.join(self.root, folder, name) for name in self.files.pages(folder) if name.endswith(".html")]

    def key_of_report(self, link: str) -> tuple[Purpose, str] | None:
        """Purpose and fingerprint of the key that encrypts such a page; ``None`` if it is not encrypted or gone."""
        try:
            return sealed.key_of(self.files.read(self._report(link) or "")[: sealed.HEAD])
        except FileNotFoundError:
            return None

    def rewrite_report(self, link: str) -> None:
        """Writes such a page again, as the settings say: with the newest key, or in the clear."""
        content, inside = self.report(link), self._report(link)
        if content is not None and inside:
            self._keep(inside, content)

    def table_of_report(self, link: str) -> str:
        """The table that such a page lies beside, e.g. ``fraud/drift``; empty for any other link."""
        inside = self._report(link)
        return inside.partition(f"/{_REPORTS}/")[0] if inside else ""

    def _report(self, link: str) -> str | None:
        """Name of a page below the root; ``None`` if the link is to anything else."""
        inside = link.removeprefix(self.root.rstrip("/") + "/")
        parts = inside.split("/")
        is_page = inside != link and ".." not in parts and _REPORTS in parts[:-1] and inside.endswith(".html")
        return inside if is_page else None

    # -- the IO manager ----------------------------------------------------------------------------------------------

    def record_inputs(self, step: str, inputs: Inputs) -> None:
        """Adds to the stamp of an unpartitioned table what its step reads by itself, not as an input of the asset.

        Args:
            step: name of the step's op.
            inputs: data versions, taken before the rows are read.
        """
        self._read_by_step[step] = inputs

    def load_input(self, context: dg.InputContext) -> Any:
        """Loads the existing days of the input that the run reads.

        Returns:
            A DataFrame, or :class:`InBatches` if the input's metadata set ``in_batches``.

        Raises:
            TableError: no day exists and the input is not ``optional``, or a file is damaged.
        """
        key = context.asset_key
        days = list(context.asset_partition_keys) if context.has_asset_partitions else [WHOLE]
        metadata = context.definition_metadata or {}
        optional = bool(metadata.get("optional"))
        # Versions are recorded before the rows are read. If another run replaces a file in between, this output counts
        # as stale and is materialised again; a stale output never counts as fresh.
        versions = self.versions(key, days)
        present = [day for day in days if (day == WHOLE and not optional) or day in versions]
        if not present and not optional:
            raise TableError(f"{key.to_user_string()}: there is no file for {_span(days)}; materialise it first")
        window = tuple(metadata.get("window", (0, 0)))
        self._read.setdefault(context.op_def.name, {})[key.to_user_string()] = ((window[0], window[1]), versions)
        if metadata.get("in_batches"):
            return InBatches(self, key, tuple(present))
        return self.read(key, present, metadata.get("columns")) if present else pd.DataFrame()

    def handle_output(self, context: dg.OutputContext, obj: pd.DataFrame) -> None:
        """Writes each day of the run to its own file.

        Raises:
            TableError: the output is not a DataFrame, or its rows cannot be assigned to the days of the run.
        """
        key = context.asset_key
        if not isinstance(obj, pd.DataFrame):
            raise TableError(
                f"{key.to_user_string()} returned {type(obj).__name__}; the asset of a table must return a DataFrame"
            )
        read = self._read.pop(context.op_def.name, {})
        windows = {upstream: window for upstream, (window, _) in read.items()}
        versions = {upstream: found for upstream, (_, found) in read.items()}
        by_step = self._read_by_step.pop(context.op_def.name, {})
        for day, rows in self._split(context, obj):
            self.write(
                key,
                rows,
                day,
                code_version=context.asset_spec.code_version or "",
                inputs={**inputs_of(windows, versions, day), **by_step},
                personal=(context.definition_metadata or {}).get(PERSONAL_COLUMNS, ()),
            )
        where = self.path(key, day if day == WHOLE else "<day>")
        context.add_output_metadata({"path": dg.MetadataValue.path(where)})

    def _split(self, context: dg.OutputContext, frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
        if not context.has_asset_partitions:
            return [(WHOLE, frame)]
        keys = list(context.asset_partition_keys)
        column = (context.definition_metadata or {}).get("day_column")
        if column is None:
            if len(keys) == 1:
                return [(keys[0], frame)]
            raise TableError(
                f"{context.asset_key.to_user_string()}: a run of {len(keys)} days needs the definition metadata "
                "'day_column' to assign the rows to days"
            )
        # There are few days and many rows, so each day is formatted only once.
        day = pd.to_datetime(frame[column]).dt.floor("D")
        if missing := int(day.isna().sum()):
            raise TableError(
                f"{context.asset_key.to_user_string()}: {missing} rows have no '{column}', so their day is unknown"
            )
        names = {of_day: str(of_day.date()) for of_day in day.unique()}
        if stray := sorted(set(names.values()) - set(keys)):
            raise TableError(
                f"{context.asset_key.to_user_string()}: the run of {keys[0]}…{keys[-1]} returned rows of {stray[:3]}"
            )
        if len(names) == 1:
            return [(key, frame if key in names.values() else frame.iloc[:0]) for key in keys]
        groups = {names[of_day]: rows for of_day, rows in frame.groupby(day, sort=False)}
        return [(key, groups.get(key, frame.iloc[:0])) for key in keys]


@dataclass(frozen=True)
class InBatches:
    """An input that is read in batches; ``days`` are its existing days."""

    tables: ParquetTables
    key: dg.AssetKey
    days: tuple[str, ...]

    def batches(self, day: str, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """The rows of one day in batches; empty if the day does not exist."""
        return self.tables.batches(self.key, day, columns) if day in self.days else iter(())

    def read(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The rows of all days; without any day, an empty frame."""
        return self.tables.read(self.key, self.days, columns) if self.days else pd.DataFrame()

    def arrow(self, day: str, columns: Sequence[str]) -> pa.Table:
        """The rows of a day as they are stored."""
        return self.tables.arrow(self.key, [day], columns)[0]

    def schema(self, columns: Sequence[str] | None = None) -> pa.Schema:
        """The types that columns (default: all) have if all days are read together."""
        return self.tables.arrow_schema(self.key, self.days, columns)

    def read_as(self, schema: pa.Schema, day: str) -> pd.DataFrame:
        """The rows of one day with the columns of :meth:`schema`; one that the day lacks is missing in all rows."""
        return frame_of([schema.empty_table(), self.tables.arrow(self.key, [day])[0]])[schema.names]

    def rows(self, day: str) -> int:
        """Number of rows of a day; 0 if the day does not exist."""
        stamp = self.tables.stamp(self.key, day) if day in self.days else None
        return stamp.rows if stamp else 0


def encode(frame: pd.DataFrame, *, code_version: str = "", inputs: Inputs | None = None) -> tuple[bytes, Stamp]:
    """Encodes rows as a Parquet file with its stamp. Identical rows give an identical data version.

    Returns:
        The bytes of the file, and its stamp.
    """
    table = _table_of(frame)
    return _encoded(table, lambda digest: Stamp(code_version, digest, inputs or {}, len(table)))


def encode_table(table: pa.Table, stamp: Stamp) -> bytes:
    """Encodes rows that were read from a file as they were before that file was encrypted, with their stamp."""
    return _encoded(table.combine_chunks().replace_schema_metadata(None), lambda _: stamp)[0]


def _table_of(frame: pd.DataFrame) -> pa.Table:
    table = pa.Table.from_pandas(frame, preserve_index=False).combine_chunks()
    # Drop pandas' metadata, which includes versions, so that identical rows give identical bytes.
    return table.replace_schema_metadata(None)


def _encoded(table: pa.Table, stamp_of: Callable[[str], Stamp]) -> tuple[bytes, Stamp]:
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        writer.write_table(table)
        # The footer with the types is not written yet, so the schema is hashed separately.
        digest = hashlib.blake2b(str(table.schema).encode(), digest_size=8)
        digest.update(sink.getbuffer())
        stamp = stamp_of(digest.hexdigest())
        writer.add_key_value_metadata({_STAMP: json.dumps(asdict(stamp))})
    return sink.getvalue(), stamp


_TYPES = {
    "large_string": "string",
    "timestamp[ns]": "timestamp",
    "timestamp[us]": "timestamp",
    "timestamp[ms]": "timestamp",
    "double": "float64",
}
"""Names of types for people, where Arrow's say how they are stored."""

_REPORTS = "reports"
"""Folder of a table's pages."""


@contextlib.contextmanager
def _with_keys(page: str) -> Iterator[None]:
    try:
        yield
    except KeyProblem as error:
        raise TableKeyError(f"{page} is encrypted, and {error}") from error


def _name(key: dg.AssetKey, day: str) -> str:
    """Name of a day's file below the root."""
    return posixpath.join(*key.path, f"{day}.parquet")


@functools.lru_cache(maxsize=10_000)
def _stamp_of_file(files: TableFiles, name: str, state: FileState) -> Stamp:
    """The stamp of a file, cached by its state; a file that was replaced has another one."""
    return Stamp(**json.loads((pq.read_metadata(files.footer(name, state)).metadata or {})[_STAMP]))


def _span(days: Sequence[str]) -> str:
    return days[0] if len(days) == 1 else f"{days[0]} … {days[-1]}"


def frame_of(tables: Sequence[pa.Table]) -> pd.DataFrame:
    """Joins Arrow tables to one DataFrame. Text stays Arrow-backed: a tenth of the memory of Python strings.

    If a day lacks a column, its values are missing on that day; the caller interprets them.
    """
    text = pd.StringDtype("pyarrow")
    # Concatenating tables without columns would lose their row count.
    table = tables[0] if len(tables) == 1 else pa.concat_tables(tables, promote_options="permissive")
    return table.to_pandas(types_mapper={pa.string(): text, pa.large_string(): text}.get)

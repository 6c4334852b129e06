"""Tables as day-partitioned Parquet files, and the IO manager through which assets read and write them.

Belongs here: paths, atomic writes, stamps (code version, data version, versions of the inputs), clear errors for files
that cannot be read. Does not belong here: what is in a table. Layout: ``<root>/<model>/<asset>/<day>.parquet``, and
``all.parquet`` for a table without days.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, PrivateAttr

WHOLE = "all"
"""Stands for the day of a table without days."""

FEW_ROWS = 100_000
"""A file of so many rows is read faster by one thread than by several."""

_STAMP = b"assetline"

Window = tuple[int, int]
"""First and last day, relative to the output's day, that an output reads of an input."""

Inputs = dict[str, dict[str, str]]
"""Data versions by upstream table and day."""


class TableError(Exception):
    """A table that cannot be read or written; the message names the file and the mend."""


@dataclass(frozen=True)
class Stamp:
    """What a file says of itself, kept in its Parquet footer, so that it can never part from the rows.

    ``data_version`` is a hash of the rows as encoded, ``inputs`` the data versions that were read to make them,
    ``code_version`` that of the asset: together they tell whether making the file again could change it.
    """

    code_version: str
    data_version: str
    inputs: Inputs
    rows: int


def inputs_of(windows: Mapping[str, Window], versions: Mapping[str, Mapping[str, str]], day: str) -> Inputs:
    """The data versions that ``day``'s output reads.

    Args:
        windows: by upstream table, the window of days read of it.
        versions: by upstream table, the data version of each day that exists.
        day: ISO day, or :data:`WHOLE`.
    """
    found: Inputs = {}
    for upstream, window in sorted(windows.items()):
        there = versions.get(upstream, {})
        days = [WHOLE] if WHOLE in there else days_of_window(day, window)
        found[upstream] = {d: there[d] for d in days if d in there}
    return found


def days_of_window(day: str, window: Window) -> list[str]:
    """ISO days from ``day + window[0]`` to ``day + window[1]``."""
    if day == WHOLE:
        return [WHOLE]
    origin = pd.Timestamp(day)
    return [str((origin + pd.Timedelta(days=n)).date()) for n in range(window[0], window[1] + 1)]


class ParquetTables(dg.ConfigurableIOManager):
    """Reads and writes tables under one root, local or on any file system that fsspec knows.

    An asset returns one DataFrame. With days, its rows are split by the column that the asset's definition metadata
    names as ``day_column``, one file for each day of the run. An input says with the metadata ``window`` which days of
    it one output day reads, with ``columns`` which columns, and with ``optional`` that there may be no day. A write
    replaces a file in one step: a killed run leaves the old file or the new one.
    """

    root: str = Field(description="Folder or URL (any fsspec scheme) under which all tables lie.")

    _read: dict[str, dict[str, tuple[Window, dict[str, str]]]] = PrivateAttr(default_factory=dict)

    # -- files -------------------------------------------------------------------------------------------------------

    def path(self, key: dg.AssetKey, day: str = WHOLE) -> str:
        """Path or URL of one file of a table."""
        return posixpath.join(self.root, *key.path, f"{day}.parquet")

    def days(self, key: dg.AssetKey) -> list[str]:
        """ISO days there are files of, in order; ``[WHOLE]`` for a table without days."""
        fs, folder = self._fs(posixpath.join(self.root, *key.path))
        if not fs.exists(folder):
            return []
        names = (posixpath.basename(p) for p in fs.ls(folder, detail=False, refresh=True))
        return sorted(n.removesuffix(".parquet") for n in names if n.endswith(".parquet") and not n.startswith("."))

    def stamp(self, key: dg.AssetKey, day: str = WHOLE) -> Stamp | None:
        """What the file of ``day`` says of itself; ``None`` where there is no file."""
        fs, path = self._fs(self.path(key, day))
        try:
            if _is_local(fs):
                found = os.stat(path)
                return _stamp_of_file(path, found.st_mtime_ns, found.st_size, found.st_ino)
            with fs.open(path, "rb") as file:
                return _stamp_in(file)
        except FileNotFoundError:
            return None
        except (pa.ArrowInvalid, KeyError) as error:
            raise self._unreadable(key, day, error) from error

    def versions(self, key: dg.AssetKey, days: Iterable[str] | None = None) -> dict[str, str]:
        """Data version of each of ``days`` (default: all) that there is a file of."""
        stamps = {day: self.stamp(key, day) for day in (self.days(key) if days is None else days)}
        return {day: stamp.data_version for day, stamp in stamps.items() if stamp}

    def read(
        self, key: dg.AssetKey, days: Sequence[str] | None = None, columns: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """Rows of ``days`` (default: all there are), in the order of the days.

        Raises :class:`TableError` when one of them is absent or damaged.
        """
        wanted = self.days(key) if days is None else days
        if not wanted:
            raise TableError(f"{key.to_user_string()}: there is nothing to read yet; materialise it first")
        return _frame([self._load(key, day, columns) for day in wanted])

    def batches(
        self, key: dg.AssetKey, day: str = WHOLE, columns: Sequence[str] | None = None, rows: int = 262_144
    ) -> Iterator[pd.DataFrame]:
        """The rows of a day, at most ``rows`` at a time: memory does not grow with the day.

        Raises :class:`TableError` when the file is absent or damaged.
        """
        fs, path = self._fs(self.path(key, day))
        try:
            with fs.open(path, "rb") as file:
                wanted = list(columns) if columns is not None else None
                for batch in pq.ParquetFile(file, pre_buffer=False).iter_batches(rows, columns=wanted):
                    yield _frame([pa.Table.from_batches([batch])])
        except FileNotFoundError as error:
            raise TableError(
                f"{key.to_user_string()}: there is no file of {day} ({path}); materialise that day of it first"
            ) from error
        except (pa.ArrowInvalid, OSError) as error:
            raise self._unreadable(key, day, error) from error

    def write(
        self,
        key: dg.AssetKey,
        frame: pd.DataFrame,
        day: str = WHOLE,
        *,
        code_version: str = "",
        inputs: Inputs | None = None,
    ) -> Stamp:
        """Replaces the file of ``day`` with ``frame`` in one step and returns its stamp."""
        table = pa.Table.from_pandas(frame, preserve_index=False).combine_chunks()
        # The schema carries pandas' own metadata, versions included: identical rows shall be identical bytes.
        table = table.replace_schema_metadata(None)
        sink = io.BytesIO()
        with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
            writer.write_table(table)
            digest = hashlib.blake2b(str(table.schema).encode(), digest_size=8)  # types are in the footer, yet to come
            digest.update(sink.getbuffer())
            version = digest.hexdigest()
            stamp = Stamp(code_version, version, inputs or {}, table.num_rows)
            writer.add_key_value_metadata({_STAMP: json.dumps(asdict(stamp))})
        fs, path = self._fs(self.path(key, day))
        fs.makedirs(posixpath.dirname(path), exist_ok=True)
        if _is_local(fs):
            # Rename is atomic on a local file system. Two writers never share a temporary name.
            scratch = posixpath.join(posixpath.dirname(path), f".{day}.{os.getpid()}.tmp")
            with open(scratch, "wb") as file:
                file.write(sink.getbuffer())
            os.replace(scratch, path)
        else:
            fs.pipe_file(path, sink.getvalue())  # object stores show a whole object or none
        return stamp

    def _load(self, key: dg.AssetKey, day: str, columns: Sequence[str] | None = None) -> pa.Table:
        fs, path = self._fs(self.path(key, day))
        try:
            with fs.open(path, "rb") as file:
                # A file of its own, not a dataset of one: half the time, which counts where sixty days are read.
                parquet = pq.ParquetFile(file, pre_buffer=False)
                wanted = list(columns) if columns is not None else None
                return parquet.read(wanted, use_threads=parquet.metadata.num_rows > FEW_ROWS)
        except FileNotFoundError as error:
            raise TableError(
                f"{key.to_user_string()}: there is no file of {day} ({path}); materialise that day of it first"
            ) from error
        except (pa.ArrowInvalid, OSError) as error:
            raise self._unreadable(key, day, error) from error

    def _unreadable(self, key: dg.AssetKey, day: str, error: Exception) -> TableError:
        return TableError(
            f"{self.path(key, day)} is damaged ({str(error).splitlines()[0]}); materialise "
            f"{key.to_user_string()} of {day} again to replace it"
        )

    def _fs(self, path: str) -> tuple[Any, str]:
        import fsspec

        return fsspec.core.url_to_fs(path)

    # -- the IO manager ----------------------------------------------------------------------------------------------

    def load_input(self, context: dg.InputContext) -> Any:
        """The upstream rows that the run's days read, those days of the window that exist: a DataFrame, or
        :class:`InBatches` where the input's metadata say ``in_batches``."""
        key = context.asset_key
        days = list(context.asset_partition_keys) if context.has_asset_partitions else [WHOLE]
        present = [day for day in days if day == WHOLE or self.stamp(key, day)]
        metadata = context.definition_metadata or {}
        if not present and not metadata.get("optional"):
            raise TableError(f"{key.to_user_string()}: there is no file of {_span(days)}; materialise it first")
        window = tuple(metadata.get("window", (0, 0)))
        # Versions are noted before the rows are read: if another run replaces a file in between, this output counts
        # as stale and is made again, never the other way round.
        versions = self.versions(key, present)
        self._read.setdefault(context.op_def.name, {})[key.to_user_string()] = ((window[0], window[1]), versions)
        if metadata.get("in_batches"):
            return InBatches(self, key, tuple(present))
        return self.read(key, present, metadata.get("columns")) if present else pd.DataFrame()

    def handle_output(self, context: dg.OutputContext, obj: pd.DataFrame) -> None:
        """Writes the run's days, each into its own file."""
        key = context.asset_key
        if not isinstance(obj, pd.DataFrame):
            raise TableError(
                f"{key.to_user_string()} returned {type(obj).__name__}; a table's asset returns a DataFrame"
            )
        read = self._read.pop(context.op_def.name, {})
        windows = {upstream: window for upstream, (window, _) in read.items()}
        versions = {upstream: found for upstream, (_, found) in read.items()}
        for day, rows in self._split(context, obj):
            self.write(
                key,
                rows,
                day,
                code_version=context.asset_spec.code_version or "",
                inputs=inputs_of(windows, versions, day),
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
                "'day_column' to know which row belongs to which day"
            )
        # Few days, many rows: each day is named once.
        day = pd.to_datetime(frame[column]).dt.floor("D")
        if missing := int(day.isna().sum()):
            raise TableError(
                f"{context.asset_key.to_user_string()}: {missing} rows have no '{column}': no day is theirs"
            )
        names = {of_day: str(of_day.date()) for of_day in day.unique()}
        if stray := sorted(set(names.values()) - set(keys)):
            raise TableError(
                f"{context.asset_key.to_user_string()}: rows of {stray[:3]} in a run of {keys[0]}…{keys[-1]}"
            )
        if len(names) == 1:
            return [(key, frame if key in names.values() else frame.iloc[:0]) for key in keys]
        groups = {names[of_day]: rows for of_day, rows in frame.groupby(day, sort=False)}
        return [(key, groups.get(key, frame.iloc[:0])) for key in keys]


@dataclass(frozen=True)
class InBatches:
    """An input that is read a batch at a time: the days of it that there are."""

    tables: ParquetTables
    key: dg.AssetKey
    days: tuple[str, ...]

    def of(self, day: str, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
        """The rows of one day, in batches; none where there is no such day."""
        return self.tables.batches(self.key, day, columns) if day in self.days else iter(())

    def rows(self, day: str) -> int:
        """How many rows a day has; 0 where there is no such day."""
        stamp = self.tables.stamp(self.key, day) if day in self.days else None
        return stamp.rows if stamp else 0


def _is_local(fs: Any) -> bool:
    return "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))


def _stamp_in(file: Any) -> Stamp:
    return Stamp(**json.loads((pq.read_metadata(file).metadata or {})[_STAMP]))


@functools.lru_cache(maxsize=10_000)
def _stamp_of_file(path: str, _modified_ns: int, _size: int, _inode: int) -> Stamp:
    """The stamp of a local file in that state: a file is replaced as a whole, so it gets another inode."""
    with open(path, "rb") as file:
        return _stamp_in(file)


def _span(days: Sequence[str]) -> str:
    return days[0] if len(days) == 1 else f"{days[0]} … {days[-1]}"


def _frame(tables: Sequence[pa.Table]) -> pd.DataFrame:
    """One DataFrame; text stays Arrow-backed, at a tenth of the memory of Python strings.

    A column that a day lacks is missing on that day: whoever reads it knows what that means, and which day it is.
    """
    text = pd.StringDtype("pyarrow")
    # Joined, tables without any column would have no rows either.
    table = tables[0] if len(tables) == 1 else pa.concat_tables(tables, promote_options="permissive")
    return table.to_pandas(types_mapper={pa.string(): text, pa.large_string(): text}.get)

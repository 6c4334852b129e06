"""SQL over the rows of the tables: one SELECT, answered by DuckDB from the Parquet files.

Belongs here: the views, the sandbox (read-only, no other files, limits of time, rows and memory), the wording of SQL
errors. Does not belong here: SQL over the facts of versions, runs and alerts (``query.py``), the files themselves
(``resources/tables.py``).

There is one view for each table, ``<model>.<asset>``, over all of its days; ``assetline.files`` has the stamps, and
``assetline.versions`` the versions of tables that have some. Only the views that the query names are set up, because a
view over a hundred days opens a hundred files.

DuckDB reads files of this machine. The days of a bucket are fetched first, sixteen at a time and each by one request,
into a folder that keeps them until they are replaced. DuckDB could read the bucket by itself, through its own extension
(which it would download, and which would need keys of its own) or through fsspec. But it reads the footers of the days
and the columns one after the other: at 30 ms for a request, to set up a view over 170 days took it 40 s, and to fetch
all of them took 5 s.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import difflib
import hashlib
import json
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq

from metadata.query import QueryError, Result, distinct
from resources.access import Access, AccessDenied
from resources.encryption import in_use, parquet
from resources.keys import KeyProblem, MissingKeyError
from resources.tables import ParquetTables, TableError, TableKeyError

if TYPE_CHECKING:
    import duckdb

MOST_ROWS = 1_000_000
"""Maximum number of rows that a query returns."""
MOST_SECONDS = 60.0
"""Time after which a query is stopped; fetching days from a bucket does not count."""
MEMORY = "2GB"
"""Memory that DuckDB may use; it may not write to disk instead."""
_KEPT_S = 24 * 3600
_WRITES_NOTHING = "a query is one SELECT on the tables"


@dataclass(frozen=True, kw_only=True)
class FileRow:
    """One row per day of each table, from the stamps of the files."""

    table_name: Annotated[str, "table, e.g. fraud.payments"]
    day: Annotated[str, "ISO day, or all for a table without days"]
    rows: Annotated[int, "number of rows"]
    data_version: Annotated[str, "hash of the rows"]
    code_version: Annotated[str, "version of the asset's code that wrote it"]
    bytes: Annotated[int, "size of the file"]
    written_at: Annotated[dt.datetime, "time at which the file was written, UTC"]


@dataclass(frozen=True, kw_only=True)
class VersionRow:
    """One row per version of each table, where tables have versions."""

    table_name: Annotated[str, "table, e.g. fraud.payments"]
    version: Annotated[int, "number of the version"]
    committed_at: Annotated[dt.datetime, "time of its commit, UTC"]
    day: Annotated[str, "day that it replaced or removed; empty for a commit of another program"]
    rows: Annotated[int | None, "number of rows of that day; empty if it was removed"]
    data_version: Annotated[str, "hash of the rows of that day"]


_SQL_TYPES: Mapping[Any, str] = {str: "VARCHAR", int: "BIGINT", int | None: "BIGINT", dt.datetime: "TIMESTAMP"}


def name_of(table: str) -> str:
    """The name of a table in SQL, e.g. ``fraud.payments`` of ``fraud/payments``, and ``main.x`` of ``x``."""
    schema, _, name = table.rpartition("/")
    return f"{schema.replace('/', '_') or 'main'}.{name}"


def files_of_tables(tables: ParquetTables) -> list[FileRow]:
    """The rows of the view ``assetline.files``. Raises :class:`~resources.tables.TableError` for a damaged file."""
    rows = []
    for table in tables.names():
        key = dg.AssetKey(table.split("/"))
        states, stamps = tables.states(key), tables.stamps(key)
        rows += [
            FileRow(
                table_name=name_of(table), day=day, rows=stamp.rows, data_version=stamp.data_version,
                code_version=stamp.code_version, bytes=states[day].size,
                written_at=states[day].written_at.replace(tzinfo=None),
            )
            for day, stamp in stamps.items()
            if day in states
        ]  # fmt: skip
    return rows


def versions_of_tables(tables: ParquetTables) -> list[VersionRow]:
    """The rows of the view ``assetline.versions``; none if the tables have no versions."""
    return [
        VersionRow(
            table_name=name_of(table), version=one.version, committed_at=one.at.replace(tzinfo=None), day=one.day,
            rows=one.rows, data_version=one.data_version,
        )
        for table in tables.names()
        for one in tables.history(dg.AssetKey(table.split("/")))
    ]  # fmt: skip


OWN_VIEWS: Mapping[str, tuple[type[Any], Callable[[ParquetTables], list[Any]]]] = {
    "assetline.files": (FileRow, files_of_tables),
    "assetline.versions": (VersionRow, versions_of_tables),
}
"""Views about the files: the type of the rows, and what reads them."""


def ask(
    tables: ParquetTables, sql: str, *, cache: Path, limit: int = 1_000, seconds: float = MOST_SECONDS,
    reading: Callable[[list[str]], None] = lambda names: None, access: Access | None = None,
) -> Result:  # fmt: skip
    """Answers one SELECT on the tables.

    Args:
        tables: the tables.
        sql: the SELECT, in DuckDB's dialect.
        cache: folder for the days of a bucket; for tables in a folder it is not used.
        limit: maximum number of rows, at most :data:`MOST_ROWS`.
        seconds: time after which the query is stopped.
        reading: called with the names of the tables before a row of them is read, e.g. for the audit log.
        access: what the person who asks may see; ``None``: everything.

    Raises:
        AccessDenied: the query names a table or a column that is kept from that person.
        QueryError: it is not one SELECT, it is wrong, it takes too long, or DuckDB is not installed.
        TableError: a table cannot be read.
    """
    limit = max(1, min(limit, MOST_ROWS))
    with contextlib.closing(_database()) as connection:
        named = _tables_in(connection, sql)
        there = {name_of(table).lower(): table for table in tables.names()}
        for name in sorted(named & set(there)):
            if access is not None:
                access.require_table(there[name])
        there = {name: table for name, table in there.items() if access is None or access.sees(table)}
        allowed: list[str] = []
        kept: dict[str, Exception] = {}
        reading(sorted(name for name in named if name in there or name in OWN_VIEWS))
        for name in sorted(named):
            if name in there:
                allowed += _create_view(connection, tables, there[name], cache, access, kept)
            elif name in OWN_VIEWS:
                row, read = OWN_VIEWS[name]
                _load(connection, name, row, [one for one in read(tables) if one.table_name.lower() in there])
            elif name.startswith("main."):
                continue  # a name of the query itself, or one that DuckDB does not find
            elif name.partition(".")[0] not in ("information_schema", "pg_catalog"):
                raise QueryError(_unknown(name, list(there)))
        connection.execute("SET allowed_paths = ?", [allowed])
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        with _stopped_after(connection, seconds):
            try:
                relation = connection.sql(sql)
                columns = distinct(relation.columns)
                rows = relation.limit(limit + 1).fetchall()
            except Exception as error:
                for column, reason in kept.items():
                    if re.search(rf"\W{re.escape(column)}\W", f" {_first_line(error)} ", re.IGNORECASE):
                        raise reason from error
                raise _in_words(error, seconds, list(there)) from error
    return Result(columns, [tuple(map(_plain, row)) for row in rows[:limit]], len(rows) > limit)


def _database() -> duckdb.DuckDBPyConnection:
    """A database in memory that installs nothing and writes nothing to disk."""
    try:
        import duckdb
    except ImportError as error:
        raise QueryError("SQL over the tables needs DuckDB; pip install 'assetline[stores]'") from error
    return duckdb.connect(
        config={
            "autoinstall_known_extensions": False, "autoload_known_extensions": False,
            "memory_limit": MEMORY, "temp_directory": "",
        }
    )  # fmt: skip


def _tables_in(connection: duckdb.DuckDBPyConnection, sql: str) -> set[str]:
    """The tables that a query names, with schema, in lower case, found by DuckDB's own parser; it reads nothing.

    Raises:
        QueryError: the query is empty, wrong, or anything but one SELECT.
    """
    if not sql.strip():
        raise QueryError(f"the query is empty; {_WRITES_NOTHING}")
    try:
        statements = connection.extract_statements(sql)
    except Exception as error:
        raise _in_words(error, MOST_SECONDS, []) from error
    if len(statements) != 1 or statements[0].type.name != "SELECT":
        raise QueryError(f"{_WRITES_NOTHING}; nothing else is allowed")
    [[text]] = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()
    parsed = json.loads(text)
    if parsed.get("error"):
        raise QueryError(f"{_WRITES_NOTHING}: {parsed.get('error_message', 'it cannot be parsed')}")
    return {f"{one['schema_name'] or 'main'}.{one['table_name']}".lower() for one in _walk(parsed)}


def _walk(node: Any) -> Iterator[dict[str, Any]]:
    """All objects of a syntax tree that name a table."""
    if isinstance(node, dict):
        if "table_name" in node and "schema_name" in node:
            yield node
        for value in node.values():
            yield from _walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from _walk(value)


def _create_view(
    connection: duckdb.DuckDBPyConnection, tables: ParquetTables, table: str, cache: Path, access: Access | None,
    kept: dict[str, Exception],
) -> list[str]:  # fmt: skip
    """Creates the view of a table and returns the files that DuckDB itself may read.

    Columns that the person may not see, and those whose key is missing, are not in the view; they are added to
    ``kept``, with what to raise if the query names them. DuckDB cannot read an encrypted file, and could read a column
    that the view leaves out by ``read_parquet``, so Arrow reads such tables for it.
    """
    paths = _local_paths(tables, table, cache)
    schema, name = name_of(table).split(".", 1)
    connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
    try:
        footers = [pq.read_metadata(path) for path in paths]
        columns = pa.unify_schemas([parquet.schema_of(footer) for footer in footers], promote_options="permissive")
        hidden = access.hidden_among(table, columns.names) if access is not None else []
        for column in hidden:
            kept[column] = AccessDenied(
                f"{access.name if access else ''} may not see {column} of {name_of(table)}; an admin can change that"
            )
        missing = _columns_without_key(table, footers, columns.names)
        kept |= missing
        if not hidden and not any(map(parquet.keys_of, footers)):
            listed = ", ".join("'" + path.replace("'", "''") + "'" for path in paths)
            connection.execute(
                f'CREATE VIEW "{schema}"."{name}" AS SELECT * FROM read_parquet([{listed}], union_by_name = true)'
            )
            return paths
        shown = pa.schema([column for column in columns if column.name not in {*hidden, *missing}])
        if not len(shown):
            raise next(iter(kept.values()))
        _register(connection, schema, name, paths, footers, shown, into_memory=bool(missing))
    except (AccessDenied, TableError):
        raise
    except KeyProblem as error:
        raise TableKeyError(f"{name_of(table)} is encrypted, and {error}") from error
    except Exception as error:
        raise QueryError(f"{name_of(table)} cannot be read: {_first_line(error)}") from error
    return []


def _register(
    connection: duckdb.DuckDBPyConnection, schema: str, name: str, paths: Sequence[str],
    footers: Sequence[pq.FileMetaData], shown: pa.Schema, *, into_memory: bool,
) -> None:  # fmt: skip
    """Creates a view over files that Arrow reads.

    ``into_memory`` reads the rows at once. Arrow's datasets ask for the keys of columns that no query names, so without
    one of the keys there is no other way.
    """
    parts: dict[str, Any] = {}
    if into_memory:
        tables = []
        for path, footer in zip(paths, footers, strict=True):
            there = [column for column in shown.names if column in parquet.schema_of(footer).names]
            with open(path, "rb") as file:
                tables.append(parquet.Rows(file, in_use.ring).read(there))
        parts[f"{schema}.{name} in memory"] = pa.concat_tables(
            [shown.empty_table(), *tables], promote_options="permissive"
        )
    else:
        ring = in_use.ring()
        for is_encrypted in (True, False):
            both = zip(paths, footers, strict=True)
            if of_kind := [path for path, found in both if bool(parquet.keys_of(found)) == is_encrypted]:
                stored = parquet.stored_names(shown, is_encrypted=is_encrypted)
                parts[f"{schema}.{name} by Arrow, {is_encrypted}"] = parquet.dataset(of_kind, ring, stored)
    for part, rows in parts.items():
        connection.register(part, rows)
    # The n-th column of each part is the n-th of the view, whatever the files call it.
    names = ", ".join(_quoted(column) for column in shown.names)
    union = " UNION ALL ".join(f"SELECT * FROM {_quoted(part)}" for part in parts)
    connection.execute(f"CREATE VIEW {_quoted(schema)}.{_quoted(name)} ({names}) AS {union}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _columns_without_key(
    table: str, footers: Sequence[pq.FileMetaData], columns: Sequence[str]
) -> dict[str, Exception]:
    """Personal columns whose key is missing, with the error to raise.

    Raises:
        KeyProblem: the key of the other columns is missing.
    """
    found: dict[str, Exception] = {}
    for footer in footers:
        for purpose, fingerprint in parquet.keys_of(footer).items():
            try:
                in_use.ring().key(purpose, fingerprint)
            except MissingKeyError as error:
                own = parquet.personal_columns_of(footer)
                if purpose != "personal" or "tables" not in parquet.keys_of(footer):
                    raise
                reason = TableKeyError(f"{', '.join(own)} of {name_of(table)} need a key of their own, and {error}")
                found |= {column: reason for column in own if column in columns}
    return found


def _local_paths(tables: ParquetTables, table: str, cache: Path) -> list[str]:
    """Paths of all days of a table on this machine; days of a bucket are fetched unless they were before."""
    files = tables.files.pinned(table)
    states = {name: state for name, state in sorted(files.states(table).items()) if name.endswith(".parquet")}
    here = [files.local_path(f"{table}/{name}", state) for name, state in states.items()]
    if None not in here:
        return [str(path) for path in here]
    folder = cache / hashlib.blake2b(tables.root.encode(), digest_size=8).hexdigest() / table
    folder.mkdir(parents=True, exist_ok=True)
    paths = {
        name: folder / f"{name}.{hashlib.blake2b(state.token.encode(), digest_size=8).hexdigest()}"
        for name, state in states.items()
    }

    def fetch(name: str) -> None:
        scratch = folder / f".{name}.{os.getpid()}.tmp"
        scratch.write_bytes(files.read(f"{table}/{name}"))
        os.replace(scratch, paths[name])

    files.each(fetch, [name for name, path in paths.items() if not path.exists()])
    for path in set(folder.iterdir()) - set(paths.values()):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - _KEPT_S:  # another query may still read a younger one
                path.unlink()
    return [str(path) for path in paths.values()]


def _load(connection: duckdb.DuckDBPyConnection, view: str, row_type: type[Any], rows: Sequence[Any]) -> None:
    names = [column.name for column in fields(row_type)]
    hints = get_type_hints(row_type)
    columns = ", ".join(f'"{name}" {_SQL_TYPES[hints[name]]}' for name in names)
    connection.execute("CREATE SCHEMA IF NOT EXISTS assetline")
    connection.execute(f"CREATE TABLE {view} ({columns})")
    if rows:
        marks = ", ".join("?" * len(names))
        values = [[getattr(row, name) for name in names] for row in rows]
        connection.executemany(f"INSERT INTO {view} VALUES ({marks})", values)


def meaning_of_view(view: str) -> str:
    """What a row of one of :data:`OWN_VIEWS` is, as a sentence."""
    return str(OWN_VIEWS[view][0].__doc__)


def meanings_of(view: str) -> dict[str, str]:
    """The meaning of each column of one of :data:`OWN_VIEWS`."""
    row, _ = OWN_VIEWS[view]
    hints = get_type_hints(row, include_extras=True)
    return {column.name: str(get_args(hints[column.name])[1]) for column in fields(row)}


@contextlib.contextmanager
def _stopped_after(connection: duckdb.DuckDBPyConnection, seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _plain(value: Any) -> Any:
    """A value as JSON and text have it: numbers, text, truth values and lists stay; NaN is missing."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    return value.hex() if isinstance(value, bytes) else str(value)


def _unknown(name: str, there: Sequence[str]) -> str:
    known = [*sorted(there), *OWN_VIEWS]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    mend = f"did you mean {close[0]}?" if close else f"the tables are: {', '.join(known)}"
    return f"there is no table {name} ({mend})" if close else f"there is no table {name}; {mend}"


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line]
    return re.sub(r"^[A-Za-z ]*Error: ", "", lines[0]) if lines else type(error).__name__


def _in_words(error: Exception, seconds: float, there: Sequence[str]) -> QueryError:
    said = _first_line(error)
    kind = type(error).__name__
    if kind == "InterruptException":
        return QueryError(f"the query was stopped after {seconds:g} s; ask for fewer days or columns, or use --seconds")
    if kind == "OutOfMemoryException":
        return QueryError(f"the query needs more than {MEMORY} of memory; ask for fewer rows, or aggregate them")
    if kind == "PermissionException":
        return QueryError(f"{_WRITES_NOTHING}; files and extensions are out of reach")
    if found := re.match(r"Table with name (\S+) does not exist", said):
        return QueryError(_unknown(found[1], there))
    candidates = next((line for line in str(error).splitlines() if line.startswith("Candidate bindings")), "")
    return QueryError(f"the query is wrong: {said.rstrip('!')}{'; ' + candidates if candidates else ''}")

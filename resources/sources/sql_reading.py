"""A read-only transaction on a SQL database: opening it, its tables and clock, and rows in chunks.

Belongs here: what PostgreSQL, MySQL/MariaDB, SQLite and DuckDB do differently. Does not belong here: which rows a
source wants (``sql.py``), values as text (``sql_values.py``), the meaning of errors (``sql_errors.py``).

One transaction sees one state of the database, so rows that are written while it reads are seen either in all of its
statements or in none.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import difflib
import importlib.util
import os
import re
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import sqlalchemy as sa

from resources.settings import project_root
from resources.sources.base import SourceError, SourceUnavailable, hidden

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 10_000
"""Rows that are fetched, and exist as Python values, at a time."""
SPARE_S = 5
"""Seconds after the statement timeout, after which a connection that says nothing is cut from our side."""
LISTED = 30
"""Maximum number of tables or columns that an error lists."""
DATABASES = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql", "sqlite": "", "duckdb": "duckdb_engine"}
"""Databases, with the module of the driver that is used where the URL names none."""
_SECRET_OPTION = re.compile(r"pass(word|wd|phrase)?$|pwd$|secret|token", re.I)
"""Names of options in a URL whose values are secret."""


class Database:
    """One read-only transaction. Made by :func:`reading`."""

    def __init__(self, connection: sa.Connection, where: str, clock: tuple[dt.datetime, dt.datetime], watch: Watch):
        self.connection, self.where, self._watch = connection, where, watch
        self.clock, self.local_clock = clock
        """The database's clock, UTC, and the same in the time zone that its sessions have by default; both naive."""

    @property
    def dialect(self) -> str:
        """``postgresql``, ``mysql``, ``mariadb``, ``sqlite`` or ``duckdb``."""
        return self.connection.dialect.name

    def table(self, name: str) -> sa.Table:
        """The table or view ``name``, perhaps with its schema in front, as the database describes it.

        Raises:
            SourceError: there is none. The message lists similar names.
        """
        schema, _, plain = name.rpartition(".")
        if self.dialect == "duckdb":
            return self._duckdb_table(name, schema or "main", plain)
        inspector = sa.inspect(self.connection)
        try:
            # Not `autoload_with`, which also asks for indexes, comments and foreign keys.
            columns = inspector.get_columns(plain, schema=schema or None)
            primary = inspector.get_pk_constraint(plain, schema=schema or None)["constrained_columns"]
        except sa.exc.NoSuchTableError:
            raise self._no_table(name) from None
        made = [sa.Column(column["name"], column["type"], primary_key=column["name"] in primary) for column in columns]
        return sa.Table(plain, sa.MetaData(), *made, schema=schema or None)

    def tables(self) -> list[str]:
        """Names of the tables and views, those of other schemas with the schema in front."""
        inspector = sa.inspect(self.connection)
        if self.dialect == "duckdb":
            return sorted(t if s == "main" else f"{s}.{t}" for s, t in self._duckdb_tables())
        default = inspector.default_schema_name
        names: set[str] = set()
        for schema in inspector.get_schema_names():
            if schema in ("information_schema", "mysql", "performance_schema", "sys"):
                continue
            prefix = "" if schema == default else f"{schema}."
            found = {*inspector.get_table_names(schema), *inspector.get_view_names(schema)}
            if self.dialect == "postgresql":
                found |= set(inspector.get_materialized_view_names(schema))
            names |= {prefix + name for name in found}
        return sorted(names)

    def rows(self, select: sa.Select[Any], single: Sequence[str] = ()) -> pd.DataFrame:
        """The rows of a query as text columns, fetched in chunks.

        Args:
            select: the query; its columns have no types, so that values come as the driver gives them.
            single: columns with floats of single precision.

        Raises:
            SourceError: a column holds lists or structures.
        """
        from resources.sources.sql_values import NestedError, TextColumns

        options = {"stream_results": True, "yield_per": CHUNK}
        with self.connection.execute(select, execution_options=options) as result:
            names = [str(name) for name in result.keys()]  # noqa: SIM118 - not a dictionary
            described = result.cursor.description if result.cursor is not None else []
            floats = [name for name, *rest in described or [] if str(rest[0]) == "FLOAT"]
            collected = TextColumns(names, {*single, *floats})
            try:
                for chunk in result.partitions(CHUNK):
                    self._watch.restart()
                    collected.add(chunk)
            except NestedError as error:
                raise SourceError(
                    f"{self.where}: the column '{error}' holds lists or structures; name the columns to read in "
                    "`columns`, or flatten it in a view"
                ) from None
        return collected.frame()

    def scalar(self, select: sa.Executable) -> Any:
        """The first value of the first row; ``None`` if there is no row."""
        self._watch.restart()
        return self.connection.execute(select).scalar()

    def open_transactions(self) -> int:
        """PostgreSQL: the id that the next transaction gets; all that are open have lower ones."""
        return int(self.scalar(sa.text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")))

    def ended_before(self, transaction: int) -> bool:
        """PostgreSQL: whether all transactions with an id below ``transaction`` have ended."""
        return int(self.scalar(sa.text("SELECT pg_snapshot_xmin(pg_current_snapshot())::text"))) >= transaction

    def _no_table(self, name: str) -> SourceError:
        there = self.tables()
        return SourceError(f"{self.where}: there is no table or view '{name}'{close(name, there, 'it has')}")

    # DuckDB's catalogue of PostgreSQL lacks what SQLAlchemy's reflection asks it for.

    def _duckdb_tables(self) -> list[tuple[str, str]]:
        query = sa.text(
            "SELECT table_schema, table_name FROM information_schema.tables WHERE table_catalog = current_database()"
        )
        return [(schema, name) for schema, name in self.connection.execute(query)]

    def _duckdb_table(self, name: str, schema: str, plain: str) -> sa.Table:
        columns = sa.text(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_catalog = current_database() "
            "AND table_schema = :schema AND table_name = :name ORDER BY ordinal_position"
        )
        found = list(self.connection.execute(columns, {"schema": schema, "name": plain}))
        if not found:
            raise self._no_table(name)
        keys = sa.text(
            "SELECT constraint_column_names FROM duckdb_constraints() WHERE database_name = current_database() AND "
            "schema_name = :schema AND table_name = :name AND constraint_type = 'PRIMARY KEY'"
        )
        primary = self.connection.execute(keys, {"schema": schema, "name": plain}).scalar() or []
        made = [sa.Column(column, _duckdb_type(kind), primary_key=column in primary) for column, kind in found]
        return sa.Table(plain, sa.MetaData(), *made, schema=schema)


def _duckdb_type(kind: str) -> sa.types.TypeEngine[Any]:
    if kind.startswith("TIMESTAMP"):
        return sa.DateTime(timezone=kind.endswith("TIME ZONE"))
    if kind.rstrip("0123456789").removeprefix("U") in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"):
        return sa.BigInteger()
    if kind in ("FLOAT", "DOUBLE") or kind.startswith("DECIMAL"):
        return sa.Numeric()
    if kind == "VARCHAR":
        return sa.String()
    return sa.Date() if kind == "DATE" else sa.types.NullType()


@dataclass
class Watch:
    """Cuts a connection that says nothing for too long, also where the network says nothing either.

    Args:
        seconds: time without an answer.
        cut: cuts the connection; it is called by another thread.
    """

    seconds: float
    cut: Callable[[], None]
    fired: bool = False
    _timer: threading.Timer | None = None

    def restart(self) -> None:
        """Begins to count anew."""
        self.stop()
        self._timer = threading.Timer(self.seconds, self._fire)
        self._timer.daemon = True
        self._timer.start()

    def stop(self) -> None:
        """Stops counting."""
        if self._timer is not None:
            self._timer.cancel()

    def _fire(self) -> None:
        self.fired = True
        with contextlib.suppress(Exception):  # the connection may have ended in the meantime
            self.cut()


@contextlib.contextmanager
def reading(url: str, table: str, *, connect_s: int, statement_s: int) -> Iterator[Database]:
    """A read-only transaction on a database; everything is closed when the block ends.

    Args:
        url: SQLAlchemy URL.
        table: what is read, for messages.
        connect_s: seconds after which an attempt to connect is given up.
        statement_s: seconds after which a statement, or the fetching of a chunk, is given up.

    Raises:
        SourceUnavailable: the database cannot be read now.
        SourceError: it cannot be read until a person mends something.
    """
    from resources.sources.sql_errors import SQL_ERRORS, told

    parsed = parsed_url(url)
    where = f"{shown(parsed)}#{table}" if table else shown(parsed)
    engine = _engine(parsed, where, connect_s, statement_s)
    watch = Watch(statement_s + (0 if parsed.drivername in ("sqlite", "duckdb") else SPARE_S), lambda: None)
    _watched(engine, watch)
    failed: SourceError | None = None
    try:
        with engine.connect() as connection:
            watch.cut = _cutter(connection.dialect.name, connection.connection.dbapi_connection)
            watch.restart()
            yield Database(connection, where, _begin(connection, statement_s), watch)
    except (*SQL_ERRORS, sqlite3.Error, OverflowError) as error:
        failed = told(error, where)
        if watch.fired:
            failed = SourceUnavailable(
                f"{where}: no answer for {watch.seconds:g} s; raise the source's statement_seconds"
            )
    finally:
        watch.stop()
        engine.dispose()
    if failed is not None:
        # Raised here, so that the driver's exception is not its context: Dagster stores the texts of both.
        raise type(failed)(hidden(failed, *secrets(parsed))) from None


def parsed_url(url: str) -> sa.URL:
    """The parts of a URL, with the driver that we use where it names none.

    Raises:
        SourceError: it is no URL of a database that is supported. The message does not repeat it.
    """
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # a port that is no number
        raise SourceError(
            "the source's url is not the URL of a database; write it as postgresql://user@host:5432/database, "
            "mysql://user@host/database, sqlite:///file.db or duckdb:///file.duckdb, with special letters of the "
            "password in URL encoding"
        ) from None
    name, _, driver = parsed.drivername.partition("+")
    name = "postgresql" if name == "postgres" else name
    if name not in DATABASES:
        raise SourceError(f"the source's url begins with '{parsed.drivername}'; supported are {', '.join(DATABASES)}")
    module = driver or DATABASES[name]
    if module not in ("", "pysqlite") and importlib.util.find_spec(module) is None:
        raise SourceError(
            f"{shown(parsed)}: the driver {module} is not installed; install it with pip install 'assetline[sql]'"
        )
    if name in ("sqlite", "duckdb"):
        if not parsed.database or parsed.database == ":memory:" or parsed.database.startswith(("md:", "file:")):
            raise SourceError(f"{shown(parsed)}: give the path of a file, as in {name}:///data/shop.db")
        return parsed.set(drivername=name)
    return parsed.set(drivername=f"{name}+{module}")


def shown(url: sa.URL) -> str:
    """A URL for messages: without password and options."""
    name = url.drivername.partition("+")[0]
    return sa.URL.create(name, url.username, None, url.host, url.port, url.database).render_as_string()


def secrets(url: sa.URL) -> list[str]:
    """The password of a URL, and the values of options that may be secret."""
    values = [url.password] if url.password else []
    for name, value in url.query.items():
        if _SECRET_OPTION.search(name):
            values += [value] if isinstance(value, str) else list(value)
    return [str(value) for value in values]


def has_secret(url: str) -> bool:
    """Whether a text is a URL with a password or another secret."""
    try:
        return bool(secrets(sa.make_url(url)))
    except (sa.exc.ArgumentError, ValueError):
        return bool(re.search(r"://[^/@]*:[^/]*@", url))


def refuse_twice(names: Sequence[str], where: str) -> None:
    """Raises :class:`SourceError` if two columns have the same name."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SourceError(f"{where}: two columns are named '{twice[0]}'; give one of them another name")


def close(name: str, names: Sequence[str], lead: str) -> str:
    """The end of a message about a name that does not exist: similar names, or the names that exist."""
    similar = [n for n in names if n.rpartition(".")[2].lower() == name.rpartition(".")[2].lower()]
    similar = similar or difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if similar:
        return f"; did you mean {' or '.join(repr(str(n)) for n in similar)}?"
    if not names:
        return f"; {lead} none that this user may see"
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"; {lead}: {', '.join(names[:LISTED])}{more}"


def _engine(url: sa.URL, where: str, connect_s: int, statement_s: int) -> sa.Engine:
    given: dict[str, Any] = {"poolclass": sa.pool.NullPool, "hide_parameters": True}
    name, _, driver = url.drivername.partition("+")
    if name in ("sqlite", "duckdb"):
        assert url.database is not None
        path = (project_root() / Path(url.database)).resolve()
        if not path.is_file():
            raise SourceError(f"{where}: no such file; set the source's url to {name}:/// and the path of the database")
        if name == "duckdb":
            return sa.create_engine(url.set(database=str(path)), connect_args={"read_only": True}, **given)
        given["creator"] = lambda: sqlite3.connect(
            f"file:{quote(str(path))}?mode=ro", uri=True, timeout=connect_s, isolation_level=None,
            check_same_thread=False,
        )  # fmt: skip
        return sa.create_engine("sqlite://", **given)
    if driver == "psycopg":
        arguments: dict[str, Any] = {"connect_timeout": connect_s, "application_name": "assetline source"}
    else:
        arguments = {"connect_timeout": connect_s, "read_timeout": statement_s, "write_timeout": statement_s}
    return sa.create_engine(url, connect_args=arguments, **given)


def _begin(connection: sa.Connection, statement_s: int) -> tuple[dt.datetime, dt.datetime]:
    """Begins the read-only transaction on one state of the database, and returns its clock: UTC and session time."""
    name = connection.dialect.name
    if name == "postgresql":
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        connection.execute(sa.select(sa.func.set_config("statement_timeout", f"{statement_s * 1_000}", True)))
        now: Any = sa.literal_column("now()", sa.TIMESTAMP(timezone=True))
        clock, local = connection.execute(sa.select(now, sa.cast(now, sa.TIMESTAMP()))).one()
        return clock.astimezone(dt.UTC).replace(tzinfo=None), local
    if name in ("mysql", "mariadb"):
        clock, local = connection.exec_driver_sql("SELECT UTC_TIMESTAMP(6), NOW(6)").one()
        connection.exec_driver_sql("SET SESSION time_zone = '+00:00'")  # the zone in which TIMESTAMP columns come
        connection.exec_driver_sql("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        return clock, local
    if name == "sqlite":  # DuckDB's dialect begins by itself
        connection.exec_driver_sql("BEGIN")
    ours = dt.datetime.now(dt.UTC).replace(tzinfo=None)
    return ours, ours


def _watched(engine: sa.Engine, watch: Watch) -> None:
    """Watches a connection from its beginning, because SQLAlchemy asks the server about itself first."""

    @sa.event.listens_for(engine, "do_connect")
    def connect(dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
        raw = dialect.connect(*arguments, **options)
        watch.cut = _cutter(dialect.name, raw)
        watch.restart()
        return raw


def _cutter(dialect: str, raw: Any) -> Callable[[], None]:
    """What ends a statement from another thread. The sockets of MySQL's driver time out by themselves."""
    if dialect in ("sqlite", "duckdb"):
        return raw.interrupt
    if dialect != "postgresql" or os.name != "posix":
        return lambda: None

    def cut() -> None:
        with socket.socket(fileno=os.dup(raw.fileno())) as ours:
            ours.shutdown(socket.SHUT_RDWR)

    return cut

"""Dagster's SQLite storages with one engine per process instead of a new engine per statement.

By default Dagster creates an engine and a connection and compiles the statement for every access to a storage, and
inspects the table columns whenever it stores an asset event. In a day's run, this took longer than the work itself.
Here each event, or each batch of events, is one transaction on a connection that stays open.

Belongs here: access to the storages. Does not belong here: the stored data (Dagster's own classes), the location
(``deploy/dagster.yaml``). The overridden methods are not public; ``tests/resources/test_dagster_storage.py`` compares
them with the base classes.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from dagster._core.storage.event_log import ConsolidatedSqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage

BUSY_SECONDS = 60
"""Seconds that a writer waits for the write lock of another process."""

_engines: weakref.WeakSet[sa.Engine] = weakref.WeakSet()


def engine_of(url: str) -> sa.Engine:
    """Creates an engine whose connections stay open and do not wait for the disk at each commit.

    With write-ahead logging, a killed process loses no committed data. A power failure may lose the last commits but
    does not corrupt the database (SQLite's ``synchronous=NORMAL``).
    """
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS})

    @sa.event.listens_for(engine, "connect")
    def _(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    _engines.add(engine)
    return engine


def _forget_connections() -> None:
    """Drops all connections in a forked child, because a connection must not be shared across a fork."""
    for engine in list(_engines):
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_forget_connections)


class _Transactions(threading.local):
    """The current transaction of each thread, if any."""

    connection: sa.Connection | None = None


class EventLog(ConsolidatedSqliteEventLogStorage):
    """The event log of all runs in one SQLite file."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._engine: sa.Engine | None = None
        self._current = _Transactions()
        self._tables: set[str] = set()
        self._asset_columns: set[str] = set()
        super().__init__(*args, **kwargs)

    @contextlib.contextmanager
    def _connect(self) -> Iterator[sa.Connection]:
        if self._current.connection is not None:
            yield self._current.connection
            return
        if self._engine is None:
            self._engine = engine_of(self._conn_string)
        with self._engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def _one_transaction(self) -> Iterator[None]:
        with self._connect() as connection:
            outer, self._current.connection = self._current.connection, connection
            try:
                yield
            finally:
                self._current.connection = outer

    def store_event(self, event: Any) -> None:
        """Stores an event and its dependent rows in one transaction."""
        with self._one_transaction():
            super().store_event(event)

    def store_event_batch(self, events: Sequence[Any]) -> None:
        """Stores all events in one transaction."""
        with self._one_transaction():
            for event in events:
                super().store_event(event)

    def has_table(self, table_name: str) -> bool:
        """Whether the table exists; a positive result is cached."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def _has_asset_key_col_on_connection(self, conn: sa.Connection, column_name: str) -> bool:
        if column_name not in self._asset_columns and super()._has_asset_key_col_on_connection(conn, column_name):
            self._asset_columns.add(column_name)
        return column_name in self._asset_columns

    def dispose(self) -> None:
        """Closes the connections."""
        if self._engine is not None:
            self._engine.dispose()
        super().dispose()


class Runs(SqliteRunStorage):
    """The run storage in one SQLite file."""

    _engine: sa.Engine | None = None

    @contextlib.contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        """Yields a connection inside a transaction."""
        if self._engine is None:
            self._engine = engine_of(self._conn_string)
        with self._engine.begin() as connection:
            yield connection

    def dispose(self) -> None:
        """Closes the connections."""
        if self._engine is not None:
            self._engine.dispose()
        super().dispose()


class Schedules(SqliteScheduleStorage):
    """The storage of schedules, sensors and their ticks in one SQLite file."""

    _engine: sa.Engine | None = None

    @contextlib.contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        """Yields a connection inside a transaction."""
        if self._engine is None:
            self._engine = engine_of(self._conn_string)
        with self._engine.begin() as connection:
            yield connection

    def dispose(self) -> None:
        """Closes the connections."""
        if self._engine is not None:
            self._engine.dispose()
        super().dispose()

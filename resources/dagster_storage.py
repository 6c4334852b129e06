"""Dagster's SQLite stores with one engine for each process, in place of a new one for each statement.

Dagster makes an engine, a connection and a compiled form of each statement whenever it touches a store, and looks up
the tables' columns each time it stores an event of an asset. Of a day's work that was more than the work itself. Here
an event is one transaction on a connection that stays open, and so is a batch of events.

Belongs here: how the stores are reached. Does not belong here: what is stored (Dagster's own classes), where
(``deploy/dagster.yaml``). The methods that are replaced are not public; ``tests/resources/test_dagster_storage.py``
holds them against the classes they come from.
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
"""How long a writer waits for another process to finish."""

_engines: weakref.WeakSet[sa.Engine] = weakref.WeakSet()


def engine_of(url: str) -> sa.Engine:
    """An engine whose connections stay open and do not wait for the disk at each commit.

    With write-ahead logging a killed process loses nothing that was committed. A machine that loses power may lose the
    last commits, never the database (SQLite's ``synchronous=NORMAL``).
    """
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS})

    @sa.event.listens_for(engine, "connect")
    def _(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    _engines.add(engine)
    return engine


def _forget_connections() -> None:
    """A connection must not be used on both sides of a fork."""
    for engine in list(_engines):
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_forget_connections)


class _Transactions(threading.local):
    """The transaction that this thread is in, if any."""

    connection: sa.Connection | None = None


class EventLog(ConsolidatedSqliteEventLogStorage):
    """The log of all runs' events in one SQLite file."""

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
        """One event, with what follows from it, in one transaction."""
        with self._one_transaction():
            super().store_event(event)

    def store_event_batch(self, events: Sequence[Any]) -> None:
        """All of the events, or none."""
        with self._one_transaction():
            for event in events:
                super().store_event(event)

    def has_table(self, table_name: str) -> bool:
        """Whether there is a table of that name; one that was there once stays."""
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
    """The runs in one SQLite file."""

    _engine: sa.Engine | None = None

    @contextlib.contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        """A connection within a transaction."""
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
    """Schedules and sensors, and their ticks, in one SQLite file."""

    _engine: sa.Engine | None = None

    @contextlib.contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        """A connection within a transaction."""
        if self._engine is None:
            self._engine = engine_of(self._conn_string)
        with self._engine.begin() as connection:
            yield connection

    def dispose(self) -> None:
        """Closes the connections."""
        if self._engine is not None:
            self._engine.dispose()
        super().dispose()

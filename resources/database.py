"""Transactions on the project's own database, ``assetline.db`` or PostgreSQL.

Belongs here: opening the database, and times in its form. Does not belong here: tables (the module that uses them),
their creation (``migrations``), the log of requests and other databases.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from resources.migrations import migrate


class Database:
    """Transactions on the database; the first one migrates it.

    Args:
        url: SQLAlchemy URL.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A read-only transaction; it does not wait for other transactions."""
        with self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that may write; on SQLite it takes the write lock at its start."""
        # A transaction that reads first and writes later would fail if another one wrote in between.
        with self._engine.connect() as connection, connection.execution_options(writes=True).begin():
            yield connection

    @cached_property
    def _engine(self) -> sa.Engine:
        # Without a pool, no connection stays open between transactions, so forks and moved files are safe.
        engine = sa.create_engine(self.url, poolclass=sa.NullPool)
        if engine.dialect.name == "sqlite":

            @sa.event.listens_for(engine, "connect")
            def wait_for_others(connection: Any, _: Any) -> None:
                connection.isolation_level = None  # BEGIN is issued explicitly, below
                connection.execute("PRAGMA busy_timeout = 30000")
                connection.execute("PRAGMA journal_mode = WAL")

            @sa.event.listens_for(engine, "begin")
            def begin(connection: sa.Connection) -> None:
                writes = connection.get_execution_options().get("writes", False)
                connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

        migrate(engine)
        return engine


def aware(at: dt.datetime | str) -> dt.datetime:
    """Converts a time from the database (naive UTC) to an aware one."""
    return (dt.datetime.fromisoformat(at) if isinstance(at, str) else at).replace(tzinfo=dt.UTC)


def naive_utc(at: dt.datetime | None) -> dt.datetime:
    """Converts a time to the database's form, naive UTC; default: now."""
    return (at or dt.datetime.now(dt.UTC)).astimezone(dt.UTC).replace(tzinfo=None)

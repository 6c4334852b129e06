"""Makes a table append-only for every writer, by triggers, on SQLite and on PostgreSQL.

Belongs here: the triggers. Does not belong here: which tables are append-only (``migrations``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

_LOCK = 7276512


def lock_schema(connection: sa.Connection) -> None:
    """Lets one process at a time create tables and functions, until the transaction ends.

    PostgreSQL fails if two processes create the same table or function, even with ``IF NOT EXISTS``. SQLite holds its
    write lock anyway.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")


def forbid_rewriting(connection: sa.Connection, table: str, name: str) -> None:
    """Creates triggers that refuse every UPDATE and DELETE on a table; existing ones stay.

    Args:
        connection: a connection in a transaction; see :func:`lock_schema`.
        table: name of the table.
        name: what the table is, for the message, e.g. ``the ledger of promotions``.
    """
    message = f"{name} is append-only"
    if connection.dialect.name == "sqlite":
        for verb in ("update", "delete"):
            connection.exec_driver_sql(
                f"CREATE TRIGGER IF NOT EXISTS {table}_no_{verb} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
            )
    elif connection.dialect.name == "postgresql":
        there = connection.execute(
            sa.text("SELECT 1 FROM pg_trigger WHERE tgname = :name AND tgrelid = CAST(:table AS regclass)"),
            {"name": f"{table}_append_only", "table": table},
        )
        if there.first():
            return
        connection.exec_driver_sql(
            f"CREATE OR REPLACE FUNCTION {table}_append_only() RETURNS trigger AS "
            f"$$ BEGIN RAISE EXCEPTION '{message}'; END $$ LANGUAGE plpgsql"
        )
        connection.exec_driver_sql(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE ON {table} "
            f"FOR EACH ROW EXECUTE FUNCTION {table}_append_only()"
        )


@contextmanager
def deleting_allowed(connection: sa.Connection, table: str) -> Iterator[None]:
    """Lifts the ban on DELETE until the block ends; for retention only. See :func:`_lifted`."""
    with _lifted(connection, table, "delete"):
        yield


@contextmanager
def updating_allowed(connection: sa.Connection, table: str) -> Iterator[None]:
    """Lifts the ban on UPDATE until the block ends; for the erasure of a person only. See :func:`_lifted`."""
    with _lifted(connection, table, "update"):
        yield


@contextmanager
def _lifted(connection: sa.Connection, table: str, verb: str) -> Iterator[None]:
    """Lifts a ban until the block ends.

    The transaction holds a lock on the table, so no other writer sees it without its triggers, and a kill restores it.

    Args:
        connection: a connection in a transaction.
        table: name of a table that :func:`forbid_rewriting` was called for.
        verb: ``update`` or ``delete``; PostgreSQL has one trigger for both.
    """
    if connection.dialect.name == "sqlite":
        name = f"{table}_no_{verb}"
        query = sa.text("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = :name")
        trigger = connection.execute(query, {"name": name}).scalar_one()
        connection.exec_driver_sql(f"DROP TRIGGER {name}")
        yield
        connection.exec_driver_sql(trigger)
    else:
        connection.exec_driver_sql(f"ALTER TABLE {table} DISABLE TRIGGER {table}_append_only")
        yield
        connection.exec_driver_sql(f"ALTER TABLE {table} ENABLE TRIGGER {table}_append_only")

"""Database tables of the alerts, in SQLite or any other database that SQLAlchemy supports, and their migrations.

Belongs here: tables, schema versions, transactions. Does not belong here: the changes of an alert (``store.py``), the
outbox logic (``outbox.py``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from resources.alerts.alert import TIMES, Alert, fingerprint_of
from resources.append_only import forbid_rewriting

METADATA = sa.MetaData()
ALERTS = sa.Table(
    "alerts",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("fingerprint", sa.String(16), nullable=False, server_default=""),
    sa.Column("model", sa.String(200), nullable=False),
    sa.Column("cause", sa.String(300), nullable=False),
    sa.Column("column", sa.String(300), nullable=False, server_default=""),
    sa.Column("severity", sa.String(8), nullable=False),
    sa.Column("owner", sa.String(200), nullable=False, server_default=""),
    sa.Column("summary", sa.Text, nullable=False),
    sa.Column("runbook", sa.String(300), nullable=False, server_default=""),
    sa.Column("links", sa.JSON, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("since_day", sa.String(10)),
    sa.Column("last_day", sa.String(10)),
    sa.Column("opened_at", sa.DateTime, nullable=False),  # all times UTC
    sa.Column("updated_at", sa.DateTime, nullable=False),
    sa.Column("acknowledged_at", sa.DateTime),
    sa.Column("acknowledged_by", sa.String(200)),
    sa.Column("silenced_until", sa.DateTime),
    sa.Column("flapping", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("clear_since", sa.DateTime),
    sa.Column("resolved_at", sa.DateTime),
    sa.Column("resolved_day", sa.String(10)),
    sa.Column("resolution", sa.Text),
)
# The database allows only one open alert per fingerprint, so two writers cannot open the same alert.
ONE_OPEN = sa.Index(
    "one_open_fingerprint",
    ALERTS.c.fingerprint,
    unique=True,
    sqlite_where=ALERTS.c.resolved_at.is_(None),
    postgresql_where=ALERTS.c.resolved_at.is_(None),
)
EVENTS = sa.Table(
    "alert_events",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("alert_id", sa.ForeignKey("alerts.id"), nullable=False, index=True),
    sa.Column("change", sa.String(16), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("who", sa.String(200), nullable=False, server_default=""),
    sa.Column("day", sa.String(10)),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("snapshot", sa.JSON),  # the alert at the time of the change
)
OUTBOX = sa.Table(
    "alert_outbox",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("channel", sa.String(100), nullable=False),
    sa.Column("event_id", sa.ForeignKey("alert_events.id"), nullable=False),
    sa.Column("alert_id", sa.Integer, nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("due_at", sa.DateTime, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
    sa.Column("error", sa.Text),
    sa.Column("delivered_at", sa.DateTime),
    sa.Column("message", sa.String(40)),  # id of the message; shared by the changes that it contained
    sa.Column("severity", sa.String(8), nullable=False, server_default="page"),  # of the alert at that time
    sa.Index("undelivered_of_alert", "alert_id", "channel", "delivered_at"),
    sa.Index("undelivered", "channel", "delivered_at"),
)
CHANNELS = sa.Table(
    "alert_channels",
    METADATA,
    sa.Column("channel", sa.String(100), primary_key=True),
    sa.Column("heartbeat_at", sa.DateTime),
    sa.Column("synced_at", sa.DateTime),
    sa.Column("held_by", sa.String(200), nullable=False, server_default=""),
    sa.Column("held_until", sa.DateTime),
)
POSITIONS = sa.Table(
    "alert_positions",
    METADATA,
    sa.Column("stream", sa.String(100), primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
)


class Database:
    """Transactions on the alert tables; the first one creates or migrates the tables.

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
            Path(engine.url.database or "").parent.mkdir(parents=True, exist_ok=True)

            @sa.event.listens_for(engine, "connect")
            def wait_for_others(connection: Any, _: Any) -> None:
                connection.isolation_level = None  # BEGIN is issued explicitly, below
                connection.execute("PRAGMA busy_timeout = 30000")
                connection.execute("PRAGMA journal_mode = WAL")

            @sa.event.listens_for(engine, "begin")
            def begin(connection: sa.Connection) -> None:
                writes = connection.get_execution_options().get("writes", False)
                connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

        with engine.connect() as connection, connection.execution_options(writes=True).begin():
            _bring_up_to_date(connection)
        return engine


def insert_if_absent(connection: sa.Connection, table: sa.Table, **values: Any) -> None:
    """Inserts a row unless its key exists; safe if another process inserts the same key at the same time."""
    from sqlalchemy.dialects import postgresql, sqlite

    insert: Any = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}[connection.dialect.name]
    connection.execute(insert(table).values(**values).on_conflict_do_nothing())


SCHEMA, SCHEMA_VERSION = "schema", 4
"""Stream name and value under which ``alert_positions`` stores the schema version."""


def _bring_up_to_date(connection: sa.Connection) -> None:
    """Creates the tables, or migrates those of an earlier version; only one process at a time."""
    if connection.dialect.name == "postgresql":  # SQLite already holds its write lock
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7276511)")
    connection.execute(sa.schema.CreateTable(POSITIONS, if_not_exists=True))
    where = POSITIONS.c.stream == SCHEMA
    known = connection.execute(sa.select(POSITIONS.c.position).where(where)).scalar()
    if known == SCHEMA_VERSION:
        return
    for table in METADATA.sorted_tables:
        connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
        _rename_columns(connection, table)
        _add_new_columns(connection, table)
        for index in table.indexes - {ONE_OPEN}:
            connection.execute(sa.schema.CreateIndex(index, if_not_exists=True))
    _give_fingerprints(connection)
    connection.execute(sa.schema.CreateIndex(ONE_OPEN, if_not_exists=True))
    forbid_rewriting(connection, EVENTS.name, "the history of alerts")
    connection.execute(POSITIONS.delete().where(where))
    connection.execute(POSITIONS.insert().values(stream=SCHEMA, position=SCHEMA_VERSION))


_RENAMED = {"alert_events": {"words": "message"}}
"""Columns whose name has changed, by table: old name to new name."""


def _rename_columns(connection: sa.Connection, table: sa.Table) -> None:
    there = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
    for old, new in _RENAMED.get(table.name, {}).items():
        if old in there:
            connection.execute(sa.DDL(f"ALTER TABLE {table.name} RENAME COLUMN {old} TO {new}"))


def _add_new_columns(connection: sa.Connection, table: sa.Table) -> None:
    """Adds columns that a table of an earlier version lacks; all newer columns are nullable or have a default."""
    there = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
    for column in table.columns:
        if column.name not in there:
            definition = sa.schema.CreateColumn(column).compile(connection)
            connection.execute(sa.DDL(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))


def _give_fingerprints(connection: sa.Connection) -> None:
    connection.execute(sa.DDL("DROP INDEX IF EXISTS one_open_alert"))
    for row in connection.execute(sa.select(ALERTS).where(ALERTS.c.fingerprint == "")).mappings().all():
        fingerprint = fingerprint_of(row["model"], row["cause"], row["column"])
        connection.execute(ALERTS.update().where(ALERTS.c.id == row["id"]).values(fingerprint=fingerprint))


def alert_of(row: Any) -> Alert:
    """Converts a row of :data:`ALERTS` to an alert."""
    values = dict(row)
    return Alert(**{**values, **{name: aware(values[name]) if values[name] else None for name in TIMES}})


def aware(at: dt.datetime | str) -> dt.datetime:
    """Converts a time from the database (naive UTC) to an aware one."""
    return (dt.datetime.fromisoformat(at) if isinstance(at, str) else at).replace(tzinfo=dt.UTC)


def naive_utc(at: dt.datetime | None) -> dt.datetime:
    """Converts a time to the database's form, naive UTC; default: now."""
    return (at or dt.datetime.now(dt.UTC)).astimezone(dt.UTC).replace(tzinfo=None)

"""Database tables of the alerts, in SQLite or any other database that SQLAlchemy supports.

Belongs here: the tables and their rows. Does not belong here: transactions (``resources/database.py``), creating
and changing the tables (``migrations``), the changes of an alert (``store.py``), the outbox logic (``outbox.py``).
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from resources.alerts.alert import TIMES, Alert
from resources.database import aware

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


def insert_if_absent(connection: sa.Connection, table: sa.Table, **values: Any) -> None:
    """Inserts a row unless its key exists; safe if another process inserts the same key at the same time."""
    from sqlalchemy.dialects import postgresql, sqlite

    insert: Any = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}[connection.dialect.name]
    connection.execute(insert(table).values(**values).on_conflict_do_nothing())


def alert_of(row: Any) -> Alert:
    """Converts a row of :data:`ALERTS` to an alert."""
    values = dict(row)
    return Alert(**{**values, **{name: aware(values[name]) if values[name] else None for name in TIMES}})

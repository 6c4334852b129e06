"""The ledger and the alerts, as release 0.1.0 makes them.

Releases before this revision made and migrated these tables by themselves. So each step here looks at what is there: an
empty database gets all tables, one of an earlier release gets what it lacks, and rows are kept. Later revisions need
not look. The tables are written out, because a revision must not change when the code does.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from resources.append_only import forbid_rewriting

revision = "0001"
down_revision = None

_SCHEMA = sa.MetaData()
_PROMOTIONS = sa.Table(
    "promotions",
    _SCHEMA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("model", sa.String(200), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("version", sa.String(32), nullable=False),
    sa.Column("previous", sa.String(32)),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("verdicts", sa.JSON, nullable=False),
    sa.Column("dagster_run", sa.String(64), nullable=False),
    sa.Column("who", sa.String(200), nullable=False),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.UniqueConstraint("model", "number"),
)
_ALERTS = sa.Table(
    "alerts",
    _SCHEMA,
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
    sa.Column("opened_at", sa.DateTime, nullable=False),
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
_ONE_OPEN = sa.Index(
    "one_open_fingerprint",
    _ALERTS.c.fingerprint,
    unique=True,
    sqlite_where=_ALERTS.c.resolved_at.is_(None),
    postgresql_where=_ALERTS.c.resolved_at.is_(None),
)
_EVENTS = sa.Table(
    "alert_events",
    _SCHEMA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("alert_id", sa.ForeignKey("alerts.id"), nullable=False, index=True),
    sa.Column("change", sa.String(16), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("who", sa.String(200), nullable=False, server_default=""),
    sa.Column("day", sa.String(10)),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("snapshot", sa.JSON),
)
sa.Table(
    "alert_outbox",
    _SCHEMA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("channel", sa.String(100), nullable=False),
    sa.Column("event_id", sa.ForeignKey("alert_events.id"), nullable=False),
    sa.Column("alert_id", sa.Integer, nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("due_at", sa.DateTime, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
    sa.Column("error", sa.Text),
    sa.Column("delivered_at", sa.DateTime),
    sa.Column("message", sa.String(40)),
    sa.Column("severity", sa.String(8), nullable=False, server_default="page"),
    sa.Index("undelivered_of_alert", "alert_id", "channel", "delivered_at"),
    sa.Index("undelivered", "channel", "delivered_at"),
)
sa.Table(
    "alert_channels",
    _SCHEMA,
    sa.Column("channel", sa.String(100), primary_key=True),
    sa.Column("heartbeat_at", sa.DateTime),
    sa.Column("synced_at", sa.DateTime),
    sa.Column("held_by", sa.String(200), nullable=False, server_default=""),
    sa.Column("held_until", sa.DateTime),
)
_POSITIONS = sa.Table(
    "alert_positions",
    _SCHEMA,
    sa.Column("stream", sa.String(100), primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
)

_RENAMED = {"alert_events": {"words": "message"}}
"""Columns that an earlier release named differently, by table: old name to new name."""


def upgrade() -> None:
    """Creates what is missing."""
    connection = op.get_bind()
    for table in _SCHEMA.sorted_tables:
        connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
        _rename_columns(connection, table)
        _add_columns(connection, table)
        for index in table.indexes - {_ONE_OPEN}:
            connection.execute(sa.schema.CreateIndex(index, if_not_exists=True))
    _give_fingerprints(connection)
    connection.execute(sa.schema.CreateIndex(_ONE_OPEN, if_not_exists=True))
    forbid_rewriting(connection, _PROMOTIONS.name, "the ledger of promotions")
    forbid_rewriting(connection, _EVENTS.name, "the history of alerts")
    # Releases before this revision kept their own number in this table.
    connection.execute(_POSITIONS.delete().where(_POSITIONS.c.stream == "schema"))


def _rename_columns(connection: sa.Connection, table: sa.Table) -> None:
    there = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
    for old, new in _RENAMED.get(table.name, {}).items():
        if old in there:
            connection.execute(sa.DDL(f"ALTER TABLE {table.name} RENAME COLUMN {old} TO {new}"))


def _add_columns(connection: sa.Connection, table: sa.Table) -> None:
    """Adds columns that a table of an earlier release lacks; all newer columns are nullable or have a default."""
    there = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
    for column in table.columns:
        if column.name not in there:
            definition = sa.schema.CreateColumn(column).compile(connection)
            connection.execute(sa.DDL(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))


def _give_fingerprints(connection: sa.Connection) -> None:
    """Earlier releases told open alerts apart by model and cause alone."""
    connection.execute(sa.DDL("DROP INDEX IF EXISTS one_open_alert"))
    for row in connection.execute(sa.select(_ALERTS).where(_ALERTS.c.fingerprint == "")).mappings().all():
        from resources.alerts.alert import fingerprint_of

        fingerprint = fingerprint_of(row["model"], row["cause"], row["column"])
        connection.execute(_ALERTS.update().where(_ALERTS.c.id == row["id"]).values(fingerprint=fingerprint))

"""Old alerts with their history, and old deliveries of the outbox.

Belongs here: which rows go. Does not belong here: the tables (``alerts/database.py``).

The history of alerts is append-only for everybody else. Here its trigger is off within one transaction, so no other
writer ever sees the table without it. The ledger has no such way.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from functools import partial

import sqlalchemy as sa

from resources.alerts.database import ALERTS, EVENTS, OUTBOX
from resources.append_only import deleting_allowed
from resources.database import Database, naive_utc
from resources.retention.periods import Retention
from resources.retention.plan import Removal

_ROW = 100
"""Bytes of a row besides its text, roughly."""


def deliveries(url: str, retention: Retention, now: dt.datetime) -> Iterator[Removal]:
    """The removal of all outbox entries that were delivered longer ago than ``delivery_days``."""
    database = Database(url)
    where = OUTBOX.c.delivered_at < naive_utc(now - dt.timedelta(days=retention.delivery_days))
    with database.reading() as connection:
        count = connection.execute(sa.select(sa.func.count()).where(where).select_from(OUTBOX)).scalar_one()
    if count:
        yield Removal("deliveries", f"{count:,} delivered messages", count * _ROW, partial(_delete, database, where))


def alerts(url: str, retention: Retention, now: dt.datetime) -> Iterator[Removal]:
    """The removal of all alerts that were resolved longer ago than ``alert_days`` and of which no message waits."""
    database = Database(url)
    latest = sa.select(ALERTS.c.id).order_by(ALERTS.c.id.desc()).limit(retention.latest_alerts)
    waiting = sa.select(OUTBOX.c.alert_id).where(OUTBOX.c.delivered_at.is_(None))
    old = sa.select(ALERTS.c.id).where(
        ALERTS.c.resolved_at < naive_utc(now - dt.timedelta(days=retention.alert_days)),
        ALERTS.c.id.not_in(latest),
        ALERTS.c.id.not_in(waiting),
    )
    length = sa.func.coalesce(sa.func.length(EVENTS.c.message), 0) + sa.func.coalesce(
        sa.func.length(sa.cast(EVENTS.c.snapshot, sa.Text)), 0
    )
    with database.reading() as connection:
        ids = list(connection.execute(old).scalars())
        of_alerts = sa.select(sa.func.count(), sa.func.sum(length)).where(EVENTS.c.alert_id.in_(ids))
        events, size = connection.execute(of_alerts).one()
    if ids:
        what = f"{len(ids):,} resolved alerts and {events:,} entries of their history"
        yield Removal("alerts", what, int(size or 0) + _ROW * (events + len(ids)), partial(_forget, database, ids))


def _delete(database: Database, where: sa.ColumnElement[bool]) -> None:
    with database.writing() as connection:
        connection.execute(OUTBOX.delete().where(where))


def _forget(database: Database, ids: Sequence[int]) -> None:
    """Deletes alerts that are still resolved, with everything that refers to them."""
    with database.writing() as connection:
        resolved = ALERTS.c.id.in_(ids) & ALERTS.c.resolved_at.is_not(None)
        still = list(connection.execute(sa.select(ALERTS.c.id).where(resolved)).scalars())
        connection.execute(OUTBOX.delete().where(OUTBOX.c.alert_id.in_(still)))
        with deleting_allowed(connection, EVENTS.name):
            connection.execute(EVENTS.delete().where(EVENTS.c.alert_id.in_(still)))
        connection.execute(ALERTS.delete().where(ALERTS.c.id.in_(still)))

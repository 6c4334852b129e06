"""Alerts: one open alert per model and cause, its append-only history, and the channels that are told of changes.

Belongs here: the store, what may happen to an alert (open, repeat, escalate, resolve), channels. Does not belong here:
what deserves an alert (``sensors/alerts.py``).
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import dagster as dg
import sqlalchemy as sa
from pydantic import Field

from resources.settings import Settings

_log = logging.getLogger("assetline.alerts")

Severity = Literal["warn", "page"]
Change = Literal["opened", "repeated", "escalated", "resolved"]

_METADATA = sa.MetaData()
_ALERTS = sa.Table(
    "alerts",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("model", sa.String(200), nullable=False),
    sa.Column("cause", sa.String(300), nullable=False),
    sa.Column("severity", sa.String(8), nullable=False),
    sa.Column("summary", sa.Text, nullable=False),
    sa.Column("links", sa.JSON, nullable=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("since_day", sa.String(10)),
    sa.Column("last_day", sa.String(10)),
    sa.Column("opened_at", sa.DateTime, nullable=False),  # all times UTC
    sa.Column("updated_at", sa.DateTime, nullable=False),
    sa.Column("resolved_at", sa.DateTime),
    sa.Column("resolved_day", sa.String(10)),
    sa.Column("resolution", sa.Text),
)
# Two writers cannot both open it: the database itself knows one open alert per model and cause.
_ONE_OPEN = sa.Index(
    "one_open_alert",
    _ALERTS.c.model,
    _ALERTS.c.cause,
    unique=True,
    sqlite_where=_ALERTS.c.resolved_at.is_(None),
    postgresql_where=_ALERTS.c.resolved_at.is_(None),
)
_EVENTS = sa.Table(
    "alert_events",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("alert_id", sa.ForeignKey("alerts.id"), nullable=False),
    sa.Column("change", sa.String(16), nullable=False),
    sa.Column("words", sa.Text, nullable=False),
    sa.Column("day", sa.String(10)),
    sa.Column("at", sa.DateTime, nullable=False),
)
_POSITIONS = sa.Table(
    "alert_positions",
    _METADATA,
    sa.Column("stream", sa.String(100), primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
)
_TRIES = 20


@dataclass(frozen=True, kw_only=True)
class Alert:
    """An alert as it stands.

    Args:
        model, cause: its identity; at most one alert of each pair is open.
        severity: ``page`` wakes somebody.
        count: how often the cause was seen since it opened.
        since_day: first day of data that shows the cause; ``last_day`` the latest.
        resolution: why it was resolved; ``None`` while it is open.
    """

    id: int
    model: str
    cause: str
    severity: Severity
    summary: str
    links: Mapping[str, str]
    count: int
    since_day: str | None
    last_day: str | None
    opened_at: dt.datetime
    updated_at: dt.datetime
    resolved_at: dt.datetime | None
    resolved_day: str | None
    resolution: str | None


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of an alert's history."""

    change: str
    words: str
    day: str | None
    at: dt.datetime


@dataclass(frozen=True)
class Seen:
    """A place in a stream of observations; one that was seen already changes nothing a second time."""

    stream: str
    position: int


class AlertStore:
    """The alerts of all models in one database, SQLite or any other that SQLAlchemy reaches."""

    def __init__(self, database_url: str) -> None:
        self.database_url = database_url

    def report(
        self,
        model: str,
        cause: str,
        *,
        severity: Severity,
        summary: str,
        day: str | None = None,
        since_day: str | None = None,
        links: Mapping[str, str] | None = None,
        at: dt.datetime | None = None,
        seen: Seen | None = None,
    ) -> tuple[Alert, Change] | None:
        """Says that a cause is there: opens its alert, or repeats it, and escalates a warning to a page.

        Returns the alert and what happened to it; ``None`` where ``seen`` was seen before.
        """
        now = _naive_utc(at)
        for _ in range(_TRIES):
            try:
                with self._once(seen) as connection:
                    if connection is None:
                        return None
                    there = self._open(connection, model, cause)
                    if there is None:
                        new = {
                            "model": model, "cause": cause, "severity": severity, "summary": summary,
                            "links": dict(links or {}), "count": 1, "since_day": since_day or day, "last_day": day,
                            "opened_at": now, "updated_at": now,
                        }  # fmt: skip
                        number = connection.execute(_ALERTS.insert().values(**new).returning(_ALERTS.c.id)).scalar_one()
                        return self._noted(connection, number, "opened", summary, day, now)
                    escalates = severity == "page" and there.severity == "warn"
                    values: dict[str, Any] = {
                        "count": there.count + 1,
                        "severity": "page" if escalates else there.severity,
                        "updated_at": now,
                    }
                    if day is None or there.last_day is None or day >= there.last_day:
                        values |= {"summary": summary, "links": dict(links or {}), "last_day": day}
                    connection.execute(_ALERTS.update().where(_ALERTS.c.id == there.id).values(**values))
                    change: Change = "escalated" if escalates else "repeated"
                    return self._noted(connection, there.id, change, summary, day, now)
            except sa.exc.IntegrityError:
                continue  # another process opened it first: now it is there to repeat
        raise RuntimeError(f"the alert {model}/{cause} was opened by others {_TRIES} times in a row; try again")

    def resolve(
        self,
        model: str,
        cause: str,
        *,
        reason: str,
        day: str | None = None,
        at: dt.datetime | None = None,
        seen: Seen | None = None,
    ) -> tuple[Alert, Change] | None:
        """Says that a cause is gone: resolves its alert, if one is open and ``day`` is not before what it is about."""
        now = _naive_utc(at)
        with self._once(seen) as connection:
            there = self._open(connection, model, cause) if connection is not None else None
            if connection is None or there is None or (day and there.last_day and day < there.last_day):
                return None
            values = {"resolved_at": now, "updated_at": now, "resolved_day": day, "resolution": reason}
            connection.execute(_ALERTS.update().where(_ALERTS.c.id == there.id).values(**values))
            return self._noted(connection, there.id, "resolved", reason, day, now)

    def open_alerts(self, model: str | None = None) -> list[Alert]:
        """Open alerts of one model or of all, oldest first."""
        query = sa.select(_ALERTS).where(_ALERTS.c.resolved_at.is_(None)).order_by(_ALERTS.c.id)
        return self._read(query if model is None else query.where(_ALERTS.c.model == model))

    def alerts(self, model: str | None = None) -> list[Alert]:
        """All alerts, open and resolved, oldest first."""
        query = sa.select(_ALERTS).order_by(_ALERTS.c.id)
        return self._read(query if model is None else query.where(_ALERTS.c.model == model))

    def history(self, alert_id: int) -> list[Event]:
        """What happened to an alert, oldest first."""
        query = sa.select(_EVENTS).where(_EVENTS.c.alert_id == alert_id).order_by(_EVENTS.c.id)
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return [
            Event(change=r["change"], words=r["words"], day=r["day"], at=r["at"].replace(tzinfo=dt.UTC)) for r in rows
        ]

    def note(self, alert_id: int, change: str, words: str) -> None:
        """Adds a line to an alert's history that changes nothing else (a channel that failed, say)."""
        with self._engine.begin() as connection:
            self._noted(connection, alert_id, change, words, None, _naive_utc(None))

    def position(self, stream: str) -> int:
        """How far a stream of observations was seen; 0 before the first."""
        with self._engine.connect() as connection:
            found = connection.execute(sa.select(_POSITIONS.c.position).where(_POSITIONS.c.stream == stream)).scalar()
        return int(found or 0)

    def advance(self, seen: Seen) -> None:
        """Notes that a stream was seen so far, where there was nothing to report."""
        with self._once(seen):
            pass

    @contextmanager
    def _once(self, seen: Seen | None) -> Iterator[sa.Connection | None]:
        """A transaction that also moves the stream's position; gives ``None`` where the position is past ``seen``."""
        with self._engine.begin() as connection:
            if seen is None:
                yield connection
                return
            where = _POSITIONS.c.stream == seen.stream
            found = connection.execute(sa.select(_POSITIONS.c.position).where(where).with_for_update()).scalar()
            if found is not None and found >= seen.position:
                yield None
                return
            if found is None:
                connection.execute(_POSITIONS.insert().values(stream=seen.stream, position=seen.position))
            else:
                connection.execute(_POSITIONS.update().where(where).values(position=seen.position))
            yield connection

    def _open(self, connection: sa.Connection, model: str, cause: str) -> Alert | None:
        same = sa.and_(_ALERTS.c.model == model, _ALERTS.c.cause == cause, _ALERTS.c.resolved_at.is_(None))
        row = connection.execute(sa.select(_ALERTS).where(same).with_for_update()).mappings().first()
        return _alert(row) if row else None

    def _noted(
        self, connection: sa.Connection, alert_id: int, change: Any, words: str, day: str | None, now: dt.datetime
    ) -> tuple[Alert, Change]:
        connection.execute(_EVENTS.insert().values(alert_id=alert_id, change=change, words=words, day=day, at=now))
        row = connection.execute(sa.select(_ALERTS).where(_ALERTS.c.id == alert_id)).mappings().one()
        return _alert(row), change

    def _read(self, query: sa.Select[Any]) -> list[Alert]:
        with self._engine.connect() as connection:
            return [_alert(row) for row in connection.execute(query).mappings()]

    @cached_property
    def _engine(self) -> sa.Engine:
        # Without a pool no connection outlives its statement: forks and moved files do no harm.
        engine = sa.create_engine(self.database_url, poolclass=sa.NullPool)
        if engine.dialect.name == "sqlite":
            Path(engine.url.database or "").parent.mkdir(parents=True, exist_ok=True)

            @sa.event.listens_for(engine, "connect")
            def wait_for_others(connection: Any, _: Any) -> None:
                connection.isolation_level = None  # we say BEGIN ourselves, below
                connection.execute("PRAGMA busy_timeout = 30000")
                connection.execute("PRAGMA journal_mode = WAL")

            @sa.event.listens_for(engine, "begin")
            def take_the_write_lock(connection: sa.Connection) -> None:
                # A transaction that reads and then writes would fail when another wrote in between.
                connection.exec_driver_sql("BEGIN IMMEDIATE")

        with engine.begin() as connection:
            for table in _METADATA.sorted_tables:
                connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
            connection.execute(sa.schema.CreateIndex(_ONE_OPEN, if_not_exists=True))
        return engine


class Channel(Protocol):
    """Somebody who is told when an alert opens, escalates or resolves."""

    name: str

    def send(self, alert: Alert, change: Change) -> None:
        """Delivers one change; raises when it could not."""


class ConsoleChannel:
    """One line in the log for each change."""

    name = "console"

    def send(self, alert: Alert, change: Change) -> None:
        """See :class:`Channel`."""
        words = alert.resolution if change == "resolved" else alert.summary
        _log.warning("%s %s [%s] %s: %s", change.upper(), alert.severity, alert.model, alert.cause, words)


class Alerts(dg.ConfigurableResource):
    """The alert store and its channels."""

    database_url: str = Field(description="SQLAlchemy URL of the database that holds the alerts.")

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The alerts in the database of ``settings``; a URL with a password stays out of the UI."""
        if sa.make_url(settings.database_url).password is not None:
            return cls(database_url=dg.EnvVar("ASSETLINE_DATABASE_URL"))
        return cls(database_url=settings.database_url)

    @cached_property
    def store(self) -> AlertStore:
        """The store."""
        return AlertStore(self.database_url)

    def channels(self) -> Sequence[Channel]:
        """Who is told."""
        return (ConsoleChannel(),)

    def tell(self, changed: tuple[Alert, Change] | None) -> None:
        """Tells every channel of a change that is worth it; one that fails is noted in the alert's history.

        A repetition is not worth it: an alert that was sent is not sent again.
        """
        if changed is None or changed[1] == "repeated":
            return
        alert, change = changed
        for channel in self.channels():
            try:
                channel.send(alert, change)
            except Exception as error:  # whatever a channel raises, the alert stands and the others are told
                _log.exception(
                    "the channel %s could not be told that %s/%s %s", channel.name, alert.model, alert.cause, change
                )
                self.store.note(alert.id, "undelivered", f"{channel.name}: {error}")


def _alert(row: Any) -> Alert:
    values = dict(row)
    for name in ("opened_at", "updated_at", "resolved_at"):
        values[name] = values[name].replace(tzinfo=dt.UTC) if values[name] is not None else None
    return Alert(**values)


def _naive_utc(at: dt.datetime | None) -> dt.datetime:
    return (at or dt.datetime.now(dt.UTC)).astimezone(dt.UTC).replace(tzinfo=None)

"""The alert store: one open alert per model, cause and column, and its append-only history.

Belongs here: the changes of an alert (open, repeat, escalate, acknowledge, silence, resolve, reopen, flap). Does not
belong here: the tables (``database.py``), the conditions that raise alerts (``sensors``,
``serving/watch/watchdog.py``), and delivery to channels (``outbox.py``, ``delivery.py``, ``channels``).

Each change is written in one transaction with its history entry and its outbox entries. So every committed change is
delivered, and a change that was not committed has no effect.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import sqlalchemy as sa

from resources import audit
from resources.alerts.alert import (
    UNTOLD,
    Alert,
    AlertError,
    Change,
    Event,
    Policy,
    Route,
    Seen,
    Severity,
    fingerprint_of,
)
from resources.alerts.database import ALERTS, EVENTS, OUTBOX, POSITIONS, alert_of, insert_if_absent
from resources.alerts.outbox import Outbox
from resources.append_only import updating_allowed
from resources.database import Database, aware, naive_utc

_TRIES = 20


class AlertStore:
    """The alerts of all models in one database, SQLite or any other that SQLAlchemy reaches.

    Args:
        database_url: SQLAlchemy URL.
        routes: which channels receive which changes; a store without routes adds nothing to the outbox.
        policy: rules for reopening, flapping and settling.
    """

    def __init__(self, database_url: str, routes: Sequence[Route] = (), policy: Policy | None = None) -> None:
        self._database = Database(database_url)
        self.outbox = Outbox(self._database)
        self.routes = tuple(routes)
        self.policy = policy or Policy()

    # -- observations ------------------------------------------------------------------------------------------------

    def report(
        self,
        model: str,
        cause: str,
        *,
        severity: Severity,
        summary: str,
        column: str = "",
        owner: str = "",
        runbook: str = "",
        day: str | None = None,
        since_day: str | None = None,
        links: Mapping[str, str] | None = None,
        at: dt.datetime | None = None,
        seen: Seen | None = None,
    ) -> tuple[Alert, Change] | None:
        """Reports that a cause is present. Opens, reopens or repeats its alert, or escalates a warning to a page.

        Returns:
            The alert and the change; ``None`` if ``seen`` was processed before.

        Raises:
            RuntimeError: other processes opened the alert first, 20 times in a row.
        """
        now = naive_utc(at)
        observation = {
            "severity": severity, "summary": summary, "links": dict(links or {}), "owner": owner, "runbook": runbook,
            "last_day": day, "updated_at": now,
        }  # fmt: skip
        for _ in range(_TRIES):
            try:
                with self._once(seen) as connection:
                    if connection is None:
                        return None
                    fingerprint = fingerprint_of(model, cause, column)
                    there = self._open(connection, fingerprint)
                    if there is not None:
                        return self._again(connection, there, observation, now)
                    before = self._recently_resolved(connection, fingerprint, now)
                    if before is not None:
                        return self._reopen(connection, before, {**observation, "since_day": since_day or day}, now)
                    new = {
                        **observation, "fingerprint": fingerprint, "model": model, "cause": cause, "column": column,
                        "count": 1, "since_day": since_day or day, "opened_at": now,
                    }  # fmt: skip
                    number = connection.execute(ALERTS.insert().values(**new).returning(ALERTS.c.id)).scalar_one()
                    return self._changed(connection, number, "opened", summary, now, day=day)
            except sa.exc.IntegrityError:
                continue  # another process opened it first; the next try repeats it
        raise RuntimeError(f"other processes opened the alert {model}/{cause} {_TRIES} times in a row; try again")

    def resolve(
        self,
        model: str,
        cause: str,
        *,
        reason: str,
        column: str = "",
        day: str | None = None,
        at: dt.datetime | None = None,
        seen: Seen | None = None,
    ) -> tuple[Alert, Change] | None:
        """Reports that a cause is gone. Resolves its open alert, unless ``day`` is before the alert's latest day.

        A flapping alert is only marked as clear; :meth:`tend` resolves it once the cause has stayed away.

        Returns:
            The alert and the change; ``None`` if nothing changed.
        """
        now = naive_utc(at)
        with self._once(seen) as connection:
            there = self._open(connection, fingerprint_of(model, cause, column)) if connection is not None else None
            if connection is None or there is None or (day and there.last_day and day < there.last_day):
                return None
            if there.flapping:
                if there.clear_since is None:
                    values = {"clear_since": now, "updated_at": now, "resolved_day": day}
                    self._set(connection, there.id, values)
                    message = f"{reason}; the alert is flapping and resolves once the cause stays absent"
                    return self._changed(connection, there.id, "repeated", message, now, day=day)
                return None
            return self._resolved(connection, there.id, reason, now, day=day)

    def open_causes(self, model: str, cause: str) -> list[Alert]:
        """Open alerts of a cause, for the whole model and for single columns."""
        return [alert for alert in self.open_alerts(model) if alert.cause == cause]

    def tend(self, at: dt.datetime | None = None) -> list[tuple[Alert, Change]]:
        """Applies time-based changes: ends expired silences, and resolves flapping alerts whose cause stayed away."""
        now, changed = naive_utc(at), []
        with self._database.writing() as connection:
            rows = connection.execute(sa.select(ALERTS).where(ALERTS.c.resolved_at.is_(None))).mappings().all()
            for alert in map(alert_of, rows):
                if alert.silenced_until is not None and naive_utc(alert.silenced_until) <= now:
                    self._set(connection, alert.id, {"silenced_until": None, "updated_at": now})
                    changed.append(self._changed(connection, alert.id, "unsilenced", "the silence has ended", now))
                if alert.clear_since is not None and naive_utc(alert.clear_since) + self.policy.settle_after <= now:
                    reason = f"the cause has been absent since {alert.clear_since:%Y-%m-%d %H:%M} UTC"
                    changed.append(self._resolved(connection, alert.id, reason, now, day=alert.resolved_day))
        return changed

    def rewrite(self, rewritten: Callable[[str], str], *, write: bool = True) -> int:
        """Rewrites the texts of alerts and of their history; for erasure.

        The history is append-only for everybody else. Its trigger is off within one transaction.

        Args:
            rewritten: receives a text, and returns the one to be kept.
            write: whether to write; otherwise they are only counted.

        Returns:
            The number of alerts and changes with another text.
        """

        def of(value: Any) -> Any:
            match value:
                case str():
                    return rewritten(value)
                case dict():
                    return {name: of(one) for name, one in value.items()}
            return value

        changed = 0
        with self._database.writing() if write else self._database.reading() as connection:
            for table, columns in ((ALERTS, ("summary", "resolution")), (EVENTS, ("message", "snapshot"))):
                for row in connection.execute(sa.select(table)).mappings().all():
                    new = {name: text for name in columns if (text := of(row[name])) != row[name]}
                    changed += bool(new)
                    if new and write:
                        with updating_allowed(connection, table.name) if table is EVENTS else nullcontext():
                            connection.execute(table.update().where(table.c.id == row["id"]).values(**new))
        return changed

    # -- user actions ------------------------------------------------------------------------------------------------

    def acknowledge(
        self, alert_id: int, *, who: str, comment: str = "", at: dt.datetime | None = None
    ) -> tuple[Alert, Change] | None:
        """Marks an open alert as being handled by ``who``. Returns ``None`` if it is already acknowledged.

        Raises:
            AlertError: there is no such alert, or it is resolved.
        """
        now = naive_utc(at)
        with self._database.writing() as connection:
            if self._must_be_open(connection, alert_id).acknowledged_at is not None:
                return None
            self._set(connection, alert_id, {"acknowledged_at": now, "acknowledged_by": who, "updated_at": now})
            return self._changed(
                connection, alert_id, "acknowledged", comment or f"acknowledged by {who}", now, who=who
            )

    def silence(
        self, alert_id: int, *, until: dt.datetime, who: str, comment: str = "", at: dt.datetime | None = None
    ) -> tuple[Alert, Change]:
        """Silences an open alert: until ``until``, channels receive only its resolution.

        Raises:
            AlertError: ``until`` is in the past, or there is no such open alert.
        """
        now, end = naive_utc(at), naive_utc(until)
        if end <= now:
            raise AlertError(f"the end of the silence, {end:%Y-%m-%d %H:%M} UTC, is in the past; give a later time")
        with self._database.writing() as connection:
            self._must_be_open(connection, alert_id)
            self._set(connection, alert_id, {"silenced_until": end, "updated_at": now})
            message = comment or f"silenced by {who} until {end:%Y-%m-%d %H:%M} UTC"
            return self._changed(connection, alert_id, "silenced", message, now, who=who)

    def close(
        self, alert_id: int, *, who: str, comment: str = "", at: dt.datetime | None = None
    ) -> tuple[Alert, Change]:
        """Resolves an open alert by hand. It reopens if the cause is reported again soon.

        Raises:
            AlertError: there is no such alert, or it is already resolved.
        """
        now = naive_utc(at)
        with self._database.writing() as connection:
            self._must_be_open(connection, alert_id)
            return self._resolved(connection, alert_id, comment or f"resolved by {who}", now, who=who)

    def update(self, alert_id: int, message: str, *, at: dt.datetime | None = None) -> tuple[Alert, Change] | None:
        """Adds a progress update to an open alert (e.g. a training that it started); ``None`` if it is not open."""
        now = naive_utc(at)
        with self._database.writing() as connection:
            alert = self._by_id(connection, alert_id)
            if alert is None or alert.resolved_at is not None:
                return None
            self._set(connection, alert_id, {"updated_at": now})
            return self._changed(connection, alert_id, "updated", message, now)

    # -- queries -----------------------------------------------------------------------------------------------------

    def get(self, alert_id: int) -> Alert:
        """The alert with this id. Raises :class:`AlertError` if there is none."""
        with self._database.reading() as connection:
            alert = self._by_id(connection, alert_id)
        if alert is None:
            raise AlertError(f"there is no alert {alert_id}; `assetline alerts list --all` shows all alerts")
        return alert

    def open_alerts(self, model: str | None = None) -> list[Alert]:
        """Open alerts of one model or of all, oldest first."""
        query = sa.select(ALERTS).where(ALERTS.c.resolved_at.is_(None)).order_by(ALERTS.c.id)
        return self._read(query if model is None else query.where(ALERTS.c.model == model))

    def alerts(self, model: str | None = None, limit: int | None = None) -> list[Alert]:
        """Open and resolved alerts, oldest first; with ``limit``, only the newest ``limit`` of them."""
        query = sa.select(ALERTS) if model is None else sa.select(ALERTS).where(ALERTS.c.model == model)
        return self._read(query.order_by(ALERTS.c.id.desc()).limit(limit))[::-1]

    def history(self, alert_id: int | None = None, after: int = 0) -> list[Event]:
        """History of one alert or of all, oldest first. Only events with an id above ``after``."""
        query = sa.select(EVENTS).where(EVENTS.c.id > after).order_by(EVENTS.c.id)
        if alert_id is not None:
            query = query.where(EVENTS.c.alert_id == alert_id)
        with self._database.reading() as connection:
            rows = connection.execute(query).mappings().all()
        return [
            Event(**{**{k: r[k] for k in ("id", "alert_id", "change", "message", "who", "day")}, "at": aware(r["at"])})
            for r in rows
        ]

    def last_event(self) -> int:
        """Id of the latest event in the history; 0 if there is none."""
        with self._database.reading() as connection:
            return int(connection.execute(sa.select(sa.func.max(EVENTS.c.id))).scalar() or 0)

    def count_changes(self, after: int = 0) -> tuple[dict[tuple[str, str], int], int]:
        """Counts the events with an id above ``after``.

        Returns:
            The counts by (model, change), and the id of the latest event.
        """
        grouped = (ALERTS.c.model, EVENTS.c.change)
        query = sa.select(*grouped, sa.func.count(), sa.func.max(EVENTS.c.id)).join(
            ALERTS, ALERTS.c.id == EVENTS.c.alert_id
        )
        with self._database.reading() as connection:
            rows = connection.execute(query.where(EVENTS.c.id > after).group_by(*grouped)).all()
        return {(r[0], r[1]): int(r[2]) for r in rows}, max((int(r[3]) for r in rows), default=after)

    # -- streams of observations -------------------------------------------------------------------------------------

    def position(self, stream: str) -> int:
        """Last processed position in a stream of observations; 0 if there is none."""
        with self._database.reading() as connection:
            found = connection.execute(sa.select(POSITIONS.c.position).where(POSITIONS.c.stream == stream)).scalar()
        return int(found or 0)

    def advance(self, seen: Seen) -> None:
        """Records the position of a stream when there was nothing to report."""
        with self._once(seen):
            pass

    # -- inside a transaction ----------------------------------------------------------------------------------------

    @contextmanager
    def _once(self, seen: Seen | None) -> Iterator[sa.Connection | None]:
        """A transaction that also advances the stream's position; yields ``None`` if ``seen`` was processed before."""
        with self._database.writing() as connection:
            if seen is None:
                yield connection
                return
            where = POSITIONS.c.stream == seen.stream
            insert_if_absent(connection, POSITIONS, stream=seen.stream, position=-1)
            found = connection.execute(sa.select(POSITIONS.c.position).where(where).with_for_update()).scalar_one()
            if found >= seen.position:
                yield None
                return
            connection.execute(POSITIONS.update().where(where).values(position=seen.position))
            yield connection

    def _open(self, connection: sa.Connection, fingerprint: str) -> Alert | None:
        same = sa.and_(ALERTS.c.fingerprint == fingerprint, ALERTS.c.resolved_at.is_(None))
        row = connection.execute(sa.select(ALERTS).where(same).with_for_update()).mappings().first()
        return alert_of(row) if row else None

    def _recently_resolved(self, connection: sa.Connection, fingerprint: str, now: dt.datetime) -> Alert | None:
        recent = ALERTS.c.resolved_at >= now - self.policy.reopen_within
        query = sa.select(ALERTS).where(ALERTS.c.fingerprint == fingerprint, recent).order_by(ALERTS.c.id.desc())
        row = connection.execute(query.limit(1)).mappings().first()
        return alert_of(row) if row else None

    def _again(
        self, connection: sa.Connection, there: Alert, observation: Mapping[str, Any], now: dt.datetime
    ) -> tuple[Alert, Change]:
        """Records that the cause of an open alert was reported again."""
        day, escalates = observation["last_day"], observation["severity"] == "page" and there.severity == "warn"
        values: dict[str, Any] = {"count": there.count + 1, "updated_at": now, "clear_since": None}
        if day is None or there.last_day is None or day >= there.last_day:
            values |= {**observation, "severity": there.severity}
        if escalates:
            # A page needs a new acknowledgement.
            values |= {"severity": "page", "acknowledged_at": None, "acknowledged_by": None}
        self._set(connection, there.id, values)
        return self._changed(
            connection, there.id, "escalated" if escalates else "repeated", observation["summary"], now, day=day
        )

    def _reopen(
        self, connection: sa.Connection, before: Alert, observation: Mapping[str, Any], now: dt.datetime
    ) -> tuple[Alert, Change]:
        since = now - self.policy.flap_within
        where = (EVENTS.c.alert_id == before.id) & (EVENTS.c.change == "reopened") & (EVENTS.c.at >= since)
        reopened = connection.execute(sa.select(sa.func.count()).select_from(EVENTS).where(where)).scalar_one()
        flapping = reopened + 1 >= self.policy.flaps
        none = ("acknowledged_at", "acknowledged_by", "resolved_at", "resolved_day", "resolution", "clear_since")
        values = {**dict.fromkeys(none), **observation, "count": before.count + 1, "flapping": flapping}
        self._set(connection, before.id, values)
        changed = self._changed(
            connection, before.id, "reopened", observation["summary"], now, day=observation["last_day"]
        )
        if flapping and not before.flapping:
            message = (
                f"the alert reopened {reopened + 1} times; from now on it resolves only once the cause stays absent"
            )
            changed = self._changed(connection, before.id, "flapping", message, now)
        return changed

    def _resolved(
        self, connection: sa.Connection, alert_id: int, reason: str, now: dt.datetime, *, day: str | None = None,
        who: str = "",
    ) -> tuple[Alert, Change]:  # fmt: skip
        values = {"resolved_at": now, "updated_at": now, "resolved_day": day, "resolution": reason, "flapping": False,
                  "clear_since": None}  # fmt: skip
        self._set(connection, alert_id, values)
        return self._changed(connection, alert_id, "resolved", reason, now, day=day, who=who)

    def _must_be_open(self, connection: sa.Connection, alert_id: int) -> Alert:
        alert = self._by_id(connection, alert_id)
        if alert is None:
            raise AlertError(f"there is no alert {alert_id}; `assetline alerts list --all` shows all alerts")
        if alert.resolved_at is not None:
            raise AlertError(f"alert {alert_id} was already resolved at {alert.resolved_at:%Y-%m-%d %H:%M} UTC")
        return alert

    def _by_id(self, connection: sa.Connection, alert_id: int) -> Alert | None:
        row = connection.execute(sa.select(ALERTS).where(ALERTS.c.id == alert_id)).mappings().first()
        return alert_of(row) if row else None

    def _set(self, connection: sa.Connection, alert_id: int, values: Mapping[str, Any]) -> None:
        connection.execute(ALERTS.update().where(ALERTS.c.id == alert_id).values(**values))

    def _changed(
        self, connection: sa.Connection, alert_id: int, change: Change, message: str, now: dt.datetime, *,
        day: str | None = None, who: str = "",
    ) -> tuple[Alert, Change]:  # fmt: skip
        """Adds the history entry, and an outbox entry for each channel that receives the change."""
        alert = self._by_id(connection, alert_id)
        assert alert is not None
        silent = change in UNTOLD or (alert.is_silenced(aware(now)) and change not in ("silenced", "resolved"))
        routes = [] if silent else [route for route in self.routes if route.takes(alert)]
        event = connection.execute(
            EVENTS.insert()
            .values(alert_id=alert_id, change=change, message=message, who=who, day=day, at=now,
                    snapshot=alert.to_json() if routes else None)
            .returning(EVENTS.c.id)
        ).scalar_one()  # fmt: skip
        if who:
            details = {"alert": alert_id, "cause": alert.cause}
            audit.add(connection, change, f"{alert.model}/alerts", who=who, details=details)
        for route in routes:
            entry = {"channel": route.channel, "event_id": event, "alert_id": alert_id, "created_at": now,
                     "due_at": now + route.delay, "severity": alert.severity}  # fmt: skip
            connection.execute(OUTBOX.insert().values(**entry))
        return alert, change

    def _read(self, query: sa.Select[Any]) -> list[Alert]:
        with self._database.reading() as connection:
            return [alert_of(row) for row in connection.execute(query).mappings()]

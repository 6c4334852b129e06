"""The alert store: one open alert per model, cause and column, its append-only history, and the outbox of its changes.

Belongs here: the tables, and what may happen to an alert (open, repeat, escalate, acknowledge, silence, resolve,
reopen, flap). Does not belong here: what deserves an alert (``sensors/alerts.py``, ``serving/watchdog.py``), and how a
channel is told (``delivery.py``, ``channels``).

Each change, its line of history and its entries in the outbox are one transaction: what was committed will be told, and
what was not, did not happen.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

Severity = Literal["warn", "page"]
State = Literal["open", "acknowledged", "resolved"]
Change = Literal[
    "opened", "reopened", "repeated", "escalated", "acknowledged", "silenced", "unsilenced", "flapping", "updated",
    "resolved",
]  # fmt: skip
UNTOLD: frozenset[str] = frozenset({"repeated"})
"""Changes that are in the history alone: a cause that lasts is not told every day."""

_METADATA = sa.MetaData()
_ALERTS = sa.Table(
    "alerts",
    _METADATA,
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
# Two writers cannot both open it: the database itself knows one open alert per fingerprint.
_ONE_OPEN = sa.Index(
    "one_open_fingerprint",
    _ALERTS.c.fingerprint,
    unique=True,
    sqlite_where=_ALERTS.c.resolved_at.is_(None),
    postgresql_where=_ALERTS.c.resolved_at.is_(None),
)
_EVENTS = sa.Table(
    "alert_events",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("alert_id", sa.ForeignKey("alerts.id"), nullable=False, index=True),
    sa.Column("change", sa.String(16), nullable=False),
    sa.Column("words", sa.Text, nullable=False),
    sa.Column("who", sa.String(200), nullable=False, server_default=""),
    sa.Column("day", sa.String(10)),
    sa.Column("at", sa.DateTime, nullable=False),
    sa.Column("snapshot", sa.JSON),  # the alert as it was told
)
_OUTBOX = sa.Table(
    "alert_outbox",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("channel", sa.String(100), nullable=False),
    sa.Column("event_id", sa.ForeignKey("alert_events.id"), nullable=False),
    sa.Column("alert_id", sa.Integer, nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("due_at", sa.DateTime, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
    sa.Column("error", sa.Text),
    sa.Column("delivered_at", sa.DateTime),
    sa.Column("message", sa.String(40)),  # deliveries of one message share it
    sa.Index("undelivered", "channel", "delivered_at"),
)
_CHANNELS = sa.Table(
    "alert_channels",
    _METADATA,
    sa.Column("channel", sa.String(100), primary_key=True),
    sa.Column("heartbeat_at", sa.DateTime),
    sa.Column("synced_at", sa.DateTime),
    sa.Column("held_by", sa.String(200), nullable=False, server_default=""),
    sa.Column("held_until", sa.DateTime),
)
_POSITIONS = sa.Table(
    "alert_positions",
    _METADATA,
    sa.Column("stream", sa.String(100), primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
)
_TRIES = 20


class AlertError(Exception):
    """What was asked of an alert cannot be done; the message says why and what can."""


@dataclass(frozen=True, kw_only=True)
class Alert:
    """An alert as it stands.

    Args:
        fingerprint: of model, cause and column, 16 hex digits; at most one alert of each is open.
        model, cause, column: its identity; ``column`` is empty where the cause is not one column's.
        severity: ``page`` wakes somebody.
        owner: whose it is, ``team:…`` or an e-mail address.
        runbook: path of its page in ``docs/runbooks``.
        links: by name, addresses or paths: run, asset, report.
        count: how often the cause was seen since it opened.
        since_day: first day of data that shows the cause; ``last_day`` the latest.
        silenced_until: nothing but its resolution is told before.
        flapping: it reopened so often that it resolves only once the cause has stayed away for a while.
        clear_since: since when the cause of a flapping alert has been away.
        resolution: why it was resolved; ``None`` while it is open.
    """

    id: int
    fingerprint: str
    model: str
    cause: str
    column: str
    severity: Severity
    owner: str
    summary: str
    runbook: str
    links: Mapping[str, str]
    count: int
    since_day: str | None
    last_day: str | None
    opened_at: dt.datetime
    updated_at: dt.datetime
    acknowledged_at: dt.datetime | None
    acknowledged_by: str | None
    silenced_until: dt.datetime | None
    flapping: bool
    clear_since: dt.datetime | None
    resolved_at: dt.datetime | None
    resolved_day: str | None
    resolution: str | None

    @property
    def state(self) -> State:
        """Open, acknowledged (somebody has it in hand) or resolved."""
        if self.resolved_at is not None:
            return "resolved"
        return "acknowledged" if self.acknowledged_at is not None else "open"

    @property
    def title(self) -> str:
        """Cause and column in short."""
        return f"{self.cause} ({self.column})" if self.column else self.cause

    def is_silenced(self, at: dt.datetime | None = None) -> bool:
        """Whether it is silenced at a time (default: now)."""
        return self.silenced_until is not None and (at or dt.datetime.now(dt.UTC)) < self.silenced_until

    def to_json(self) -> dict[str, Any]:
        """All of it, and its state, in types that JSON knows; times as ISO 8601 in UTC."""
        values = {
            name: value.isoformat() if isinstance(value, dt.datetime) else value for name, value in asdict(self).items()
        }
        return {**values, "state": self.state}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Alert:
        """What :meth:`to_json` gave."""
        given = {name: value for name, value in values.items() if name != "state"}
        for name in _TIMES:
            given[name] = dt.datetime.fromisoformat(given[name]) if given[name] else None
        return cls(**given)


_TIMES = ("opened_at", "updated_at", "acknowledged_at", "silenced_until", "clear_since", "resolved_at")


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of an alert's history."""

    id: int
    alert_id: int
    change: str
    words: str
    who: str
    day: str | None
    at: dt.datetime


@dataclass(frozen=True)
class Seen:
    """A place in a stream of observations; one that was seen already changes nothing a second time."""

    stream: str
    position: int


@dataclass(frozen=True, kw_only=True)
class Route:
    """Which changes go to a channel: those of alerts of these severities and owners (none: all owners)."""

    channel: str
    severities: tuple[str, ...] = ("warn", "page")
    owners: tuple[str, ...] = ()
    delay: dt.timedelta = dt.timedelta(0)

    def takes(self, alert: Alert) -> bool:
        """Whether the channel is told of this alert."""
        return alert.severity in self.severities and (not self.owners or alert.owner in self.owners)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """When an alert reopens and when it counts as flapping.

    Args:
        reopen_within: a cause that comes back so soon after the resolution reopens its alert.
        flaps: reopened so often within ``flap_within``, an alert is flapping.
        settle_after: a flapping alert resolves once its cause has stayed away so long.
    """

    reopen_within: dt.timedelta = dt.timedelta(days=3)
    flaps: int = 3
    flap_within: dt.timedelta = dt.timedelta(days=14)
    settle_after: dt.timedelta = dt.timedelta(days=2)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One entry of the outbox: a change of an alert that a channel is to be told of."""

    id: int
    change: Change
    words: str
    who: str
    at: dt.datetime
    alert: Alert
    tries: int


def fingerprint_of(model: str, cause: str, column: str = "") -> str:
    """Identity of an alert: 16 hex digits of model, cause and column."""
    return hashlib.blake2b("\0".join((model, cause, column)).encode(), digest_size=8).hexdigest()


class AlertStore:
    """The alerts of all models in one database, SQLite or any other that SQLAlchemy reaches.

    Args:
        database_url: SQLAlchemy's.
        routes: who is told of what; only a store that has them puts changes into the outbox.
        policy: when alerts reopen and settle.
    """

    def __init__(self, database_url: str, routes: Sequence[Route] = (), policy: Policy | None = None) -> None:
        self.database_url = database_url
        self.routes = tuple(routes)
        self.policy = policy or Policy()

    # -- what is seen ------------------------------------------------------------------------------------------------

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
        """Says that a cause is there: opens its alert, reopens it, or repeats it, and escalates a warning to a page.

        Returns the alert and what happened to it; ``None`` where ``seen`` was seen before.
        """
        now = _naive_utc(at)
        said = {
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
                        return self._again(connection, there, said, now)
                    before = self._recently_resolved(connection, fingerprint, now)
                    if before is not None:
                        return self._reopen(connection, before, {**said, "since_day": since_day or day}, now)
                    new = {
                        **said, "fingerprint": fingerprint, "model": model, "cause": cause, "column": column,
                        "count": 1, "since_day": since_day or day, "opened_at": now,
                    }  # fmt: skip
                    number = connection.execute(_ALERTS.insert().values(**new).returning(_ALERTS.c.id)).scalar_one()
                    return self._changed(connection, number, "opened", summary, now, day=day)
            except sa.exc.IntegrityError:
                continue  # another process opened it first: now it is there to repeat
        raise RuntimeError(f"the alert {model}/{cause} was opened by others {_TRIES} times in a row; try again")

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
        """Says that a cause is gone: resolves its alert, if one is open and ``day`` is not before what it is about.

        A flapping alert is only marked as clear; :meth:`tend` resolves it once the cause has stayed away.
        """
        now = _naive_utc(at)
        with self._once(seen) as connection:
            there = self._open(connection, fingerprint_of(model, cause, column)) if connection is not None else None
            if connection is None or there is None or (day and there.last_day and day < there.last_day):
                return None
            if there.flapping:
                if there.clear_since is None:
                    values = {"clear_since": now, "updated_at": now, "resolved_day": day}
                    self._set(connection, there.id, values)
                    words = f"{reason}; it is flapping: it resolves when the cause has stayed away"
                    return self._changed(connection, there.id, "repeated", words, now, day=day)
                return None
            return self._resolved(connection, there.id, reason, now, day=day)

    def open_causes(self, model: str, cause: str) -> list[Alert]:
        """Open alerts of a cause: of the model as a whole and of single columns."""
        return [alert for alert in self.open_alerts(model) if alert.cause == cause]

    def tend(self, at: dt.datetime | None = None) -> list[tuple[Alert, Change]]:
        """What time alone brings: silences that are over, and flapping alerts whose cause has stayed away."""
        now, changed = _naive_utc(at), []
        with self._engine.begin() as connection:
            rows = connection.execute(sa.select(_ALERTS).where(_ALERTS.c.resolved_at.is_(None))).mappings().all()
            for alert in map(_alert, rows):
                if alert.silenced_until is not None and _naive_utc(alert.silenced_until) <= now:
                    self._set(connection, alert.id, {"silenced_until": None, "updated_at": now})
                    changed.append(self._changed(connection, alert.id, "unsilenced", "the silence is over", now))
                if alert.clear_since is not None and _naive_utc(alert.clear_since) + self.policy.settle_after <= now:
                    reason = f"the cause has stayed away since {alert.clear_since:%Y-%m-%d %H:%M} UTC"
                    changed.append(self._resolved(connection, alert.id, reason, now, day=alert.resolved_day))
        return changed

    # -- what people do ----------------------------------------------------------------------------------------------

    def acknowledge(
        self, alert_id: int, *, who: str, words: str = "", at: dt.datetime | None = None
    ) -> tuple[Alert, Change] | None:
        """Somebody has it in hand. Nothing changes where it is acknowledged already."""
        now = _naive_utc(at)
        with self._engine.begin() as connection:
            if self._must_be_open(connection, alert_id).acknowledged_at is not None:
                return None
            self._set(connection, alert_id, {"acknowledged_at": now, "acknowledged_by": who, "updated_at": now})
            return self._changed(connection, alert_id, "acknowledged", words or f"{who} has it in hand", now, who=who)

    def silence(
        self, alert_id: int, *, until: dt.datetime, who: str, words: str = "", at: dt.datetime | None = None
    ) -> tuple[Alert, Change]:
        """Nothing more is told of it until then, but its resolution.

        Raises :class:`AlertError` for a time that is past.
        """
        now, end = _naive_utc(at), _naive_utc(until)
        if end <= now:
            raise AlertError(f"a silence until {end:%Y-%m-%d %H:%M} UTC is over already; give a time to come")
        with self._engine.begin() as connection:
            self._must_be_open(connection, alert_id)
            self._set(connection, alert_id, {"silenced_until": end, "updated_at": now})
            said = words or f"silenced by {who} until {end:%Y-%m-%d %H:%M} UTC"
            return self._changed(connection, alert_id, "silenced", said, now, who=who)

    def close(self, alert_id: int, *, who: str, words: str = "", at: dt.datetime | None = None) -> tuple[Alert, Change]:
        """Somebody says that it is over; if the cause is seen again soon, the alert reopens."""
        now = _naive_utc(at)
        with self._engine.begin() as connection:
            self._must_be_open(connection, alert_id)
            return self._resolved(connection, alert_id, words or f"resolved by {who}", now, who=who)

    def update(self, alert_id: int, words: str, *, at: dt.datetime | None = None) -> tuple[Alert, Change] | None:
        """Tells what became of an open alert (a training it asked for, say); ``None`` where it is not open."""
        now = _naive_utc(at)
        with self._engine.begin() as connection:
            alert = self._by_id(connection, alert_id)
            if alert is None or alert.resolved_at is not None:
                return None
            self._set(connection, alert_id, {"updated_at": now})
            return self._changed(connection, alert_id, "updated", words, now)

    # -- what there is -----------------------------------------------------------------------------------------------

    def get(self, alert_id: int) -> Alert:
        """One alert. Raises :class:`AlertError` where there is none of that number."""
        with self._engine.connect() as connection:
            alert = self._by_id(connection, alert_id)
        if alert is None:
            raise AlertError(f"there is no alert {alert_id}; `assetline alerts list --all` shows those there are")
        return alert

    def open_alerts(self, model: str | None = None) -> list[Alert]:
        """Open alerts of one model or of all, oldest first."""
        query = sa.select(_ALERTS).where(_ALERTS.c.resolved_at.is_(None)).order_by(_ALERTS.c.id)
        return self._read(query if model is None else query.where(_ALERTS.c.model == model))

    def alerts(self, model: str | None = None, limit: int | None = None) -> list[Alert]:
        """All alerts, open and resolved, oldest first; with ``limit`` the newest so many."""
        query = sa.select(_ALERTS) if model is None else sa.select(_ALERTS).where(_ALERTS.c.model == model)
        return self._read(query.order_by(_ALERTS.c.id.desc()).limit(limit))[::-1]

    def history(self, alert_id: int | None = None, after: int = 0) -> list[Event]:
        """What happened to an alert (or to all), oldest first; ``after``: only events of a higher number."""
        query = sa.select(_EVENTS).where(_EVENTS.c.id > after).order_by(_EVENTS.c.id)
        if alert_id is not None:
            query = query.where(_EVENTS.c.alert_id == alert_id)
        with self._engine.connect() as connection:
            rows = connection.execute(query).mappings().all()
        return [
            Event(**{**{k: r[k] for k in ("id", "alert_id", "change", "words", "who", "day")}, "at": _aware(r["at"])})
            for r in rows
        ]

    def last_event(self) -> int:
        """Number of the latest line of history; 0 before the first."""
        with self._engine.connect() as connection:
            return int(connection.execute(sa.select(sa.func.max(_EVENTS.c.id))).scalar() or 0)

    def changes_told(self) -> dict[tuple[str, str, str], int]:
        """How many changes there were, by model, severity and kind of change."""
        grouped = (_ALERTS.c.model, _ALERTS.c.severity, _EVENTS.c.change)
        query = sa.select(*grouped, sa.func.count()).join(_ALERTS, _ALERTS.c.id == _EVENTS.c.alert_id)
        with self._engine.connect() as connection:
            return {(r[0], r[1], r[2]): int(r[3]) for r in connection.execute(query.group_by(*grouped))}

    # -- streams of observations -------------------------------------------------------------------------------------

    def position(self, stream: str) -> int:
        """How far a stream of observations was seen; 0 before the first."""
        with self._engine.connect() as connection:
            found = connection.execute(sa.select(_POSITIONS.c.position).where(_POSITIONS.c.stream == stream)).scalar()
        return int(found or 0)

    def advance(self, seen: Seen) -> None:
        """Notes that a stream was seen so far, where there was nothing to report."""
        with self._once(seen):
            pass

    # -- the outbox --------------------------------------------------------------------------------------------------

    def due(self, channel: str, at: dt.datetime | None = None, limit: int = 100) -> list[Delivery]:
        """What a channel is to be told now, oldest first; nothing of an alert while an older change of it waits."""
        now = _naive_utc(at)
        waiting = _OUTBOX.c.delivered_at.is_(None) & (_OUTBOX.c.channel == channel)
        held = _OUTBOX.alias("held")
        blocked = sa.exists().where(
            (held.c.channel == channel)
            & held.c.delivered_at.is_(None)
            & (held.c.alert_id == _OUTBOX.c.alert_id)
            & (held.c.id < _OUTBOX.c.id)
            & (held.c.due_at > now)
        )
        query = (
            sa.select(_OUTBOX.c.id, _OUTBOX.c.tries, _EVENTS)
            .join(_EVENTS, _EVENTS.c.id == _OUTBOX.c.event_id)
            .where(waiting & (_OUTBOX.c.due_at <= now) & ~blocked)
            .order_by(_OUTBOX.c.id)
            .limit(limit)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(query).all()
        return [
            Delivery(id=r[0], tries=r[1], change=r.change, words=r.words, who=r.who, at=_aware(r.at),
                     alert=Alert.from_json(r.snapshot))
            for r in rows
        ]  # fmt: skip

    def delivered(self, ids: Iterable[int], message: str, at: dt.datetime | None = None) -> None:
        """Notes that a message with these entries of the outbox has arrived."""
        values = {"delivered_at": _naive_utc(at), "message": message, "error": None, "tries": _OUTBOX.c.tries + 1}
        with self._engine.begin() as connection:
            connection.execute(_OUTBOX.update().where(_OUTBOX.c.id.in_(list(ids))).values(**values))

    def undelivered(self, ids: Iterable[int], error: str, due_at: dt.datetime) -> None:
        """Notes that a message did not arrive, why, and when to try again."""
        values = {"due_at": _naive_utc(due_at), "error": error, "tries": _OUTBOX.c.tries + 1}
        with self._engine.begin() as connection:
            connection.execute(_OUTBOX.update().where(_OUTBOX.c.id.in_(list(ids))).values(**values))

    def postponed(self, ids: Iterable[int], due_at: dt.datetime) -> None:
        """Leaves entries for later without counting a try (quiet hours)."""
        with self._engine.begin() as connection:
            where = _OUTBOX.c.id.in_(list(ids))
            connection.execute(_OUTBOX.update().where(where).values(due_at=_naive_utc(due_at)))

    def messages_since(self, channel: str, since: dt.datetime) -> list[dt.datetime]:
        """When the messages of a channel since then arrived, oldest first."""
        where = (_OUTBOX.c.channel == channel) & (_OUTBOX.c.delivered_at >= _naive_utc(since))
        query = sa.select(sa.func.max(_OUTBOX.c.delivered_at)).where(where).group_by(_OUTBOX.c.message)
        with self._engine.connect() as connection:
            return sorted(_aware(at) for (at,) in connection.execute(query))

    def backlog(self) -> dict[str, dict[str, Any]]:
        """By channel, how much waits (``waiting``), since when (``since``), the most tries and the last error."""
        query = (
            sa.select(
                _OUTBOX.c.channel, sa.func.count(), sa.func.min(_OUTBOX.c.created_at), sa.func.max(_OUTBOX.c.tries),
                sa.func.max(_OUTBOX.c.error),
            )
            .where(_OUTBOX.c.delivered_at.is_(None))
            .group_by(_OUTBOX.c.channel)
        )  # fmt: skip
        with self._engine.connect() as connection:
            return {
                r[0]: {"waiting": int(r[1]), "since": _aware(r[2]), "tries": int(r[3]), "error": r[4]}
                for r in connection.execute(query)
            }

    def sent(self) -> dict[str, int]:
        """By channel, how many changes have arrived."""
        query = sa.select(_OUTBOX.c.channel, sa.func.count()).where(_OUTBOX.c.delivered_at.is_not(None))
        with self._engine.connect() as connection:
            return {r[0]: int(r[1]) for r in connection.execute(query.group_by(_OUTBOX.c.channel))}

    def take_turn(self, channel: str, holder: str, until: dt.datetime, at: dt.datetime | None = None) -> str | None:
        """Makes ``holder`` the one who delivers to a channel until then, unless another one is.

        Returns that other one, or ``None`` where the turn was taken.
        """
        now = _naive_utc(at)
        with self._engine.begin() as connection:
            row = self._channel(connection, channel)
            if row.held_by not in ("", holder) and row.held_until is not None and row.held_until > now:
                return str(row.held_by)
            self._set_channel(connection, channel, {"held_by": holder, "held_until": _naive_utc(until)})
        return None

    def release_turn(self, channel: str, holder: str) -> None:
        """Gives the turn back, or takes it from a holder that is known to be dead."""
        with self._engine.begin() as connection:
            if self._channel(connection, channel).held_by == holder:
                self._set_channel(connection, channel, {"held_by": "", "held_until": None})

    def marked(self, channel: str, what: Literal["heartbeat_at", "synced_at"]) -> dt.datetime | None:
        """When a channel last had its heartbeat or was synchronised."""
        with self._engine.begin() as connection:
            at = getattr(self._channel(connection, channel), what)
        return _aware(at) if at is not None else None

    def mark(self, channel: str, what: Literal["heartbeat_at", "synced_at"], at: dt.datetime | None = None) -> None:
        """Notes that a channel had its heartbeat or was synchronised."""
        with self._engine.begin() as connection:
            self._channel(connection, channel)
            self._set_channel(connection, channel, {what: _naive_utc(at)})

    # -- inside a transaction ----------------------------------------------------------------------------------------

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

    def _open(self, connection: sa.Connection, fingerprint: str) -> Alert | None:
        same = sa.and_(_ALERTS.c.fingerprint == fingerprint, _ALERTS.c.resolved_at.is_(None))
        row = connection.execute(sa.select(_ALERTS).where(same).with_for_update()).mappings().first()
        return _alert(row) if row else None

    def _recently_resolved(self, connection: sa.Connection, fingerprint: str, now: dt.datetime) -> Alert | None:
        recent = _ALERTS.c.resolved_at >= now - self.policy.reopen_within
        query = sa.select(_ALERTS).where(_ALERTS.c.fingerprint == fingerprint, recent).order_by(_ALERTS.c.id.desc())
        row = connection.execute(query.limit(1)).mappings().first()
        return _alert(row) if row else None

    def _again(
        self, connection: sa.Connection, there: Alert, said: Mapping[str, Any], now: dt.datetime
    ) -> tuple[Alert, Change]:
        """The cause of an open alert is seen once more."""
        day, escalates = said["last_day"], said["severity"] == "page" and there.severity == "warn"
        values: dict[str, Any] = {"count": there.count + 1, "updated_at": now, "clear_since": None}
        if day is None or there.last_day is None or day >= there.last_day:
            values |= {**said, "severity": there.severity}
        if escalates:
            values |= {"severity": "page", "acknowledged_at": None, "acknowledged_by": None}  # now another matter
        self._set(connection, there.id, values)
        return self._changed(
            connection, there.id, "escalated" if escalates else "repeated", said["summary"], now, day=day
        )

    def _reopen(
        self, connection: sa.Connection, before: Alert, said: Mapping[str, Any], now: dt.datetime
    ) -> tuple[Alert, Change]:
        since = now - self.policy.flap_within
        where = (_EVENTS.c.alert_id == before.id) & (_EVENTS.c.change == "reopened") & (_EVENTS.c.at >= since)
        reopened = connection.execute(sa.select(sa.func.count()).select_from(_EVENTS).where(where)).scalar_one()
        flapping = reopened + 1 >= self.policy.flaps
        none = ("acknowledged_at", "acknowledged_by", "resolved_at", "resolved_day", "resolution", "clear_since")
        values = {**dict.fromkeys(none), **said, "count": before.count + 1, "flapping": flapping}
        self._set(connection, before.id, values)
        changed = self._changed(connection, before.id, "reopened", said["summary"], now, day=said["last_day"])
        if flapping and not before.flapping:
            words = f"it reopened {reopened + 1} times; from now on it resolves only when the cause stays away"
            changed = self._changed(connection, before.id, "flapping", words, now)
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
            raise AlertError(f"there is no alert {alert_id}; `assetline alerts list --all` shows those there are")
        if alert.resolved_at is not None:
            raise AlertError(f"alert {alert_id} was resolved at {alert.resolved_at:%Y-%m-%d %H:%M} UTC already")
        return alert

    def _by_id(self, connection: sa.Connection, alert_id: int) -> Alert | None:
        row = connection.execute(sa.select(_ALERTS).where(_ALERTS.c.id == alert_id)).mappings().first()
        return _alert(row) if row else None

    def _set(self, connection: sa.Connection, alert_id: int, values: Mapping[str, Any]) -> None:
        connection.execute(_ALERTS.update().where(_ALERTS.c.id == alert_id).values(**values))

    def _changed(
        self, connection: sa.Connection, alert_id: int, change: Change, words: str, now: dt.datetime, *,
        day: str | None = None, who: str = "",
    ) -> tuple[Alert, Change]:  # fmt: skip
        """Adds the line of history, and an entry in the outbox of each channel that is told of it."""
        alert = self._by_id(connection, alert_id)
        assert alert is not None
        silent = change in UNTOLD or (alert.is_silenced(_aware(now)) and change not in ("silenced", "resolved"))
        routes = [] if silent else [route for route in self.routes if route.takes(alert)]
        event = connection.execute(
            _EVENTS.insert()
            .values(alert_id=alert_id, change=change, words=words, who=who, day=day, at=now,
                    snapshot=alert.to_json() if routes else None)
            .returning(_EVENTS.c.id)
        ).scalar_one()  # fmt: skip
        for route in routes:
            entry = {"channel": route.channel, "event_id": event, "alert_id": alert_id, "created_at": now,
                     "due_at": now + route.delay}  # fmt: skip
            connection.execute(_OUTBOX.insert().values(**entry))
        return alert, change

    def _channel(self, connection: sa.Connection, channel: str) -> Any:
        where = _CHANNELS.c.channel == channel
        row = connection.execute(sa.select(_CHANNELS).where(where).with_for_update()).first()
        if row is None:
            connection.execute(_CHANNELS.insert().values(channel=channel))
            row = connection.execute(sa.select(_CHANNELS).where(where)).first()
        return row

    def _set_channel(self, connection: sa.Connection, channel: str, values: Mapping[str, Any]) -> None:
        connection.execute(_CHANNELS.update().where(_CHANNELS.c.channel == channel).values(**values))

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
            _bring_up_to_date(connection)
        return engine


SCHEMA, SCHEMA_VERSION = "schema", 2
"""Kept among the positions: a database that is up to date is only read."""


def _bring_up_to_date(connection: sa.Connection) -> None:
    """Makes the tables, or adds to those of an earlier version what they lack; one process at a time."""
    if connection.dialect.name == "postgresql":  # SQLite has its write lock already
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7276511)")
    connection.execute(sa.schema.CreateTable(_POSITIONS, if_not_exists=True))
    where = _POSITIONS.c.stream == SCHEMA
    known = connection.execute(sa.select(_POSITIONS.c.position).where(where)).scalar()
    if known == SCHEMA_VERSION:
        return
    for table in _METADATA.sorted_tables:
        connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
        _add_new_columns(connection, table)
        for index in table.indexes - {_ONE_OPEN}:
            connection.execute(sa.schema.CreateIndex(index, if_not_exists=True))
    _give_fingerprints(connection)
    connection.execute(sa.schema.CreateIndex(_ONE_OPEN, if_not_exists=True))
    _forbid_rewriting_history(connection)
    connection.execute(_POSITIONS.delete().where(where))
    connection.execute(_POSITIONS.insert().values(stream=SCHEMA, position=SCHEMA_VERSION))


def _add_new_columns(connection: sa.Connection, table: sa.Table) -> None:
    """A database of an earlier version has fewer columns; all that came since may be empty or has a default."""
    there = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
    for column in table.columns:
        if column.name not in there:
            said = sa.schema.CreateColumn(column).compile(connection)
            connection.execute(sa.DDL(f"ALTER TABLE {table.name} ADD COLUMN {said}"))


def _give_fingerprints(connection: sa.Connection) -> None:
    connection.execute(sa.DDL("DROP INDEX IF EXISTS one_open_alert"))
    for row in connection.execute(sa.select(_ALERTS).where(_ALERTS.c.fingerprint == "")).mappings().all():
        of = fingerprint_of(row["model"], row["cause"], row["column"])
        connection.execute(_ALERTS.update().where(_ALERTS.c.id == row["id"]).values(fingerprint=of))


def _forbid_rewriting_history(connection: sa.Connection) -> None:
    """The history is append-only, whoever writes to it."""
    if connection.dialect.name == "sqlite":
        for what in ("UPDATE", "DELETE"):
            connection.exec_driver_sql(
                f"CREATE TRIGGER IF NOT EXISTS alert_events_no_{what.lower()} BEFORE {what} ON alert_events "
                "BEGIN SELECT RAISE(ABORT, 'the history of alerts is append-only'); END"
            )
    elif connection.dialect.name == "postgresql":
        connection.exec_driver_sql(
            "CREATE OR REPLACE FUNCTION alert_events_append_only() RETURNS trigger AS "
            "$$ BEGIN RAISE EXCEPTION 'the history of alerts is append-only'; END $$ LANGUAGE plpgsql"
        )
        connection.exec_driver_sql(
            "CREATE OR REPLACE TRIGGER alert_events_append_only BEFORE UPDATE OR DELETE ON alert_events "
            "FOR EACH ROW EXECUTE FUNCTION alert_events_append_only()"
        )


def _alert(row: Any) -> Alert:
    values = dict(row)
    return Alert(**{**values, **{name: _aware(values[name]) if values[name] else None for name in _TIMES}})


def _aware(at: dt.datetime | str) -> dt.datetime:
    return (dt.datetime.fromisoformat(at) if isinstance(at, str) else at).replace(tzinfo=dt.UTC)


def _naive_utc(at: dt.datetime | None) -> dt.datetime:
    return (at or dt.datetime.now(dt.UTC)).astimezone(dt.UTC).replace(tzinfo=None)

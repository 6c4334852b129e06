"""The outbox: pending and delivered changes of each channel, and which process may deliver to it.

Belongs here: reading and marking entries. Does not belong here: adding entries (``store.py``, in the transaction of the
change), when and how they are sent (``delivery.py``, ``channels``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from resources.alerts.alert import Alert, Delivery, Severity
from resources.alerts.database import CHANNELS, EVENTS, OUTBOX, insert_if_absent
from resources.database import Database, aware, naive_utc

Mark = Literal["heartbeat_at", "synced_at"]


@dataclass(frozen=True)
class Backlog:
    """The undelivered changes of a channel.

    Args:
        waiting: number of changes.
        oldest: by severity, the time since which the oldest change has been waiting.
        tries: highest number of failed tries of a single change.
        error: error of one failed try; ``None`` if no try has failed.
    """

    waiting: int
    oldest: Mapping[Severity, dt.datetime]
    tries: int
    error: str | None

    @property
    def since(self) -> dt.datetime:
        """The time since which the oldest change has been waiting."""
        return min(self.oldest.values())

    def __add__(self, other: Backlog) -> Backlog:
        return Backlog(
            self.waiting + other.waiting, {**self.oldest, **other.oldest}, max(self.tries, other.tries),
            self.error or other.error,
        )  # fmt: skip


class Outbox:
    """The entries of all channels in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(
        self, channel: str, at: dt.datetime | None = None, *, limit: int = 100, pages_only: bool = False
    ) -> list[Delivery]:
        """Changes that are due for a channel, oldest first.

        Changes of one alert stay in order: a change is not due while an older one of the same alert waits.

        Args:
            channel: name of the channel.
            at: time of the query; default: now.
            limit: maximum number of changes.
            pages_only: hold back warnings, except those that precede a waiting page of the same alert.
        """
        now = naive_utc(at)
        waiting = OUTBOX.c.delivered_at.is_(None) & (OUTBOX.c.channel == channel)
        held = OUTBOX.alias("held")
        blocked = sa.exists().where(
            (held.c.channel == channel)
            & held.c.delivered_at.is_(None)
            & (held.c.alert_id == OUTBOX.c.alert_id)
            & (held.c.id < OUTBOX.c.id)
            & (held.c.due_at > now)
        )
        if pages_only:
            page = OUTBOX.alias("page")
            waiting &= sa.exists().where(
                (page.c.channel == channel)
                & page.c.delivered_at.is_(None)
                & (page.c.alert_id == OUTBOX.c.alert_id)
                & (page.c.id >= OUTBOX.c.id)
                & (page.c.severity == "page")
            )
        query = (
            sa.select(OUTBOX.c.id, OUTBOX.c.tries, EVENTS)
            .join(EVENTS, EVENTS.c.id == OUTBOX.c.event_id)
            .where(waiting & (OUTBOX.c.due_at <= now) & ~blocked)
            .order_by(OUTBOX.c.id)
            .limit(limit)
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        return [
            Delivery(id=r[0], tries=r[1], change=r.change, message=r.message, who=r.who, at=aware(r.at),
                     alert=Alert.from_json(r.snapshot))
            for r in rows
        ]  # fmt: skip

    def delivered(self, ids: Iterable[int], message: str, at: dt.datetime | None = None) -> None:
        """Marks these outbox entries as delivered with one message."""
        values = {"delivered_at": naive_utc(at), "message": message, "error": None}
        with self._database.writing() as connection:
            connection.execute(OUTBOX.update().where(OUTBOX.c.id.in_(list(ids))).values(**values))

    def undelivered(self, ids: Iterable[int], error: str, due_at: dt.datetime) -> None:
        """Records a failed delivery of these entries: the error and the time of the next retry."""
        values = {"due_at": naive_utc(due_at), "error": error, "tries": OUTBOX.c.tries + 1}
        with self._database.writing() as connection:
            connection.execute(OUTBOX.update().where(OUTBOX.c.id.in_(list(ids))).values(**values))

    def messages_since(self, channel: str, since: dt.datetime) -> list[dt.datetime]:
        """Delivery times of a channel's messages since ``since``, oldest first."""
        where = (OUTBOX.c.channel == channel) & (OUTBOX.c.delivered_at >= naive_utc(since))
        query = sa.select(sa.func.max(OUTBOX.c.delivered_at)).where(where).group_by(OUTBOX.c.message)
        with self._database.reading() as connection:
            return sorted(aware(at) for (at,) in connection.execute(query))

    def backlog(self) -> dict[str, Backlog]:
        """Undelivered changes by channel; channels without any are left out."""
        query = (
            sa.select(
                OUTBOX.c.channel, OUTBOX.c.severity, sa.func.count(), sa.func.min(OUTBOX.c.created_at),
                sa.func.max(OUTBOX.c.tries), sa.func.max(OUTBOX.c.error),
            )
            .where(OUTBOX.c.delivered_at.is_(None))
            .group_by(OUTBOX.c.channel, OUTBOX.c.severity)
        )  # fmt: skip
        found: dict[str, Backlog] = {}
        with self._database.reading() as connection:
            for channel, severity, waiting, since, tries, error in connection.execute(query):
                of_severity = Backlog(int(waiting), {severity: aware(since)}, int(tries), error)
                found[channel] = found[channel] + of_severity if channel in found else of_severity
        return found

    def sent(self) -> dict[str, int]:
        """Number of delivered changes by channel."""
        query = sa.select(OUTBOX.c.channel, sa.func.count()).where(OUTBOX.c.delivered_at.is_not(None))
        with self._database.reading() as connection:
            return {r[0]: int(r[1]) for r in connection.execute(query.group_by(OUTBOX.c.channel))}

    def take_turn(self, channel: str, holder: str, until: dt.datetime, at: dt.datetime | None = None) -> str | None:
        """Gives ``holder`` the exclusive right to deliver to a channel until ``until``, unless another holder has it.

        Returns:
            The other holder, or ``None`` if ``holder`` has the turn.
        """
        now = naive_utc(at)
        with self._database.writing() as connection:
            row = self._channel(connection, channel)
            if row.held_by not in ("", holder) and row.held_until is not None and row.held_until > now:
                return str(row.held_by)
            self._set_channel(connection, channel, {"held_by": holder, "held_until": naive_utc(until)})
        return None

    def release_turn(self, channel: str, holder: str) -> None:
        """Releases the turn of ``holder``, which may be another process that is known to be dead."""
        with self._database.writing() as connection:
            if self._channel(connection, channel).held_by == holder:
                self._set_channel(connection, channel, {"held_by": "", "held_until": None})

    def marked(self, channel: str, what: Mark) -> dt.datetime | None:
        """Time of a channel's last heartbeat or synchronisation; ``None`` if there was none."""
        query = sa.select(CHANNELS.c[what]).where(CHANNELS.c.channel == channel)
        with self._database.reading() as connection:
            at = connection.execute(query).scalar()
        return aware(at) if at is not None else None

    def mark(self, channel: str, what: Mark, at: dt.datetime | None = None) -> None:
        """Records the time of a channel's heartbeat or synchronisation."""
        with self._database.writing() as connection:
            self._channel(connection, channel)
            self._set_channel(connection, channel, {what: naive_utc(at)})

    def _channel(self, connection: sa.Connection, channel: str) -> Any:
        insert_if_absent(connection, CHANNELS, channel=channel)
        return connection.execute(sa.select(CHANNELS).where(CHANNELS.c.channel == channel).with_for_update()).one()

    def _set_channel(self, connection: sa.Connection, channel: str, values: Mapping[str, Any]) -> None:
        connection.execute(CHANNELS.update().where(CHANNELS.c.channel == channel).values(**values))

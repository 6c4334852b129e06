"""Delivery from the outbox to the channels: at least once, in order, grouped, rate-limited, retried with back-off.

Belongs here: when a channel receives which changes. Does not belong here: how (``channels``), the changes themselves
(``store.py``).

Each channel has its own thread, so a channel that is down or slow delays only itself. The thread sends one message at a
time and marks it as delivered before it sends the next. After a kill, at most one message of each channel is sent
again. A lease (the *turn*) lets only one process deliver to a channel at a time; a dead process loses its turn.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from resources.alerts.alert import Addresses, Delivery
from resources.alerts.channels import Channel
from resources.alerts.outbox import Mark
from resources.alerts.store import AlertStore
from resources.processes import still_runs

_log = logging.getLogger("assetline.alerts")

FIRST_BACK_OFF_S, LONGEST_BACK_OFF_S = 1.0, 300.0
FAILURES_IN_A_ROW = 3
"""Number of consecutive failures after which a channel counts as down and is paused."""
MINUTE = dt.timedelta(minutes=1)
TURN_S = 60.0
"""Duration of a turn in seconds. It is renewed with each message and must be longer than a send."""


def back_off(tries: int) -> dt.timedelta:
    """Delay before the next retry, after failure number ``tries`` (from 1): 1, 2, 4 … 300 seconds."""
    return dt.timedelta(seconds=min(FIRST_BACK_OFF_S * 2 ** min(tries - 1, 20), LONGEST_BACK_OFF_S))


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Messenger:
    """Delivers changes to one channel.

    Args:
        store: alert store with the outbox.
        name, channel: the channel and its name.
        addresses: base addresses of the pages that messages link to.
        back_off: delay before the next retry, by the number of failed tries.
        clock: returns the current time in UTC. The tests give their own.
    """

    def __init__(
        self,
        store: AlertStore,
        name: str,
        channel: Channel,
        addresses: Addresses,
        back_off: Callable[[int], dt.timedelta] = back_off,
        clock: Callable[[], dt.datetime] = _utc_now,
    ) -> None:
        self.store, self.outbox, self.name, self.channel, self._back_off = store, store.outbox, name, channel, back_off
        self._clock = clock
        self._addresses = addresses
        self._holder = f"{socket.gethostname()}:{os.getpid()}:{time.time():.0f}"
        self._failures, self._rest_until = 0, 0.0

    def deliver(self, stop: threading.Event | None = None) -> int:
        """Sends due changes until none is left or the channel fails. Returns the number of delivered changes."""
        delivered = 0
        if time.monotonic() < self._rest_until or not self._next_group() or not self._take_turn():
            return 0
        try:
            while stop is None or not stop.is_set():
                group = self._next_group()  # read again, because another process may have delivered it
                if not group:
                    break
                delivered += self._send(group)
                if time.monotonic() < self._rest_until or not self._take_turn():
                    break
        finally:
            self.outbox.release_turn(self.name, self._holder)
        return delivered

    def keep(self) -> None:
        """Sends the heartbeat and synchronises open alerts if they are due. Raises any error of the channel."""
        now = self._clock()
        if self.channel.SYNCS and self._is_due("synced_at", self.channel.sync_seconds):
            self.channel.sync([self._addresses.link(alert) for alert in self.store.open_alerts()], now)
            self.outbox.mark(self.name, "synced_at", now)
        if self.channel.heartbeat_minutes and self._is_due("heartbeat_at", 60 * self.channel.heartbeat_minutes):
            self.channel.heartbeat(self.store.open_alerts(), now)
            self.outbox.mark(self.name, "heartbeat_at", now)

    def _is_due(self, what: Mark, seconds: float) -> bool:
        last = self.outbox.marked(self.name, what)
        return last is None or self._clock() - last >= dt.timedelta(seconds=seconds)

    def _take_turn(self) -> bool:
        now = self._clock()
        until = now + dt.timedelta(seconds=max(TURN_S, 3 * self.channel.timeout_seconds))
        other = self.outbox.take_turn(self.name, self._holder, until, now)
        if other is None:
            return True
        host, _, process = other.partition(":")
        pid, _, since = process.partition(":")
        if host == socket.gethostname() and not still_runs(int(pid), float(since)):
            self.outbox.release_turn(self.name, other)  # it was killed
            return self.outbox.take_turn(self.name, self._holder, until, now) is None
        return False

    def _next_group(self) -> list[Delivery]:
        """The changes of the next message; empty if none is due or the rate limit is reached."""
        now = self._clock()
        due = self.outbox.due(self.name, now, pages_only=self.channel.is_quiet(now))
        if due and len(self.outbox.messages_since(self.name, now - MINUTE)) >= self.channel.per_minute:
            return []
        return due[: self.channel.most_in_group if self.channel.GROUPS else 1]

    def _send(self, group: Sequence[Delivery]) -> int:
        """Sends one message and returns the number of delivered changes. A channel that keeps failing is paused."""
        ids = [change.id for change in group]
        try:
            self.channel.send([replace(change, alert=self._addresses.link(change.alert)) for change in group])
        except Exception as error:  # whatever a channel raises, the change stays in the outbox
            self._failures += 1
            message = self.channel.hidden(error)
            wait = self._back_off(1 + max(change.tries for change in group))
            _log.warning("delivery to the channel %s failed (%s); next try in %s", self.name, message, wait)
            self.outbox.undelivered(ids, message, self._clock() + wait)
            if self._failures >= FAILURES_IN_A_ROW:
                rest = self._back_off(self._failures - FAILURES_IN_A_ROW + 1)
                self._rest_until = time.monotonic() + rest.total_seconds()
            return 0
        self._failures = 0
        self.outbox.delivered(ids, uuid.uuid4().hex, self._clock())
        return len(ids)


class Dispatcher:
    """Delivers to all channels, each in its own thread, until :meth:`stop`."""

    def __init__(self, messengers: Iterable[Messenger], poll_s: float = 0.5) -> None:
        self._messengers, self._poll_s = list(messengers), poll_s
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(messenger,), name=f"channel {messenger.name}", daemon=True)
            for messenger in self._messengers
        ]

    def start(self) -> None:
        """Starts the delivery threads."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stops delivery. Waits up to ``timeout_s`` seconds per channel for a message that is being sent."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout_s)

    def _run(self, messenger: Messenger) -> None:
        keep_at = 0.0
        while not self._stop.wait(self._poll_s):
            try:
                messenger.deliver(self._stop)
                if time.monotonic() >= keep_at:
                    keep_at = time.monotonic() + 5.0
                    messenger.keep()
            except Exception as error:  # the database may be away for a while; the thread must not end
                _log.error("delivery to the channel %s failed: %s", messenger.name, messenger.channel.hidden(error))


def deliver_all(messengers: Sequence[Messenger], seconds: float = 30.0) -> dict[str, int]:
    """Delivers all due changes once, for manual or cron use where no watch runs.

    Args:
        messengers: one for each channel.
        seconds: time limit; no new message is started after it.

    Returns:
        Number of delivered changes by channel.
    """
    delivered = {messenger.name: 0 for messenger in messengers}
    stop = threading.Event()

    def work(messenger: Messenger) -> None:
        delivered[messenger.name] = messenger.deliver(stop)

    threads = [threading.Thread(target=work, args=(messenger,), daemon=True) for messenger in messengers]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    stop.set()
    return delivered

"""Types of alerts, their changes, and the messages to channels; independent of the database.

Does not belong here: storing alerts (``store.py``), sending them (``delivery.py``, ``channels``).
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

Severity = Literal["warn", "page"]
SEVERITIES: tuple[Severity, ...] = ("warn", "page")
State = Literal["open", "acknowledged", "resolved"]
Change = Literal[
    "opened", "reopened", "repeated", "escalated", "acknowledged", "silenced", "unsilenced", "flapping", "updated",
    "resolved",
]  # fmt: skip
UNTOLD: frozenset[str] = frozenset({"repeated"})
"""Changes that are only recorded in the history, so that channels are not notified daily of a lasting cause."""


class AlertError(Exception):
    """An action on an alert is not possible. The message gives the reason and the alternatives."""


@dataclass(frozen=True, kw_only=True)
class Alert:
    """The current state of an alert.

    Args:
        fingerprint: 16 hex digits, from model, cause and column; at most one alert per fingerprint is open.
        model, cause, column: identity of the alert; ``column`` is empty if the cause does not concern one column.
        severity: ``warn`` or ``page``; a page needs attention at once.
        owner: owner of the alert, ``team:…`` or an e-mail address.
        runbook: path of its page in ``docs/runbooks``.
        links: addresses or paths by name: run, asset, report.
        count: number of times that the cause was reported since the alert first opened.
        since_day: first day of data with the cause; ``last_day`` is the latest.
        silenced_until: until this time, channels receive only its resolution.
        flapping: whether it reopened so often that it resolves only after the cause has stayed away for a while.
        clear_since: time since which the cause of a flapping alert has been absent.
        resolution: reason for the resolution; ``None`` while it is open.
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
        """``open``, ``acknowledged`` (somebody is working on it) or ``resolved``."""
        if self.resolved_at is not None:
            return "resolved"
        return "acknowledged" if self.acknowledged_at is not None else "open"

    @property
    def title(self) -> str:
        """The cause, with the column if there is one."""
        return f"{self.cause} ({self.column})" if self.column else self.cause

    def is_silenced(self, at: dt.datetime | None = None) -> bool:
        """Whether the alert is silenced at ``at`` (default: now)."""
        return self.silenced_until is not None and (at or dt.datetime.now(dt.UTC)) < self.silenced_until

    def to_json(self) -> dict[str, Any]:
        """All fields and the state as JSON types; times are ISO 8601 in UTC."""
        values = {
            name: value.isoformat() if isinstance(value, dt.datetime) else value for name, value in asdict(self).items()
        }
        return {**values, "state": self.state}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Alert:
        """Creates an alert from the output of :meth:`to_json`."""
        given = {name: value for name, value in values.items() if name != "state"}
        for name in TIMES:
            given[name] = dt.datetime.fromisoformat(given[name]) if given[name] else None
        return cls(**given)


TIMES = ("opened_at", "updated_at", "acknowledged_at", "silenced_until", "clear_since", "resolved_at")


@dataclass(frozen=True, kw_only=True)
class Event:
    """One entry of an alert's history."""

    id: int
    alert_id: int
    change: str
    message: str
    who: str
    day: str | None
    at: dt.datetime


@dataclass(frozen=True)
class Seen:
    """A position in a stream of observations. It makes reports idempotent: each position is processed once."""

    stream: str
    position: int


@dataclass(frozen=True, kw_only=True)
class Route:
    """Selects the alerts whose changes go to a channel, by severity and owner (no owners: all)."""

    channel: str
    severities: tuple[str, ...] = SEVERITIES
    owners: tuple[str, ...] = ()
    delay: dt.timedelta = dt.timedelta(0)

    def takes(self, alert: Alert) -> bool:
        """Whether the channel receives changes of this alert."""
        return alert.severity in self.severities and (not self.owners or alert.owner in self.owners)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """When an alert reopens and when it counts as flapping.

    Args:
        reopen_within: a cause that returns within this time after the resolution reopens its alert.
        flaps: number of times an alert must reopen within ``flap_within`` to count as flapping.
        settle_after: a flapping alert resolves after its cause has stayed away for this time.
    """

    reopen_within: dt.timedelta = dt.timedelta(days=3)
    flaps: int = 3
    flap_within: dt.timedelta = dt.timedelta(days=14)
    settle_after: dt.timedelta = dt.timedelta(days=2)


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One outbox entry: a change of an alert to deliver to a channel."""

    id: int
    change: Change
    message: str
    who: str
    at: dt.datetime
    alert: Alert
    tries: int


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Public addresses of the Dagster UI and the alerts' page."""

    ui: str
    watch: str

    def link(self, alert: Alert) -> Alert:
        """The alert with full URLs instead of paths in its links; the first link is its own page."""
        page = f"{self.watch}/alerts/{alert.id}"
        links = {name: f"{self.ui}{path}" if path.startswith("/") else path for name, path in alert.links.items()}
        if "report" in links:
            links["report"] = f"{page}/report"
        runbook = f"{self.watch}/runbooks/{Path(alert.runbook).stem}" if alert.runbook else ""
        return replace(alert, links={"alert": page, **links}, runbook=runbook)


def fingerprint_of(model: str, cause: str, column: str = "") -> str:
    """The fingerprint of an alert: 16 hex digits, a hash of model, cause and column."""
    return hashlib.blake2b("\0".join((model, cause, column)).encode(), digest_size=8).hexdigest()

"""What an alert is, what can happen to one, and what a channel is told of it: the types, without a database.

Does not belong here: keeping them (``store.py``), sending them (``delivery.py``, ``channels``).
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
"""Changes that are in the history alone: a cause that lasts is not told every day."""


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
        for name in TIMES:
            given[name] = dt.datetime.fromisoformat(given[name]) if given[name] else None
        return cls(**given)


TIMES = ("opened_at", "updated_at", "acknowledged_at", "silenced_until", "clear_since", "resolved_at")


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
    severities: tuple[str, ...] = SEVERITIES
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


@dataclass(frozen=True, kw_only=True)
class Addresses:
    """Where people reach the Dagster UI and the alerts' page."""

    ui: str
    watch: str

    def link(self, alert: Alert) -> Alert:
        """The alert with addresses that a message can hold, in place of paths; its own page is the first of them."""
        page = f"{self.watch}/alerts/{alert.id}"
        links = {name: f"{self.ui}{path}" if path.startswith("/") else path for name, path in alert.links.items()}
        if "report" in links:
            links["report"] = f"{page}/report"
        runbook = f"{self.watch}/runbooks/{Path(alert.runbook).stem}" if alert.runbook else ""
        return replace(alert, links={"alert": page, **links}, runbook=runbook)


def fingerprint_of(model: str, cause: str, column: str = "") -> str:
    """Identity of an alert: 16 hex digits of model, cause and column."""
    return hashlib.blake2b("\0".join((model, cause, column)).encode(), digest_size=8).hexdigest()

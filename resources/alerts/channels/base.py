"""The base class of channels: filters, quiet hours, limits, and sending a message.

Belongs here: fields that all channels share, text of a change, hiding secrets. Does not belong here: retries, order and
rate limits (``resources/alerts/delivery.py``). A channel sends once and raises an error if that fails.
"""

from __future__ import annotations

import abc
import datetime as dt
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

import dagster as dg
from pydantic import Field

from resources.alerts.alert import Alert, Delivery, Route

MOST_SHOWN = 16
"""Parts of a secret URL with at least this many characters are hidden on their own; shorter ones may be a host name."""
HEARTBEAT_WORDS = "Assetline's watch is running"


class Channel(dg.ConfigurableResource):
    """A destination for changes of alerts.

    A subclass lists its secret fields in ``SECRETS``. Secrets come only from the environment and are hidden in errors.
    """

    SECRETS: ClassVar[tuple[str, ...]] = ()
    GROUPS: ClassVar[bool] = True
    """Whether one message may contain several changes."""
    SYNCS: ClassVar[bool] = False
    """Whether the channel also needs all open alerts at regular intervals."""

    severities: list[str] = Field(
        default=["warn", "page"], description="Severities of the alerts to send: 'warn', 'page'."
    )
    owners: list[str] = Field(default=[], description="Owners of the alerts to send; empty: all.")
    quiet_hours: str = Field(
        default="", description="Warnings wait during these hours, e.g. '22:00-07:00' in `timezone`; pages do not."
    )
    timezone: str = Field(default="UTC", description="Time zone of the quiet hours (IANA name).")
    per_minute: int = Field(default=30, ge=1, description="Maximum number of messages per minute; the rest wait.")
    group_seconds: float = Field(
        default=5.0, ge=0, description="Seconds that a change waits for others, so that they share one message."
    )
    most_in_group: int = Field(default=20, ge=1, description="Maximum number of changes in one message.")
    timeout_seconds: float = Field(default=10.0, gt=0, description="Seconds after which a send has failed.")
    heartbeat_minutes: float = Field(
        default=0.0, ge=0, description="Minutes between two heartbeats (dead man's switch); 0: no heartbeat."
    )
    sync_seconds: float = Field(
        default=60.0, gt=0, description="Seconds until open alerts are sent again, if the channel needs that."
    )

    @abc.abstractmethod
    def send(self, changes: Sequence[Delivery]) -> None:
        """Sends changes in one message, in the given order. Raises an error if that fails."""

    def heartbeat(self, open_alerts: Sequence[Alert], at: dt.datetime) -> None:
        """Sends a heartbeat. ``channels.toml`` refuses ``heartbeat_minutes`` for a kind that does not override this.

        Raises:
            NotImplementedError: the kind has no heartbeat.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no heartbeat; set heartbeat_minutes = 0, or set it on another channel"
        )

    def sync(self, open_alerts: Sequence[Alert], at: dt.datetime) -> None:
        """Sends all open alerts again; does nothing by default."""

    def route(self, name: str) -> Route:
        """The route of this channel: its filters and delay under the name ``name``."""
        delay = dt.timedelta(seconds=self.group_seconds if self.GROUPS else 0)
        return Route(channel=name, severities=tuple(self.severities), owners=tuple(self.owners), delay=delay)

    def is_quiet(self, at: dt.datetime) -> bool:
        """Whether ``at`` lies in the quiet hours."""
        if not self.quiet_hours:
            return False
        begin, end = quiet_times(self.quiet_hours)
        local = at.astimezone(ZoneInfo(self.timezone)).time()
        return begin <= local < end if begin < end else not end <= local < begin

    def hidden(self, error: BaseException | str) -> str:
        """The text of an error, with the channel's secrets replaced by ``***``."""
        message = str(error) or type(error).__name__
        for name in self.SECRETS:
            secret = getattr(self, name)
            # A library may show only part of an address, so parts that are long enough to be a token are hidden too.
            for part in [secret, *(p for p in re.split(r"[/:@?&=#]+", secret) if len(p) >= MOST_SHOWN)]:
                message = message.replace(part, "***") if part else message
        return message

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, "***" if name in self.SECRETS else value

    def post(self, url: str, body: Any, **headers: str) -> Any:
        """Posts JSON and returns the response. Raises :class:`httpx.HTTPError` without a successful response."""
        import httpx

        response = httpx.post(url, json=body, headers=headers, timeout=self.timeout_seconds, follow_redirects=False)
        if not response.is_success:
            detail = response.text.strip()[:200]
            raise httpx.HTTPStatusError(
                f"{response.status_code} {response.reason_phrase}: {detail}",
                request=response.request,
                response=response,
            )
        return response


def quiet_times(hours: str) -> tuple[dt.time, dt.time]:
    """Start and end of ``HH:MM-HH:MM``. Raises :class:`ValueError` for another form or if both are equal."""
    begin, _, end = hours.partition("-")
    try:
        times = dt.time.fromisoformat(begin.strip()), dt.time.fromisoformat(end.strip())
    except ValueError:
        times = (dt.time(), dt.time())
    if times[0] == times[1]:
        raise ValueError(f"quiet_hours={hours!r}: write a start and a different end, e.g. '22:00-07:00'")
    return times


def line_of(change: Delivery) -> str:
    """A change as one line: ``OPENED page [fraud] drift/drift: …``."""
    alert = change.alert
    return f"{change.change.upper()} {alert.severity} [{alert.model}] {alert.title}: {change.message}"


def headline_of(changes: Sequence[Delivery]) -> str:
    """A subject line: a summary of a single change, or the number of changes."""
    if len(changes) == 1:
        alert = changes[0].alert
        return f"{changes[0].change.upper()} {alert.severity} [{alert.model}] {alert.title}"
    pages = sum(change.alert.severity == "page" for change in changes)
    return f"{len(changes)} alert changes ({pages} of pages)"


def more_of(alert: Alert) -> list[str]:
    """Details of an alert, one per line: owner, runbook, links."""
    facts = {"owner": alert.owner, "runbook": alert.runbook, **alert.links}
    return [f"{name}: {value}" for name, value in facts.items() if value]

"""The log: of the process that made a change, at once; and, as a channel, of the process that delivers."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence

from pydantic import Field

from resources.alerts.alert import Alert, Change, Delivery
from resources.alerts.channels.base import HEARTBEAT_WORDS, Channel, line_of

_log = logging.getLogger("assetline.alerts")


def tell_console(alert: Alert, change: Change, words: str) -> None:
    """One line in the log of this process, without the outbox: it cannot be down."""
    _log.warning("%s %s [%s] %s: %s", change.upper(), alert.severity, alert.model, alert.title, words)


class ConsoleChannel(Channel):
    """The log of the watch: for who collects logs, with severities, owners and quiet hours like any other."""

    group_seconds: float = Field(default=0.0, ge=0, description="A line is a line: nothing waits here.")
    per_minute: int = Field(default=600, ge=1, description="Most messages in a minute.")

    def send(self, changes: Sequence[Delivery]) -> None:
        """See :class:`Channel`. A line for each change."""
        for change in changes:
            _log.warning("%s", line_of(change))

    def heartbeat(self, open_alerts: Sequence[Alert], at: dt.datetime) -> None:
        """See :class:`Channel`."""
        _log.info("%s: %d alerts are open", HEARTBEAT_WORDS, len(open_alerts))

"""Console output: directly in the process that makes a change, and as a channel in the process that delivers."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence

from pydantic import Field

from resources.alerts.alert import Alert, Change, Delivery
from resources.alerts.channels.base import HEARTBEAT_WORDS, Channel, line_of

_log = logging.getLogger("assetline.alerts")


def tell_console(alert: Alert, change: Change, message: str) -> None:
    """Logs a change in this process, without the outbox, because the log is always available."""
    _log.warning("%s %s [%s] %s: %s", change.upper(), alert.severity, alert.model, alert.title, message)


class ConsoleChannel(Channel):
    """Writes to the log of the watch, for log collectors; it supports severities, owners and quiet hours."""

    group_seconds: float = Field(default=0.0, ge=0, description="0, because each change is its own line.")
    per_minute: int = Field(default=600, ge=1, description="Maximum number of messages per minute.")

    def send(self, changes: Sequence[Delivery]) -> None:
        """See :class:`Channel`. Logs one line per change."""
        for change in changes:
            _log.warning("%s", line_of(change))

    def heartbeat(self, open_alerts: Sequence[Alert], at: dt.datetime) -> None:
        """See :class:`Channel`."""
        _log.info("%s: %d alerts are open", HEARTBEAT_WORDS, len(open_alerts))

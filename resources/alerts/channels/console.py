"""The log of the process that made the change: told at once, without the outbox, for it cannot be down."""

from __future__ import annotations

import logging

from resources.alerts.alert import Alert, Change

_log = logging.getLogger("assetline.alerts")


def tell_console(alert: Alert, change: Change, words: str) -> None:
    """One line in the log."""
    _log.warning("%s %s [%s] %s: %s", change.upper(), alert.severity, alert.model, alert.title, words)

"""Alerts: the store with its history and outbox, the channels, and delivery to the channels."""

from resources.alerts.alert import (
    SEVERITIES,
    Addresses,
    Alert,
    AlertError,
    Change,
    Delivery,
    Event,
    Policy,
    Route,
    Seen,
    Severity,
    fingerprint_of,
)
from resources.alerts.config import ChannelsError, read_channels, with_secrets
from resources.alerts.delivery import Dispatcher, Messenger, deliver_all
from resources.alerts.resource import Alerts
from resources.alerts.store import AlertStore

__all__ = [
    "SEVERITIES", "Addresses", "Alert", "AlertError", "AlertStore", "Alerts", "Change", "ChannelsError", "Delivery",
    "Dispatcher", "Event", "Messenger", "Policy", "Route", "Seen", "Severity", "deliver_all", "fingerprint_of",
    "read_channels", "with_secrets",
]  # fmt: skip

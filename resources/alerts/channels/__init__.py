"""The channels that notify people of alerts, one module per service."""

from __future__ import annotations

from resources.alerts.channels.alertmanager import AlertmanagerChannel
from resources.alerts.channels.base import Channel
from resources.alerts.channels.console import ConsoleChannel
from resources.alerts.channels.email import EmailChannel
from resources.alerts.channels.pagerduty import PagerDutyChannel
from resources.alerts.channels.slack import SlackChannel
from resources.alerts.channels.textfile import PrometheusChannel
from resources.alerts.channels.webhook import AppriseChannel, WebhookChannel

KINDS: dict[str, type[Channel]] = {
    "console": ConsoleChannel,
    "slack": SlackChannel,
    "pagerduty": PagerDutyChannel,
    "email": EmailChannel,
    "alertmanager": AlertmanagerChannel,
    "prometheus": PrometheusChannel,
    "webhook": WebhookChannel,
    "apprise": AppriseChannel,
}
"""Channel classes by their ``kind`` in ``channels.toml``."""

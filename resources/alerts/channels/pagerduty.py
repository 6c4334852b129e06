"""PagerDuty, through its Events API v2: https://developer.pagerduty.com/docs/events-api-v2-overview.

Each alert is one incident with one ``dedup_key``: trigger, acknowledge, resolve.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field

from resources.alerts.alert import Delivery
from resources.alerts.channels.base import Channel, line_of

ACTIONS = {
    "opened": "trigger", "reopened": "trigger", "escalated": "trigger", "unsilenced": "trigger", "flapping": "trigger",
    "updated": "trigger", "acknowledged": "acknowledge", "silenced": "acknowledge", "resolved": "resolve",
}  # fmt: skip
SEVERITIES = {"page": "critical", "warn": "warning"}
_MOST_CHARACTERS = 1024
"""PagerDuty's limit for the length of a summary."""


class PagerDutyChannel(Channel):
    """Sends incidents to one PagerDuty service."""

    SECRETS: ClassVar[tuple[str, ...]] = ("routing_key",)
    GROUPS: ClassVar[bool] = False

    routing_key: str = Field(description="Integration key of the service; it is a secret.")
    url: str = Field(default="https://events.pagerduty.com", description="Base address of the Events API.")
    per_minute: int = Field(
        default=120, ge=1, description="Maximum events per minute; PagerDuty takes 120 per service."
    )
    severities: list[str] = Field(default=["page"], description="Severities of the alerts to send: 'warn', 'page'.")

    def send(self, changes: Sequence[Delivery]) -> None:
        """See :class:`Channel`. PagerDuty responds with status 202."""
        [change] = changes
        alert, action = change.alert, ACTIONS[change.change]
        body: dict[str, Any] = {
            "routing_key": self.routing_key,
            "event_action": action,
            "dedup_key": f"assetline-{alert.fingerprint}-{alert.id}",
        }
        if action == "trigger":
            body["payload"] = {
                "summary": line_of(change)[:_MOST_CHARACTERS],
                "source": f"assetline/{alert.model}",
                "severity": SEVERITIES[alert.severity],
                "timestamp": change.at.isoformat(),
                "component": alert.model,
                "class": alert.cause,
                "custom_details": {
                    "owner": alert.owner, "runbook": alert.runbook, "seen": alert.count, "since": alert.since_day,
                    "latest": alert.last_day, "column": alert.column, **alert.links,
                },
            }  # fmt: skip
            urls = {name: url for name, url in alert.links.items() if url.startswith(("http://", "https://"))}
            body["links"] = [{"href": url, "text": name} for name, url in urls.items()]
        self.post(f"{self.url}/v2/enqueue", body)

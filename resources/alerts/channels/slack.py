"""Slack, through an incoming webhook: https://api.slack.com/messaging/webhooks."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field

from resources.alerts.alert import Alert, Delivery
from resources.alerts.channels.base import HEARTBEAT_WORDS, Channel, headline_of, line_of, more_of

_MOST_BLOCKS, _MOST_CHARACTERS = 50, 3000
"""Slack's limits: blocks per message, and characters per section text."""


class SlackChannel(Channel):
    """Sends messages to one Slack channel."""

    SECRETS: ClassVar[tuple[str, ...]] = ("webhook_url",)

    webhook_url: str = Field(description="Address of the incoming webhook; it is a secret.")
    per_minute: int = Field(default=30, ge=1, description="Maximum messages per minute; Slack takes one per second.")

    def send(self, changes: Sequence[Delivery]) -> None:
        """See :class:`Channel`. Slack responds with status 200 and ``ok``."""
        blocks: list[dict[str, Any]] = []
        for change in changes[: _MOST_BLOCKS - 1]:
            text = "\n".join([f"*{_plain(line_of(change))}*", *map(_plain, more_of(change.alert))])
            blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": text[:_MOST_CHARACTERS]}})
        self.post(self.webhook_url, {"text": _plain(headline_of(changes)), "blocks": blocks})

    def heartbeat(self, open_alerts: Sequence[Alert], at: dt.datetime) -> None:
        """See :class:`Channel`."""
        self.post(self.webhook_url, {"text": f"{HEARTBEAT_WORDS}: {len(open_alerts)} alerts are open"})


def _plain(text: str) -> str:
    """Escapes Slack's markup characters, because a column may be called <!channel>."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

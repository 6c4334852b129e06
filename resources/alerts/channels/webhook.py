"""Channels for any service that accepts JSON over HTTP, and for the 170 services of the apprise library."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from resources.alerts.alert import Alert, Delivery
from resources.alerts.channels.base import HEARTBEAT_WORDS, Channel, headline_of, line_of, more_of


class WebhookChannel(Channel):
    """Posts changes as JSON: ``{"changes": [{"id", "change", "message", "who", "at", "alert": {…}}]}``.

    The header ``Idempotency-Key`` stays the same if a message is sent again.
    """

    SECRETS: ClassVar[tuple[str, ...]] = ("url", "token")

    url: str = Field(description="Address of the webhook; it may contain a secret, so it is treated as one.")
    token: str = Field(default="", description="Bearer token; it is a secret.")

    def send(self, changes: Sequence[Delivery]) -> None:
        """See :class:`Channel`."""
        bodies = [
            {"id": c.id, "change": c.change, "message": c.message, "who": c.who, "at": c.at.isoformat(),
             "alert": c.alert.to_json()}
            for c in changes
        ]  # fmt: skip
        key = "-".join(str(change.id) for change in changes)
        self.post(self.url, {"changes": bodies}, **self._headers(), **{"Idempotency-Key": key})

    def heartbeat(self, open_alerts: Sequence[Alert], at: dt.datetime) -> None:
        """See :class:`Channel`."""
        self.post(self.url, {"heartbeat": at.isoformat(), "open": len(open_alerts)}, **self._headers())

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


class AppriseChannel(Channel):
    """Sends messages through one apprise URL: https://github.com/caronc/apprise/wiki."""

    SECRETS: ClassVar[tuple[str, ...]] = ("url",)

    url: str = Field(description="apprise URL, e.g. msteams://… or tgram://…; it contains tokens, so it is a secret.")

    def send(self, changes: Sequence[Delivery]) -> None:
        """See :class:`Channel`."""
        worst = "failure" if any(c.alert.severity == "page" and c.change != "resolved" for c in changes) else "warning"
        kind = "success" if all(c.change == "resolved" for c in changes) else worst
        text = "\n\n".join("\n".join([line_of(change), *more_of(change.alert)]) for change in changes)
        self._notify(headline_of(changes), text, kind)

    def heartbeat(self, open_alerts: Sequence[Alert], at: dt.datetime) -> None:
        """See :class:`Channel`."""
        self._notify(HEARTBEAT_WORDS, f"{len(open_alerts)} alerts are open.", "info")

    def _notify(self, title: str, text: str, kind: str) -> None:
        import logging

        import apprise

        target = apprise.Apprise()
        if not target.add(self.url):
            raise ValueError("apprise does not know this URL; see its list of services")
        with apprise.LogCapture(level=logging.WARNING) as log:
            if not target.notify(body=text, title=title, notify_type=kind):
                raise ConnectionError(f"apprise could not deliver: {log.getvalue().strip() or 'no reason given'}")

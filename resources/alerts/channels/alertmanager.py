"""Prometheus Alertmanager, through its API v2.

Alertmanager does not store alerts: it drops alerts that are not posted again, and loses them when it restarts. So open
alerts are posted again every ``sync_seconds``. An acknowledged or silenced alert has a silence in Alertmanager, which
is recreated if it is missing. A resolved alert is posted with its ``endsAt``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field

from resources.alerts.alert import Alert, Delivery
from resources.alerts.channels.base import Channel

ACKNOWLEDGED_FOR = dt.timedelta(days=30)
"""Maximum duration of the silence for an acknowledged alert, because every silence needs an end."""
SILENCE_CHANGES = ("acknowledged", "silenced", "unsilenced", "escalated", "reopened", "resolved")
"""Changes after which the silence of an alert may have to be replaced or removed."""
_AUTHOR = "assetline"


class AlertmanagerChannel(Channel):
    """One Alertmanager; each member of a cluster needs its own channel."""

    SECRETS: ClassVar[tuple[str, ...]] = ("token",)
    SYNCS: ClassVar[bool] = True

    url: str = Field(description="Base address, e.g. http://127.0.0.1:9093.")
    token: str = Field(default="", description="Bearer token, if a proxy in front requires one; it is a secret.")
    group_seconds: float = Field(default=0.0, ge=0, description="0, because Alertmanager groups changes itself.")
    per_minute: int = Field(default=600, ge=1, description="Maximum number of messages per minute.")

    def send(self, changes: Sequence[Delivery]) -> None:
        """See :class:`Channel`."""
        latest = {change.alert.id: change for change in changes}  # only the latest state of each alert is posted
        # Alertmanager identifies alerts by their labels, severity included. So an escalation ends the warning.
        ended = [replace(c.alert, severity="warn", resolved_at=c.at) for c in changes if c.change == "escalated"]
        self._post([*ended, *(change.alert for change in latest.values())], changes[-1].at)
        for change in latest.values():
            if change.change in SILENCE_CHANGES:
                for silence in self._silences(change.alert.fingerprint):
                    self._ask("DELETE", f"silence/{silence['id']}")
                by_somebody = change.change in ("acknowledged", "silenced")
                self._silence(change.alert, change.at, change.who, change.message if by_somebody else "")

    def sync(self, open_alerts: Sequence[Alert], at: dt.datetime) -> None:
        """See :class:`Channel`."""
        if not (taken := [alert for alert in open_alerts if self.route("").takes(alert)]):
            return
        self._post(taken, at)
        silences = self._silences()
        there = {matcher["value"] for silence in silences for matcher in silence["matchers"]}
        for alert in taken:
            if alert.fingerprint not in there:
                self._silence(alert, at)

    def heartbeat(self, open_alerts: Sequence[Alert], at: dt.datetime) -> None:
        """Posts an alert that always fires, so that its absence shows that the watch has stopped."""
        ends = at + dt.timedelta(minutes=3 * self.heartbeat_minutes)
        labels = {"alertname": "AssetlineWatchdog", "severity": "none"}
        self._ask("POST", "alerts", [{"labels": labels, "endsAt": ends.isoformat()}])

    def _post(self, alerts: Sequence[Alert], at: dt.datetime) -> None:
        self._ask("POST", "alerts", [self._as_posted(alert, at) for alert in alerts])

    def _as_posted(self, alert: Alert, at: dt.datetime) -> dict[str, Any]:
        # If this process stops, the alert expires after three sync intervals, at least 180 s.
        ends = alert.resolved_at or at + dt.timedelta(seconds=max(3 * self.sync_seconds, 180))
        return {
            "labels": {
                "alertname": alert.cause, "model": alert.model, "severity": alert.severity,
                "fingerprint": alert.fingerprint, "owner": alert.owner,
                **({"column": alert.column} if alert.column else {}),
            },
            "annotations": {
                "summary": alert.summary, "runbook": alert.runbook, "state": alert.state, **alert.links,
            },
            "startsAt": alert.opened_at.isoformat(),
            "endsAt": ends.isoformat(),
            **({"generatorURL": alert.links["alert"]} if "alert" in alert.links else {}),
        }  # fmt: skip

    def _silence(self, alert: Alert, at: dt.datetime, who: str = "", comment: str = "") -> None:
        """Creates a silence in Alertmanager for an alert that is silenced or acknowledged; other alerts get none."""
        if alert.state == "resolved":
            return
        if alert.is_silenced(at):
            until = alert.silenced_until or at
        elif alert.state == "acknowledged":
            until = at + ACKNOWLEDGED_FOR
        else:
            return
        body = {
            "matchers": [{"name": "fingerprint", "value": alert.fingerprint, "isRegex": False, "isEqual": True}],
            "startsAt": at.isoformat(),
            "endsAt": until.isoformat(),
            "createdBy": who or alert.acknowledged_by or _AUTHOR,
            "comment": f"{_AUTHOR}: {comment or alert.state}",
        }
        self._ask("POST", "silences", body)

    def _silences(self, fingerprint: str = "") -> list[dict[str, Any]]:
        """Active and pending silences that this channel created, for one alert or for all."""
        query = {"filter": f'fingerprint="{fingerprint}"'} if fingerprint else None
        found = self._ask("GET", "silences", params=query).json()
        return [s for s in found if s["status"]["state"] != "expired" and s["comment"].startswith(f"{_AUTHOR}:")]

    def _ask(self, method: str, path: str, body: Any = None, params: dict[str, str] | None = None) -> Any:
        import httpx

        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        response = httpx.request(
            method, f"{self.url}/api/v2/{path}", json=body, params=params, headers=headers, timeout=self.timeout_seconds
        )
        if not response.is_success:
            raise httpx.HTTPStatusError(
                f"{response.status_code}: {response.text.strip()[:200]}", request=response.request, response=response
            )
        return response

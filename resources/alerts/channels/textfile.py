"""Prometheus, through a file for node_exporter's textfile collector; the watch serves the same metrics over HTTP."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from resources.alerts.alert import Alert, Delivery
from resources.alerts.channels.base import Channel


class PrometheusChannel(Channel):
    """Writes the open alerts as metrics to a file."""

    SYNCS: ClassVar[bool] = True

    path: str = Field(description="File to write, e.g. /var/lib/node_exporter/assetline.prom; replaced atomically.")

    def send(self, changes: Sequence[Delivery]) -> None:
        """Does nothing, because metrics show the state, which :meth:`sync` writes."""

    def sync(self, open_alerts: Sequence[Alert], at: dt.datetime) -> None:
        """See :class:`Channel`."""
        self._write(open_alerts, None)

    def heartbeat(self, open_alerts: Sequence[Alert], at: dt.datetime) -> None:
        """Writes ``assetline_heartbeat_timestamp_seconds``; alert on its age."""
        self._write(open_alerts, at)

    def _write(self, open_alerts: Sequence[Alert], heartbeat: dt.datetime | None) -> None:
        from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

        registry = CollectorRegistry()
        labels = ("model", "cause", "column", "severity", "state")
        gauge = Gauge("assetline_alert_open", "Alerts that are not resolved.", labels, registry=registry)
        for alert in open_alerts:
            gauge.labels(alert.model, alert.cause, alert.column, alert.severity, alert.state).inc()
        if heartbeat is not None:
            beat = Gauge(
                "assetline_heartbeat_timestamp_seconds", "Time of the watch's last heartbeat.", registry=registry
            )
            beat.set(heartbeat.timestamp())
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        write_to_textfile(self.path, registry)

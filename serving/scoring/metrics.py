"""The scoring service's metrics: requests and their latency by model and version.

Belongs here: counting requests and rows. Does not belong here: metrics that read stored state (``exporter.py``).
"""

from __future__ import annotations

from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector

from serving.scoring.access import Refusal

BUCKETS_S = (0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
EXPLAINED_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Requests with explanations are apart, because one of them takes as long as hundreds of others."""


class ServiceMetrics:
    """The metrics of one service process, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        by_version = ["model", "version"]
        self._seconds = Histogram(
            "assetline_request_seconds", "Duration of a request.", by_version, buckets=BUCKETS_S,
            registry=self.registry,
        )  # fmt: skip
        self._explained = Histogram(
            "assetline_explained_request_seconds", "Duration of a request that asks for explanations.", by_version,
            buckets=EXPLAINED_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self._requests = Counter(
            "assetline_requests", "Requests by outcome.", [*by_version, "outcome"], registry=self.registry
        )
        self._rows = Counter("assetline_scored_rows", "Scored rows.", by_version, registry=self.registry)
        self._refused = Counter(
            "assetline_refused_requests", "Requests refused before they reached a model.", ["reason"],
            registry=self.registry,
        )  # fmt: skip
        self._failed_lines = Counter(
            "assetline_access_log_errors", "Lines of the access log that could not be written.", registry=self.registry
        )
        for reason in get_args(Refusal):  # so that a rate exists before the first refusal
            self._refused.labels(reason)
        self._up = Gauge("assetline_endpoint_status", "1 for the endpoint's current status.", ["model", "status"],
                         registry=self.registry)  # fmt: skip

    def answered(
        self, model: str, version: str, outcome: str, seconds: float, rows: int, *, explained: bool = False
    ) -> None:
        """Counts one request. Takes a few microseconds.

        Args:
            model, version: the model and version that answered; the version is empty if none serves.
            outcome: ``ok``, ``refused`` (the rows cannot be scored), ``unavailable`` or ``error``.
            seconds: duration of the request.
            rows: number of scored rows.
            explained: whether the response holds explanations.
        """
        self._requests.labels(model, version, outcome).inc()
        if outcome == "ok":
            (self._explained if explained else self._seconds).labels(model, version).observe(seconds)
            self._rows.labels(model, version).inc(rows)

    def refused(self, reason: Refusal) -> None:
        """Counts a request that was refused before it reached a model. Neither path nor token is a label: a stranger
        can invent any number of them.
        """
        self._refused.labels(reason).inc()

    def access_line_failed(self) -> None:
        """Counts a line of the access log that could not be written."""
        self._failed_lines.inc()

    def status(self, model: str, status: str) -> None:
        """Records an endpoint's status: ``ok``, ``waiting`` or ``degraded``."""
        for known in ("ok", "waiting", "degraded"):
            self._up.labels(model, known).set(float(known == status))

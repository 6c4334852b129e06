"""The scoring service's metrics: requests and their latency by model and version.

Several processes behind one port count in files that they share, by the multiprocess mode of ``prometheus_client``: a
scrape of any of them has the sums. A process that is started again goes on with the file of the one before, so no sum
ever falls. Memory and processor time are by process, with a label.

Belongs here: counting requests and rows. Does not belong here: metrics that read stored state (``exporter.py``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
    values,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from serving.scoring.access import Refusal
from serving.scoring.shared import Board, Seat

BUCKETS_S = (0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
EXPLAINED_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Requests with explanations are apart, because one of them takes as long as hundreds of others."""


_STATUS, _STATUS_HELP = "assetline_endpoint_status", "1 for the endpoint's current status."
_STATUSES = ("ok", "waiting", "degraded")


class ServiceMetrics:
    """The metrics of one service process, in their own registry.

    Args:
        seat: its place among the processes of the service; ``None`` if it is the only one.
    """

    def __init__(self, seat: Seat | None = None) -> None:
        self.registry = CollectorRegistry()
        self._shown = self.registry
        self._statuses: dict[str, str] = {}
        if seat is None:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)
        else:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(seat.folder)
            values.ValueClass = values.MultiProcessValue(lambda: seat.slot)
            self._shown = CollectorRegistry()
            MultiProcessCollector(self._shown, path=str(seat.folder))
            PlatformCollector(registry=self._shown)
            self._shown.register(_Processes(Board(seat), self._statuses))
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
        self._up = None
        if seat is None:
            self._up = Gauge(_STATUS, _STATUS_HELP, ["model", "status"], registry=self.registry)

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
        self._statuses[model] = status
        if self._up is not None:
            for known in _STATUSES:
                self._up.labels(model, known).set(float(known == status))

    def page(self) -> bytes:
        """What Prometheus reads, of all processes of the service."""
        return generate_latest(self._shown)


class _Processes(Collector):
    """What is not counted in the shared files: each process's memory and time, their states, the endpoints' status."""

    def __init__(self, board: Board, statuses: Mapping[str, str]) -> None:
        self._board, self._statuses = board, statuses

    def collect(self) -> Iterator[Metric]:
        """The metrics, read now."""
        states = self._board.states()
        serving = sum(one.state == "serving" for one in states)
        yield GaugeMetricFamily("assetline_service_processes", "Processes of the service that serve.", value=serving)
        restarts = CounterMetricFamily(
            "assetline_service_restarts", "Processes of the service that were started again.", labels=["process"]
        )
        by_name: dict[str, Metric] = {}
        for one in states:
            restarts.add_metric([str(one.process)], one.restarts)
            if one.pid:
                for found in ProcessCollector(pid=lambda pid=one.pid: pid, registry=None).collect():  # type: ignore[misc]
                    shown = by_name.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                    for sample in found.samples:
                        shown.add_sample(sample.name, {"process": str(one.process)}, sample.value)
        yield restarts
        yield from by_name.values()
        status = GaugeMetricFamily(_STATUS, _STATUS_HELP, labels=["model", "status"])
        for model, current in self._statuses.items():
            for known in _STATUSES:
                status.add_metric([model, known], float(known == current))
        yield status

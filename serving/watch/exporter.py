"""Metrics for Prometheus: models, runs, tables, checks, alerts, the outbox, the machine.

    GET /metrics of the watch; the scoring service has its own (``metrics.py``)

Belongs here: reading the current state at a scrape. Does not belong here: rules and dashboards (``deploy/``). A scrape
reads a bounded amount of data: the latest day of each table, the latest runs, and the check evaluations and alert
changes since the last scrape. A part that fails is logged and counted; the other parts are still exported.
"""

from __future__ import annotations

import calendar
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dagster as dg
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from assets.declaration import Model
from resources.alerts import SEVERITIES, AlertStore
from resources.dagster_internals import check_evaluations
from resources.ledger import SHARE, Ledger
from resources.settings import Settings
from resources.tables import WHOLE, ParquetTables

_log = logging.getLogger("assetline.exporter")

FRESH_FOR_S = 10.0
"""Seconds for which a scrape is cached."""
LATEST_RUNS = 500
MOST_EVALUATIONS = 20_000


class AssetlineCollector(Collector):
    """Collects all metrics except those of the scoring service.

    Args:
        settings: settings with the state folder and the database.
        models: models whose versions and tables are exported.
        instance: Dagster instance.
        store: alert store.
    """

    def __init__(
        self, settings: Settings, models: Sequence[Model], instance: dg.DagsterInstance, store: AlertStore
    ) -> None:
        self._settings, self._models, self._instance, self._store = settings, models, instance, store
        self._tables = ParquetTables(root=settings.tables)
        self._ledger = Ledger(database_url=settings.database_url)
        self._position = 0
        self._checks: dict[tuple[str, str, str], Any] = {}
        self._evaluations: Counter[tuple[str, str, str, str]] = Counter()
        self._errors: Counter[str] = Counter()
        self._event = 0
        self._changes: Counter[tuple[str, str]] = Counter()
        self._known: list[Metric] = []
        self._read_at = -math.inf

    def describe(self) -> list[Metric]:
        """Returns no metrics, because the set of metrics depends on the state."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics, read again if the last read is older than ``FRESH_FOR_S``."""
        if time.monotonic() - self._read_at > FRESH_FOR_S:
            self._known, self._read_at = list(self._read()), time.monotonic()
        yield from self._known

    def _read(self) -> Iterator[Metric]:
        parts: dict[str, Callable[[], list[Metric]]] = {
            "models": self._of_models,
            "runs": self._of_runs,
            "tables": self._of_tables,
            "checks": self._of_checks,
            "alerts": self._of_alerts,
            "system": self._of_system,
        }
        seconds = GaugeMetricFamily(
            "assetline_exporter_seconds", "Seconds that each part of a scrape took.", labels=["part"]
        )
        for part, read in parts.items():
            began = time.perf_counter()
            try:
                yield from read()
            except Exception:  # one failing part must not hide the others; a rule alerts on the error count
                self._errors[part] += 1
                _log.exception("the metrics of %s could not be read", part)
            seconds.add_metric([part], time.perf_counter() - began)
        errors = CounterMetricFamily("assetline_exporter_errors", "Failed reads of each part so far.", labels=["part"])
        for part in parts:
            errors.add_metric([part], self._errors[part])
        yield seconds
        yield errors

    def _of_models(self) -> list[Metric]:
        version = GaugeMetricFamily(
            "assetline_model_version_info", "1 for the version in production.", labels=["model", "version"]
        )
        since = GaugeMetricFamily(
            "assetline_model_promoted_timestamp_seconds", "Time of its promotion.", labels=["model"]
        )
        decisions = CounterMetricFamily("assetline_promotions", "Ledger entries so far.", labels=["model", "action"])
        counted = Counter((entry.model, entry.action) for entry in self._ledger.history())
        for (name, action), n in sorted(counted.items()):
            decisions.add_metric([name, action], n)
        deployed = GaugeMetricFamily("assetline_model_deployed", "1 if a version is in production.", labels=["model"])
        rollout = GaugeMetricFamily(
            "assetline_rollout_share", "Share of the entities that a new version answers.", labels=["model", "version"]
        )
        for model in self._models:
            champion = self._ledger.champion(model.name)
            deployed.add_metric([model.name], float(champion is not None))
            if champion is not None:
                version.add_metric([model.name, champion.version], 1)
                since.add_metric([model.name], champion.at.timestamp())
            if (step := self._ledger.rollout(model.name)) is not None:
                rollout.add_metric([model.name, step.version], float(step.verdicts.get(SHARE, 0.0)))
        return [version, since, decisions, deployed, rollout]

    def _of_runs(self) -> list[Metric]:
        counts: Counter[tuple[str, str]] = Counter()
        latest: dict[str, Any] = {}
        success: dict[str, float] = {}
        for record in self._instance.get_run_records(limit=LATEST_RUNS):  # newest first
            job, status = record.dagster_run.job_name, record.dagster_run.status
            counts[job, status.value] += 1
            if record.end_time and record.start_time:
                latest.setdefault(job, record)
                if status == dg.DagsterRunStatus.SUCCESS:
                    success.setdefault(job, record.end_time)
        runs = GaugeMetricFamily(
            "assetline_runs", f"Number among the latest {LATEST_RUNS} runs.", labels=["job", "status"]
        )
        for (job, status_), n in sorted(counts.items()):
            runs.add_metric([job, status_], n)
        took = GaugeMetricFamily(
            "assetline_run_duration_seconds", "Duration of the latest finished run.", labels=["job"]
        )
        last = GaugeMetricFamily(
            "assetline_run_last_success_timestamp_seconds", "End of the latest successful run.", labels=["job"]
        )
        for job, record in latest.items():
            took.add_metric([job], record.end_time - record.start_time)
        for job, at in success.items():
            last.add_metric([job], at)
        return [runs, took, last]

    def _of_tables(self) -> list[Metric]:
        labels = ["model", "asset"]
        rows = GaugeMetricFamily("assetline_table_rows", "Rows of the latest day.", labels=labels)
        days = GaugeMetricFamily("assetline_table_days", "Number of days in the table.", labels=labels)
        last = GaugeMetricFamily(
            "assetline_table_last_day_timestamp_seconds", "Latest day in the table.", labels=labels
        )
        for model in self._models:
            table = model.table.name
            for asset in (f"raw_{table}", table, "quarantine", "labels", "features", "predictions", "drift"):
                there = self._tables.days(model.key(asset))
                if not there:
                    continue
                stamp = self._tables.stamp(model.key(asset), there[-1])
                rows.add_metric([model.name, asset], stamp.rows if stamp else 0)
                if there[-1] != WHOLE:
                    days.add_metric([model.name, asset], len(there))
                    last.add_metric([model.name, asset], calendar.timegm(time.strptime(there[-1], "%Y-%m-%d")))
        return [rows, days, last]

    def _of_checks(self) -> list[Metric]:
        found = check_evaluations(self._instance, after=self._position, limit=MOST_EVALUATIONS)
        for evaluation in found:
            self._position = evaluation.storage_id
            model, *asset = evaluation.asset_key.path
            identity = (model, "/".join(asset), evaluation.check)
            self._evaluations[(*identity, "yes" if evaluation.passed else "no")] += 1
            before = self._checks.get(identity)
            if before is None or (evaluation.day or "") >= (before.day or ""):
                self._checks[identity] = evaluation
        labels = ["model", "asset", "check"]
        passed = GaugeMetricFamily("assetline_check_passed", "Latest result: 1 passed, 0 failed.", labels=labels)
        total = CounterMetricFamily("assetline_check_evaluations", "Check results so far.", labels=[*labels, "passed"])
        drift = GaugeMetricFamily("assetline_drift_effect", "Effect of a drifted column.", labels=["model", "column"])
        figures = GaugeMetricFamily(
            "assetline_performance", "Trailing week: measured with labels, and estimated.", labels=["model", "metric"]
        )
        for identity, evaluation in sorted(self._checks.items()):
            passed.add_metric(list(identity), float(evaluation.passed))
            if identity[1:] == ("drift", "drift"):
                for column, effect in dict(evaluation.metadata.get("effects") or {}).items():
                    drift.add_metric([identity[0], column], effect)
            elif identity[2] in ("floor", "estimated_floor"):
                for metric, value in evaluation.metadata.items():
                    if isinstance(value, float):
                        figures.add_metric([identity[0], metric], value)
        for counted, n in sorted(self._evaluations.items()):
            total.add_metric(list(counted), n)
        return [passed, total, drift, figures]

    def _of_alerts(self) -> list[Metric]:
        labels = ["model", "cause", "column", "severity", "state"]
        open_ = GaugeMetricFamily("assetline_alert_open", "Alerts that are not resolved.", labels=labels)
        oldest = GaugeMetricFamily(
            "assetline_alert_oldest_timestamp_seconds", "Time when the oldest open alert opened.", labels=["severity"]
        )
        number = GaugeMetricFamily("assetline_alerts", "Open alerts by severity.", labels=["severity"])
        counted: Counter[tuple[str, ...]] = Counter()
        alerts = self._store.open_alerts()
        for alert in alerts:
            counted[alert.model, alert.cause, alert.column, alert.severity, alert.state] += 1
        for identity, n in sorted(counted.items()):
            open_.add_metric(list(identity), n)
        for severity in SEVERITIES:
            mine = [alert for alert in alerts if alert.severity == severity]
            number.add_metric([severity], len(mine))
            if mine:
                oldest.add_metric([severity], min(alert.opened_at for alert in mine).timestamp())
        changes = CounterMetricFamily("assetline_alert_changes", "Alert changes so far.", labels=["model", "change"])
        counted_since, self._event = self._store.count_changes(after=self._event)
        self._changes.update(counted_since)
        for (model, change), n in sorted(self._changes.items()):
            changes.add_metric([model, change], n)
        waiting = GaugeMetricFamily("assetline_outbox_waiting", "Changes not delivered yet.", labels=["channel"])
        since = GaugeMetricFamily(
            "assetline_outbox_oldest_seconds", "Age of the oldest undelivered change.", labels=["channel", "severity"]
        )
        sent = CounterMetricFamily("assetline_outbox_sent", "Changes delivered so far.", labels=["channel"])
        backlog, delivered = self._store.outbox.backlog(), self._store.outbox.sent()
        for channel in sorted({*(route.channel for route in self._store.routes), *backlog, *delivered}):
            waits = backlog.get(channel)
            waiting.add_metric([channel], waits.waiting if waits else 0)
            for severity in SEVERITIES:
                oldest_of = waits.oldest.get(severity) if waits else None
                since.add_metric([channel, severity], time.time() - oldest_of.timestamp() if oldest_of else 0)
            sent.add_metric([channel], delivered.get(channel, 0))
        return [open_, oldest, number, changes, waiting, since, sent]

    def _of_system(self) -> list[Metric]:
        import psutil

        cpu = GaugeMetricFamily("assetline_system_cpu_ratio", "Share of all cores in use since the last scrape.")
        cpu.add_metric([], psutil.cpu_percent(interval=None) / 100)
        memory = GaugeMetricFamily("assetline_system_memory_bytes", "Memory of the machine.", labels=["kind"])
        found = psutil.virtual_memory()
        for kind in ("total", "available"):
            memory.add_metric([kind], getattr(found, kind))
        disk = GaugeMetricFamily("assetline_state_disk_bytes", "Disk of the state folder.", labels=["kind"])
        usage = psutil.disk_usage(str(self._settings.home))
        for kind in ("total", "free"):
            disk.add_metric([kind], getattr(usage, kind))
        return [cpu, memory, disk]


def registry_of(collector: Collector) -> CollectorRegistry:
    """A registry with the collector and the metrics of this process and the Python platform."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(collector)
    return registry

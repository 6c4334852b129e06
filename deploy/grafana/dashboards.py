"""The Grafana dashboards: `python -m deploy.grafana.dashboards` (`make dashboards`) writes ``dashboards/*.json``.

Belongs here: the panels and their queries. Does not belong here: recording rules (``../prometheus``). Each
query is run against a real Prometheus by ``tests/serving/watch/test_prometheus.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "dashboards"
SOURCE = "assetline"
"""``uid`` of the provisioned data source."""


@dataclass(frozen=True)
class Panel:
    """One panel: its PromQL queries with the names of the series, and the unit of the values (Grafana's name)."""

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    description: str = ""


DASHBOARDS: dict[str, dict[str, Sequence[Panel]]] = {
    "Overview": {
        "Now": (
            Panel("Pages open", [('assetline_alerts{severity="page"}', "pages")], kind="stat"),
            Panel("Warnings open", [('assetline_alerts{severity="warn"}', "warnings")], kind="stat"),
            Panel("In production", [("assetline_model_version_info", "{{model}} {{version}}")], kind="stat"),
            Panel("Processes up", [('up{job=~"assetline.*"}', "{{job}}")], kind="stat"),
        ),
        "Alerts": (
            Panel("Open alerts", [("sum by (model, cause, severity) (assetline_alert_open)", "{{model}} {{cause}}")]),
            Panel("Changes per hour",
                  [("sum by (change) (increase(assetline_alert_changes_total[1h]))", "{{change}}")]),
        ),
        "Data": (
            Panel("Rows of the latest day", [("assetline_table_rows", "{{model}}/{{asset}}")]),
            Panel("Age of the latest day", [("assetline:table_age_seconds", "{{model}}/{{asset}}")], "s"),
        ),
    },
    "Model": {
        "Checks": (
            Panel("Latest check results", [("assetline_check_passed", "{{model}}/{{asset}} {{check}}")]),
            Panel(
                "Failed checks per day",
                [('sum by (model, asset, check) (increase(assetline_check_evaluations_total{passed="no"}[1d]))',
                  "{{model}}/{{asset}} {{check}}")],
            ),
        ),
        "Drift and performance": (
            Panel("Effect of drifted columns", [("assetline_drift_effect", "{{model}} {{column}}")],
                  description="K-S distance, or total variation of categories; no series if nothing drifts."),
            Panel("Performance of the trailing week", [("assetline_performance", "{{model}} {{metric}}")]),
        ),
        "Versions": (
            Panel("Decisions so far", [("assetline_promotions_total", "{{model}} {{action}}")]),
            Panel("Age of the champion", [("time() - assetline_model_promoted_timestamp_seconds", "{{model}}")], "s"),
        ),
    },
    "Service": {
        "Requests": (
            Panel("Requests per second",
                  [("sum by (model, version) (assetline:requests:rate5m)", "{{model}} {{version}}")], "reqps"),
            Panel("Requests by outcome", [("sum by (outcome) (assetline:requests:rate5m)", "{{outcome}}")], "reqps"),
            Panel("Share of failed requests", [("assetline:request_errors:ratio5m", "{{model}}")], "percentunit"),
            Panel("Rows scored per second", [("sum by (model) (rate(assetline_scored_rows_total[5m]))", "{{model}}")]),
        ),
        "Latency by version": (
            Panel("Median", [("assetline:request_seconds:p50", "{{model}} {{version}}")], "s"),
            Panel("95th percentile", [("assetline:request_seconds:p95", "{{model}} {{version}}")], "s"),
            Panel("99th percentile", [("assetline:request_seconds:p99", "{{model}} {{version}}")], "s"),
            Panel("Endpoints", [('assetline_endpoint_status == 1', "{{model}} {{status}}")], kind="stat"),
        ),
    },
    "Operations": {
        "Runs": (
            Panel("Runs by status", [("sum by (status) (assetline_runs)", "{{status}}")]),
            Panel("Duration of the latest run", [("assetline_run_duration_seconds", "{{job}}")], "s"),
            Panel("Time since the last success",
                  [("time() - assetline_run_last_success_timestamp_seconds", "{{job}}")], "s"),
        ),
        "Delivery": (
            Panel("Waiting in the outbox", [("assetline_outbox_waiting", "{{channel}}")]),
            Panel("Oldest waiting change", [("assetline_outbox_oldest_seconds", "{{channel}} {{severity}}")], "s"),
            Panel("Delivered per hour", [("increase(assetline_outbox_sent_total[1h])", "{{channel}}")]),
        ),
        "Resources": (
            Panel("CPU of the machine", [("assetline_system_cpu_ratio", "in use")], "percentunit"),
            Panel("Memory", [("assetline_system_memory_bytes", "{{kind}}"),
                             ('process_resident_memory_bytes{job=~"assetline.*"}', "{{job}}")], "bytes"),
            Panel("CPU by process",
                  [('rate(process_cpu_seconds_total{job=~"assetline.*"}[5m])', "{{job}}")], "percentunit"),
            Panel("Disk of the state folder", [("assetline_state_disk_bytes", "{{kind}}")], "bytes"),
        ),
        "Metrics": (
            Panel("Duration of a scrape", [("assetline_exporter_seconds", "{{part}}")], "s"),
            Panel("Failed parts", [("increase(assetline_exporter_errors_total[1h])", "{{part}}")]),
        ),
    },
}  # fmt: skip


def panels() -> Iterator[Panel]:
    """All panels of all dashboards."""
    for rows in DASHBOARDS.values():
        for of_row in rows.values():
            yield from of_row


def made(name: str) -> str:
    """A dashboard as Grafana's JSON."""
    from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import DataSourceRef

    source = DataSourceRef(type_val="prometheus", uid=SOURCE)
    kinds: dict[str, Any] = {"timeseries": timeseries.Panel, "stat": stat.Panel}
    board = (
        dashboard.Dashboard(f"Assetline: {name}").uid(f"assetline-{name.lower()}").tags(["assetline"])
        .time("now-6h", "now").refresh("1m").readonly()
    )  # fmt: skip
    for row, of_row in DASHBOARDS[name].items():
        board = board.with_row(dashboard.Row(row))
        for panel in of_row:
            one = kinds[panel.kind]().title(panel.title).unit(panel.unit).datasource(source).span(24 // len(of_row))
            one = one.height(8).description(panel.description)
            for letter, (query, legend) in zip("ABCD", panel.queries, strict=False):
                one = one.with_target(prometheus.Dataquery().expr(query).legend_format(legend).ref_id(letter))
            board = board.with_panel(one)
    return json.dumps(json.loads(JSONEncoder(sort_keys=True).encode(board.build())), indent=1, sort_keys=True) + "\n"


def main() -> None:
    """Writes all dashboards."""
    FOLDER.mkdir(exist_ok=True)
    for name in DASHBOARDS:
        (FOLDER / f"{name.lower()}.json").write_text(made(name))


if __name__ == "__main__":
    main()

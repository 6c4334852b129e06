"""What the exporter says of a state folder; a part that fails hides no other; the table of metrics in the docs."""

import logging

import dagster as dg
import pytest
from prometheus_client import generate_latest

from assets.models.fraud import model as fraud
from resources import home
from resources.ledger import Ledger
from resources.settings import Settings, project_root
from resources.tables import ParquetTables
from serving.scoring.metrics import ServiceMetrics
from serving.watch.exporter import AssetlineCollector, registry_of
from tests.serving.metrics_world import fill


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Settings:
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", "")
    made = Settings.from_env()
    home.prepare(made)
    return made


@pytest.fixture
def scraped(settings):
    """Some state, and a scrape of it."""
    instance = dg.DagsterInstance.get()
    return AssetlineCollector(settings, [fraud], instance, fill(settings, instance))


def text_of(collector) -> str:
    return generate_latest(registry_of(collector)).decode()


def test_it_says_what_there_is(scraped):
    lines = text_of(scraped).splitlines()
    for line in (
        'assetline_model_version_info{model="fraud",version="3"} 1.0',
        'assetline_promotions_total{action="promote",model="fraud"} 1.0',
        'assetline_table_rows{asset="predictions",model="fraud"} 7.0',
        'assetline_table_days{asset="predictions",model="fraud"} 2.0',
        'assetline_table_last_day_timestamp_seconds{asset="predictions",model="fraud"} 1.7724096e+09',
        'assetline_check_passed{asset="drift",check="drift",model="fraud"} 0.0',
        'assetline_check_evaluations_total{asset="drift",check="drift",model="fraud",passed="no"} 1.0',
        'assetline_drift_effect{column="amount",model="fraud"} 0.25',
        'assetline_alert_open{cause="drift/drift",column="",model="fraud",severity="page",state="open"} 1.0',
        'assetline_alert_changes_total{change="opened",model="fraud"} 1.0',
        'assetline_outbox_waiting{channel="hook"} 1.0',
        'assetline_outbox_sent_total{channel="hook"} 0.0',
        'assetline_runs{job="__ephemeral_asset_job__",status="SUCCESS"} 1.0',
        'assetline_exporter_errors_total{part="runs"} 0.0',
    ):
        assert line in lines, line


def test_the_share_of_a_new_version_is_told_while_it_is_rolled_out(settings, scraped):
    ledger = Ledger(database_url=settings.database_url)
    facts = {"dagster_run": "", "who": "ada"}
    ledger.record("canary", "fraud", "4", reason="a quarter", verdicts={"share": 0.25}, **facts)
    assert 'assetline_rollout_share{model="fraud",version="4"} 0.25' in text_of(scraped)
    ledger.record("withdraw", "fraud", "4", reason="slow", verdicts={}, **facts)
    scraped._read_at = float("-inf")
    assert "assetline_rollout_share{" not in text_of(scraped)


def test_a_second_scrape_counts_no_evaluation_twice(scraped):
    text_of(scraped)
    scraped._read_at = float("-inf")
    said = text_of(scraped)
    assert 'passed="no"} 1.0' in said
    assert 'assetline_alert_changes_total{change="opened",model="fraud"} 1.0' in said


def test_a_part_that_fails_is_counted_and_hides_no_other(scraped, monkeypatch, caplog):
    def broken(*_, **__):
        raise OSError("the disk is gone")

    monkeypatch.setattr(ParquetTables, "days", broken)
    with caplog.at_level(logging.ERROR):
        lines = text_of(scraped).splitlines()
    assert 'assetline_exporter_errors_total{part="tables"} 1.0' in lines
    assert 'assetline_model_version_info{model="fraud",version="3"} 1.0' in lines
    assert "the metrics of tables could not be read" in caplog.text


def test_requests_are_counted_by_version_and_outcome():
    metrics = ServiceMetrics()
    metrics.answered("fraud", "3", "ok", 0.0007, 2)
    metrics.answered("fraud", "3", "refused", 0.0001, 0)
    metrics.status("fraud", "degraded")
    lines = generate_latest(metrics.registry).decode().splitlines()
    for line in (
        'assetline_requests_total{model="fraud",outcome="ok",version="3"} 1.0',
        'assetline_requests_total{model="fraud",outcome="refused",version="3"} 1.0',
        'assetline_request_seconds_bucket{le="0.001",model="fraud",version="3"} 1.0',
        'assetline_request_seconds_bucket{le="0.0005",model="fraud",version="3"} 0.0',
        'assetline_scored_rows_total{model="fraud",version="3"} 2.0',
        'assetline_endpoint_status{model="fraud",status="degraded"} 1.0',
    ):
        assert line in lines, line


def test_the_docs_name_every_metric(scraped):
    metrics = ServiceMetrics()
    metrics.answered("fraud", "3", "ok", 0.0007, 2)
    metrics.status("fraud", "ok")
    said = text_of(scraped) + generate_latest(metrics.registry).decode()
    names = {line.split()[2] for line in said.splitlines() if line.startswith("# TYPE assetline")}
    names = {name for name in names if not name.endswith("_created")}
    documented = (project_root() / "docs" / "monitoring.md").read_text()
    assert not [name for name in sorted(names) if f"`{name}`" not in documented]

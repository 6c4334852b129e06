"""Checks that fail and pass become alerts, and what became of retraining is told."""

import datetime as dt
from dataclasses import replace

import dagster as dg
import pytest

from assets.alerts import KEY
from assets.lifecycle.factory import lifecycle_assets
from assets.models import declared_models
from resources.alerts import Alerts
from resources.dagster_internals import Evaluation
from resources.ledger import Ledger
from resources.settings import project_root
from sensors.alerts import (
    DRIFT_CAUSE,
    LOST_CAUSE,
    alerts_sensor,
    handle,
    handle_all,
    tell_what_came_of_retraining,
)  # fmt: skip
from tests.declarations.readings import VARIANTS, stream

MODEL = stream()


@pytest.fixture
def alerts(tmp_path) -> Alerts:
    return Alerts(database_url=f"sqlite:///{tmp_path / 'alerts.db'}")


def evaluation(number: int, passed: bool, *, severity=dg.AssetCheckSeverity.ERROR, day="2026-03-02", **metadata):
    return Evaluation(
        storage_id=number, run_id="r1", timestamp=0.0, asset_key=MODEL.key("drift"), check="drift", passed=passed,
        severity=severity, day=day, description="as it is", metadata=metadata,
    )  # fmt: skip


def test_a_page_opens_with_its_day_its_beginning_and_its_links(alerts, caplog):
    handle(alerts, evaluation(1, False, since="2026-03-01", report="/reports/1"))
    [alert] = alerts.store.open_alerts("meter")
    assert (alert.cause, alert.severity, alert.since_day, alert.last_day) == (
        "drift/drift", "page", "2026-03-01", "2026-03-02",
    )  # fmt: skip
    assert alert.links == {
        "run": "/runs/r1", "asset": "/assets/meter/drift", "check": "/assets/meter/drift?view=checks",
        "report": "/reports/1",
    }  # fmt: skip
    assert alert.summary == "2026-03-02: as it is"
    assert "OPENED page [meter] drift/drift: 2026-03-02: as it is" in caplog.text


def test_a_warning_warns_and_the_next_that_is_worse_pages(alerts):
    handle(alerts, evaluation(5, False, severity=dg.AssetCheckSeverity.WARN))
    assert [alert.severity for alert in alerts.store.open_alerts()] == ["warn"]
    assert alerts.store.position("check_evaluations") == 5
    handle(alerts, evaluation(6, False, day="2026-03-03"))
    assert [alert.severity for alert in alerts.store.open_alerts()] == ["page"]


def test_a_check_that_names_columns_has_an_alert_for_each_and_resolves_each(alerts):
    wrong = {"amount": "40 % are missing", "age": "a new category"}
    handle(alerts, evaluation(1, False, columns=wrong), owner="team:risk")
    handle(alerts, evaluation(1, False, columns=wrong))
    found = {alert.column: alert for alert in alerts.store.open_alerts()}
    assert {column: alert.summary for column, alert in found.items()} == {
        "amount": "2026-03-02: 40 % are missing", "age": "2026-03-02: a new category",
    }  # fmt: skip
    assert {alert.count for alert in found.values()} == {1}, "what was seen counts once"
    assert (found["age"].owner, found["age"].runbook) == ("team:risk", "docs/runbooks/drift.md")
    handle(alerts, evaluation(2, False, day="2026-03-03", columns={"amount": "50 % are missing"}))
    assert [alert.column for alert in alerts.store.open_alerts()] == ["amount"]
    handle(alerts, evaluation(3, True, day="2026-03-04"))
    assert alerts.store.open_alerts() == []


def test_what_became_of_a_training_is_told_to_the_alert_that_asked_for_it(alerts, tmp_path):
    handle(alerts, evaluation(1, False))
    ledger = Ledger(database_url=alerts.database_url)
    ledger.refuse("meter", "2", reason="worse by .03", verdicts={}, dagster_run="r", who="w")
    for _ in range(2):
        tell_what_came_of_retraining(alerts, ledger)
    ledger.promote("meter", "3", reason="better by .02", verdicts={}, dagster_run="r", who="w")
    tell_what_came_of_retraining(alerts, ledger)
    words = [event.message for event in alerts.store.history() if event.change == "updated"]
    assert words == [
        "retraining: version 2 was refused: worse by .03", "retraining: version 3 was promoted: better by .02",
    ]  # fmt: skip
    assert alerts.store.position("promotions") == ledger.history()[-1].id


def test_of_several_evaluations_each_counts_in_its_turn_and_the_last_is_the_position(alerts):
    told = [evaluation(1, False), evaluation(2, True), evaluation(3, True)]
    handle_all(alerts, told, {"meter": "team:risk"})
    assert alerts.store.open_alerts() == []
    assert [event.change for event in alerts.store.history()] == ["opened", "resolved"]
    handle_all(alerts, [evaluation(4, True), evaluation(5, True)], {"meter": "team:risk"})
    assert alerts.store.position("check_evaluations") == 5


def test_checks_of_assets_that_are_no_models_open_nothing(alerts):
    handle_all(alerts, [evaluation(1, False)], {"churn": ""})
    assert alerts.store.alerts() == []


def test_an_evaluation_that_passed_does_not_resolve_twice(alerts):
    handle(alerts, evaluation(1, False))
    handle(alerts, evaluation(2, True))
    alerts.store.report("meter", "drift/drift", severity="page", summary="seen by somebody else")
    handle(alerts, evaluation(2, True))
    assert len(alerts.store.open_alerts()) == 1


def test_what_is_no_table_of_columns_is_no_column(alerts):
    handle(alerts, evaluation(1, False, columns="amount"))
    [alert] = alerts.store.open_alerts()
    assert (alert.column, alert.summary) == ("", "2026-03-02: as it is")


def every_check() -> list[dg.AssetCheckKey]:
    """Of all kinds of models that there are."""
    models = [*declared_models(), *VARIANTS.values()]
    return sorted({spec.key for model in models for asset in lifecycle_assets(model) for spec in asset.check_specs})


def test_the_causes_that_are_known_by_name_are_checks_that_there_are():
    there = {f"{'/'.join(key.asset_key.path[1:])}/{key.name}" for key in every_check()}
    assert {DRIFT_CAUSE, LOST_CAUSE} <= there


@pytest.mark.closes("alerts", "check")
def test_every_check_that_fails_opens_an_alert_with_its_page_and_resolves_it_when_it_passes(alerts):
    for number, key in enumerate(every_check()):
        model, *asset = key.asset_key.path
        told = {"asset_key": key.asset_key, "check": key.name}
        handle(alerts, replace(evaluation(2 * number + 1, False), **told), owner="team:risk")
        [alert] = alerts.store.open_alerts(model)
        assert (alert.cause, alert.severity, alert.owner) == (f"{asset[0]}/{key.name}", "page", "team:risk")
        assert (project_root() / alert.runbook).is_file()
        handle(alerts, replace(evaluation(2 * number + 2, True), **told))
        assert alerts.store.open_alerts() == []
    assert number >= 19, "those of the variants at least: a fork may have no model yet"


def test_passing_resolves(alerts):
    handle(alerts, evaluation(1, False))
    handle(alerts, evaluation(2, True, day="2026-03-03"))
    [alert] = alerts.store.alerts()
    assert alert.resolution == "the check passed on 2026-03-03: as it is"


def test_a_check_that_is_of_no_day_warns(alerts):
    handle(alerts, evaluation(1, False, day=None))
    assert alerts.store.open_alerts()[0].severity == "warn"


@dg.asset(key=MODEL.key("toy"), check_specs=[dg.AssetCheckSpec("sound", asset=MODEL.key("toy"))])
def toy(context: dg.AssetExecutionContext):
    yield dg.MaterializeResult()
    yield dg.AssetCheckResult(check_name="sound", passed="fine" in context.run.tags)


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def test_the_sensor_reads_each_evaluation_once(alerts, instance):
    sensor, cursors = alerts_sensor([MODEL]), [None]

    def tick():
        given = {"alerts": alerts, "ledger": Ledger(database_url=alerts.database_url)}
        with dg.build_sensor_context(instance=instance, resources=given, cursor=cursors[-1]) as context:
            ticked = sensor.evaluate_tick(context)
        cursors.append(ticked.cursor or cursors[-1])
        return ticked

    dg.materialize([toy], instance=instance)
    [event] = tick().asset_events
    assert event.asset_key == KEY
    assert event.metadata["open"].value == 1
    assert event.metadata["alerts"].records[0].data["cause"] == "toy/sound"
    assert tick().skip_message == "0 check evaluations read"
    [alert] = alerts.store.open_alerts("meter")
    assert (alert.cause, alert.count) == ("toy/sound", 1)
    dg.materialize([toy], instance=instance, tags={"fine": ""})
    tick()
    assert alerts.store.open_alerts() == []


def test_the_sensor_says_that_a_silence_is_over(alerts, instance, caplog):
    handle(alerts, evaluation(1, False))
    [alert] = alerts.store.open_alerts()
    long_ago = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    alerts.store.silence(alert.id, until=long_ago + dt.timedelta(hours=1), who="ada", at=long_ago)
    given = {"alerts": alerts, "ledger": Ledger(database_url=alerts.database_url)}
    with dg.build_sensor_context(instance=instance, resources=given) as context:
        alerts_sensor([MODEL]).evaluate_tick(context)
    assert "UNSILENCED page [meter] drift/drift" in caplog.text


def test_the_sensor_tells_what_became_of_a_training(alerts, instance):
    handle(alerts, evaluation(1, False))
    ledger = Ledger(database_url=alerts.database_url)
    ledger.refuse("meter", "2", reason="worse by .03", verdicts={}, dagster_run="r", who="w")
    given = {"alerts": alerts, "ledger": ledger}
    with dg.build_sensor_context(instance=instance, resources=given) as context:
        alerts_sensor([MODEL]).evaluate_tick(context)
    assert "updated" in [event.change for event in alerts.store.history()]

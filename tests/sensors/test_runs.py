"""Runs that fail have an alert for what they did not make; the run that makes it resolves the alert."""

import dagster as dg
import pytest

from assets.lifecycle.stage import Refused
from resources.alerts import Alerts
from resources.dagster_internals import Planned
from sensors.runs import _latest, run_sensors
from tests.declarations.readings import stream

MODEL = stream(owner="team:risk")
DAYS = dg.DailyPartitionsDefinition("2026-03-01")
BROKEN, SOUND = "2026-03-02", "2026-03-03"


@pytest.fixture
def alerts(tmp_path) -> Alerts:
    return Alerts(database_url=f"sqlite:///{tmp_path / 'alerts.db'}")


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def caused(error: Exception, cause: Exception) -> Exception:
    """An error that another one led to."""
    error.__cause__ = cause
    return error


def makes(name: str, error: Exception | None = None, model: str = "meter") -> dg.AssetsDefinition:
    """An asset of a model that fails with an error unless the run is tagged `fine`."""

    @dg.asset(key=[model, name], partitions_def=DAYS)
    def made(context: dg.AssetExecutionContext) -> None:
        if error is not None and "fine" not in context.run.tags:
            raise error

    return made


@dg.asset(key=MODEL.key("gated"), check_specs=[dg.AssetCheckSpec("gate", asset=MODEL.key("gated"), blocking=True)])
def gated():
    yield dg.MaterializeResult()
    yield dg.AssetCheckResult(check_name="gate", passed=False)


def job_of(name: str, *assets: dg.AssetsDefinition) -> dg.JobDefinition:
    job = dg.define_asset_job(name, selection=[key for asset in assets for key in asset.keys])
    return dg.Definitions(assets=assets, jobs=[job], executor=dg.in_process_executor).resolve_job_def(name)


def sense(result: dg.ExecuteInProcessResult, instance, alerts: Alerts) -> None:
    """What the sensors make of a run."""
    failure, recovery = run_sensors([MODEL])
    ended = dg.DagsterEventType.RUN_SUCCESS if result.success else dg.DagsterEventType.RUN_FAILURE
    event = next(e for e in result.all_events if e.event_type == ended)
    name = recovery.name if result.success else failure.name
    context = dg.build_run_status_sensor_context(name, event, instance, result.dagster_run)
    if result.success:
        recovery(context, alerts=alerts)
    else:
        failure(context.for_run_failure(), alerts=alerts)


def run(job: dg.JobDefinition, instance, alerts: Alerts, day: str | None = None, fine: bool = False) -> str:
    result = job.execute_in_process(
        instance=instance, partition_key=day, raise_on_error=False, tags={"fine": ""} if fine else {}
    )
    sense(result, instance, alerts)
    return result.run_id


@pytest.mark.closes("alerts", "run/")
def test_the_alert_is_of_the_asset_that_failed_and_a_later_day_of_it_resolves(alerts, instance, caplog):
    job = job_of("__ASSET_JOB_LIKE", makes("clean"), makes("features", ValueError("out of cheese\nat line 3")))
    run_id = run(job, instance, alerts, BROKEN)
    [alert] = alerts.store.open_alerts("meter")
    assert (alert.cause, alert.severity, alert.owner, alert.last_day) == ("run/features", "page", "team:risk", BROKEN)
    assert alert.summary == f"{BROKEN}: run {run_id[:8]} of __ASSET_JOB_LIKE failed: ValueError: out of cheese"
    assert alert.runbook == "docs/runbooks/run.md"
    assert alert.links == {"run": f"/runs/{run_id}"}
    assert "OPENED page [meter] run/features" in caplog.text, "it is said on the console at once"

    other = job_of("__ASSET_JOB_LIKE", makes("clean"), makes("features", model="churn"))
    run(other, instance, alerts, SOUND)
    assert alerts.store.open_alerts("meter"), "another model's success in a job of the same name says nothing"
    run(job, instance, alerts, "2026-03-01", fine=True)
    assert alerts.store.open_alerts("meter"), "a day before it says nothing"
    run(job, instance, alerts, SOUND, fine=True)
    assert alerts.store.open_alerts() == []


@pytest.mark.closes("alerts", "run/")
def test_a_job_without_assets_has_an_alert_of_its_name(alerts, instance):
    @dg.op
    def works(context: dg.OpExecutionContext) -> None:
        if "fine" not in context.run.tags:
            raise ValueError("out of cheese")

    @dg.job
    def sweep():
        works()

    run(sweep, instance, alerts)
    [alert] = alerts.store.open_alerts()
    assert (alert.model, alert.cause) == ("assetline", "run/sweep")
    run(sweep, instance, alerts, fine=True)
    assert alerts.store.open_alerts() == []


def test_a_run_that_was_killed_has_the_alert_of_the_first_asset_it_did_not_make(alerts, instance):
    job = job_of("meter_daily", makes("features"), makes("predictions"), makes("scores"))
    killed = instance.create_run_for_job(job, tags={"dagster/partition": BROKEN}, status=dg.DagsterRunStatus.STARTED)
    planned = job.execute_in_process(instance=instance, partition_key=BROKEN)
    for record in instance.get_records_for_run(planned.run_id).records:
        event = record.event_log_entry.dagster_event
        kept = (dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, dg.DagsterEventType.ASSET_MATERIALIZATION)
        if event.event_type in kept and not (event.event_type == kept[1] and event.asset_key.path[-1] != "features"):
            instance.report_dagster_event(event, run_id=killed.run_id)
    instance.report_run_failed(killed, "the machine is gone")
    ended = next(
        record.event_log_entry.dagster_event
        for record in instance.get_records_for_run(killed.run_id, of_type=dg.DagsterEventType.PIPELINE_FAILURE).records
    )
    context = dg.build_run_status_sensor_context("failed_runs", ended, instance, killed)
    run_sensors([MODEL])[0](context.for_run_failure(), alerts=alerts)
    [alert] = alerts.store.open_alerts()
    assert alert.cause == "run/predictions"
    assert "the machine is gone" in alert.summary


REFUSED = Refused(description="nothing was written")


@pytest.mark.parametrize("asset", [
    gated, makes("refusing", REFUSED), makes("refusing", caused(Refused(description="nothing"), ValueError("why"))),
])  # fmt: skip
def test_a_run_that_a_check_failed_has_the_checks_alert_alone(alerts, instance, asset):
    result = dg.materialize([asset], instance=instance, raise_on_error=False,
                            partition_key=BROKEN if asset.partitions_def else None)  # fmt: skip
    assert not result.success
    sense(result, instance, alerts)
    assert alerts.store.open_alerts() == []


@pytest.mark.parametrize("error", [ValueError("out of cheese"), Refused(description="leakage: 'closed_as' leaks")])
def test_a_retraining_that_fails_is_told_to_the_alert_that_asked_for_it(alerts, instance, error):
    alerts.store.report("meter", "drift/drift", severity="page", summary="x", day=BROKEN)
    run(job_of("meter_train", makes("training_set", error)), instance, alerts, SOUND)
    [updated] = [event.message for event in alerts.store.history() if event.change == "updated"]
    assert updated.startswith("retraining failed at training_set: ")
    assert str(error) in updated or error.description in updated


def test_what_a_check_refused_hides_no_other_failure_of_the_run(alerts, instance):
    run(job_of("__ASSET_JOB", makes("a", REFUSED), makes("b", ValueError("out of cheese"))), instance, alerts, SOUND)
    assert [alert.cause for alert in alerts.store.open_alerts()] == ["run/b"]


@pytest.mark.parametrize(("job", "asset"), [("meter_daily", "features"), ("meter_train", "evaluation")])
def test_only_a_training_that_failed_before_its_gate_is_told_to_the_alert_that_asked_for_one(
    alerts, instance, job, asset
):
    alerts.store.report("meter", "drift/drift", severity="page", summary="x", day=BROKEN)
    run(job_of(job, makes(asset, ValueError("out of cheese"))), instance, alerts, SOUND)
    assert [event for event in alerts.store.history() if event.change == "updated"] == []


def test_a_run_of_many_days_has_the_latest_in_its_alert():
    planned = [Planned(MODEL.key("features"), day, "features", made=False) for day in (SOUND, BROKEN)]
    assert _latest(planned) == [("meter", "features", SOUND, "features")]


def test_an_alert_has_the_beginning_of_a_long_error(alerts, instance):
    run(job_of("__ASSET_JOB", makes("features", ValueError("x" * 1_000))), instance, alerts, SOUND)
    [alert] = alerts.store.open_alerts()
    assert alert.summary.endswith(" failed: " + f"ValueError: {'x' * 1_000}"[:300])

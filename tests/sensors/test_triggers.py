"""One trigger for each piece of work: whatever ticks when, no day and no training is asked for twice."""

import collections
import datetime as dt
from dataclasses import replace

import dagster as dg
import pandas as pd
import pytest

from assets.models.fraud import model as fraud
from assets.models.fraud.simulator import PaymentSimulator
from definitions import build_defs
from resources.alerts import Alerts
from resources.request_log import RequestLog
from resources.tables import ParquetTables
from sensors.alerts import DRIFT_CAUSE
from tests.declarations.telco import model as telco

TODAY = dt.datetime.now(dt.UTC).date()
PARTITION, RUN_KEY = "dagster/partition", "dagster/run_key"
WITHOUT_JOB = ("alerts", "fraud_automation", "churn_automation", "failed_runs", "recovered_runs")
"""Sensors that ask for no run of a job."""


def ago(days: int) -> str:
    return str(TODAY - dt.timedelta(days=days))


class Upstream(PaymentSimulator):
    """Complete until yesterday."""

    def landed_until(self) -> dt.date:
        return TODAY - dt.timedelta(days=1)


MODEL = replace(fraud, table=replace(fraud.table, source=Upstream()), retrain="* * * * *")
"""Its cron has a time in every minute, so that the declared training is due whenever the test runs."""


class Daemon:
    """Ticks all sensors and schedules on a real instance, and submits what they ask for by Dagster's rules.

    A run key is known for one sensor, or for one tick of one schedule: the same key of another trigger is another run.
    Runs begin and do not end: what they make is still to be made at the next tick.
    """

    def __init__(self, instance: dg.DagsterInstance, folder) -> None:
        self.instance, self.folder, self.defs = instance, folder, build_defs(models=[MODEL])
        self.alerts = Alerts(database_url=f"sqlite:///{folder / 'alerts.db'}")
        self.tables = ParquetTables(root=str(folder / "tables"))
        self.cursors: dict[str, str | None] = collections.defaultdict(lambda: None)

    def made(self, name: str, *days: str) -> None:
        for day in days:
            event = dg.AssetMaterialization(MODEL.key(name), partition=day)
            self.instance.report_runless_asset_event(event)

    def tick(self) -> None:
        given = {"alerts": self.alerts, "tables": self.tables, "fraud_source": MODEL.table.source,
                 "request_log": RequestLog(folder=str(self.folder))}  # fmt: skip
        for sensor in self.defs.sensors or ():
            if sensor.name in WITHOUT_JOB:
                continue
            needs = {name: given[name] for name in sensor.required_resource_keys}
            cursor = self.cursors[sensor.name]
            with dg.build_sensor_context(
                instance=self.instance, definitions=self.defs, resources=needs, cursor=cursor
            ) as context:
                ticked = sensor.evaluate_tick(context)
            self.cursors[sensor.name] = ticked.cursor
            self._submit(sensor.job_name, ticked.run_requests or (), {"dagster/sensor_name": sensor.name})
        at = dt.datetime.combine(TODAY, dt.time(0, 15), dt.UTC)
        for schedule in self.defs.schedules or ():
            with dg.build_schedule_context(
                instance=self.instance, scheduled_execution_time=at, repository_def=self.defs.get_repository_def()
            ) as context:
                requests = schedule.evaluate_tick(context).run_requests
            tags = {"dagster/schedule_name": schedule.name, "dagster/scheduled_execution_time": str(at)}
            self._submit(schedule.job_name, requests, tags)

    def _submit(self, job_name: str, requests, tags: dict[str, str]) -> None:
        for request in requests:
            same = {**tags, RUN_KEY: request.run_key} if request.run_key else tags
            if self.instance.get_runs(dg.RunsFilter(tags=same)):
                continue
            of_day = {PARTITION: request.partition_key} if request.partition_key else {}
            job = self.defs.resolve_job_def(job_name)
            self.instance.create_run_for_job(job, tags={**same, **of_day}, status=dg.DagsterRunStatus.STARTED)

    def runs(self) -> dict[tuple[str, str], int]:
        """How many runs there are, by job and day."""
        there = self.instance.get_runs()
        return dict(collections.Counter((run.job_name, run.tags.get(PARTITION, "")) for run in there))


@pytest.fixture
def daemon(tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        yield Daemon(instance, tmp_path)


def test_a_day_lands_once(daemon):
    daemon.made("raw_payments", ago(3))
    for _ in range(3):
        daemon.tick()
    landings = {day: n for (job, day), n in daemon.runs().items() if job == "fraud_land"}
    assert landings == {ago(2): 1, ago(1): 1}


def test_a_training_as_of_a_day_is_asked_for_once(daemon):
    daemon.made("raw_payments", ago(1))
    daemon.tick()  # the sensor is switched on: what was declared for the past is not made up for
    labelled = pd.DataFrame({"transaction_id": [1], "paid_at": pd.to_datetime([ago(8)]), "is_fraud": [0]})
    daemon.tables.write(MODEL.key("labels"), labelled, ago(8))
    daemon.alerts.store.report("fraud", DRIFT_CAUSE, severity="page", summary="x", day=ago(20), since_day=ago(20))
    daemon.cursors["fraud_retraining"] = f"{ago(2)}T00:00"  # the declared training is due, too
    for _ in range(3):
        daemon.tick()
    assert daemon.runs().get(("fraud_train", "")) == 1


def test_a_day_that_automation_still_makes_is_not_asked_for_as_missed(daemon):
    """Its features are there and its drift check is not: the run of the automation sensor is halfway through."""
    daemon.made("raw_payments", *(ago(n) for n in range(1, 9)))
    for name, until in {"features": 1, "predictions": 2, "drift": 2}.items():
        daemon.made(name, *(ago(n) for n in range(until, 9)))
    daemon.tick()
    assert [day for job, day in daemon.runs() if job == "fraud_daily"] == []


def test_no_job_has_two_triggers():
    defs = build_defs(models=[fraud, replace(telco, retrain="0 6 * * MON")])
    triggers = [*defs.sensors, *(defs.schedules or ())]
    targets = collections.Counter(one.job_name for one in triggers if one.name not in WITHOUT_JOB)
    assert targets["fraud_land"] == targets["churn_train"] == 1
    assert {job: n for job, n in targets.items() if n > 1} == {}

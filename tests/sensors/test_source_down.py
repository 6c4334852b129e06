"""A day whose source was unavailable is requested again with pauses, and an alert opens after the declared time."""

import datetime as dt
from dataclasses import replace

import dagster as dg
import pytest

from assets.lifecycle.data import landing
from assets.lifecycle.data.landing import source_resource_key
from assets.lifecycle.jobs import LAND, job_name
from definitions import build_defs
from resources.alerts import Alerts
from resources.sources import SourceUnavailable
from resources.tables import ParquetTables
from sensors import arrivals as module
from sensors.arrivals import ANSWERS, FIRST_PAUSE, LONGEST_PAUSE, Failures, arrivals_sensor
from sensors.runs import run_sensors
from tests.declarations.readings import Feed, stream

FIRST, LAST = "2026-01-10", "2026-01-11"
HOURS = 2.0

down: set[str] = set()
"""What does not answer: `clock`, `rows` or `labels`."""


class Meters(Feed):
    """Can be down in parts."""

    def landed_until(self) -> dt.date:
        self._answer("clock")
        return dt.date.fromisoformat(LAST)

    def land(self, day):
        self._answer("rows")
        return super().land(day)

    def land_labels(self, day):
        self._answer("labels")
        return super().land_labels(day)

    def _answer(self, part: str) -> None:
        if part in down:
            raise SourceUnavailable(f"the database of {part} refused the connection")


class World:
    """A model whose landings run as requested, and a clock that the test moves."""

    def __init__(self, folder, monkeypatch, hours: float) -> None:
        table = replace(stream().table, source=Meters(), source_down_hours=hours)
        self.model = stream(table=table, owner="team:risk")
        self.alerts = Alerts(database_url=f"sqlite:///{folder / 'alerts.db'}")
        self.resources = {"tables": ParquetTables(root=str(folder / "tables")), "alerts": self.alerts,
                          source_resource_key(self.model): table.source}  # fmt: skip
        self.defs = build_defs(models=[self.model], resource_overrides=self.resources)
        self.instance = dg.DagsterInstance.ephemeral()
        self.now = dt.datetime.now(dt.UTC)
        self.cursor: str | None = None
        self.requested: list[str] = []
        monkeypatch.setattr(landing, "FIRST_WAIT_S", 0)
        monkeypatch.setattr(module, "utc_now", lambda: self.now)

    def tick(self, after: dt.timedelta = dt.timedelta()) -> dg.SensorResult:
        """Evaluates the sensor some time later and runs what it requests, unless its run key was used before."""
        self.now += after
        with dg.build_sensor_context(
            instance=self.instance, definitions=self.defs, cursor=self.cursor, resources=self.resources
        ) as context:
            result = arrivals_sensor(self.model).evaluate_tick(context)
        self.cursor = result.cursor
        for request in result.run_requests or []:
            if request.run_key not in self.requested:
                self.requested.append(request.run_key)
                self.land(request.partition_key)
        return result

    def land(self, day: str) -> None:
        job = self.defs.resolve_job_def(job_name(self.model, LAND))
        result = job.execute_in_process(instance=self.instance, partition_key=day, raise_on_error=False,
                                        tags={"dagster/partition": day})  # fmt: skip
        if not result.success:
            failure, _ = run_sensors([self.model])
            event = next(e for e in result.all_events if e.event_type == dg.DagsterEventType.RUN_FAILURE)
            context = dg.build_run_status_sensor_context(failure.name, event, self.instance, result.dagster_run)
            failure(context.for_run_failure(), alerts=self.alerts)
        self.now = max(self.now, dt.datetime.now(dt.UTC))

    @property
    def open(self) -> list[tuple[str, str]]:
        return [(alert.cause, alert.severity) for alert in self.alerts.store.open_alerts("meter")]

    def landed(self, name: str = "raw_readings") -> set[str]:
        return set(self.instance.get_materialized_partitions(self.model.key(name)))


@pytest.fixture(autouse=True)
def all_up():
    down.clear()


@pytest.fixture
def world(tmp_path, monkeypatch) -> World:
    return World(tmp_path, monkeypatch, HOURS)


MINUTE, HOUR = dt.timedelta(minutes=1), dt.timedelta(hours=1)


@pytest.mark.closes("alerts", "source/down")
def test_days_are_requested_again_until_the_source_is_back(world):
    down.add("rows")
    world.tick()
    assert world.requested == [f"meter-land-{LAST}"]
    assert world.open == [], "the failed run has no alert of its own"
    result = world.tick(after=FIRST_PAUSE - MINUTE)
    assert world.requested == [f"meter-land-{LAST}"]
    assert f"the source was unavailable; {LAST} is requested again at" in result.skip_message
    world.tick(after=2 * MINUTE)
    assert world.requested[1:] == [f"meter-land-{LAST}-again-1"]
    world.tick(after=HOURS * HOUR - 10 * MINUTE)
    assert world.open == [], "it has not been down for that long"
    world.tick(after=LONGEST_PAUSE)
    assert world.open == [("source/down", "page")]
    [alert] = world.alerts.store.open_alerts("meter")
    assert alert.summary.startswith("the source of readings has been unavailable since ")
    assert f"the failed runs of meter_land of {LAST} have the error" in alert.summary
    assert (alert.owner, alert.runbook) == ("team:risk", "docs/runbooks/source.md")
    count = alert.count
    world.tick(after=MINUTE)
    assert world.alerts.store.open_alerts("meter")[0].count == count, "it is not said at each tick"
    down.clear()
    world.tick(after=LONGEST_PAUSE)
    assert world.landed() == {LAST}
    world.tick(after=MINUTE)
    assert world.open == []


@pytest.mark.closes("alerts", "source/down")
def test_a_source_that_does_not_tell_its_time_is_down(world):
    down.add("clock")
    result = world.tick()
    assert "unavailable since" in result.skip_message
    assert "the database of clock refused the connection" in result.skip_message
    world.tick(after=HOURS * HOUR - MINUTE)
    assert world.open == []
    world.tick(after=2 * MINUTE)
    assert world.open == [("source/down", "page")]
    assert "the database of clock refused the connection" in world.alerts.store.open_alerts("meter")[0].summary
    down.clear()
    world.tick()
    world.tick()
    assert (world.landed(), world.open, world.cursor) == ({LAST}, [], ANSWERS)


def test_with_no_hours_the_alert_opens_at_once(tmp_path, monkeypatch):
    world = World(tmp_path, monkeypatch, hours=0)
    down.add("clock")
    world.tick()
    assert world.open == [("source/down", "page")]


def test_labels_that_did_not_land_with_their_rows_are_requested_again(world):
    down.add("labels")
    world.tick()
    assert (world.landed(), world.landed("raw_labels")) == ({LAST}, set())
    down.clear()
    world.tick(after=FIRST_PAUSE + MINUTE)
    assert world.landed("raw_labels") == {LAST}
    world.tick()
    assert world.requested == [f"meter-land-{LAST}", f"meter-land-{LAST}-again-1"]


def test_days_that_never_failed_are_requested_beside_one_that_waits(world):
    world.land(FIRST)
    world.instance.report_runless_asset_event(
        dg.AssetMaterialization(world.model.key("raw_readings"), partition="2026-01-08")
    )
    down.add("rows")
    world.tick()
    assert world.requested == ["meter-land-2026-01-09", f"meter-land-{LAST}"]


def test_pauses_double_up_to_an_hour():
    at = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    pauses = [(Failures(n, at, at).next_at - at) / MINUTE for n in (1, 2, 3, 4, 5, 99)]
    assert pauses == [5, 10, 20, 40, 60, 60]

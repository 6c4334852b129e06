"""Which days are requested, once each."""

import datetime as dt

import dagster as dg
import pytest

from assets.models.fraud import model as fraud
from assets.models.fraud.simulator import PaymentSimulator
from definitions import build_defs
from resources.alerts import Alerts
from sensors.arrivals import MOST_DAYS_A_TICK, arrivals_sensor, missing_days

DEFS = build_defs(models=[fraud])
FIRST = dt.date(2026, 3, 1)


class Upstream(PaymentSimulator):
    """Landed up to a day of the past."""

    until: str = "2026-03-20"

    def landed_until(self) -> dt.date:
        return dt.date.fromisoformat(self.until)


def test_missing_days_begin_with_the_earliest_there_is():
    present = {"2026-03-03", "2026-03-05"}
    assert missing_days(present, FIRST, dt.date(2026, 3, 6)) == [dt.date(2026, 3, 4), dt.date(2026, 3, 6)]


def test_a_fresh_project_begins_with_the_latest_day():
    assert missing_days(set(), FIRST, dt.date(2026, 3, 6)) == [dt.date(2026, 3, 6)]


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def alerts(tmp_path) -> Alerts:
    return Alerts(database_url=f"sqlite:///{tmp_path / 'alerts.db'}")


def landed(instance, *days: str) -> None:
    for day in days:
        instance.report_runless_asset_event(dg.AssetMaterialization(fraud.key("raw_payments"), partition=day))


def tick(instance, alerts, until: str):
    with dg.build_sensor_context(
        instance=instance, definitions=DEFS, resources={"fraud_source": Upstream(until=until), "alerts": alerts}
    ) as context:
        return arrivals_sensor(fraud).evaluate_tick(context)


def test_the_tick_requests_what_is_complete_upstream_and_not_here(instance, alerts):
    landed(instance, "2026-03-17", "2026-03-19")
    requests = tick(instance, alerts, "2026-03-20").run_requests
    assert [request.partition_key for request in requests] == ["2026-03-18", "2026-03-20"]
    assert [request.run_key for request in requests] == ["fraud-land-2026-03-18", "fraud-land-2026-03-20"]


def test_nothing_missing_is_said(instance, alerts):
    landed(instance, "2026-03-20")
    result = tick(instance, alerts, "2026-03-20")
    assert not result.run_requests
    assert result.skip_message == "all days up to 2026-03-20 have landed"


def test_a_long_pause_is_caught_up_in_pieces(instance, alerts):
    landed(instance, "2026-01-01")
    requests = tick(instance, alerts, "2026-03-20").run_requests
    assert len(requests) == MOST_DAYS_A_TICK
    assert requests[0].partition_key == "2026-01-02"

"""A declared schedule requests one search per tick, and no training."""

import datetime as dt
from dataclasses import replace

import dagster as dg
import pytest

from assets.search_space import Tuning
from sensors.defaults import default_sensors
from sensors.retraining import cron_periods
from sensors.tuning import tuning_sensor
from tests.declarations.readings import plain

SCHEDULED = plain(tuning=Tuning(schedule="* * * * *"))
"""Its cron has a time in every minute."""


def tick(cursor):
    with dg.DagsterInstance.ephemeral() as instance:
        return tuning_sensor(SCHEDULED)(dg.build_sensor_context(instance=instance, cursor=cursor))


def test_ticks_that_passed_request_one_search():
    ago = dt.datetime.now(dt.UTC) - dt.timedelta(hours=2)
    with dg.partition_loading_context(effective_dt=ago):
        handled = str(cron_periods("* * * * *").get_last_partition_key())
    result = tick(handled)
    [request] = result.run_requests
    assert request.run_key == f"meter-tune-{result.cursor}"
    assert request.tags["assetline/why"] == "due by the cron * * * * * (UTC)"
    assert tick("9999-01-01T00:00").run_requests in (None, [])


def test_the_first_tick_requests_none():
    result = tick(None)
    assert not result.run_requests
    assert "has not ticked" in result.skip_reason.skip_message


@pytest.mark.parametrize(("declared", "there"), [(SCHEDULED, True), (plain(), False)])
def test_only_a_declared_schedule_has_a_sensor(declared, there):
    found = {sensor.name: sensor for sensor in default_sensors([declared])}
    assert ("meter_tuning" in found) == there
    if there:
        assert found["meter_tuning"].job_name == "meter_tune"
        assert found["meter_tuning"].default_status is dg.DefaultSensorStatus.RUNNING


def test_a_schedule_is_no_part_of_the_recipe():
    assert str(replace(SCHEDULED.training)) == str(plain().training)

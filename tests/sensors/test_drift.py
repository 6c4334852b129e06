"""Days that landed and that automation left behind are requested; its own, and those before any model, are not."""

import datetime as dt

import dagster as dg
import pytest

from assets.lifecycle.stage import eager
from assets.models.fraud import model as fraud
from definitions import build_defs
from sensors.drift import LOOK_BACK_DAYS, drift_sensor, first_day_of_automation, unchecked_days

DEFS = build_defs(models=[fraud])


def march(*days: int) -> set[str]:
    return {f"2026-03-{day:02}" for day in days}


def test_only_days_after_the_first_scored_one_and_before_those_of_automation_count():
    found = unchecked_days(march(*range(1, 10)), march(5, 6), march(5), before="2026-03-09")
    assert found == ["2026-03-06", "2026-03-07", "2026-03-08"]


def test_a_day_that_did_not_land_is_not_asked_for():
    assert unchecked_days(march(5, 7), march(5), march(5), before="2026-03-31") == ["2026-03-07"]


def test_a_model_that_never_scored_has_missed_nothing():
    assert unchecked_days(march(1), set(), set(), before="2026-03-31") == []


def test_what_is_older_than_the_last_weeks_is_a_persons_decision():
    checked = march(*range(1, 31)) - march(2, 20)
    first = sorted(checked)[-LOOK_BACK_DAYS]
    assert "2026-03-02" < first < "2026-03-20"
    assert unchecked_days(march(*range(1, 31)), checked, checked, before="2026-04-01") == ["2026-03-20"]


def test_the_last_weeks_are_two():
    checked = march(*range(1, 31)) - march(16, 17)  # the last 14 begin with the 15th
    gaps = march(*range(1, 31)) | march(31)
    assert unchecked_days(gaps, checked - march(10), checked - march(10), before="2026-04-01") == [
        "2026-03-16", "2026-03-17", "2026-03-31",
    ]  # fmt: skip


def test_the_first_scored_day_counts_without_a_check_of_its_own():
    assert unchecked_days(march(4, 5, 6), march(5, 6), march(6), before="2026-03-31") == ["2026-03-05"]


@pytest.mark.parametrize("today", [dt.date(2026, 3, 10), dt.date(2028, 3, 1), dt.date(2027, 1, 1)])
def test_automation_and_the_sensor_share_no_day_and_leave_none_out(today):
    """The window of the cleaned table's condition, as Dagster evaluates it at noon."""

    @dg.asset(partitions_def=dg.DailyPartitionsDefinition("2025-06-01"))
    def upstream() -> None: ...

    @dg.asset(deps=[upstream], partitions_def=dg.DailyPartitionsDefinition("2025-06-01"),
              automation_condition=eager(fraud.table.late_days + 1))  # fmt: skip
    def cleaned() -> None: ...

    days = [str(today - dt.timedelta(days=n)) for n in range(1, 15)]
    with dg.DagsterInstance.ephemeral() as instance:
        noon = dt.datetime.combine(today, dt.time(12), dt.UTC)
        defs = dg.Definitions(assets=[upstream, cleaned])
        first = dg.evaluate_automation_conditions(defs, instance, evaluation_time=noon)
        for day in days:
            instance.report_runless_asset_event(dg.AssetMaterialization("upstream", partition=day))
        second = dg.evaluate_automation_conditions(defs, instance, cursor=first.cursor, evaluation_time=noon)
        automated = set(second.get_requested_partitions(dg.AssetKey("cleaned")))
    before = first_day_of_automation(fraud, today)
    assert automated == {day for day in days if day >= before}
    assert len(automated) == fraud.table.late_days + 1


def tick(**days: str):
    """What the sensor asks for, by asset the days of March 2026 that were made."""
    with dg.DagsterInstance.ephemeral() as instance:
        for name, made in days.items():
            for day in made:
                event = dg.AssetMaterialization(fraud.key(name), partition=f"2026-03-0{day}")
                instance.report_runless_asset_event(event)
        with dg.build_sensor_context(instance=instance, definitions=DEFS) as context:
            return drift_sensor(fraud).evaluate_tick(context)


def test_the_tick_requests_each_missed_day_once():
    requests = tick(raw_payments="1234", predictions="23", drift="3").run_requests
    assert [(r.partition_key, r.run_key) for r in requests] == [
        ("2026-03-02", "fraud-drift-2026-03-02"),
        ("2026-03-04", "fraud-drift-2026-03-04"),
    ]


def test_the_tick_says_why_it_requests_nothing():
    ticked = tick(raw_payments="12", predictions="12", drift="12")
    assert not ticked.run_requests
    assert ticked.skip_message.startswith("each scored day before ")

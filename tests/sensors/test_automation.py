"""The declared conditions on the real graph: what is requested when rows land, come late, or are refused."""

import datetime as dt

import dagster as dg
import pytest

from assets.models.fraud import model as fraud
from assets.models.fraud.simulator import PaymentSimulator
from sensors.automation import automation_sensor
from tests.payments import payments_model
from tests.worlds import why

UNTIL = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
NOON = dt.datetime.combine(UNTIL + dt.timedelta(days=1), dt.time(12), dt.UTC)
"""When conditions are evaluated: the day may end while the tests run."""
FIRST = UNTIL - dt.timedelta(days=9)


def day(number: int) -> str:
    return str(FIRST + dt.timedelta(days=number))


@pytest.fixture(scope="module")
def world(make_world, tmp_path_factory):
    """Ten days, of which eight have landed and are clean, with features."""
    from dataclasses import replace

    model = payments_model(PaymentSimulator(customers=200, terminals=400, seed=1, late_share=0.02))
    model = replace(model, table=replace(model.table, start=FIRST))
    world = make_world(model, tmp_path_factory.mktemp("automation"))
    days = [day(n) for n in range(8)]
    for work, until in {"land": 8, "clean": 8, "label": 1, "features": 8}.items():
        result = world.run(work, days[:until])
        assert result.success, (work, why(result))
    return world


def requested(result, name: str) -> set[str]:
    return set(result.get_requested_partitions(fraud.key(name)))


def evaluated(world, before=None):
    cursor = before.cursor if before else None
    return dg.evaluate_automation_conditions(world.defs, world.instance, evaluation_time=NOON, cursor=cursor)


def test_a_landing_reaches_its_own_day_the_days_it_is_late_for_and_those_that_look_back(world):
    first = evaluated(world)
    assert first.total_requested == 0, "nothing is stale"
    assert world.run("land", [day(8)]).success
    second = evaluated(world, first)
    assert requested(second, "payments") == set(), "held back until the last complete day is there too"
    assert requested(second, "labels") == {day(1)}
    assert world.run("label", [day(1)]).success

    assert world.run("land", [day(9)]).success
    third = evaluated(world, second)
    latest = {day(n) for n in (6, 7, 8, 9)}
    assert requested(third, "payments") == latest, "three days may still get rows"
    assert requested(third, "quarantine") == latest
    assert requested(third, "labels") == {day(2)}
    assert requested(third, "features") == latest, "the first week too, which has no labels"
    assert requested(third, "predictions") == set(), "there is no champion"


def test_a_day_that_its_checks_refuse_goes_no_further(world, monkeypatch):
    def mangled(self, date):
        return whole(self, date).assign(amount="-12")  # still a number, so it lands

    whole = PaymentSimulator.land
    monkeypatch.setattr(PaymentSimulator, "land", mangled)
    first = evaluated(world)
    assert world.run("land", [day(9)]).success
    second = evaluated(world, first)
    assert day(9) in requested(second, "payments") & requested(second, "features")
    # What was requested is one run, and its check stops what comes after.
    run = world.materialize("payments", "quarantine", "features", day=day(9))
    assert "100.0% of the landed rows were refused" in why(run)
    assert world.tables.stamp(fraud.key("features"), day(9)) is None
    third = evaluated(world, second)
    assert day(9) not in requested(third, "payments") | requested(third, "features")


def test_the_sensor_evaluates_every_asset_of_the_lifecycle_that_follows_others():
    assert automation_sensor(fraud).default_status == dg.DefaultSensorStatus.RUNNING
    followed = {"payments", "quarantine", "labels", "features", "staged", "deployment", "model_card", "predictions",
                "performance", "estimated_performance", "drift"}  # fmt: skip
    from definitions import defs

    specs = [spec for spec in defs.resolve_all_asset_specs() if spec.key.path[0] == fraud.name]
    assert {spec.key.path[-1] for spec in specs if spec.automation_condition} == followed


def test_every_daily_table_says_when_it_is_stale():
    from definitions import defs

    policies = {spec.key.path[-1]: spec.freshness_policy for spec in defs.resolve_all_asset_specs()}
    for name in ("payments", "features", "predictions"):
        policy = policies[name]
        assert policy.fail_window.to_timedelta() == dt.timedelta(hours=48)
        assert policy.warn_window.to_timedelta() == dt.timedelta(hours=26)

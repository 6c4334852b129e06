"""The probe that catches a features function looking ahead, and what is said of one that does not do as it declares."""

import datetime as dt
from dataclasses import replace

import dagster as dg
import numpy as np
import pytest

from assets.declaration import Features
from assets.lifecycle.data.features import compute_features, sees_the_future
from tests.declarations.readings import level_and_past, plain, readings, stream
from tests.stages import Stages

DELAY = dt.timedelta(days=7)
DAYS, A_DAY, CUSTOMERS = 30, 100, 40
CUT = np.datetime64("2026-03-25T15:00:00")


@pytest.fixture(scope="module")
def events() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    n = DAYS * A_DAY
    at = np.datetime64("2026-03-01") + np.sort(rng.integers(0, DAYS * 86_400, n)).astype("timedelta64[s]")
    label = (rng.random(n) < 0.1).astype(float)
    label[at > at.max() - np.timedelta64(DELAY, "D")] = np.nan
    return {"at": at, "customer": rng.integers(0, CUSTOMERS, n), "amount": rng.lognormal(size=n), "label": label}


def honest(events, wanted):
    """The customer's payments before, and the amount itself."""
    before = [
        int(((events["customer"] == events["customer"][i]) & (events["at"] < events["at"][i])).sum()) for i in wanted
    ]
    return {"before": np.array(before, np.float32), "amount": events["amount"][wanted].astype(np.float32)}


FEATURES = Features(compute=honest, lookback_days=DAYS, names=("before", "amount"), entities=("customer",))


def adding(name: str, function) -> Features:
    """The honest features and another one."""

    def compute(events, wanted):
        return honest(events, wanted) | {name: np.asarray(function(events, wanted), np.float32)}

    return replace(FEATURES, compute=compute, names=(*FEATURES.names, name))


def next_amount_of_the_customer(events, wanted):
    found = []
    for i in wanted:
        later = np.flatnonzero((events["customer"] == events["customer"][i]) & (events["at"] > events["at"][i]))
        found.append(events["amount"][later[0]] if len(later) else 0)
    return found


def mean_of_everybody(events, wanted):
    return np.full(len(wanted), events["amount"].mean())


def how_many_are_to_come(events, wanted):
    return np.full(len(wanted), len(events["at"]))


def own_label(events, wanted):
    return events["label"][wanted]


def frauds_of_yesterday(events, wanted):
    day = np.timedelta64(1, "D")
    return [
        np.nansum(events["label"][(events["at"] < events["at"][i]) & (events["at"] > events["at"][i] - day)])
        for i in wanted
    ]


def frauds_that_are_known(events, wanted):
    return [np.nansum(events["label"][events["at"] <= events["at"][i] - np.timedelta64(DELAY, "D")]) for i in wanted]


@pytest.mark.parametrize("entities", [("customer",), ()], ids=["entities", "no entities"])
@pytest.mark.parametrize(
    "peeking", [next_amount_of_the_customer, mean_of_everybody, how_many_are_to_come, own_label, frauds_of_yesterday]
)  # fmt: skip
def test_whoever_peeks_is_named(events, peeking, entities):
    features = replace(adding(peeking.__name__, peeking), entities=entities)
    assert sees_the_future(features, events, "at", DELAY, CUT) == [peeking.__name__]


@pytest.mark.parametrize("features", [FEATURES, adding("known", frauds_that_are_known)], ids=["honest", "known labels"])
def test_whoever_looks_back_is_not(events, features):
    assert sees_the_future(features, events, "at", DELAY, CUT) == []


def test_before_the_first_row_there_is_nothing_to_probe(events):
    assert sees_the_future(FEATURES, events, "at", DELAY, np.datetime64("2026-02-01")) == []


def test_features_that_are_not_declared_or_not_made_are_named(events):
    made_too_many = replace(FEATURES, names=("before",))
    with pytest.raises(dg.Failure, match=r"missing none, undeclared \['amount'\]"):
        compute_features(made_too_many, events, np.arange(3))
    made_too_few = replace(FEATURES, names=("before", "amount", "hour"))
    with pytest.raises(dg.Failure, match=r"missing \['hour'\], undeclared none"):
        compute_features(made_too_few, events, np.arange(3))


def test_a_feature_of_another_length_is_named(events):
    short = adding("short", lambda events, wanted: np.zeros(len(wanted) - 1))
    with pytest.raises(dg.Failure, match="feature 'short' has 2 values for 3 rows"):
        compute_features(short, events, np.arange(3))


# -- the asset ---------------------------------------------------------------------------------------------------------

DAY = "2026-01-10"


def made_with(function, tmp_path) -> tuple[Stages, "object"]:
    """The features of one day of readings by a function."""
    model = stream(features=replace(stream().features, compute=function))
    stages = Stages(model, tmp_path)
    for n in range(8, 11):
        day = dt.date(2026, 1, n)
        stages.put("readings", readings(60, day).drop(columns="faulty"), str(day))
    return stages, stages.make("features", DAY)


def test_features_of_the_past_pass_both_checks(tmp_path):
    stages, made = made_with(level_and_past, tmp_path)
    assert made.success, made.why
    assert made.check("complete", DAY).passed
    assert made.check("point_in_time", DAY).passed
    assert len(stages.tables.read(stages.model.key("features"), [DAY])) == 60


@pytest.mark.closes("features", "complete")
def test_an_infinite_feature_holds_the_day_back(tmp_path):
    def divided(events, wanted):
        made = level_and_past(events, wanted)
        with np.errstate(divide="ignore"):
            return made | {"level": made["level"] / np.where(np.arange(len(wanted)) == 3, 0, 1).astype(np.float32)}

    stages, made = made_with(divided, tmp_path)
    assert not made.check("complete", DAY).passed
    assert made.check("point_in_time", DAY).passed
    assert "1 of 60 rows have an infinite feature (level): a division by zero" in made.why
    assert not stages.has("features", DAY)


@pytest.mark.closes("features", "complete")
def test_an_infinite_feature_holds_back_a_table_without_days(tmp_path):
    stages = Stages(plain(), tmp_path)
    stages.put("readings", readings(60).assign(level=np.inf))
    made = stages.make("features")
    assert not made.check("complete").passed
    assert "60 of 60 rows have an infinite feature" in made.why
    assert not stages.has("features")


@pytest.mark.closes("features", "point_in_time")
def test_a_function_that_looks_ahead_holds_the_day_back(tmp_path):
    def peeking(events, wanted):
        return level_and_past(events, wanted) | {"before": np.full(len(wanted), events["level"].mean(), np.float32)}

    stages, made = made_with(peeking, tmp_path)
    assert not made.check("point_in_time", DAY).passed
    assert made.check("complete", DAY).passed
    assert "meter/features: before changed when rows after" in made.why
    assert not stages.has("features", DAY)

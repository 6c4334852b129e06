"""Performance of the live model once labels are known."""

import datetime as dt
from dataclasses import replace

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from assets.declaration import Gate
from assets.lifecycle.monitoring.performance import _calibrated, _estimate_error, _metrics_of_day
from assets.lifecycle.monitoring.trailing import TRAILING_DAYS
from tests.declarations.readings import readings, stream
from tests.stages import Stages

MODEL = stream(gate=Gate(metric="average_precision", floor=0.5))


LAST = "2026-03-20"


def probabilities(n: int, seed: int, sharp: float = 2.0, mean: float = -4.0) -> np.ndarray:
    """Probabilities of a model that tells positives apart the better, the larger ``sharp`` is."""
    return 1 / (1 + np.exp(-np.random.default_rng(seed).normal(mean, sharp, n)))


def scored(days: int, good: bool, seed: int = 0) -> pd.DataFrame:
    """Predictions with their truth of the last ``days`` days."""
    rng = np.random.default_rng(seed)
    n = 200 * days
    truth = (rng.random(n) < 0.1).astype("int8")
    probability = np.where(truth == 1, 0.9, 0.1) if good else rng.random(n)
    at = pd.Timestamp(LAST) - pd.to_timedelta(np.arange(n) // 200, unit="D") + pd.Timedelta(hours=3)
    return pd.DataFrame({"read_at": at, "faulty": truth, "probability": probability, "alert": probability > 0.5})


def live(days: int, good: bool, model=MODEL):
    trailing = scored(days, good)
    today = trailing[trailing["read_at"].dt.date == pd.Timestamp(LAST).date()]
    return _metrics_of_day(model, LAST, today, trailing)


def test_a_good_week_passes_with_its_figures():
    row, [check_result, _] = live(TRAILING_DAYS, good=True)
    assert check_result.passed
    assert row["trailing_average_precision"] == 1.0
    assert row["caught"] == row["positives"] == row["alerts"]
    assert row["rows"] == 200


@pytest.mark.closes("performance", "floor")
def test_a_bad_week_fails_in_words():
    _, [check_result, _] = live(TRAILING_DAYS, good=False)
    assert not check_result.passed
    assert "average_precision 0." in check_result.description
    assert f"over the 7 days to {LAST}, floor 0.5" in check_result.description


def test_less_than_a_week_is_shown_and_not_judged():
    row, [check_result, _] = live(TRAILING_DAYS - 1, good=False)
    assert check_result.passed
    assert row["trailing_days"] == 6
    assert "not judged yet" in check_result.description


@pytest.mark.parametrize(("good", "passed"), [(True, True), (False, False)])
@pytest.mark.closes("performance", "floor")
def test_of_a_brier_score_the_floor_is_the_highest_allowed(good, passed):
    model = replace(MODEL, gate=Gate(metric="brier", floor=0.05))
    assert live(TRAILING_DAYS, good, model)[1][0].passed is passed


def test_a_week_without_a_positive_has_no_figure_and_no_alarm():
    trailing = scored(TRAILING_DAYS, good=True).assign(faulty=0)
    row, [check_result, _] = _metrics_of_day(MODEL, LAST, trailing.head(200), trailing)
    assert np.isnan(row["trailing_average_precision"])
    assert check_result.passed


def test_once_the_truth_is_there_it_is_said_how_far_off_the_estimate_was():
    assert _estimate_error(MODEL, {"trailing_average_precision": 0.6}, 0.65) == {
        "estimated": 0.65, "estimate_error": pytest.approx(0.05),
    }  # fmt: skip
    assert np.isnan(_estimate_error(MODEL, {"trailing_average_precision": 0.6}, None)["estimate_error"])


@pytest.mark.parametrize(("times", "passed"), [(1.0, True), (0.3, False), (3.0, False)])
@pytest.mark.closes("performance", "calibrated")
def test_positives_that_nobody_expected_are_a_drift_of_the_labels(times, passed):
    p = probabilities(20_000, 5)
    truth = np.random.default_rng(6).random(len(p)) < np.clip(p * times, 0, 1)
    trailing = pd.DataFrame({"probability": p, "faulty": truth.astype("int8")})
    expected, check_result = _calibrated(MODEL, LAST, trailing)
    assert check_result.passed is passed
    assert expected == pytest.approx(p.sum())


WEEK = [f"2026-01-{day:02}" for day in range(10, 17)]


def a_week_scored(stages: Stages, probability, labelled: bool = True) -> None:
    """Predictions of a week, and their labels."""
    for day in WEEK:
        rows = readings(100, dt.date.fromisoformat(day))
        said = rows[["reading_id", "read_at"]].assign(probability=probability(rows), alert=False, version="1")
        stages.put("predictions", said, day)
        if labelled:
            labels = rows[["reading_id", "read_at", "faulty"]].astype({"faulty": "int8"})
            stages.put("labels", labels, day)


@pytest.mark.parametrize("estimated", [0.75, None])
def test_the_estimate_is_an_input_that_may_be_missing(tmp_path, estimated):
    stages = Stages(stream(), tmp_path)
    a_week_scored(stages, lambda rows: rows["level"] / 200)
    key, day = stages.model.key("estimated_performance"), WEEK[-1]
    if estimated is not None:
        stages.put("estimated_performance", pd.DataFrame({"day": [pd.Timestamp(day)], "estimated": [estimated]}), day)
    made = stages.make("performance", day)
    assert made.success, made.why
    row = stages.row("performance", day)
    if estimated is None:
        assert np.isnan(row["estimated"])
    else:
        assert row["estimated"] == estimated
        assert row["estimate_error"] == pytest.approx(estimated - row["trailing_roc_auc"])
    read = stages.tables.stamp(stages.model.key("performance"), day).inputs[key.to_user_string()]
    assert list(read) == ([day] if estimated is not None else [])


def test_a_week_that_went_as_the_model_said_passes(tmp_path):
    stages = Stages(stream(), tmp_path)
    a_week_scored(stages, lambda rows: rows["level"] / 200)
    made = stages.make("performance", WEEK[-1])
    assert made.success, made.why
    assert made.check("floor", WEEK[-1]).passed
    assert made.check("calibrated", WEEK[-1]).passed
    assert stages.row("performance", WEEK[-1])["trailing_days"] == 7


@pytest.mark.closes("performance", "floor")
def test_a_week_that_went_badly_pages_and_is_written(tmp_path):
    stages = Stages(stream(), tmp_path)
    a_week_scored(stages, lambda rows: 0.5 - rows["level"] / 200)
    made = stages.make("performance", WEEK[-1])
    assert made.success, "what is known is written"
    floor = made.check("floor", WEEK[-1])
    assert not floor.passed
    assert floor.severity == dg.AssetCheckSeverity.ERROR
    assert "roc_auc 0.2" in floor.description
    assert stages.has("performance", WEEK[-1])


@pytest.mark.closes("performance", "calibrated")
def test_a_week_with_more_positives_than_promised_warns(tmp_path):
    stages = Stages(stream(), tmp_path)
    a_week_scored(stages, lambda rows: rows["level"] / 2_000)
    made = stages.make("performance", WEEK[-1])
    calibrated = made.check("calibrated", WEEK[-1])
    assert not calibrated.passed
    assert calibrated.severity == dg.AssetCheckSeverity.WARN
    assert made.check("floor", WEEK[-1]).passed

"""What is said of the live model once the truth is known."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from assets.declaration import Gate
from assets.lifecycle.monitoring import TRAILING_DAYS, _live
from assets.models.fraud import model as fraud

MODEL = replace(fraud, gate=Gate(metric="average_precision", floor=0.5))
LAST = "2026-03-20"


def scored(days: int, good: bool, seed: int = 0) -> pd.DataFrame:
    """Predictions with their truth of the last ``days`` days."""
    rng = np.random.default_rng(seed)
    n = 200 * days
    truth = (rng.random(n) < 0.1).astype("int8")
    probability = np.where(truth == 1, 0.9, 0.1) if good else rng.random(n)
    at = pd.Timestamp(LAST) - pd.to_timedelta(np.arange(n) // 200, unit="D") + pd.Timedelta(hours=3)
    return pd.DataFrame({"paid_at": at, "is_fraud": truth, "probability": probability, "alert": probability > 0.5})


def live(days: int, good: bool, model=MODEL):
    trailing = scored(days, good)
    today = trailing[trailing["paid_at"].dt.date == pd.Timestamp(LAST).date()]
    return _live(model, LAST, today, trailing)


def test_a_good_week_passes_with_its_figures():
    row, finding = live(TRAILING_DAYS, good=True)
    assert finding.passed
    assert row["trailing_average_precision"] == 1.0
    assert row["caught"] == row["positives"] == row["alerts"]
    assert row["rows"] == 200


def test_a_bad_week_fails_in_words():
    _, finding = live(TRAILING_DAYS, good=False)
    assert not finding.passed
    assert "average_precision 0." in finding.description
    assert f"over the 7 days to {LAST}, floor 0.5" in finding.description


def test_less_than_a_week_is_shown_and_not_judged():
    row, finding = live(TRAILING_DAYS - 1, good=False)
    assert finding.passed
    assert row["trailing_days"] == 6
    assert "not judged yet" in finding.description


@pytest.mark.parametrize(("good", "passed"), [(True, True), (False, False)])
def test_of_a_brier_score_the_floor_is_the_highest_allowed(good, passed):
    model = replace(MODEL, gate=Gate(metric="brier", floor=0.05))
    assert live(TRAILING_DAYS, good, model)[1].passed is passed


def test_a_week_without_a_positive_has_no_figure_and_no_alarm():
    trailing = scored(TRAILING_DAYS, good=True).assign(is_fraud=0)
    row, finding = _live(MODEL, LAST, trailing.head(200), trailing)
    assert np.isnan(row["trailing_average_precision"])
    assert finding.passed

"""Performance of the live model as estimated from its probabilities."""

import dagster as dg
import numpy as np
import pytest

from assets.lifecycle.monitoring.estimate import Tally, estimate, recalibrated
from assets.lifecycle.monitoring.estimated_performance import _estimate_of_day
from assets.lifecycle.prediction_format import SCORE
from assets.lifecycle.profile.reference import ReferenceProfile, calibration_of
from assets.task import BINARY, Task
from tests.assets.lifecycle.monitoring.test_performance import LAST, MODEL, WEEK, a_week_scored, probabilities
from tests.declarations.readings import readings, stream
from tests.stages import Stages


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision", "brier"])
def test_the_estimate_is_what_the_labels_of_a_calibrated_model_give(metric):
    from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

    score = {"roc_auc": roc_auc_score, "average_precision": average_precision_score, "brier": brier_score_loss}[metric]
    inside = 0
    for seed in range(20):
        p = probabilities(20_000, seed)
        y = np.random.default_rng(100 + seed).random(len(p)) < p
        found = estimate(BINARY, metric, Tally.of(p))
        inside += found.low <= score(y, p) <= found.high
        assert found.value == pytest.approx(score(y, p), abs=0.05)
    assert inside >= 17, "95 % intervals"


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision"])
def test_what_was_wrong_with_the_probabilities_before_is_held_against_them(metric):
    """Some positives come that no probability promised: the frauds that a model does not see."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    score = {"roc_auc": roc_auc_score, "average_precision": average_precision_score}[metric]
    errors, plain_errors = [], []
    for seed in range(20):
        rng, p = np.random.default_rng(100 + seed), probabilities(100_000, seed, sharp=2.5, mean=-5.0)
        y = rng.random(len(p)) < 0.9 * p + 0.003
        before, now = slice(0, 60_000), slice(60_000, None)
        found = estimate(BINARY, metric, Tally.of(p[now], calibration_of(p[before], y[before].astype(float))))
        plain = estimate(BINARY, metric, Tally.of(p[now]))
        truth = score(y[now], p[now])
        errors.append(found.value - truth)
        plain_errors.append(plain.value - truth)
    assert abs(np.mean(errors)) < 0.25 * abs(np.mean(plain_errors)), (np.mean(errors), np.mean(plain_errors))


def test_a_calibration_of_few_rows_changes_little_and_none_changes_nothing():
    p = np.linspace(0.001, 0.999, 50)
    assert (recalibrated(p, []) == p).all()
    few = recalibrated(p, [{"said": 0.01, "was": 0.0, "rows": 20}, {"said": 0.5, "was": 0.6, "rows": 5}])
    assert np.abs(few - p).max() < 0.1
    assert (np.diff(few) > 0).all()


def test_a_calibration_against_the_order_is_levelled():
    p = np.linspace(0.001, 0.999, 50)
    found = recalibrated(p, [{"said": 0.1, "was": 0.5, "rows": 1_000}, {"said": 0.5, "was": 0.3, "rows": 1_000}])
    assert (np.diff(found) > -1e-9).all()
    between = found[(p > 0.1) & (p < 0.5)]
    assert between == pytest.approx(0.4, abs=0.02)


def test_where_labels_are_wrong_together_the_interval_is_wider():
    """Twenty rows each of entities of which all are positive or none: what is expected stays, chance is larger."""
    from sklearn.metrics import roc_auc_score

    inside = {1.0: 0, 20.0: 0}
    for seed in range(40):
        p = np.repeat(probabilities(1_000, seed), 20)
        y = np.repeat(np.random.default_rng(100 + seed).random(1_000) < p[::20], 20)
        for effect in inside:
            found = estimate(BINARY, "roc_auc", Tally.of(p[:10_000], (), effect) + Tally.of(p[10_000:], (), effect))
            inside[effect] += found.low <= roc_auc_score(y, p) <= found.high
    assert inside[1.0] < 25
    assert inside[20.0] >= 34


def test_of_classes_accuracy_and_log_loss_follow_too():
    from sklearn.metrics import log_loss

    task = Task("multiclass", ("a", "b", "c"))
    rng = np.random.default_rng(0)
    p = rng.dirichlet([0.5, 0.7, 1.0], size=20_000)
    y = np.array([rng.choice(3, p=row) for row in p])
    tally = Tally.of(p)
    accuracy, loss = estimate(task, "accuracy", tally), estimate(task, "log_loss", tally)
    assert accuracy.low <= (p.argmax(axis=1) == y).mean() <= accuracy.high
    assert loss.low <= log_loss(y, p) <= loss.high
    assert estimate(task, "roc_auc", tally).value == pytest.approx(0.85, abs=0.1)


def test_what_does_not_follow_from_probabilities_is_not_estimated():
    assert estimate(BINARY, "cp_at_k", Tally.of(probabilities(100, 0))) is None
    assert estimate(Task("regression"), "r2", Tally.of(probabilities(100, 0))) is None
    assert estimate(BINARY, "roc_auc", Tally.of(np.empty(0))) is None
    assert estimate(BINARY, "roc_auc", Tally.of(np.zeros(10))) is None


def test_tallies_add_up_over_days_and_come_back_from_json():
    p = probabilities(5_000, 1)
    whole, parts = Tally.of(p), [Tally.of(part) for part in np.array_split(p, 5)]
    added = Tally.from_json((parts[0] + parts[1] + parts[2] + parts[3] + parts[4]).to_json())
    assert (added.n == whole.n).all()
    assert added.expected == pytest.approx(whole.expected)
    assert (added.rows, added.bound) == (5_000, 5_000)


@pytest.mark.parametrize(
    ("sharp", "days", "before", "passed", "severity"),
    [(3.0, 7, False, True, "WARN"), (0.2, 7, False, False, "WARN"), (0.2, 7, True, False, "ERROR"),
     (0.2, 6, True, True, "ERROR")],
)  # fmt: skip
@pytest.mark.closes("estimated_performance", "estimated_floor")
def test_a_promise_beyond_the_floor_warns_then_pages(sharp, days, before, passed, severity):
    tally = Tally.of(probabilities(20_000, 3, sharp))
    row, check_result = _estimate_of_day(MODEL, LAST, tally, tally, days, before)
    assert check_result.passed is passed
    assert passed or check_result.severity.value == severity
    assert row["beyond"] is not passed
    assert row["low"] <= row["estimated"] <= row["high"]


def promising(tmp_path, probability) -> Stages:
    """A week of probabilities whose truth nobody knows yet, and the profile of the version that said them."""
    stages = Stages(stream(), tmp_path)
    a_week_scored(stages, probability, labelled=False)
    rows = readings(500)
    profile = ReferenceProfile.build(rows[["level"]], {SCORE: rows["level"].to_numpy()})
    profile.save(tmp_path / "bundle" / "reference")
    stages.mlflow.folders["1"] = tmp_path / "bundle"
    for day in WEEK[:-1]:
        made = stages.make("estimated_performance", day)
        assert made.success, made.why
        assert made.check("estimated_floor", day).passed, "less than a week is not judged"
    return stages


def test_probabilities_that_promise_enough_pass(tmp_path):
    stages = promising(tmp_path, lambda rows: rows["level"] / 200)
    made = stages.make("estimated_performance", WEEK[-1])
    assert made.success, made.why
    assert made.check("estimated_floor", WEEK[-1]).passed
    assert stages.row("estimated_performance", WEEK[-1])["trailing_days"] == 7


@pytest.mark.closes("estimated_performance", "estimated_floor")
def test_probabilities_that_promise_too_little_warn_and_page_the_day_after(tmp_path):
    stages = promising(tmp_path, lambda rows: 0.25 + rows["level"] / 10_000)
    made = stages.make("estimated_performance", WEEK[-1])
    first = made.check("estimated_floor", WEEK[-1])
    assert not first.passed
    assert first.severity == dg.AssetCheckSeverity.WARN
    after = "2026-01-17"
    said = stages.tables.read(stages.model.key("predictions"), WEEK[-1:])
    stages.put("predictions", said, after)
    second = stages.make("estimated_performance", after).check("estimated_floor", after)
    assert not second.passed
    assert second.severity == dg.AssetCheckSeverity.ERROR

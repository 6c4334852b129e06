"""What is said of the live model, at once by its own estimate, and once the truth is known."""

import datetime as dt
from dataclasses import replace

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from assets.declaration import Gate
from assets.lifecycle.answers import SCORE
from assets.lifecycle.data.features import features_of
from assets.lifecycle.monitoring.estimate import Tally, estimate, recalibrated
from assets.lifecycle.monitoring.monitoring import TRAILING_DAYS, _calibrated, _estimated, _how_far_off, _live
from assets.lifecycle.profile.reference import ReferenceProfile, calibration_of
from assets.task import BINARY, Task
from tests.declarations.readings import labelled_stream, plain, readings, stream
from tests.stages import Stages, copied_bundle

MODEL = stream(gate=Gate(metric="average_precision", floor=0.5))
LAST = "2026-03-20"


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
    return _live(model, LAST, today, trailing)


def test_a_good_week_passes_with_its_figures():
    row, [finding, _] = live(TRAILING_DAYS, good=True)
    assert finding.passed
    assert row["trailing_average_precision"] == 1.0
    assert row["caught"] == row["positives"] == row["alerts"]
    assert row["rows"] == 200


@pytest.mark.closes("performance", "floor")
def test_a_bad_week_fails_in_words():
    _, [finding, _] = live(TRAILING_DAYS, good=False)
    assert not finding.passed
    assert "average_precision 0." in finding.description
    assert f"over the 7 days to {LAST}, floor 0.5" in finding.description


def test_less_than_a_week_is_shown_and_not_judged():
    row, [finding, _] = live(TRAILING_DAYS - 1, good=False)
    assert finding.passed
    assert row["trailing_days"] == 6
    assert "not judged yet" in finding.description


@pytest.mark.parametrize(("good", "passed"), [(True, True), (False, False)])
@pytest.mark.closes("performance", "floor")
def test_of_a_brier_score_the_floor_is_the_highest_allowed(good, passed):
    model = replace(MODEL, gate=Gate(metric="brier", floor=0.05))
    assert live(TRAILING_DAYS, good, model)[1][0].passed is passed


def test_a_week_without_a_positive_has_no_figure_and_no_alarm():
    trailing = scored(TRAILING_DAYS, good=True).assign(faulty=0)
    row, [finding, _] = _live(MODEL, LAST, trailing.head(200), trailing)
    assert np.isnan(row["trailing_average_precision"])
    assert finding.passed


# -- without labels --------------------------------------------------------------------------------------------------


def said(n: int, seed: int, sharp: float = 2.0, mean: float = -4.0) -> np.ndarray:
    """Probabilities of a model that tells positives apart the better, the larger ``sharp`` is."""
    return 1 / (1 + np.exp(-np.random.default_rng(seed).normal(mean, sharp, n)))


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision", "brier"])
def test_the_estimate_is_what_the_labels_of_a_calibrated_model_give(metric):
    from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

    score = {"roc_auc": roc_auc_score, "average_precision": average_precision_score, "brier": brier_score_loss}[metric]
    inside = 0
    for seed in range(20):
        p = said(20_000, seed)
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
        rng, p = np.random.default_rng(100 + seed), said(100_000, seed, sharp=2.5, mean=-5.0)
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
        p = np.repeat(said(1_000, seed), 20)
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
    assert estimate(BINARY, "cp_at_k", Tally.of(said(100, 0))) is None
    assert estimate(Task("regression"), "r2", Tally.of(said(100, 0))) is None
    assert estimate(BINARY, "roc_auc", Tally.of(np.empty(0))) is None
    assert estimate(BINARY, "roc_auc", Tally.of(np.zeros(10))) is None


def test_tallies_add_up_over_days_and_come_back_from_json():
    p = said(5_000, 1)
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
    tally = Tally.of(said(20_000, 3, sharp))
    row, finding = _estimated(MODEL, LAST, tally, tally, days, before)
    assert finding.passed is passed
    assert passed or finding.severity.value == severity
    assert row["beyond"] is not passed
    assert row["low"] <= row["estimated"] <= row["high"]


def test_once_the_truth_is_there_it_is_said_how_far_off_the_estimate_was():
    assert _how_far_off(MODEL, {"trailing_average_precision": 0.6}, {"estimated": 0.65}) == {
        "estimated": 0.65, "estimate_error": pytest.approx(0.05),
    }  # fmt: skip
    assert np.isnan(_how_far_off(MODEL, {"trailing_average_precision": 0.6}, None)["estimate_error"])


@pytest.mark.parametrize(("times", "passed"), [(1.0, True), (0.3, False), (3.0, False)])
@pytest.mark.closes("performance", "calibrated")
def test_positives_that_nobody_expected_are_a_drift_of_the_labels(times, passed):
    p = said(20_000, 5)
    truth = np.random.default_rng(6).random(len(p)) < np.clip(p * times, 0, 1)
    trailing = pd.DataFrame({"probability": p, "faulty": truth.astype("int8")})
    expected, finding = _calibrated(MODEL, LAST, trailing)
    assert finding.passed is passed
    assert expected == pytest.approx(p.sum())


# -- the assets --------------------------------------------------------------------------------------------------------

WEEK = [f"2026-01-{day:02}" for day in range(10, 17)]


def in_production(tmp_path, toy_bundle, model=None, **head) -> Stages:
    """The toy model as version 1 in production, its features as a table; with another head it answers otherwise."""
    stages = Stages(model or plain(), tmp_path / "stages")
    stages.mlflow.folders["1"] = copied_bundle(toy_bundle, tmp_path / "bundle", head=head)
    stages.ledger.promote("meter", "1", reason="r", verdicts={}, dagster_run="r", who="ada")
    return stages


def features_put(stages: Stages, rows: int = 50) -> None:
    stages.put("readings", readings(rows))
    made = stages.make("features")
    assert made.success, made.why


def test_each_row_gets_a_score_of_the_champion(tmp_path, toy_bundle):
    stages = in_production(tmp_path, toy_bundle)
    features_put(stages)
    made = stages.make("predictions")
    assert made.success, made.why
    assert made.check("scored").passed
    assert made.check("scored").description == "50 rows, each with a probability between 0 and 1"
    said = stages.tables.read(stages.model.key("predictions"))
    assert set(said["version"]) == {"1"}
    assert said["probability"].between(0, 1).all()


@pytest.mark.closes("predictions", "scored")
@pytest.mark.parametrize(
    ("head", "words"),
    [
        ({"offset": float("nan")}, "50 of 50 rows have no probability between 0 and 1"),
        ({"kind": "regression", "offset": 7.0}, "50 of 50 rows have no probability between 0 and 1"),
        ({"kind": "regression", "offset": -7.0}, "50 of 50 rows have no probability between 0 and 1"),
    ],
)
def test_scores_that_are_no_probabilities_are_not_published(tmp_path, toy_bundle, head, words):
    stages = in_production(tmp_path, toy_bundle, **head)
    features_put(stages)
    made = stages.make("predictions")
    assert not made.check("scored").passed
    assert words in made.why
    assert "roll back to the version before" in made.why
    assert not stages.has("predictions")


@pytest.mark.closes("predictions", "scored")
@pytest.mark.parametrize(("quiet", "passed"), [(False, False), (True, True)])
def test_a_day_without_a_row_is_refused_unless_that_is_nothing_unusual(tmp_path, toy_bundle, quiet, passed):
    model = labelled_stream(features=None)
    model = replace(model, table=replace(model.table, quiet_days=quiet))
    stages = in_production(tmp_path, toy_bundle, model)
    names = features_of(model).names
    copied_bundle(stages.mlflow.folders["1"], tmp_path / "narrow", feature_names=names)
    stages.mlflow.folders["1"] = tmp_path / "narrow"
    rows = readings(1)[["reading_id", "read_at"]].assign(**dict.fromkeys(names, 0.0))
    stages.put("features", rows.iloc[:0], WEEK[0])
    made = stages.make("predictions", WEEK[0])
    assert made.check("scored", WEEK[0]).passed is passed
    assert made.success is passed


def a_week_scored(stages: Stages, probability, labelled: bool = True) -> None:
    """Predictions of a week, and their labels."""
    for day in WEEK:
        rows = readings(100, dt.date.fromisoformat(day))
        said = rows[["reading_id", "read_at"]].assign(probability=probability(rows), alert=False, version="1")
        stages.put("predictions", said, day)
        if labelled:
            labels = rows[["reading_id", "read_at", "faulty"]].astype({"faulty": "int8"})
            stages.put("labels", labels, day)


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

"""Rows are drawn as declared, the same ones again, and probabilities are those of all rows."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from assets.declaration import DeclarationError, Evaluation, Training
from assets.lifecycle.data.features import features_of
from assets.lifecycle.model.drawing import REPRESENTS, Counts, Draw, draw_of, odds_of, places, with_odds
from assets.lifecycle.model.fitting import best_threshold
from assets.lifecycle.model.objectives import ScoreTransform, objective_of
from assets.lifecycle.model.training_set import days_of_training, drawn, joined
from assets.lifecycle.model.training_set import test_rows as rows_of_test
from assets.lifecycle.profile.reference import calibration_of
from assets.task import BINARY
from resources.tables import days_of_window
from tests.declarations.readings import plain, readings, stream
from tests.stages import Stages

DAYS = days_of_window("2026-01-20", (-19, 0))
WINDOWS = {"window_days": 2, "test_days": 2, "folds": 1, "min_rows": 20}


def stages_of(tmp_path: Path, rows: int = 200, seed: int = 0, **training: object) -> Stages:
    """Three weeks of readings with labels and features; some labels are missing, and the orders differ."""
    stages = Stages(stream(training=Training(**{**WINDOWS, **training})), tmp_path)
    for n, day in enumerate(DAYS):
        of_day = readings(rows, pd.Timestamp(day).date(), seed)
        stages.put("readings", of_day.drop(columns="faulty"), day)
        labels = of_day[["reading_id", "read_at"]].assign(faulty=of_day["faulty"].astype(np.int8), why="seen")
        stages.put("labels", labels.sample(frac=0.9, random_state=n) if n % 2 else labels, day)
        made = of_day[["reading_id", "read_at"]].assign(level=of_day["level"].astype(np.float32), before=np.float32(n))
        stages.put("features", made.sample(frac=1, random_state=n) if n % 3 == 0 else made, day)
    return stages


def merged(stages: Stages, days: list[str]) -> pd.DataFrame:
    """The same rows by pandas, all days at once."""
    tables, model = stages.tables, stages.model
    cleaned, labels, features = (tables.read(model.key(name), days) for name in ("readings", "labels", "features"))
    frozen = cleaned.merge(labels[["reading_id", "faulty", "why"]], on="reading_id", validate="one_to_one")
    values = features.rename(columns={name: f"x_{name}" for name in features_of(model).names})
    return frozen.merge(values.drop(columns="read_at"), on="reading_id", validate="one_to_one")


@pytest.mark.parametrize("seed", range(20))
def test_joined_day_by_day_is_joined_at_once(tmp_path: Path, seed: int) -> None:
    stages = stages_of(tmp_path, rows=30, seed=seed)
    days = days_of_training(stages.tables, stages.model)
    pd.testing.assert_frame_equal(joined(stages.tables, stages.model, days), merged(stages, days))


def test_a_key_that_occurs_twice_in_a_day_is_refused(tmp_path: Path) -> None:
    stages = stages_of(tmp_path)
    twice = stages.tables.read(stages.model.key("labels"), [DAYS[-1]])
    stages.put("labels", pd.concat([twice, twice.head(1)]), DAYS[-1])
    with pytest.raises(pd.errors.MergeError, match=f"{DAYS[-1]}: .* is the key of several rows"):
        joined(stages.tables, stages.model, days_of_training(stages.tables, stages.model))


def test_all_rows_are_used_where_they_fit(tmp_path: Path) -> None:
    stages = stages_of(tmp_path)
    made = stages.make("training_set")
    assert made.success, made.why
    assert "drawn" not in made.check("enough").description
    assert REPRESENTS not in stages.tables.read(stages.model.key("training_set"))


def test_what_was_drawn_is_said_and_represents_all_rows(tmp_path: Path) -> None:
    stages = stages_of(tmp_path, rows=2_000, max_rows=24_000)
    made = stages.make("training_set")
    assert made.success, made.why
    frozen = stages.tables.read(stages.model.key("training_set"))
    everything = merged(stages, days_of_training(stages.tables, stages.model))
    said = made.check("enough").description
    assert f"of {int(rows_of_test(everything, stages.model).sum()):,} test rows" in said
    assert "probabilities are corrected for it" in said
    test, all_test = rows_of_test(frozen, stages.model), rows_of_test(everything, stages.model)
    assert len(frozen) == pytest.approx(24_000, rel=0.1)
    assert frozen[~test]["faulty"].sum() == everything[~all_test]["faulty"].sum(), "all positives stay"
    assert frozen[REPRESENTS].sum() == pytest.approx(len(everything), rel=0.05)
    assert frozen[test]["faulty"].mean() == pytest.approx(everything[all_test]["faulty"].mean(), abs=0.04)
    kept = everything.set_index("reading_id").loc[frozen["reading_id"]].reset_index()
    pd.testing.assert_frame_equal(frozen.drop(columns=REPRESENTS), kept[list(frozen.drop(columns=REPRESENTS))])


def test_the_same_days_give_the_same_rows_and_another_seed_gives_others(tmp_path: Path) -> None:
    stages = stages_of(tmp_path, rows=500, max_rows=2_000)
    days = days_of_training(stages.tables, stages.model)
    first, draw, counts = drawn(stages.tables, stages.model, days)
    pd.testing.assert_frame_equal(drawn(stages.tables, stages.model, days)[0], first)
    other = replace(stages.model, training=replace(stages.model.training, seed=1))
    assert set(drawn(stages.tables, other, days)[0]["reading_id"]) != set(first["reading_id"])
    assert counts.rows > draw.test * counts.test + counts.positives


def test_test_rows_are_drawn_by_whole_entities(tmp_path: Path) -> None:
    stages = stages_of(tmp_path, rows=500, max_rows=2_000)
    by_site = replace(stages.model, evaluation=Evaluation(entity="site"))
    days = days_of_training(stages.tables, by_site)
    frozen, _, _ = drawn(stages.tables, by_site, days)
    everything = merged(stages, days)
    counts = [rows[rows_of_test(rows, by_site)]["site"].value_counts() for rows in (frozen, everything)]
    assert all(counts[1][site] == n for site, n in counts[0].items())


@pytest.mark.parametrize(
    ("counts", "training", "draw"),
    [
        (Counts(100, 50, 850), {"max_rows": 1_000}, Draw()),
        (Counts(1_000, 500, 8_500), {"max_rows": 1_000}, Draw(0.25, 0.75, 375 / 8_500)),
        (Counts(1_000, 8_900, 100), {"max_rows": 1_000}, Draw(0.25, 650 / 8_900, 1.0)),
        (Counts(1_000, 100, 8_900), {"max_rows": 1_000}, Draw(0.25, 1.0, 650 / 8_900)),
        (Counts(100, 100, 9_800), {"max_rows": 1_000}, Draw(1.0, 1.0, 800 / 9_800)),
        (Counts(1_000, 4_500, 4_500), {"max_rows": 1_000}, Draw(0.25, 375 / 4_500, 375 / 4_500)),
        (Counts(100, 10, 890), {"negatives": 3}, Draw(1.0, 1.0, 30 / 890)),
        (Counts(100, 10, 20), {"negatives": 3}, Draw()),
    ],
)
def test_the_shares(counts: Counts, training: dict[str, float], draw: Draw) -> None:
    assert draw_of(counts, stream(training=Training(min_rows=10, **training))) == draw


def test_a_plain_table_is_drawn_before_it_is_split() -> None:
    model = plain(training=Training(min_rows=100, max_rows=1_000))
    assert draw_of(Counts(4_000, 0, 0), model) == Draw(0.25, 0.25, 0.25)
    assert draw_of(Counts(4_000, 0, 0), model).told(Counts(4_000, 0, 0)).startswith("drawn: 25.00% of 4,000 rows")


@pytest.mark.parametrize(
    ("given", "field"),
    [({"max_rows": 10}, "training.max_rows=10"), ({"negatives": 0}, "training.negatives=0")],
)
def test_limits_that_cannot_work_are_refused(given: dict[str, int], field: str) -> None:
    with pytest.raises(DeclarationError) as refused:
        stream(training=Training(**given))
    assert field in str(refused.value)
    with pytest.raises(DeclarationError, match=r"only for a binary target with `table.time`"):
        plain(training=Training(min_rows=100, negatives=10))


def test_places_are_even_and_depend_on_value_and_seed_alone() -> None:
    for values in (np.arange(20_000), np.array([f"key {n}" for n in range(20_000)], dtype=object)):
        found = places(values, 0)
        assert np.abs(np.sort(found) - (np.arange(20_000) + 0.5) / 20_000).max() < 0.015  # K-S: chance is 0.0115 at 1 %
        assert (places(values[::-1], 0)[::-1] == found).all()
        assert abs(np.corrcoef(found, places(values, 1))[0, 1]) < 0.03


# -- the correction ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def population() -> tuple[np.ndarray, np.ndarray]:
    """True probabilities and labels of 400,000 rows, 2 % of them positive."""
    rng = np.random.default_rng(7)
    probability = 1 / (1 + np.exp(4.6 - 1.3 * rng.normal(size=400_000)))
    return probability, (rng.random(400_000) < probability).astype(float)


def test_the_calibrated_mean_is_the_true_rate(population: tuple[np.ndarray, np.ndarray]) -> None:
    probability, y = population
    share = 0.05
    kept = (y == 1) | (np.random.default_rng(0).random(len(y)) < share)
    represented = np.where(y[kept] == 1, 1.0, 1 / share)
    logit = np.log(probability / (1 - probability))[kept]
    objective = objective_of(BINARY)
    _, head = objective.mix(logit[:, None], [y[kept]], [ScoreTransform()])
    odds = odds_of(y[kept], represented)
    assert odds == pytest.approx(share)
    assert head(logit).mean() > 5 * y.mean(), "without the correction far too high"
    corrected = objective.with_odds(head, odds)
    everywhere = corrected(np.log(probability / (1 - probability)))
    assert everywhere.mean() == pytest.approx(y.mean(), rel=0.02)
    assert np.abs(everywhere - probability).max() < 0.02
    np.testing.assert_allclose(with_odds(head(logit), odds), corrected(logit), rtol=1e-9)


def test_calibration_and_threshold_of_drawn_rows_are_those_of_all(population: tuple[np.ndarray, np.ndarray]) -> None:
    probability, y = population
    share = 0.1
    kept = (y == 1) | (np.random.default_rng(1).random(len(y)) < share)
    represented = np.where(y[kept] == 1, 1.0, 1 / share)
    found = calibration_of(probability[kept], y[kept], represented=represented)
    assert sum(one["rows"] for one in found) == pytest.approx(kept.sum(), rel=0.01)
    for one in found:
        error = (one["said"] / (share * one["rows"])) ** 0.5  # standard error of a share among the drawn negatives
        assert one["was"] == pytest.approx(one["said"], abs=4 * error)
    all_rows = best_threshold(probability, y)
    assert best_threshold(probability[kept], y[kept], represented) == pytest.approx(all_rows, rel=0.1)
    assert best_threshold(probability[kept], y[kept]) < 0.7 * all_rows, "without what rows represent, far too low"


def test_only_binary_targets_are_corrected() -> None:
    model = plain(target="level", training=Training(min_rows=100))
    head = ScoreTransform("regression", 2.0, 1.0)
    assert objective_of(model.task).with_odds(head, 0.1) == head
    assert odds_of(np.array([0.0, 1.0]), None) == 1
    assert odds_of(np.array([0.0, 0.0]), np.array([2.0, 2.0])) == 1

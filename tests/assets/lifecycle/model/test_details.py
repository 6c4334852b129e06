"""Importance, thresholds, groups and explained rows of a candidate, each against what is known of a line."""

import json

import numpy as np
import pytest
import torch

from assets.declaration import Evaluation, Features, Gate
from assets.lifecycle.model import importance
from assets.lifecycle.model.details import HIGHEST, MOST_WRONG, details_of
from assets.lifecycle.model.importance import importance_of
from assets.lifecycle.model.metrics.thresholds import thresholds
from assets.lifecycle.model.objectives import ScoreTransform
from assets.lifecycle.model.version.bundle import Bundle
from assets.task import Task
from tests.declarations.readings import plain, readings

MOST_ROWS = 2_000
NAMES = ("level", "noise", "pair#0", "pair#1")
FEATURES = Features(
    compute=lambda events, wanted: {}, lookback_days=0, names=NAMES, origins=("level", "noise", "pair", "pair")
)
EVERYTHING = {"evaluation": Evaluation(groups=("site",)), "features": FEATURES}


class Line(torch.nn.Module):
    def __init__(self, *weights: float) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nan_to_num(x) @ self.weights


class Three(torch.nn.Module):
    """The larger the level, the later the class."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        level = torch.nan_to_num(x)[:, 0]
        return torch.stack([-level, torch.zeros_like(level), level], dim=1)


@pytest.fixture(autouse=True)
def as_in_production(monkeypatch):
    """Permutes as many rows as outside of tests; worlds of tests permute fewer (``tests/conftest.py``)."""
    monkeypatch.setattr(importance, "MOST_ROWS", MOST_ROWS)


def version(folder, module, model, X, background=True) -> Bundle:
    Bundle.save(folder, module=module.eval(), model=model, feature_names=NAMES, head=ScoreTransform(model.task.kind),
                threshold=0.6, fitted={}, background=X[:32] if background else None)  # fmt: skip
    bundle = Bundle.load(folder)
    bundle.model = model
    return bundle


def rows_and_features(n=900):
    rows, rng = readings(n), np.random.default_rng(1)
    level = rows["level"].to_numpy(dtype=np.float32) / 25 - 2
    return rows, np.column_stack([level, *rng.normal(size=(3, n))]).astype(np.float32)


def test_the_feature_that_decides_is_important_and_noise_is_not(tmp_path):
    model, (_, X) = plain(features=FEATURES), rows_and_features()
    y = (X[:, 0] + X[:, 2] + X[:, 3] > 0).astype(float)
    bundle = version(tmp_path / "1", Line(1.0, 0.0, 1.0, 1.0), model, X)
    found = importance_of(bundle, FEATURES, X, y, metric="roc_auc")
    assert (found.metric, found.rows) == ("roc_auc", 900)
    assert set(found.lost) == {"level", "noise", "pair"}
    assert list(found.lost)[-1] == "noise"
    assert found.lost["noise"].value == 0
    for name in ("level", "pair"):
        assert 0.05 < found.lost[name].low < found.lost[name].value < found.lost[name].high
    assert importance_of(bundle, FEATURES, X, y, metric="roc_auc") == found, "the same every time"


def test_of_many_rows_the_rare_class_is_kept_and_the_metric_is_that_of_all_rows(tmp_path):
    model, rng = plain(features=FEATURES), np.random.default_rng(0)
    X = rng.normal(size=(20_000, 4)).astype(np.float32)
    y = (X[:, 0] + rng.normal(size=len(X)) > 3).astype(float)
    bundle = version(tmp_path / "1", Line(1.0, 0.0, 0.0, 0.0), model, X)
    found = importance_of(bundle, FEATURES, X, y, metric="average_precision")
    assert found.rows == MOST_ROWS
    shuffled = np.concatenate([X[rng.permutation(len(X)), :1], X[:, 1:]], axis=1)
    from assets.lifecycle.model.metrics import average_precision

    expected = average_precision(y, bundle.predict(X)) - average_precision(y, bundle.predict(shuffled))
    assert found.lost["level"].low < expected < found.lost["level"].high


def test_a_metric_that_needs_days_is_replaced_by_the_default_one(tmp_path):
    model, (_, X) = plain(features=FEATURES), rows_and_features()
    bundle = version(tmp_path / "1", Line(1.0, 0.0, 0.0, 0.0), model, X)
    assert importance_of(bundle, FEATURES, X, (X[:, 0] > 0).astype(float), metric="cp_at_k").metric == "roc_auc"


def test_money_saved_by_threshold_is_that_of_the_alerts():
    y, p, amount = np.array([1, 0, 1, 0.0]), np.array([0.9, 0.5, 0.2, 0.1]), np.array([10, 10, 10, 10.0])
    curve = thresholds(y, p, chosen=2.0, amount=amount, review_cost=2.0)
    assert (curve.by, curve.chosen, curve.review_cost) == ("expected amount", 2.0, 2.0)
    at = curve.threshold.index(2.0)
    assert curve.saved[at] == 10 - 2 - 2, "p · amount = 2 is not above the review cost of 2"
    assert (curve.alert_rate[at], curve.precision[at], curve.recall[at]) == (0.5, 0.5, 0.5)
    assert curve.saved[0] == 2 * 10 - 3 * 2, "at the lowest amount all rows above it are alerted"
    assert curve.precision[-1] is None, "above the highest nothing is alerted"


def test_without_an_amount_the_threshold_is_one_of_the_probability():
    y, p = np.array([1, 0, 1, 0.0]), np.array([0.9, 0.5, 0.2, 0.1])
    curve = thresholds(y, p, chosen=0.5)
    at = curve.threshold.index(0.5)
    assert (curve.by, curve.saved) == ("probability", [])
    assert (curve.alert_rate[at], curve.precision[at], curve.recall[at], curve.f1[at]) == (0.5, 0.5, 0.5, 0.5)


@pytest.mark.parametrize("target", ["faulty", "site", "level"])
def test_the_details_are_strict_json_for_every_kind_of_target(tmp_path, target):
    model = plain(target=target, gate=Gate(), features=FEATURES, evaluation=Evaluation(
        groups=("site",) if target != "site" else ()))  # fmt: skip
    rows, X = rows_and_features(300)
    X[7, 0] = np.nan
    rows[target] = Task.codes(model.task, rows[target])
    bundle = version(tmp_path / "1", Three() if target == "site" else Line(1.0, 0.0, 0.5, 0.0), model, X)
    scores = bundle.predict(X)
    details = details_of(bundle, rows, X, scores, model, None)
    json.dumps(details.to_dict(), allow_nan=False)
    assert [row.why for row in details.explained] == [HIGHEST] * 3 + [MOST_WRONG] * 3
    for row in details.explained:
        given = sum(value for _, value in row.contributions.values())
        assert row.base + given + row.rest == pytest.approx(row.output, abs=1e-4)
    top = details.explained[0]
    assert top.score == pytest.approx(scores.max())
    assert (details.thresholds is not None) == (target == "faulty")
    rates = {"selection_rate", "true_positive_rate", "false_positive_rate"}
    figures = {"faulty": rates, "site": set(), "level": {"mean_error"}}
    assert {gap.figure for gap in details.fairness} == figures[target]


def test_rows_that_the_metrics_leave_out_are_left_out_here_too(tmp_path):
    model, (rows, X) = plain(**EVERYTHING), rows_and_features(300)
    rows["faulty"] = rows["faulty"].astype(float)
    bundle = version(tmp_path / "1", Line(1.0, 0.0, 0.0, 0.0), model, X)
    known = np.arange(300) >= 200
    details = details_of(bundle, rows, X, bundle.predict(X), model, known)
    assert details.importance.rows == 200
    assert sum(details.fairness[0].rows.values()) == 200
    assert {row.key for row in details.explained} <= set(rows["reading_id"][:200].astype(str))


def test_a_version_without_background_rows_has_no_explained_rows(tmp_path):
    model, (rows, X) = plain(**EVERYTHING), rows_and_features(300)
    rows["faulty"] = rows["faulty"].astype(float)
    bundle = version(tmp_path / "1", Line(1.0, 0.0, 0.0, 0.0), model, X, background=False)
    assert details_of(bundle, rows, X, bundle.predict(X), model, None).explained == []

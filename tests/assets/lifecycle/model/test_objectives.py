"""What fitting minimises and validates on, for each kind of target."""

import numpy as np
import pytest
import torch

from assets.lifecycle.model.objectives import ScoreTransform, objective_of
from assets.task import BINARY, Task

CLASSES, MEASURED = Task("multiclass", ("a", "b", "c")), Task("regression")
RNG = np.random.default_rng(0)
Y = {
    "binary": (RNG.random(300) < 0.3).astype(float),
    "multiclass": RNG.integers(0, 3, 300).astype(float),
    "regression": RNG.normal(50, 10, 300),
}
KINDS = pytest.mark.parametrize("task", [BINARY, CLASSES, MEASURED], ids=lambda task: task.kind)


def perfect_outputs(task: Task, y: np.ndarray) -> np.ndarray:
    """Outputs of a network that knows the truth."""
    target = objective_of(task).target(y)[0].astype(float)
    return target if task.kind == "regression" else 40 * target - 20


@KINDS
def test_the_truth_scores_better_than_the_base_rate_and_noise_does_not(task):
    objective, y = objective_of(task), Y[task.kind]
    transform = objective.target(y)[1]
    assert objective.score(y, transform(perfect_outputs(task, y))) > objective.chance(y) + 0.3
    noise = RNG.normal(size=perfect_outputs(task, y).shape)
    assert objective.score(y, transform(noise)) < objective.chance(y) + 0.1


@KINDS
def test_the_loss_of_the_truth_is_almost_none_for_each_row_and_member(task):
    objective, y = objective_of(task), Y[task.kind]
    target = torch.from_numpy(objective.target(y)[0])
    outputs = torch.from_numpy(perfect_outputs(task, y)).float()
    assert outputs.ndim == objective.output_dims
    losses = objective.losses(outputs, target)
    assert losses.shape == (len(y),)
    assert float(losses.max()) < 1e-4
    members = torch.stack([outputs, -outputs], dim=1)
    each = objective.losses(members, target.unsqueeze(1).expand_as(members))
    assert each.shape == (len(y), 2)
    assert float(each[:, 1].mean()) > 0.5


@KINDS
def test_an_ensemble_weighs_the_learner_that_knows_more(task):
    objective, y = objective_of(task), Y[task.kind]
    scale = objective.target(y)[1]
    good = perfect_outputs(task, y) / (1 if task.kind == "regression" else 20)
    noise = RNG.normal(size=good.shape)
    weights, transform = objective.mix(np.stack([noise, good], axis=-1), [y], [scale])
    assert weights.sum() == pytest.approx(1)
    assert weights[1] > 0.9
    ensemble = np.stack([noise, good], axis=-1) @ weights
    assert objective.score(y, objective.transform_of_fold(transform, scale)(ensemble)) > objective.chance(y) + 0.3


@pytest.mark.parametrize("task", [BINARY, CLASSES], ids=lambda task: task.kind)
def test_learners_that_are_wrong_get_equal_weights_and_no_slope(task):
    objective, y = objective_of(task), Y[task.kind]
    wrong = -perfect_outputs(task, y)
    weights, transform = objective.mix(np.stack([wrong, wrong], axis=-1), [y], [objective.target(y)[1]])
    assert weights.tolist() == [0.5, 0.5]
    assert transform == ScoreTransform(task.kind)


def test_the_final_scale_of_a_measured_value_is_that_of_its_rows():
    objective, y = objective_of(MEASURED), Y["regression"]
    assert objective.final_transform(ScoreTransform("regression"), y) == objective.target(y)[1]
    fitted = ScoreTransform("binary", 2.0, 1.0)
    assert objective_of(BINARY).final_transform(fitted, Y["binary"]) == fitted


def test_what_the_folds_select_depends_on_the_kind():
    assert [objective_of(task).has_threshold for task in (BINARY, CLASSES, MEASURED)] == [True, False, False]
    assert [objective_of(task).stops_trees for task in (BINARY, CLASSES, MEASURED)] == [False, True, True]


@KINDS
def test_a_calibrated_score_does_not_mind_outputs_that_are_too_sure(task):
    objective, y = objective_of(task), Y[task.kind]
    scale, perfect = objective.target(y)[1], perfect_outputs(task, y)
    outputs = perfect / np.abs(perfect).max() + np.random.default_rng(0).normal(0, 1, perfect.shape)
    plain, calibrated = objective.score(y, scale(outputs)), objective.calibrated_score(y, outputs, scale)
    assert calibrated >= plain - 1e-9
    if task.kind == "multiclass":
        assert objective.score(y, scale(outputs * 5)) < plain
        assert objective.calibrated_score(y, outputs * 5, scale) == pytest.approx(calibrated, abs=1e-3)

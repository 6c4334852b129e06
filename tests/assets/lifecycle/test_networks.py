"""The line beside the default network is the linear model of each kind of target, and has the share it earns."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from assets.declaration import Training
from assets.lifecycle.fitting import beside, choose, fit, linear_model, outputs_of
from assets.lifecycle.networks import line
from assets.task import BINARY, Task

ROWS = 2_000
MEASURED, CLASSES = Task("regression"), Task("multiclass", ("a", "b", "c"))


def make(seed: int = 0, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Rows and what a line says of them, before any noise."""
    X = np.random.default_rng(seed).uniform(-2, 2, (rows, 3)).astype(np.float32)
    return X, X @ [1.0, -2.0, 0.0]


def noise(rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 1, rows)


def said_by(module: torch.nn.Module, X: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return module(torch.from_numpy(X)).numpy()


def test_the_line_of_two_classes_is_the_logistic_regression():
    X, truth = make()
    y = (truth + noise() > 0).astype(np.float32)
    peer = LogisticRegression(C=1.0, tol=1e-8).fit(X, y)
    made = line(torch.from_numpy(X), torch.from_numpy(y))
    assert said_by(made, X) == pytest.approx(peer.decision_function(X), abs=0.02)


def test_the_line_of_a_measured_value_is_the_ridge_regression():
    X, truth = make()
    y = (truth + noise()).astype(np.float32)
    peer = Ridge(alpha=0.5).fit(X, y)
    made = line(torch.from_numpy(X), torch.from_numpy(y), measured=True)
    assert said_by(made, X) == pytest.approx(peer.predict(X), abs=0.02)


def test_the_line_of_classes_has_one_that_never_came_as_unlikely():
    X, truth = make()
    codes = np.digitize(truth + noise(), [-2, 2])
    peer = LogisticRegression(C=1.0, tol=1e-8).fit(X, codes)
    made = line(torch.from_numpy(X), torch.from_numpy(np.eye(4, dtype=np.float32)[codes]))
    chances = torch.softmax(torch.from_numpy(said_by(made, X)), dim=1).numpy()
    assert chances[:, :3] == pytest.approx(peer.predict_proba(X), abs=0.02)
    assert chances[:, 3].max() < 0.02


@pytest.mark.parametrize("task", [BINARY, CLASSES, MEASURED], ids=lambda task: task.kind)
def test_what_stands_beside_the_network_has_its_share_and_is_exported_with_it(task):
    X, truth = make(rows=400)
    y = {"binary": truth > 0, "multiclass": np.digitize(truth, [-2, 2]), "regression": truth}[task.kind].astype(float)
    X[::7, 2] = np.nan
    network = fit(X, y, recipe=Training(batch_size=64), epochs=1, task=task)
    other = linear_model(X, y, task=task)
    both = beside(network, other, 0.3)
    assert outputs_of(both, X) == pytest.approx(0.3 * outputs_of(other, X) + 0.7 * outputs_of(network, X), abs=1e-5)
    rows = ({0: torch.export.Dim.DYNAMIC},)
    exported = torch.export.export(both, (torch.from_numpy(X[:2]),), dynamic_shapes=rows).module()
    assert said_by(exported, X) == pytest.approx(outputs_of(both, X), abs=1e-5)
    assert beside(network, other, 0.0) is network


@pytest.mark.parametrize(("bend", "least", "most"), [(0.0, 0.7, 1.0), (8.0, 0.0, 0.1)])
def test_the_line_has_the_say_where_the_truth_is_one_and_none_where_it_is_not(bend, least, most):
    X, truth = make()
    y = truth + bend * np.abs(X[:, 2]) + noise()
    half = ROWS // 2
    folds = [(np.arange(half), np.arange(half, ROWS)), (np.arange(half, ROWS), np.arange(half))]
    choice = choose(X, y, folds, recipe=Training(max_epochs=8), task=MEASURED)
    assert least <= choice.line_share <= most


def test_declared_layers_have_no_line_beside_them():
    X, truth = make(rows=300)
    folds = [(np.arange(200), np.arange(200, 300))]

    def layers(rows: torch.Tensor, _: torch.Tensor) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(rows.shape[1], 1), torch.nn.Flatten(0))

    assert choose(X, truth, folds, recipe=Training(max_epochs=1), task=MEASURED, network=layers).line_share == 0

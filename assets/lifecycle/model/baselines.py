"""The candidate's baselines: a simple model and a strong model, fitted on the same rows.

Belongs here: their scores on the test rows, each a pure function. Does not belong here: the fits (``linear.py``,
``trees.py``), the candidate (``fitting.py``), the comparison (``metrics``, ``gate.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from assets.lifecycle.model.fitting import outputs_of
from assets.lifecycle.model.learners.ensemble import boosted_trees, linear_model
from assets.lifecycle.model.learners.trees import Trees, as_module
from assets.lifecycle.model.objectives import objective_of
from assets.task import BINARY, Task


def linear(
    X: np.ndarray, y: np.ndarray, X_test: np.ndarray, *, task: Task = BINARY, tokens: Sequence[int] = ()
) -> np.ndarray:
    """Fits the regularised linear model and scores the test rows.

    Args:
        X: ``[n, n_features]``; missing values are NaN, infinite values are not allowed.
        y: class codes or measured values, ``[n]``.
        X_test: ``[m, n_features]``.
        task: the kind of target.
        tokens: positions of the columns that hold word numbers.

    Returns:
        float64 scores ``[m]`` or ``[m, classes]``.

    Raises:
        ValueError: ``y`` has only one class or value, or the shapes do not match.
    """
    _refuse_one_class(y, task)
    module = linear_model(X, y, task=task, tokens=tokens)
    return objective_of(task).target(y)[1](outputs_of(module, X_test))


def xgboost(
    X: np.ndarray, y: np.ndarray, X_test: np.ndarray, *, task: Task = BINARY, tokens: Sequence[int] = (), seed: int = 0
) -> np.ndarray:
    """Fits gradient-boosted trees and scores the test rows, float64 ``[m]`` or ``[m, classes]``.

    The same rows and seed give the same scores. If the number of trees is not fixed, early stopping on a held-out sixth
    of the rows sets it, and the trees are then fitted on all rows. Arguments and errors are those of :func:`linear`;
    ``seed`` sets the library's random numbers and the held-out rows.
    """
    _refuse_one_class(y, task)
    how: Any = {"task": task, "tokens": tokens, "seed": seed}
    rounds = None
    if task.kind != "binary":
        held = _a_sixth(y, task, seed)
        stopped = boosted_trees(X[~held], y[~held], valid=(X[held], y[held]), **how)
        # All rows need about a tenth more trees than five sixths of them (rule of thumb for this learning rate).
        rounds = int(1.1 * stopped.rounds) + 1
    return scores_of(boosted_trees(X, y, rounds=rounds, **how), y, X_test, task=task, tokens=tokens)


def scores_of(trees: Trees, y: np.ndarray, X_test: np.ndarray, *, task: Task, tokens: Sequence[int]) -> np.ndarray:
    """Returns scores ``[m]`` or ``[m, classes]`` of trees that were fitted on rows with the target ``y`` ``[n]``."""
    return objective_of(task).target(y)[1](outputs_of(as_module(trees, task, tokens), X_test))


def _a_sixth(y: np.ndarray, task: Task, seed: int) -> np.ndarray:
    """Bool ``[n]``: rows held out to select the number of trees; each class keeps at least one training row."""
    held = np.zeros(len(y), dtype=bool)
    held[np.random.default_rng(seed).permutation(len(y))[: max(1, len(y) // 6)]] = True
    if task.kind != "regression":
        held[~np.isin(y, y[~held])] = False
    return held


def _refuse_one_class(y: np.ndarray, task: Task) -> None:
    found = np.unique(y)
    if task.kind == "binary" and not np.array_equal(found, [0, 1]):
        raise ValueError(
            f"a baseline needs training rows of both classes, 0 and 1, but found {found.tolist()[:5]}; "
            "use a longer training window or check the target"
        )
    if len(found) < 2:
        raise ValueError(f"a baseline needs training rows with two or more target values, but found {found.tolist()}")

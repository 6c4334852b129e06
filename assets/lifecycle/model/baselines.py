"""What the candidate has to stand up to: a simple baseline and a strong one, fitted on the same rows.

Belongs here: their scores on the test rows, each a pure function. Does not belong here: how the two are fitted
(``linear.py``, ``trees.py``), the candidate (``fitting.py``), or the comparison itself (``metrics``, ``gate.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from assets.lifecycle.model.fitting import as_target, boosted_trees, linear_model, outputs_of
from assets.lifecycle.model.learners.trees import Trees, as_module
from assets.task import BINARY, Task


def linear(
    X: np.ndarray, y: np.ndarray, X_test: np.ndarray, *, task: Task = BINARY, tokens: Sequence[int] = ()
) -> np.ndarray:
    """Scores of the regularised linear model on the test rows, float64 ``[m]`` (or ``[m, classes]``).

    Args:
        X: ``[n, k]``, may hold NaN but nothing infinite.
        y: class codes or measured values, ``[n]``.
        X_test: ``[m, k]``.
        task: the kind of target.
        tokens: positions of the columns that hold word numbers.

    Raises:
        ValueError: only one class in ``y``, or shapes that do not fit.
    """
    _refuse_one_class(y, task)
    module = linear_model(X, y, task=task, tokens=tokens)
    return as_target(y, task)[1](outputs_of(module, X_test))


def xgboost(
    X: np.ndarray, y: np.ndarray, X_test: np.ndarray, *, task: Task = BINARY, tokens: Sequence[int] = (), seed: int = 0
) -> np.ndarray:
    """Scores of gradient-boosted trees on the test rows, float64 ``[m]`` (or ``[m, classes]``).

    The same rows and seed give the same scores. Where the number of trees is not fixed, a sixth of the rows, held back,
    says how many; they are then fitted on all rows. Arguments and errors as of :func:`linear`; ``seed`` is of the
    library's random numbers.
    """
    _refuse_one_class(y, task)
    how: Any = {"task": task, "tokens": tokens, "seed": seed}
    rounds = None
    if task.kind != "binary":
        held = _a_sixth(y, task, seed)
        stopped = boosted_trees(X[~held], y[~held], valid=(X[held], y[held]), **how)
        # The trees of five sixths are a tenth too few for all rows, by the learning rate's rule of thumb.
        rounds = int(1.1 * stopped.rounds) + 1
    return scores_of(boosted_trees(X, y, rounds=rounds, **how), y, X_test, task=task, tokens=tokens)


def scores_of(trees: Trees, y: np.ndarray, X_test: np.ndarray, *, task: Task, tokens: Sequence[int]) -> np.ndarray:
    """Scores of trees that were fitted on rows of the target ``y``."""
    return as_target(y, task)[1](outputs_of(as_module(trees, task, tokens), X_test))


def _a_sixth(y: np.ndarray, task: Task, seed: int) -> np.ndarray:
    """Boolean: rows held back to count trees on; each class keeps at least one row to fit on."""
    held = np.zeros(len(y), dtype=bool)
    held[np.random.default_rng(seed).permutation(len(y))[: max(1, len(y) // 6)]] = True
    if task.kind != "regression":
        held[~np.isin(y, y[~held])] = False
    return held


def _refuse_one_class(y: np.ndarray, task: Task) -> None:
    found = np.unique(y)
    if task.kind == "binary" and not np.array_equal(found, [0, 1]):
        raise ValueError(
            f"a baseline needs training rows of both classes, 0 and 1, and found {found.tolist()[:5]}; "
            "use a longer training window or check the target"
        )
    if len(found) < 2:
        raise ValueError(f"a baseline needs training rows of two values and more, and found {found.tolist()}")

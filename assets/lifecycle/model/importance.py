"""The importance of each feature for the gate's metric, by permutation, with its interval.

Belongs here: how much of the metric is lost on test rows when a feature's values are exchanged among them. Does not
belong here: contributions to a single score (``explain.py``), the effect on scores that drift checks weigh by
(``trained_model.py``).

scikit-learn's ``permutation_importance`` exchanges one column at a time, so it would split a text into its words and a
column into its categories, and its interval knows only the repeats, not the rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from assets.declaration import Features
from assets.lifecycle.model.explain import AT_ONCE, groups_of
from assets.lifecycle.model.metrics.figures import Rows, figures_of
from assets.lifecycle.model.metrics.intervals import Estimate, estimate
from assets.lifecycle.model.version.bundle import Bundle
from assets.metrics import DEFAULT_METRIC, lower_is_better

MOST_ROWS = 2_000
"""Maximum number of test rows; of a binary target, as many of them as possible are positive, and weights correct it."""
MOST_READ_ROWS = 100
"""The same if a language model reads the rows, because that takes a thousand times as long."""
REPEATS = 5
"""Number of times that each feature is permuted."""
DRAWS = 40
"""Bootstrap draws of the rows for each repeat."""


@dataclass(frozen=True)
class Importance:
    """The importance of features, the most important first.

    Attributes:
        metric: the metric that is lost: the gate's metric, or the default one of the kind of target if the gate's needs
            days or money.
        rows: number of test rows used.
        lost: by feature, the loss of the metric (positive: the feature helps) and its 95 % interval, over permutations
            and bootstrap draws of rows.
    """

    metric: str
    rows: int
    lost: dict[str, Estimate]


def importance_of(
    bundle: Bundle, features: Features, X: np.ndarray, y: np.ndarray, *, metric: str, seed: int = 0,
    read: bool = False,
) -> Importance:  # fmt: skip
    """Measures what the metric loses when the values of one feature are exchanged among the rows.

    Args:
        bundle: the version.
        features: its features.
        X: features of test rows, float32 ``[n, n_features]``.
        y: class codes or measured values, ``[n]``.
        metric: the gate's metric.
        seed: of the permutations, the draws, and the choice of rows.
        read: whether a language model reads the rows. Then there are at most :data:`MOST_READ_ROWS` of them, and all
            permutations are scored in one pass, because a language model reads equal texts of a pass once.
    """
    import torch

    rng = np.random.default_rng(seed)
    chosen, weight = _chosen(y, bundle.task.kind, rng, MOST_READ_ROWS if read else MOST_ROWS)
    X, y = X[chosen], y[chosen]
    rows = Rows(task=bundle.task, y=y, cluster=np.arange(len(y)), clusters=len(y))
    draws = [weight] + [
        weight * np.bincount(rng.integers(0, len(y), len(y)), minlength=len(y)) for _ in range(DRAWS * REPEATS)
    ]

    def scored(values: np.ndarray) -> np.ndarray:
        return bundle.head(bundle.outputs(torch.from_numpy(values), len(values) if read else AT_ONCE).numpy())

    whole = figures_of(rows, scored(X))
    if metric not in whole.compute(weight):
        metric = DEFAULT_METRIC[bundle.task.kind]
    better = -1.0 if lower_is_better(metric) else 1.0
    before = np.array([whole.compute(one)[metric] for one in draws])
    names, group = groups_of(features)
    permuted = _permuted(X, group, len(names), rng)
    scores: Iterator[np.ndarray] = map(scored, permuted)
    if read:
        scores = iter(np.split(scored(np.concatenate(list(permuted))), len(names) * REPEATS))
    lost = {}
    for name in names:
        points, losses = [], []
        for repeat in range(REPEATS):
            after = figures_of(rows, next(scores))
            mine = slice(1 + repeat * DRAWS, 1 + (repeat + 1) * DRAWS)
            points.append(better * (before[0] - after.compute(weight)[metric]))
            losses += [
                better * (b - after.compute(one)[metric]) for b, one in zip(before[mine], draws[mine], strict=True)
            ]
        lost[name] = estimate(float(np.mean(points)), np.array(losses), bounds=(-math.inf, math.inf))
    ordered = sorted(lost, key=lambda name: -lost[name].value)
    return Importance(metric, len(y), {name: lost[name] for name in ordered})


def _permuted(X: np.ndarray, group: np.ndarray, names: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yields the rows with the values of one feature exchanged, :data:`REPEATS` times for each feature."""
    for place in range(names):
        columns = np.flatnonzero(group == place)
        for _ in range(REPEATS):
            permuted = X.copy()
            permuted[:, columns] = X[np.ix_(rng.permutation(len(X)), columns)]
            yield permuted


def _chosen(y: np.ndarray, kind: str, rng: np.random.Generator, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the rows to use, and their weights, ``[chosen]`` each; together they weigh as much as all rows."""
    if len(y) <= most:
        return np.arange(len(y)), np.ones(len(y))
    if kind != "binary":
        return rng.permutation(len(y))[:most], np.full(most, len(y) / most)
    positive, negative = rng.permutation(np.flatnonzero(y == 1)), rng.permutation(np.flatnonzero(y == 0))
    most_positive = max(most // 2, most - len(negative))
    some_positive = positive[:most_positive]
    some_negative = negative[: most - len(some_positive)]
    weights = [np.full(len(some), len(all_) / max(len(some), 1)) for some, all_ in
               ((some_positive, positive), (some_negative, negative))]  # fmt: skip
    return np.concatenate([some_positive, some_negative]), np.concatenate(weights)

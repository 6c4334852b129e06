"""Explains single scores: contributions of the features of a row that add up to its score.

Belongs here: Shapley values of a version's outputs, for all learners of its ensemble at once. Does not belong here: the
importance of a feature over many rows (``importance.py``), the presentation (``report.py``, ``serving``).

A feature's contribution is the change of the output when its value in a background row is replaced by its value in the
explained row, averaged over background rows and over the orders in which features are replaced (Štrumbelj and
Kononenko, 2014). It needs only outputs, so it works for a network, a linear model and trees alike, and it is exactly
additive for each order. captum's ``ShapleyValueSampling`` does the sum; two additions make it precise and fast:

- It works on indicators, 1 where a feature has its own value and 0 where it has that of the background row. captum
  would multiply values by 0 and 1, which turns a missing value (NaN) into NaN everywhere.
- Each background row has an order of its own, and also its reverse (antithetic sampling: Mitchell et al., 2022). An
  order for all background rows together needs twenty times as many forward passes for the same error.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from assets.declaration import Features
from assets.lifecycle.model.version.bundle import Bundle
from assets.task import TaskKind

if TYPE_CHECKING:
    import torch

TOLERANCE = 1e-4
"""Largest difference between a score and the score of base + contributions. For measured values, as a share of the
target's standard deviation."""
AT_ONCE = 256
"""Rows of one forward pass: few enough to stay in the processor's cache, and enough that a pass is not all overhead. An
explanation of the example takes 49 ms with 64 rows, 30 with 256 and 53 with 1,024."""
SCALES: dict[TaskKind, str] = {"binary": "log-odds", "multiclass": "class logits", "regression": "unit of the target"}
"""The scale on which contributions add up."""


class ExplanationError(Exception):
    """A version or a row cannot be explained. The message gives the reason and the fix."""


@dataclass(frozen=True)
class Explanations:
    """The contributions of each feature to the scores of some rows.

    ``base + contributions.sum(axis=1)`` is the output, and the score follows from it: ``1 / (1 + exp(-output))``
    (binary), ``softmax(output)`` (classes), or the output itself, clipped to the target's range in the training rows
    (measured values).

    Attributes:
        kind: kind of target.
        classes: names of the classes; empty for measured values.
        names: names of the explained features; features of one origin (``Features.origins``) are one.
        base: mean output of the background rows, ``[]`` or ``[classes]``.
        contributions: ``[n, names]`` or ``[n, names, classes]``.
        scores: ``[n]`` or ``[n, classes]``.
    """

    kind: TaskKind
    classes: tuple[str, ...]
    names: tuple[str, ...]
    base: np.ndarray
    contributions: np.ndarray
    scores: np.ndarray

    @property
    def outputs(self) -> np.ndarray:
        """The outputs that the contributions add up to, ``[n]`` or ``[n, classes]``."""
        return self.base + self.contributions.sum(axis=1)

    def to_json(self) -> list[dict[str, Any]]:
        """Returns one dictionary per row, largest contribution first; of classes, each number is a dictionary."""
        return [
            {
                "scale": SCALES[self.kind],
                "base": self._plain(self.base),
                "contributions": {self.names[i]: self._plain(of_row[i]) for i in _by_size(of_row)},
                "output": self._plain(output),
                "score": self._plain(score),
            }
            for of_row, output, score in zip(self.contributions, self.outputs, self.scores, strict=True)
        ]

    def _plain(self, value: np.ndarray) -> float | dict[str, float]:
        if self.kind == "multiclass":
            return dict(zip(self.classes, map(float, value), strict=True))
        return float(value)


def can_explain(bundle: Bundle) -> None:
    """Raises :class:`ExplanationError` if the version has no background rows."""
    if bundle.background is None:
        raise ExplanationError(
            f"this version of '{bundle.name}' was trained before scores could be explained, so it has no background "
            "rows; train it again"
        )


def explain(bundle: Bundle, features: Features, X: np.ndarray, *, seed: int = 0) -> Explanations:
    """Explains the scores of rows. The same rows, version and seed give the same contributions.

    Args:
        bundle: the version.
        features: its features.
        X: float32 ``[n, n_features]``; missing values are NaN.
        seed: seed of the orders; all rows are explained with the same orders.

    Raises:
        ExplanationError: the version has no background rows, or its contributions do not add up to the score within
            :data:`TOLERANCE`.
    """
    can_explain(bundle)
    names, group = groups_of(features)
    scores = bundle.predict(X)
    background = np.asarray(bundle.background)
    if len(background) == 1:
        background = np.repeat(background, 2, axis=0)  # captum would take a single output for a sum over rows
    rng = np.random.default_rng(seed)
    orders = rng.permuted(np.tile(np.arange(len(names)), (len(background), 1)), axis=1)
    head = bundle.head
    base = head.scaled(_outputs(bundle, background).mean(axis=0))
    given = [head.slope * _contributions(bundle, row, background, orders, group) for row in X]
    shape = (len(X), len(names), *base.shape)
    contributions = np.reshape(given, shape)
    if head.kind == "multiclass":  # a constant added to all class logits changes no score
        base = base - base.mean()
        contributions = contributions - contributions.mean(axis=2, keepdims=True)
    found = Explanations(head.kind, bundle.facts.classes, names, base, contributions, scores)
    _refuse_wrong_sum(bundle, found)
    return found


def groups_of(features: Features) -> tuple[tuple[str, ...], np.ndarray]:
    """Returns the names of the explained features, and for each feature its position in them."""
    origins = features.explained
    names = tuple(dict.fromkeys(origins))
    place = {name: i for i, name in enumerate(names)}
    return names, np.array([place[origin] for origin in origins])


def _contributions(
    bundle: Bundle, row: np.ndarray, background: np.ndarray, orders: np.ndarray, group: np.ndarray
) -> np.ndarray:
    """Contributions of one row to the outputs, float64 ``[names]`` or ``[names, classes]``.

    Args:
        bundle: the version.
        row: ``[n_features]``.
        background: ``[k, n_features]``.
        orders: the order of features for each background row, ``[k, names]``.
        group: explained feature of each feature, ``[n_features]``.
    """
    import torch
    from captum.attr import ShapleyValueSampling

    k, names = orders.shape
    # Place in the order at which the features of a background row are replaced, [k, n_features].
    place = torch.from_numpy(np.argsort(orders, axis=1)[:, group])
    own, other = torch.from_numpy(np.array(row, dtype=np.float32)), torch.from_numpy(background)

    def outputs(replaced: torch.Tensor) -> torch.Tensor:
        """Outputs for indicators by place, ``[steps · k, names]``: whether the feature at that place is replaced."""
        where = replaced.bool().unflatten(0, (-1, k)).gather(2, place.expand(len(replaced) // k, -1, -1))
        return bundle.outputs(torch.where(where, own, other).flatten(0, 1), AT_ONCE)

    def both_ways(features: int, samples: int) -> Iterable[list[int]]:
        yield list(range(features))
        yield list(reversed(range(features)))

    sampling = ShapleyValueSampling(outputs)
    sampling.permutation_generator = both_ways
    by_place = sampling.attribute(
        torch.ones(k, names), torch.zeros(k, names), n_samples=2, perturbations_per_eval=names
    )  # [k, names] or [k, classes, names]
    given = by_place.double().numpy().reshape(k, -1, names)
    of_feature = np.empty_like(given)
    np.put_along_axis(of_feature, orders[:, None, :], given, axis=2)
    mean = of_feature.mean(axis=0).T
    return mean if by_place.dim() == 3 else mean[:, 0]


def _outputs(bundle: Bundle, rows: np.ndarray) -> np.ndarray:
    import torch

    return bundle.outputs(torch.from_numpy(rows), AT_ONCE).double().numpy()


def _by_size(contributions: np.ndarray) -> np.ndarray:
    """Positions of features by the largest size of their contributions, largest first."""
    sizes = np.abs(contributions.reshape(len(contributions), -1)).max(axis=1)
    return np.argsort(-sizes, kind="stable")


def _refuse_wrong_sum(bundle: Bundle, found: Explanations) -> None:
    difference = np.abs(bundle.head.score_of(found.outputs) - found.scores)
    unit = bundle.head.slope if found.kind == "regression" else 1.0
    if not (difference <= TOLERANCE * unit).all():
        raise ExplanationError(
            f"the contributions of '{bundle.name}' do not add up to the score: they differ by "
            f"{float(np.nanmax(difference / unit, initial=0)):.1e}, more than {TOLERANCE}; its outputs are not finite, "
            "or depend on the other rows of a batch"
        )

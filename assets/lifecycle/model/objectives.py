"""What fitting minimises and validates on, one class for each kind of target.

Belongs here: target encoding, loss, validation metric, the weights of an ensemble, and how outputs become scores. Does
not belong here: the optimiser and the folds (``fitting.py``), the layers (``learners``), the metrics of the report
(``metrics``).
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from assets.lifecycle.model.metrics.ranking import average_precision
from assets.task import Task, TaskKind

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ScoreTransform:
    """Maps model outputs to scores, with parameters fitted on the folds or taken from the target's scale.

    *binary*: probabilities ``sigmoid(slope · output + offset)`` (Platt, 1999). *multiclass*: ``softmax(slope ·
    outputs)`` (temperature scaling: Guo et al., 2017). *regression*: ``slope · output + offset``, clipped to ``low``
    and ``high``, the range of the target in the training rows.
    """

    kind: TaskKind = "binary"
    slope: float = 1.0
    offset: float = 0.0
    low: float | None = None
    high: float | None = None

    def __call__(self, outputs: np.ndarray) -> np.ndarray:
        """Returns float64 scores of the shape of ``outputs``: ``[n]`` or ``[n, classes]``."""
        return self.score_of(self.scaled(outputs))

    def scaled(self, outputs: np.ndarray) -> np.ndarray:
        """Returns log-odds ``[n]``, class logits ``[n, classes]``, or values in the target's unit before clipping.

        On this scale, contributions of features add up.
        """
        return self.slope * outputs.astype(np.float64) + self.offset

    def score_of(self, scaled: np.ndarray) -> np.ndarray:
        """Returns the float64 scores of what :meth:`scaled` returns."""
        if self.kind == "regression":
            return np.clip(scaled, self.low, self.high)
        if self.kind == "binary":
            return 1 / (1 + np.exp(-np.clip(scaled, -60, 60)))
        raised = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return raised / raised.sum(axis=1, keepdims=True)


class Objective(abc.ABC):
    """The objective of one kind of target. ``y`` is ``[n]``: class codes or measured values."""

    metric: ClassVar[str]
    """Name of the validation metric; higher is better."""
    output_dims: ClassVar[int] = 1
    """Dimensions of one network's outputs: ``[n]`` or ``[n, classes]``."""
    has_threshold: ClassVar[bool] = False
    """Whether the folds also select an alert threshold and give a calibration."""
    stops_trees: ClassVar[bool] = True
    """Whether the folds select the number of boosting rounds."""

    def __init__(self, task: Task) -> None:
        self.task = task

    @abc.abstractmethod
    def target(self, y: np.ndarray) -> tuple[np.ndarray, ScoreTransform]:
        """Returns the network's training target, float32 ``[n]`` or ``[n, classes]``, and the transform of its outputs.

        The transform holds the scale of a measured target; otherwise the folds replace it.
        """

    def learnt(self, y: np.ndarray) -> np.ndarray:
        """Returns ``y`` as the linear model and the trees learn it, ``[n]``."""
        return y

    def in_scale_of(self, y: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Returns ``other`` in the scale of :meth:`learnt` of ``y``."""
        return other

    @abc.abstractmethod
    def losses(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Returns the loss of each row, and of each member if ``outputs`` has a dimension for members."""

    @abc.abstractmethod
    def score(self, y: np.ndarray, scores: np.ndarray) -> float:
        """Returns the validation metric of scores."""

    def calibrated_score(self, y: np.ndarray, outputs: np.ndarray, scale: ScoreTransform) -> float:
        """Returns the validation metric of outputs whose scores are calibrated on the same rows.

        Args:
            y: ``[n]``.
            outputs: ``[n]`` or ``[n, classes]``.
            scale: transform of the fold, from :meth:`target`.
        """
        _, ensemble = self.mix(outputs[..., None], [y], [scale])
        return self.score(y, self.transform_of_fold(ensemble, scale)(outputs))

    @abc.abstractmethod
    def chance(self, y: np.ndarray) -> float:
        """Returns the validation metric of a model that knows only the base rate."""

    @abc.abstractmethod
    def mix(
        self, columns: np.ndarray, truth: Sequence[np.ndarray], scales: Sequence[ScoreTransform]
    ) -> tuple[np.ndarray, ScoreTransform]:
        """Returns the convex weights ``[k]`` of an ensemble that minimise the loss, and the ensemble's transform.

        Args:
            columns: outputs of k learners on the pooled validation rows, ``[n, k]`` or ``[n, classes, k]``.
            truth: ``y`` of each fold.
            scales: transform of each fold, from :meth:`target`.
        """

    def transform_of_fold(self, ensemble: ScoreTransform, scale: ScoreTransform) -> ScoreTransform:
        """Returns the transform of a fold's outputs: the ensemble's, or the fold's own scale of a measured target."""
        return ensemble

    def with_odds(self, ensemble: ScoreTransform, odds: float) -> ScoreTransform:
        """Returns the transform for rows among which the odds of a positive are ``odds`` times those of the rows that
        it was fitted on; only probabilities of a binary target change."""
        return ensemble

    def final_transform(self, ensemble: ScoreTransform, y: np.ndarray) -> ScoreTransform:
        """Returns the transform of the final fit on the rows of ``y``."""
        return self.transform_of_fold(ensemble, self.target(y)[1])


class BinaryObjective(Objective):
    """Cross-entropy of a logit; average precision."""

    metric = "average_precision"
    has_threshold = True
    stops_trees = False

    def target(self, y: np.ndarray) -> tuple[np.ndarray, ScoreTransform]:
        """See :class:`Objective`."""
        return y.astype(np.float32), ScoreTransform()

    def losses(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """See :class:`Objective`."""
        from torch.nn import functional

        return functional.binary_cross_entropy_with_logits(outputs, target, reduction="none")

    def score(self, y: np.ndarray, scores: np.ndarray) -> float:
        """See :class:`Objective`."""
        return average_precision(y, scores)

    def chance(self, y: np.ndarray) -> float:
        """See :class:`Objective`."""
        return float(y.mean())

    def mix(
        self, columns: np.ndarray, truth: Sequence[np.ndarray], scales: Sequence[ScoreTransform]
    ) -> tuple[np.ndarray, ScoreTransform]:
        """See :class:`Objective`; the offset is fitted with the weights."""
        columns, y = np.clip(columns, -30, 30), np.concatenate(truth)
        k = columns.shape[-1]

        def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
            raised = columns @ at[:k] + at[k]
            error = (1 / (1 + np.exp(-np.clip(raised, -60, 60))) - y) / len(y)
            return float((np.logaddexp(0, raised) - y * raised).mean()), np.append(columns.T @ error, error.sum())

        weights, slope, rest = _likeliest(loss, k, 1)
        return weights, ScoreTransform("binary", slope, float(rest[0])) if slope else ScoreTransform("binary")

    def with_odds(self, ensemble: ScoreTransform, odds: float) -> ScoreTransform:
        """See :class:`Objective`."""
        return ensemble if odds == 1 else replace(ensemble, offset=ensemble.offset + float(np.log(odds)))


class ClassObjective(Objective):
    """Cross-entropy of class logits; mean log-likelihood."""

    metric = "log_likelihood"
    output_dims = 2

    def target(self, y: np.ndarray) -> tuple[np.ndarray, ScoreTransform]:
        """See :class:`Objective`; the target is one-hot."""
        return np.eye(len(self.task.classes), dtype=np.float32)[y.astype(int)], ScoreTransform("multiclass")

    def losses(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """See :class:`Objective`."""
        import torch

        return -(torch.log_softmax(outputs, dim=-1) * target).sum(-1)

    def score(self, y: np.ndarray, scores: np.ndarray) -> float:
        """See :class:`Objective`."""
        return float(np.log(np.clip(scores[_of_true_class(y)], 1e-15, 1)).mean())

    def chance(self, y: np.ndarray) -> float:
        """See :class:`Objective`."""
        shares = np.bincount(y.astype(int)) / len(y)
        return float((shares[shares > 0] * np.log(shares[shares > 0])).sum())

    def mix(
        self, columns: np.ndarray, truth: Sequence[np.ndarray], scales: Sequence[ScoreTransform]
    ) -> tuple[np.ndarray, ScoreTransform]:
        """See :class:`Objective`."""
        columns, y = np.clip(columns, -30, 30), np.concatenate(truth)

        def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
            raised = columns @ at
            chances = np.exp(raised - raised.max(axis=1, keepdims=True))
            chances /= chances.sum(axis=1, keepdims=True)
            lost = -np.log(np.clip(chances[_of_true_class(y)], 1e-300, 1))
            chances[_of_true_class(y)] -= 1
            return float(lost.mean()), np.einsum("nc,nck->k", chances, columns) / len(y)

        weights, slope, _ = _likeliest(loss, columns.shape[-1], 0)
        return weights, ScoreTransform("multiclass", slope or 1.0)


class ValueObjective(Objective):
    """Squared error of the standardised value; R²."""

    metric = "r2"

    def target(self, y: np.ndarray) -> tuple[np.ndarray, ScoreTransform]:
        """See :class:`Objective`."""
        mean, spread = float(y.mean()), float(y.std()) or 1.0
        scale = ScoreTransform("regression", slope=spread, offset=mean, low=float(y.min()), high=float(y.max()))
        return ((y - mean) / spread).astype(np.float32), scale

    def learnt(self, y: np.ndarray) -> np.ndarray:
        """See :class:`Objective`; standardised as for the network."""
        return self.target(y)[0]

    def in_scale_of(self, y: np.ndarray, other: np.ndarray) -> np.ndarray:
        """See :class:`Objective`."""
        scale = self.target(y)[1]
        return (other - scale.offset) / scale.slope

    def losses(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """See :class:`Objective`."""
        from torch.nn import functional

        return functional.mse_loss(outputs, target, reduction="none")

    def score(self, y: np.ndarray, scores: np.ndarray) -> float:
        """See :class:`Objective`."""
        return 1 - float(np.square(scores - y).sum() / max(np.square(y - y.mean()).sum(), np.finfo(float).tiny))

    def chance(self, y: np.ndarray) -> float:
        """See :class:`Objective`."""
        return 0.0

    def mix(
        self, columns: np.ndarray, truth: Sequence[np.ndarray], scales: Sequence[ScoreTransform]
    ) -> tuple[np.ndarray, ScoreTransform]:
        """See :class:`Objective`; each fold is compared in its own scale."""
        wanted = [(y - scale.offset) / scale.slope for y, scale in zip(truth, scales, strict=True)]
        return _least_squares(columns, np.concatenate(wanted)), ScoreTransform("regression")

    def transform_of_fold(self, ensemble: ScoreTransform, scale: ScoreTransform) -> ScoreTransform:
        """See :class:`Objective`."""
        return scale


_OBJECTIVES: dict[TaskKind, Callable[[Task], Objective]] = {
    "binary": BinaryObjective,
    "multiclass": ClassObjective,
    "regression": ValueObjective,
}


def objective_of(task: Task) -> Objective:
    """Returns the objective of a target."""
    return _OBJECTIVES[task.kind](task)


def _least_squares(columns: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Convex weights ``[k]`` of ``columns`` ``[n, k]`` with the least squared error against ``wanted`` ``[n]``."""
    from scipy.optimize import minimize

    errors = columns - wanted[:, None]
    squares = errors.T @ errors / len(errors)
    squares /= np.trace(squares)
    k = len(squares)
    if k == 1:
        return np.ones(1)
    found = minimize(
        lambda w: float(w @ squares @ w), np.full(k, 1 / k), jac=lambda w: 2 * squares @ w, method="SLSQP",
        bounds=[(0, 1)] * k, constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, options={"ftol": 1e-12},
    )  # fmt: skip
    weights = np.clip(found.x, 0, None)
    return weights / weights.sum()


def _likeliest(
    loss: Callable[[np.ndarray], tuple[float, np.ndarray]], k: int, more: int
) -> tuple[np.ndarray, float, np.ndarray]:
    """Minimises a loss of k weights and of ``more`` further parameters.

    The optimiser works on the products of weights and slope. They are at least 0, and the problem is convex in them.

    Returns:
        The convex weights ``[k]``, the slope, and the further parameters. The slope is 0 if no column is predictive: a
        slope below 0 would reverse the ranking.
    """
    from scipy.optimize import minimize

    start = np.append(np.full(k, 1 / k), np.zeros(more))
    bounds = [(0, None)] * k + [(None, None)] * more
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    slope = float(found[:k].sum())
    if slope <= 0:
        return np.full(k, 1 / k), 0.0, found[k:]
    return found[:k] / slope, slope, found[k:]


def _of_true_class(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the entry of each row's true class."""
    return np.arange(len(y)), y.astype(int)

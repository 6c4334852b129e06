"""Estimates a model's performance from its own probabilities, before labels are known.

Belongs here: counts of probabilities that add up over days, and the metrics expected from them. Does not belong here:
the asset (``estimated_performance.py``), metrics with labels (``metrics``).

If a probability of p is right in a share p of all cases, the labels are known up to chance. They are drawn repeatedly,
and the metric is computed on each draw; accuracy and log loss are computed directly. The probabilities are first
recalibrated on folds and test rows of the version's training, which its fit had not seen. A change in the relation of
features and labels does not show in the probabilities, so the estimate cannot detect it until labels arrive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from assets.declaration import Model
from assets.task import Task

BINS, WIDEST = 600, 12.0
"""Probabilities are counted in bins of their logit from -12 to 12, so small probabilities have the same resolution."""
DRAWS = 200
ESTIMATED = {
    "binary": ("roc_auc", "average_precision", "brier"),
    "multiclass": ("roc_auc", "accuracy", "log_loss"),
    "regression": (),
}
"""Metrics that can be estimated from probabilities. Regression has none, because it predicts no probabilities."""


def is_estimated(model: Model) -> bool:
    """Returns whether the metric of a model's gate is estimated: for a stream, if :data:`ESTIMATED` has the metric."""
    return model.is_stream and model.gate.metric in ESTIMATED.get(model.task.kind, ())


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts of the probabilities of any number of rows.

    Args:
        n, expected: int64 and float64 ``[classes, BINS]`` (one class for a binary target): number of probabilities in a
            bin, and number of them expected to be right.
        top, surprise: expected sum over the rows and its variance, of correct top classes and of the log loss.
        rows: number of rows.
        bound: sum over the rows of the design effect of their labels.
    """

    n: np.ndarray
    expected: np.ndarray
    top: tuple[float, float] = (0.0, 0.0)
    surprise: tuple[float, float] = (0.0, 0.0)
    rows: int = 0
    bound: float = 0.0

    @classmethod
    def of(
        cls, scores: np.ndarray, calibration: Sequence[Mapping[str, float]] = (), label_effect: float = 1.0
    ) -> Tally:
        """Counts probabilities ``[n]`` or ``[n, classes]``; the reference profile has the other arguments."""
        columns = (scores[:, None] if scores.ndim == 1 else scores).astype(np.float64)
        n, expected = np.zeros((columns.shape[1], BINS), np.int64), np.zeros((columns.shape[1], BINS))
        for of_class, p in enumerate(columns.T):
            where = ((_logit(p) + WIDEST) * BINS / (2 * WIDEST)).astype(int).clip(0, BINS - 1)
            n[of_class] = np.bincount(where, minlength=BINS)
            expected[of_class] = np.bincount(where, weights=recalibrated(p, calibration), minlength=BINS)
        if columns.shape[1] == 1:
            return cls(n, expected, rows=len(columns), bound=label_effect * len(columns))
        best, logs = columns.max(axis=1), np.log(np.clip(columns, 1e-15, 1))
        entropy = -(columns * logs).sum(axis=1)
        spread = (columns * logs**2).sum(axis=1) - entropy**2
        return cls(
            n, expected, (float(best.sum()), float((best * (1 - best)).sum())),
            (float(entropy.sum()), float(spread.sum())), len(columns),
            label_effect * len(columns),
        )  # fmt: skip

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.n + other.n,
            self.expected + other.expected,
            (self.top[0] + other.top[0], self.top[1] + other.top[1]),
            (self.surprise[0] + other.surprise[0], self.surprise[1] + other.surprise[1]),
            self.rows + other.rows,
            self.bound + other.bound,
        )

    def to_json(self) -> dict[str, Any]:
        """The counts for JSON, without the empty bins."""
        filled = [np.flatnonzero(of_class) for of_class in self.n]
        return {
            "at": [at.tolist() for at in filled],
            "n": [self.n[i][at].tolist() for i, at in enumerate(filled)],
            "expected": [[float(f"{s:.9g}") for s in self.expected[i][at]] for i, at in enumerate(filled)],
            "top": self.top, "surprise": self.surprise, "rows": self.rows, "bound": self.bound,
        }  # fmt: skip

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Tally:
        """Restores the output of :meth:`to_json`."""
        n, expected = np.zeros((len(values["at"]), BINS), np.int64), np.zeros((len(values["at"]), BINS))
        for i, at in enumerate(values["at"]):
            n[i, at], expected[i, at] = values["n"][i], values["expected"][i]
        return cls(n, expected, tuple(values["top"]), tuple(values["surprise"]), values["rows"], values["bound"])


PRIOR = 0.5
"""Positives added to the observed and the expected ones of each calibration bin, so that 0 of few rows is not 0 %."""


def recalibrated(probabilities: np.ndarray, calibration: Sequence[Mapping[str, float]]) -> np.ndarray:
    """Recalibrates probabilities ``[n]`` by the shares of positives observed in training.

    Without calibration, they are unchanged. The correction is interpolated between the calibration bins in logits, and
    keeps the order of the probabilities.
    """
    if not calibration:
        return probabilities
    from sklearn.isotonic import IsotonicRegression

    predicted, observed, rows = (np.array([bin_[name] for bin_ in calibration]) for name in ("said", "was", "rows"))
    corrected = predicted * (observed * rows + PRIOR) / (predicted * rows + PRIOR)
    corrected = IsotonicRegression().fit_transform(predicted, corrected, sample_weight=rows)
    order = np.argsort(predicted, kind="stable")
    # Beyond the first and last bin, the shift of that bin applies.
    shift = np.interp(_logit(probabilities), _logit(predicted[order]), (_logit(corrected) - _logit(predicted))[order])
    return np.asarray(1 / (1 + np.exp(-_logit(probabilities) - shift)))


def _logit(p: np.ndarray) -> np.ndarray:
    inside = np.clip(p, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(inside / (1 - inside)))


@dataclass(frozen=True)
class PerformanceEstimate:
    """An expected metric and its 95 % interval, which covers chance in the labels but not in the calibration."""

    value: float
    low: float
    high: float


def estimate(task: Task, metric: str, tally: Tally, *, seed: int = 0) -> PerformanceEstimate | None:
    """Estimates a metric before the labels are known, assuming that the recalibrated probabilities are right.

    The interval is wider than for independent labels by the square root of their design effect. The cost of an estimate
    does not depend on the number of rows.

    Args:
        task: the kind of target.
        metric: name of the metric.
        tally: counts of the probabilities.
        seed: seed of the label draws.

    Returns:
        The estimate; ``None`` if the metric does not follow from probabilities, or the rows do not allow it.
    """
    if metric not in ESTIMATED[task.kind] or not tally.rows:
        return None
    wider = float(np.sqrt(tally.bound / tally.rows))
    if metric in ("accuracy", "log_loss"):
        total, variance = tally.top if metric == "accuracy" else tally.surprise
        value, error = total / tally.rows, wider * 1.96 * float(np.sqrt(variance)) / tally.rows
        return PerformanceEstimate(value, max(value - error, 0.0), value + error)
    rng = np.random.default_rng(seed)
    drawn = [_of_a_draw(metric, tally, rng) for _ in range(DRAWS)]
    known = [value for value in drawn if not np.isnan(value)]
    if not known:
        return None
    value = float(np.mean(known))
    low, high = value + wider * (np.quantile(known, [0.025, 0.975]) - value)
    return PerformanceEstimate(value, max(float(low), 0.0), min(float(high), 1.0))


def _of_a_draw(metric: str, tally: Tally, rng: np.random.Generator) -> float:
    values = []
    for n, expected in zip(tally.n, tally.expected, strict=True):
        filled = np.flatnonzero(n)[::-1]  # the highest probability first
        n_, p = n[filled], np.clip(expected[filled] / n[filled], 0, 1)
        positive = rng.binomial(n_, p)
        values.append(_METRICS[metric](positive, n_ - positive, p))
    return float(np.mean(values))


def _roc_auc(positive: np.ndarray, negative: np.ndarray, _: np.ndarray) -> float:
    if not positive.sum() or not negative.sum():
        return float("nan")
    below = negative.sum() - np.cumsum(negative)
    return float((positive * (below + negative / 2)).sum() / (positive.sum() * negative.sum()))


def _average_precision(positive: np.ndarray, negative: np.ndarray, _: np.ndarray) -> float:
    if not positive.sum():
        return float("nan")
    found, looked_at = np.cumsum(positive), np.cumsum(positive + negative)
    return float((positive * found / looked_at).sum() / positive.sum())


def _brier(positive: np.ndarray, negative: np.ndarray, p: np.ndarray) -> float:
    return float((positive * (1 - p) ** 2 + negative * p**2).sum() / (positive + negative).sum())


_METRICS = {"roc_auc": _roc_auc, "average_precision": _average_precision, "brier": _brier}

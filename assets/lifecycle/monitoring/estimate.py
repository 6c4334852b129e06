"""How well a model does by its own probabilities, before any label is known.

Belongs here: counts of probabilities that add up over days, and the metrics expected of them. Does not belong here: the
asset (``monitoring.py``), metrics with labels (``metrics``).

If a probability of p is right in p of all cases, then what the labels will be is known up to chance: they are drawn
again and again, and the metric of each draw is taken. How often it was right is known from folds and test rows of the
version's training, which its fit had not seen; that is held against what is said now. A change of what the features
mean shows in no probability; the estimate is blind to it until labels come.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from assets.task import Task

BINS, WIDEST = 600, 12.0
"""Probabilities are counted by their logit, between ∓12: as finely among rare frauds as anywhere."""
DRAWS = 200
ESTIMATED = {
    "binary": ("roc_auc", "average_precision", "brier"),
    "multiclass": ("roc_auc", "accuracy", "log_loss"),
    "regression": (),
}
"""Metrics that follow from probabilities. What is measured comes without any, so there is nothing to estimate."""


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts of probabilities, of any number of rows.

    Args:
        n, expected: int64 and float64 ``[classes, BINS]`` (one class for two): how many probabilities fell into a bin,
            and how many of them will be right.
        top, surprise: sum and variance over the rows of the largest probability being right, and of the log loss.
        rows: how many rows.
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
        """That of probabilities ``[n]`` or ``[n, classes]``; the rest as the reference profile has it."""
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
        """Its numbers; most bins are empty."""
        filled = [np.flatnonzero(of_class) for of_class in self.n]
        return {
            "at": [at.tolist() for at in filled],
            "n": [self.n[i][at].tolist() for i, at in enumerate(filled)],
            "expected": [[float(f"{s:.9g}") for s in self.expected[i][at]] for i, at in enumerate(filled)],
            "top": self.top, "surprise": self.surprise, "rows": self.rows, "bound": self.bound,
        }  # fmt: skip

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Tally:
        """What :meth:`to_json` gave."""
        n, expected = np.zeros((len(values["at"]), BINS), np.int64), np.zeros((len(values["at"]), BINS))
        for i, at in enumerate(values["at"]):
            n[i, at], expected[i, at] = values["n"][i], values["expected"][i]
        return cls(n, expected, tuple(values["top"]), tuple(values["surprise"]), values["rows"], values["bound"])


PRIOR = 0.5
"""Positives that a bin of the calibration is taken to have had as they were expected: none of few is not never."""


def recalibrated(probabilities: np.ndarray, calibration: Sequence[Mapping[str, float]]) -> np.ndarray:
    """What probabilities ``[n]`` were when a version said so before; as they are where nothing is known.

    Between the bins of the calibration it is interpolated in logits, never against the order.
    """
    if not calibration:
        return probabilities
    from sklearn.isotonic import IsotonicRegression

    said, was, rows = (np.array([bin_[name] for bin_ in calibration]) for name in ("said", "was", "rows"))
    right = said * (was * rows + PRIOR) / (said * rows + PRIOR)
    right = IsotonicRegression().fit_transform(said, right, sample_weight=rows)
    rising = np.argsort(said, kind="stable")
    # Beyond the ends the shift of the end holds.
    shift = np.interp(_logit(probabilities), _logit(said[rising]), (_logit(right) - _logit(said))[rising])
    return np.asarray(1 / (1 + np.exp(-_logit(probabilities) - shift)))


def _logit(p: np.ndarray) -> np.ndarray:
    inside = np.clip(p, 1e-9, 1 - 1e-9)
    return np.asarray(np.log(inside / (1 - inside)))


@dataclass(frozen=True)
class Estimate:
    """A metric as expected, and where 95 % would lie: by chance in the labels, that of the calibration not counted."""

    value: float
    low: float
    high: float


def estimate(task: Task, metric: str, tally: Tally, *, seed: int = 0) -> Estimate | None:
    """The metric that the labels will give if the probabilities are right; ``None`` where it does not follow from them.

    The interval is as much wider than that of independent labels as their design effect says. Cost does not depend on
    the rows.
    """
    if metric not in ESTIMATED[task.kind] or not tally.rows:
        return None
    wider = float(np.sqrt(tally.bound / tally.rows))
    if metric in ("accuracy", "log_loss"):
        total, variance = tally.top if metric == "accuracy" else tally.surprise
        value, error = total / tally.rows, wider * 1.96 * float(np.sqrt(variance)) / tally.rows
        return Estimate(value, max(value - error, 0.0), value + error)
    rng = np.random.default_rng(seed)
    drawn = [_of_a_draw(metric, tally, rng) for _ in range(DRAWS)]
    known = [value for value in drawn if not np.isnan(value)]
    if not known:
        return None
    value = float(np.mean(known))
    low, high = value + wider * (np.quantile(known, [0.025, 0.975]) - value)
    return Estimate(value, max(float(low), 0.0), min(float(high), 1.0))


def _of_a_draw(metric: str, tally: Tally, rng: np.random.Generator) -> float:
    values = []
    for n, expected in zip(tally.n, tally.expected, strict=True):
        filled = np.flatnonzero(n)[::-1]  # the surest first
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

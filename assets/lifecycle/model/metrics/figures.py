"""The metrics of each kind of target, as functions of cluster weights.

Belongs here: the metrics of one score on all test rows or within a slice. Does not belong here: intervals
(``intervals.py``), the other contents of the report (``evaluate.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from assets.lifecycle.model.metrics.calibration import saved
from assets.lifecycle.model.metrics.ranking import Ranking
from assets.lifecycle.model.metrics.reviews import Reviews
from assets.metrics import gate_metrics
from assets.task import Task

ALERT_SHARES = {"0.5pct": 0.005, "1pct": 0.01}
"""Shares of rows alerted, highest scores first, for precision and recall at a fixed review effort."""


@dataclass(frozen=True)
class Rows:
    """The test rows as arrays ``[n]``; ``cluster`` holds codes 0, 1, … of rows that are drawn together."""

    task: Task
    y: np.ndarray
    cluster: np.ndarray
    clusters: int
    day: np.ndarray | None = None
    amount: np.ndarray | None = None
    review_cost: float = 0.0
    top_k: int | None = None

    def only(self, rows: np.ndarray) -> Rows:
        """Returns the rows where ``rows`` (bool ``[n]``) is True, with clusters renumbered."""
        present, cluster = np.unique(self.cluster[rows], return_inverse=True)
        return Rows(
            task=self.task,
            y=self.y[rows],
            cluster=cluster,
            clusters=len(present),
            day=None if self.day is None else self.day[rows],
            amount=None if self.amount is None else self.amount[rows],
            review_cost=self.review_cost,
            top_k=self.top_k,
        )

    def reviews_of(self, p: np.ndarray) -> Reviews | None:
        """Returns the daily review lists by scores ``p`` ``[n]``; None without time or entity, or for other targets."""
        if self.day is None or self.top_k is None or self.task.kind != "binary":
            return None
        return Reviews.of(self.day, self.cluster, self.y, p, self.top_k)

    def by_cluster(self, value: np.ndarray) -> np.ndarray:
        """Returns the sum of ``value`` ``[n]`` over the rows of each cluster, ``[clusters]``."""
        return np.bincount(self.cluster, value, minlength=self.clusters)

    @property
    def positives(self) -> int | None:
        """Number of positive rows; None if the target is not binary."""
        return int(self.y.sum()) if self.task.kind == "binary" else None


class Figures(NamedTuple):
    """Metrics of one score on some rows, as a function of cluster weights ``[clusters]``; undefined ones are NaN."""

    rows: int
    positives: int | None
    compute: Callable[[np.ndarray], dict[str, float]]


def figures_of(rows: Rows, score: np.ndarray) -> Figures:
    """Returns all metrics of a score (``[n]`` or ``[n, classes]``) on all rows, by the kind of target."""
    return {"binary": _binary, "multiclass": _multiclass, "regression": _regression}[rows.task.kind](rows, score)


def figures_within(rows: Rows, score: np.ndarray, part: np.ndarray) -> Figures:
    """Returns the metrics of a score within a slice of the rows; ``part`` is bool ``[n]``."""
    if rows.task.kind == "binary":
        return _binary_part(rows, score, part)
    inside = Rows(task=rows.task, y=rows.y[part], cluster=rows.cluster[part], clusters=rows.clusters)
    return figures_of(inside, score[part])


def headline(task: Task, y: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """Returns the gate's metrics that need only the target and the scores, without intervals; NaN where undefined.

    Args:
        task: the kind of target.
        y: ``[n]``, class codes or measured values.
        score: ``[n]``, or ``[n, classes]``.
    """
    if task.kind == "binary" and not 0 < y.sum() < len(y):
        return dict.fromkeys(("average_precision", "roc_auc", "brier"), math.nan)
    if len(y) == 0:
        return {}
    rows = Rows(task=task, y=y, cluster=np.arange(len(y)), clusters=len(y))
    figures = figures_of(rows, score).compute(np.ones(len(y)))
    return {name: figures[name] for name in gate_metrics(task.kind) if name in figures}


def _binary(rows: Rows, p: np.ndarray) -> Figures:
    ranking, reviews = Ranking.of(rows.y, p, rows.cluster), rows.reviews_of(p)
    count, squared_error = rows.by_cluster(np.ones(len(p))), rows.by_cluster((p - rows.y) ** 2)
    money = None
    if rows.amount is not None:
        cost = rows.review_cost
        gain, best = (saved(rows.y, q, rows.amount, cost) for q in (p, rows.y))
        money = [rows.by_cluster(value) for value in (gain, best, p * rows.amount > cost)]

    def compute(weight: np.ndarray) -> dict[str, float]:
        curve = ranking.curve(weight)
        figures = {
            "average_precision": curve.average_precision,
            "roc_auc": curve.roc_auc,
            "brier": float(weight @ squared_error / (weight @ count)),
        }
        for name, share in ALERT_SHARES.items():
            figures[f"precision_at_{name}"] = curve.precision_at(share)
            figures[f"recall_at_{name}"] = curve.recall_at(share)
        if reviews is not None:
            figures["cp_at_k"] = float(reviews.by_day(weight).mean())
        if money is not None:
            gain, best, alerts = (float(weight @ value) for value in money)
            figures |= {
                "saved": gain,
                "saved_share": gain / best if best else math.nan,
                "alert_rate": alerts / float(weight @ count),
            }
        return figures

    return Figures(len(p), int(rows.y.sum()), compute)


def _binary_part(rows: Rows, p: np.ndarray, part: np.ndarray) -> Figures:
    """A slice's ranking metrics, and its recall when the highest 1 % of *all* rows are alerted."""
    ranking = Ranking.of(rows.y[part], p[part], rows.cluster[part])
    alerted = p > np.quantile(p, 1 - ALERT_SHARES["1pct"])
    positives, hits = rows.by_cluster(rows.y * part), rows.by_cluster(rows.y * (part & alerted))

    def compute(weight: np.ndarray) -> dict[str, float]:
        curve, positive = ranking.curve(weight), float(weight @ positives)
        # Without negatives the average precision is 1 for any scores, so it is left out.
        ordered = 0 < curve.hits[-1] < curve.alerts[-1]
        return {
            "average_precision": curve.average_precision if ordered else math.nan,
            "roc_auc": curve.roc_auc,
            "recall_at_1pct": float(weight @ hits) / positive if positive else math.nan,
        }

    return Figures(int(part.sum()), int(rows.y[part].sum()), compute)


def _multiclass(rows: Rows, p: np.ndarray) -> Figures:
    """Accuracy, recall averaged over classes, log loss, and one-vs-rest ROC AUC averaged over classes."""
    codes, predicted = rows.y.astype(int), p.argmax(axis=1)
    present = np.unique(codes)
    count = rows.by_cluster(np.ones(len(codes)))
    right = rows.by_cluster((predicted == codes).astype(float))
    surprise = rows.by_cluster(-np.log(np.clip(p[np.arange(len(codes)), codes], 1e-15, 1)))
    of_class = [
        (rows.by_cluster(1.0 * (codes == k)), rows.by_cluster(1.0 * ((codes == k) & (predicted == k)))) for k in present
    ]
    rankings = [Ranking.of((codes == k).astype(float), p[:, k], rows.cluster) for k in present]

    def compute(weight: np.ndarray) -> dict[str, float]:
        total = float(weight @ count)
        recalls = [float(weight @ hits / (weight @ all_)) for all_, hits in of_class if weight @ all_]
        areas = [area for ranking in rankings if math.isfinite(area := ranking.curve(weight).roc_auc)]
        return {
            "accuracy": float(weight @ right) / total if total else math.nan,
            "balanced_accuracy": float(np.mean(recalls)) if recalls else math.nan,
            "roc_auc": float(np.mean(areas)) if areas else math.nan,
            "log_loss": float(weight @ surprise) / total if total else math.nan,
        }

    return Figures(len(codes), None, compute)


def _regression(rows: Rows, predicted: np.ndarray) -> Figures:
    centred = rows.y - rows.y.mean() if len(rows.y) else rows.y  # avoids cancellation with large values
    error = predicted - rows.y
    sums = [rows.by_cluster(value) for value in (np.ones(len(error)), centred, centred**2, error**2, np.abs(error))]

    def compute(weight: np.ndarray) -> dict[str, float]:
        n, first, second, squared, absolute = (float(weight @ value) for value in sums)
        spread = second - first * first / n if n else 0.0
        return {
            "r2": 1 - squared / spread if spread > 0 else math.nan,
            "rmse": math.sqrt(squared / n) if n else math.nan,
            "mae": absolute / n if n else math.nan,
        }

    return Figures(len(error), None, compute)

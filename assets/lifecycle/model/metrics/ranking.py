"""Ranking metrics, computed from one curve that supports row weights.

A bootstrap draw therefore takes one gather and two cumulative sums, and the same code computes a value and its
interval. (scikit-learn sorts at every call: AUC and AP of 70,000 weighted rows take 22 ms there and .7 ms here. The
tests compare these metrics with scikit-learn's.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Curve(NamedTuple):
    """Cumulative alerts and hits as the threshold falls from above the highest score to the lowest.

    Attributes:
        alerts: weight of the rows at or above each distinct score, ``[distinct + 1]``, starting with 0.
        hits: weight of the positive rows among them, ``[distinct + 1]``.
    """

    alerts: np.ndarray
    hits: np.ndarray

    @property
    def average_precision(self) -> float:
        """Mean, over the positives, of the precision at the score of each; NaN without positives."""
        alerts, hits = self
        if not hits[-1]:
            return math.nan
        precision = hits[1:] / np.maximum(alerts[1:], np.finfo(float).tiny)  # leading rows may have weight 0
        return float(np.diff(hits) @ precision / hits[-1])

    @property
    def roc_auc(self) -> float:
        """Probability that a positive scores above a negative; ties count half; NaN if a class is absent."""
        false = self.alerts - self.hits
        if not (self.hits[-1] and false[-1]):
            return math.nan
        return float(np.diff(false) @ (self.hits[1:] + self.hits[:-1]) / 2 / (self.hits[-1] * false[-1]))

    def hits_at(self, share: float) -> float:
        """Weight of the positives in the highest ``share`` of the rows; a tie at the boundary counts in proportion."""
        return float(np.interp(share * self.alerts[-1], self.alerts, self.hits))

    def precision_at(self, share: float) -> float:
        """Share of positives in the highest ``share`` of the rows; NaN without rows."""
        return self.hits_at(share) / (share * self.alerts[-1]) if self.alerts[-1] else math.nan

    def recall_at(self, share: float) -> float:
        """Share of all positives that are in the highest ``share`` of the rows; NaN without positives."""
        return self.hits_at(share) / float(self.hits[-1]) if self.hits[-1] else math.nan


@dataclass(frozen=True)
class Ranking:
    """Rows sorted once by descending score; rows of equal score form one step, so the input order does not matter."""

    weighed_by: np.ndarray
    ends: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, y: np.ndarray, p: np.ndarray, cluster: np.ndarray | None = None) -> Ranking:
        """Ranks labels by scores.

        Args:
            y: labels (0/1), ``[n]``.
            p: finite scores, ``[n]``.
            cluster: cluster codes 0, 1, … of rows that share a weight, ``[n]``; default: one weight per row.
        """
        order = np.argsort(-np.asarray(p, np.float64), kind="stable")
        ranked = np.asarray(p)[order]
        ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1) if len(ranked) else order
        return cls(order if cluster is None else cluster[order], ends, np.asarray(y, np.float64)[order])

    def curve(self, weight: np.ndarray | None = None) -> Curve:
        """Returns the curve for non-negative cluster weights ``[clusters]`` (default: all 1)."""
        ranked = np.ones(len(self.labels)) if weight is None else weight[self.weighed_by]
        alerts, hits = np.cumsum(ranked), np.cumsum(ranked * self.labels)
        if len(self.ends) < len(ranked):
            alerts, hits = alerts[self.ends], hits[self.ends]
        return Curve(np.concatenate(([0.0], alerts)), np.concatenate(([0.0], hits)))


def roc_auc(y: np.ndarray, p: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Returns the area under the ROC curve of labels, scores and row weights ``[n]``; see :class:`Curve`."""
    return Ranking.of(y, p).curve(weight).roc_auc


def average_precision(y: np.ndarray, p: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Returns average precision (no interpolation) of labels, scores and row weights ``[n]``; see :class:`Curve`."""
    return Ranking.of(y, p).curve(weight).average_precision

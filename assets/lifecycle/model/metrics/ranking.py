"""Figures that follow from the order of the scores, read off one curve that takes row weights.

A bootstrap draw is then one gather and two cumulative sums, and a point and its interval come from the same lines of
code. (scikit-learn sorts anew at every call: AUC and AP of 70,000 weighted rows cost it 22 ms, here .7 ms; the tests
hold these figures against its own.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Curve(NamedTuple):
    """What is alerted and what is hit as the threshold falls, from nothing to everything.

    Attributes:
        alerts: weight of the rows at or above each distinct score, ``[distinct + 1]``, starting with 0.
        hits: weight of the positive rows among them.
    """

    alerts: np.ndarray
    hits: np.ndarray

    @property
    def average_precision(self) -> float:
        """Mean over the positives of the precision where each is found; NaN without positives."""
        alerts, hits = self
        if not hits[-1]:
            return math.nan
        precision = hits[1:] / np.maximum(alerts[1:], np.finfo(float).tiny)  # leading rows may weigh nothing
        return float(np.diff(hits) @ precision / hits[-1])

    @property
    def roc_auc(self) -> float:
        """Chance that a positive scores above a negative, ties as half; NaN where a class is absent."""
        false = self.alerts - self.hits
        if not (self.hits[-1] and false[-1]):
            return math.nan
        return float(np.diff(false) @ (self.hits[1:] + self.hits[:-1]) / 2 / (self.hits[-1] * false[-1]))

    def hits_at(self, share: float) -> float:
        """Weight of positives among the highest ``share`` of the rows; a tie on the border counts in proportion."""
        return float(np.interp(share * self.alerts[-1], self.alerts, self.hits))

    def precision_at(self, share: float) -> float:
        """Share of positives among the highest ``share`` of the rows."""
        return self.hits_at(share) / (share * self.alerts[-1]) if self.alerts[-1] else math.nan

    def recall_at(self, share: float) -> float:
        """Share of the positives that are among the highest ``share`` of the rows; NaN without positives."""
        return self.hits_at(share) / float(self.hits[-1]) if self.hits[-1] else math.nan


@dataclass(frozen=True)
class Ranking:
    """Rows in falling order of score, sorted once; rows of one score are one step, so row order never matters."""

    weighed_by: np.ndarray
    ends: np.ndarray
    labels: np.ndarray

    @classmethod
    def of(cls, y: np.ndarray, p: np.ndarray, cluster: np.ndarray | None = None) -> Ranking:
        """Rank labels ``y`` (0/1, ``[n]``) by scores ``p`` (``[n]``, finite).

        Args:
            cluster: codes 0, 1, … of the rows that share a weight, ``[n]``; default: each row has its own.
        """
        order = np.argsort(-np.asarray(p, np.float64), kind="stable")
        ranked = np.asarray(p)[order]
        ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1) if len(ranked) else order
        return cls(order if cluster is None else cluster[order], ends, np.asarray(y, np.float64)[order])

    def curve(self, weight: np.ndarray | None = None) -> Curve:
        """The curve with weights ``weight`` of the clusters (not negative; default: all 1)."""
        ranked = np.ones(len(self.labels)) if weight is None else weight[self.weighed_by]
        alerts, hits = np.cumsum(ranked), np.cumsum(ranked * self.labels)
        if len(self.ends) < len(ranked):
            alerts, hits = alerts[self.ends], hits[self.ends]
        return Curve(np.concatenate(([0.0], alerts)), np.concatenate(([0.0], hits)))


def roc_auc(y: np.ndarray, p: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Area under the ROC curve; see :class:`Curve`."""
    return Ranking.of(y, p).curve(weight).roc_auc


def average_precision(y: np.ndarray, p: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Average precision (no interpolation); see :class:`Curve`."""
    return Ranking.of(y, p).curve(weight).average_precision

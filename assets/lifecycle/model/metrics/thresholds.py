"""What alerts cost and find, by the threshold at which they begin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

POINTS = 120
"""Number of thresholds on the curve."""


@dataclass(frozen=True)
class Thresholds:
    """Alerts by threshold, ``[points]`` each, in rising order of the threshold.

    Attributes:
        by: what is compared with the threshold: ``expected amount`` (probability · amount) or ``probability``.
        chosen: threshold that the version uses: the review cost, or the threshold selected on the folds.
        review_cost: cost of an alert; None without an amount.
        threshold: the thresholds.
        alert_rate: share of rows alerted.
        precision: share of positives among the alerts; None where nothing is alerted.
        recall: share of the positives that are alerted.
        f1: harmonic mean of precision and recall.
        saved: amount of the positives alerted minus the cost of all alerts; empty without an amount.
    """

    by: str
    chosen: float
    review_cost: float | None
    threshold: list[float]
    alert_rate: list[float]
    precision: list[float | None]
    recall: list[float]
    f1: list[float]
    saved: list[float]


def thresholds(
    y: np.ndarray, p: np.ndarray, *, chosen: float, amount: np.ndarray | None = None, review_cost: float | None = None
) -> Thresholds:
    """Computes the curve on rows with both classes.

    Args:
        y: labels (0/1), ``[n]``.
        p: probabilities, ``[n]``.
        chosen: the threshold that the version uses.
        amount: amount of each row, ``[n]``; with ``review_cost``, a row is alerted above a threshold of
            probability · amount, otherwise at or above a threshold of the probability.
        review_cost: cost of one alert.
    """
    in_money = amount is not None and review_cost is not None
    value = p * amount if amount is not None and in_money else np.asarray(p, float)
    order = np.argsort(-value, kind="stable")
    hits = np.concatenate([[0.0], np.cumsum(y[order])])
    gain = np.zeros(len(y) + 1)
    if amount is not None and review_cost is not None:
        gain[1:] = np.cumsum((y * amount - review_cost)[order])
    at = np.unique(np.append(np.quantile(value, 1 - np.append(0, np.geomspace(1 / len(y), 1, POINTS))), chosen))
    # Number of alerts: strictly above an amount, as in Bundle.alerts, and at or above a probability.
    n = np.searchsorted(-value[order], -at, side="left" if in_money else "right")
    recall = hits[n] / max(hits[-1], 1)
    precision = np.divide(hits[n], n, out=np.full(len(n), np.nan), where=n > 0)
    f1 = 2 * hits[n] / np.maximum(n + hits[-1], 1)
    return Thresholds(
        by="expected amount" if in_money else "probability",
        chosen=float(chosen),
        review_cost=review_cost if in_money else None,
        threshold=at.tolist(),
        alert_rate=(n / len(y)).tolist(),
        precision=[None if np.isnan(one) else float(one) for one in precision],
        recall=recall.tolist(),
        f1=f1.tolist(),
        saved=gain[n].tolist() if in_money else [],
    )

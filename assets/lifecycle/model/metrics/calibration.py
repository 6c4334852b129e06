"""Calibration and cost metrics: reliability of probabilities, and the money that alerts save."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Bin(NamedTuple):
    """Rows of similar probability. ``low`` and ``high`` are the Wilson 95 % interval of the observed rate."""

    rows: int
    predicted: float
    observed: float
    low: float
    high: float


def reliability(y: np.ndarray, p: np.ndarray, bins: int = 10) -> list[Bin]:
    """Compares predicted and observed rates in bins, in rising order of probability.

    Bins hold equal shares of the *expected positives* (the sum of p), not of the rows. With one positive in a hundred,
    bins of equal numbers of rows would put nearly all positives into the last bin. Rows of equal probability share a
    bin.

    Args:
        y: labels (0/1), ``[n]``.
        p: probabilities, ``[n]``.
        bins: maximum number of bins.
    """
    p, y = np.asarray(p, np.float64), np.asarray(y, np.float64)
    found = []
    for rows in _bins(p, bins):
        n, rate = len(rows), float(y[rows].mean())
        z = 1.96
        centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
        found.append(Bin(n, float(p[rows].mean()), rate, max(centre - half, 0.0), min(centre + half, 1.0)))
    return found


def _bins(p: np.ndarray, bins: int = 10) -> list[np.ndarray]:
    """Positions of the rows of each bin, by rising probability."""
    order = np.argsort(p, kind="stable")
    ranked = np.asarray(p, np.float64)[order]
    last_of_its_kind = np.searchsorted(ranked, ranked, side="right") - 1
    expected = np.cumsum(ranked)[last_of_its_kind]
    number = np.minimum((expected / max(expected[-1], np.finfo(float).tiny) * bins).astype(int), bins - 1)
    return np.split(order, np.flatnonzero(np.diff(number)) + 1)


class CalibrationError(NamedTuple):
    """The expected calibration error, and the value that calibrated probabilities exceed in 5 % of the cases."""

    error: float
    by_chance: float


def calibration_error(y: np.ndarray, p: np.ndarray, *, draws: int = 200, seed: int = 0) -> CalibrationError:
    """Computes the expected calibration error (ECE): the mean of |predicted − observed| over bins, weighted by rows.

    The bins are those of :func:`reliability`. On few rows the error is above zero even if the probabilities are exactly
    right, so labels are also drawn from the probabilities themselves (consistency resampling: Bröcker and Smith, 2007).

    Args:
        y: labels (0/1), ``[n]``. Classes: whether the most probable class is the true one.
        p: probabilities, ``[n]``. Classes: the highest probability.
        draws: number of draws of the labels.
        seed: of the draws.
    """
    bins = _bins(p)
    number = np.empty(len(p), dtype=int)
    for i, rows in enumerate(bins):
        number[rows] = i
    predicted = np.bincount(number, p)

    def error(labels: np.ndarray) -> float:
        return float(np.abs(np.bincount(number, labels) - predicted).sum() / len(p))

    rng = np.random.default_rng(seed)
    by_chance = [error((rng.random(len(p)) < p).astype(float)) for _ in range(draws)]
    return CalibrationError(error(np.asarray(y, np.float64)), float(np.quantile(by_chance, 0.95)))


def saved(y: np.ndarray, p: np.ndarray, amount: np.ndarray, review_cost: float) -> np.ndarray:
    """Returns the money saved on each row, ``[n]``, in the unit of ``amount``; a row without an alert saves 0.

    A row is alerted if p · amount > ``review_cost``, which is optimal for a calibrated p. An alert costs
    ``review_cost`` and saves the amount of a positive row. ``p = y`` gives the oracle.
    """
    return np.where(p * amount > review_cost, y * amount - review_cost, 0.0)

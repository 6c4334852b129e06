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
    order = np.argsort(p, kind="stable")
    p, y = np.asarray(p, np.float64)[order], np.asarray(y, np.float64)[order]
    last_of_its_kind = np.searchsorted(p, p, side="right") - 1
    expected = np.cumsum(p)[last_of_its_kind]
    number = np.minimum((expected / max(expected[-1], np.finfo(float).tiny) * bins).astype(int), bins - 1)
    found = []
    for rows in np.split(np.arange(len(p)), np.flatnonzero(np.diff(number)) + 1):
        n, rate = len(rows), float(y[rows].mean())
        z = 1.96
        centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
        found.append(Bin(n, float(p[rows].mean()), rate, max(centre - half, 0.0), min(centre + half, 1.0)))
    return found


def saved(y: np.ndarray, p: np.ndarray, amount: np.ndarray, review_cost: float) -> np.ndarray:
    """Returns the money saved on each row, ``[n]``, in the unit of ``amount``; a row without an alert saves 0.

    A row is alerted if p · amount > ``review_cost``, which is optimal for a calibrated p. An alert costs
    ``review_cost`` and saves the amount of a positive row. ``p = y`` gives the oracle.
    """
    return np.where(p * amount > review_cost, y * amount - review_cost, 0.0)

"""Prediction intervals by split conformal prediction (Vovk et al., 2005; Lei et al., 2018).

The error of a forecast is divided by the recent spread of its series. Quantiles of these on validation rows, which the
model was not fitted on, give the ends of the interval. So a restless series has wider intervals than a calm one.

Belongs here: the quantiles, and the ends of an interval. Does not belong here: the check of the coverage
(``evaluation.py``).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Intervals:
    """What the ends of an interval are computed from.

    Args:
        coverage: share of true values that an interval shall contain.
        low, high: quantiles of the scaled errors (truth minus prediction).
        floor: smallest spread that an error is divided by.
        typical: spread where the series has none yet.
        rows: number of errors that the quantiles are of.
    """

    coverage: float
    low: float
    high: float
    floor: float
    typical: float
    rows: int

    @classmethod
    def fit(cls, truth: np.ndarray, predicted: np.ndarray, spread: np.ndarray, coverage: float) -> Intervals:
        """Returns the intervals of errors on validation rows.

        Args:
            truth, predicted: ``[n]``, at least one row, in the target's unit.
            spread: recent standard deviation of the series, ``[n]``; NaN where it is not known.
            coverage: share of true values that an interval shall contain.
        """
        known = spread[np.isfinite(spread) & (spread > 0)]
        typical = float(np.median(known)) if len(known) else 1.0
        blank = cls(coverage, 0.0, 0.0, typical / 20, typical, len(truth))
        scaled = np.sort((truth - predicted) / blank.scale(spread))
        n = len(scaled)
        # The (n + 1)-th error is a new one's, so that the share holds for few rows, too.
        above = min(n, math.ceil((n + 1) * (1 + coverage) / 2)) - 1
        return cls(coverage, float(scaled[n - 1 - above]), float(scaled[above]), typical / 20, typical, n)

    def scale(self, spread: np.ndarray) -> np.ndarray:
        """What an error is divided by, float64 ``[n]``."""
        return np.maximum(np.where(np.isfinite(spread), spread, self.typical), self.floor)

    def ends(self, predicted: np.ndarray, spread: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the lower and the upper ends, float64 ``[n]`` each, in the target's unit."""
        scale = self.scale(spread)
        return predicted + self.low * scale, predicted + self.high * scale

    def to_dict(self) -> dict[str, Any]:
        """Returns the values for JSON; ``Intervals(**values)`` is the same again."""
        return asdict(self)


@dataclass(frozen=True)
class Coverage:
    """The share of true values that lie within their intervals.

    Args:
        wanted: the declared share.
        share: mean over the days of the share of a day.
        error: standard error of that mean; errors of one day are alike, so the days are counted and not the rows.
        days: number of days.
        width: mean width of the intervals, in the target's unit.
    """

    wanted: float
    share: float
    error: float
    days: int
    width: float

    @classmethod
    def of(cls, truth: np.ndarray, low: np.ndarray, high: np.ndarray, day: np.ndarray, wanted: float) -> Coverage:
        """Measures the coverage of rows ``[n]``, at least one."""
        inside = (truth >= low) & (truth <= high)
        _, codes = np.unique(day, return_inverse=True)
        by_day = np.bincount(codes, inside) / np.bincount(codes)
        error = float(by_day.std(ddof=1) / math.sqrt(len(by_day))) if len(by_day) > 1 else math.inf
        return cls(wanted, float(by_day.mean()), error, len(by_day), float((high - low).mean()))

    @property
    def is_short(self) -> bool:
        """Whether the share is below the declared one by more than .02 and by more than chance."""
        return self.share + 2 * self.error < self.wanted - 0.02

    def __str__(self) -> str:
        return (
            f"{self.share:.1%} of the true values lie within their intervals, {self.wanted:.0%} are wanted "
            f"(± {2 * self.error:.1%}, {self.days} days); mean width {self.width:.4g}"
        )

"""Histograms of a column in the reference's bins: counts add up exactly over batches and days.

Belongs here: bins, counting, adding, and the two-sample tests on counts. Does not belong here: the choice of columns,
limits and verdicts (``drift_rule.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

MOST_EDGES = 256
"""Maximum edges of a numeric column: the distance of two distribution functions is exact to 1/256 of the reference."""
FEW_VALUES = 10
"""A column with at most this many distinct values in the reference is compared as categories."""

BinKind = Literal["number", "category"]


@dataclass(frozen=True, eq=False)
class Bins:
    """The bins of a column.

    Args:
        kind: ``number`` has bins between edges, ``category`` has one bin for each known value.
        edges: float64, ascending. Numbers: bin ``i`` is ``(edges[i-1], edges[i]]``; the first and last bins are open,
            so there are ``len(edges) + 1`` bins. Categories: the known values; the last bin holds all other values.
        low, high: minimum and maximum of the reference.
    """

    kind: BinKind
    edges: np.ndarray
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray, most_edges: int = MOST_EDGES) -> Bins:
        """Builds bins from the reference's values ``[n]``; NaN is missing."""
        known = np.asarray(values, dtype=np.float32).astype(np.float64)
        known = known[~np.isnan(known)]
        distinct = np.unique(known)
        if len(distinct) <= FEW_VALUES:
            return cls("category", distinct, *(_extremes(distinct)))
        # Each quantile is an observed value, so a frequent value gets its own bin.
        cuts = np.quantile(known, np.linspace(0, 1, most_edges + 1)[:-1], method="inverted_cdf")
        return cls("number", np.unique(cuts), *(_extremes(distinct)))

    def count(self, values: np.ndarray) -> Histogram:
        """Counts values ``[n]`` as float32, because features and the reference are float32."""
        values = np.asarray(values, dtype=np.float32)
        missing = np.isnan(values)
        known = values[~missing] if missing.any() else values
        counts = np.bincount(self._where(known), minlength=len(self.edges) + 1)
        low, high = np.float32(self.low), np.float32(self.high)
        below, above = int((known < low).sum()), int((known > high).sum())
        return Histogram(self, counts, int(missing.sum()), below, above)

    def places(self, values: np.ndarray) -> np.ndarray:
        """Position of each value, int64 ``[n]``: 0 if the value is missing, else its bin plus 1."""
        values = np.asarray(values, dtype=np.float32)
        return np.where(np.isnan(values), 0, self._where(values) + 1)

    def _where(self, known: np.ndarray) -> np.ndarray:
        edges = self.edges.astype(np.float32)
        where = np.searchsorted(edges, known, side="left")
        if self.kind == "category" and len(edges):
            where = np.where(edges[np.minimum(where, len(edges) - 1)] == known, where, len(edges))
        return where

    def same_as(self, other: Bins) -> bool:
        """Whether both have the same bins, so that their counts can be added."""
        return self.kind == other.kind and np.array_equal(self.edges, other.edges)


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts in bins, int64 ``[len(edges) + 1]``, and of values missing, below and above the reference's range."""

    bins: Bins
    counts: np.ndarray
    missing: int = 0
    below: int = 0
    above: int = 0

    @property
    def rows(self) -> int:
        """Number of values counted, including missing values."""
        return int(self.counts.sum()) + self.missing

    @property
    def new(self) -> int:
        """Number of values that the reference does not contain; 0 for a numeric column."""
        return int(self.counts[-1]) if self.bins.kind == "category" else 0

    def __add__(self, other: Histogram) -> Histogram:
        """Adds the counts. Raises :class:`ValueError` if the bins differ."""
        if not self.bins.same_as(other.bins):
            raise ValueError("histograms with different bins cannot be added; count the rows again in the same bins")
        return Histogram(
            self.bins,
            self.counts + other.counts,
            self.missing + other.missing,
            self.below + other.below,
            self.above + other.above,
        )

    def with_missing(self) -> np.ndarray:
        """Counts, float64 ``[len(edges) + 2]``, with missing values as the first bin so that tests include them."""
        return np.concatenate([[self.missing], self.counts]).astype(np.float64)

    def to_json(self) -> dict[str, Any]:
        """The counts for JSON, without the bins, which the reference stores."""
        # Most bins of a small window are empty, so only the filled ones are stored, with position and count.
        filled = np.flatnonzero(self.counts)
        return {"at": filled.tolist(), "n": self.counts[filled].tolist(), "missing": self.missing, "below": self.below,
                "above": self.above}  # fmt: skip

    @classmethod
    def from_json(cls, bins: Bins, stored: Mapping[str, Any]) -> Histogram:
        """Restores the output of :meth:`to_json`. Raises :class:`ValueError` if the counts exceed these bins."""
        counts = np.zeros(len(bins.edges) + 1, dtype=np.int64)
        if stored["at"] and stored["at"][-1] >= len(counts):
            raise ValueError(f"bin {stored['at'][-1]} of {len(counts)}: these counts belong to other bins")
        counts[stored["at"]] = stored["n"]
        return cls(bins, counts, stored["missing"], stored["below"], stored["above"])


@dataclass(frozen=True)
class Difference:
    """The difference of two samples: the p-value, and the effect from 0 to 1."""

    p_value: float
    effect: float


def difference(before: Histogram, now: Histogram, design_effects: tuple[float, float] = (1.0, 1.0)) -> Difference:
    """Tests two samples in the same bins: Kolmogorov-Smirnov for numbers, two-sample chi-square for categories.

    Args:
        before: counts of the first sample.
        now: counts of the second sample.
        design_effects: of each sample, the number of rows that count as one independent row (``design_effect.py``).

    Returns:
        The p-value and the effect (K-S distance or total variation); 1 and 0 if a sample is empty.

    Raises:
        ValueError: the bins differ.
    """
    if not before.bins.same_as(now.bins):
        raise ValueError("histograms with different bins cannot be compared; count the rows again in the same bins")
    a, b = before.with_missing() / design_effects[0], now.with_missing() / design_effects[1]
    if not a.sum() or not b.sum():
        return Difference(1.0, 0.0)
    return _chi_square(a, b) if before.bins.kind == "category" else _ks(a, b)


def _ks(a: np.ndarray, b: np.ndarray) -> Difference:
    from scipy.special import kolmogorov

    n, m = a.sum(), b.sum()
    distance = float(np.abs(np.cumsum(a) / n - np.cumsum(b) / m).max())
    root = float(np.sqrt(n * m / (n + m)))
    # Stephens (1970): accurate from four values on; the asymptotic distribution alone needs hundreds.
    return Difference(float(kolmogorov((root + 0.12 + 0.11 / root) * distance)), distance)


def _chi_square(a: np.ndarray, b: np.ndarray) -> Difference:
    from scipy.stats import chi2_contingency

    seen = (a + b) > 0
    table = np.array([a[seen], b[seen]])
    effect = float(np.abs(table[0] / a.sum() - table[1] / b.sum()).sum() / 2)
    if table.shape[1] < 2:
        return Difference(1.0, effect)
    return Difference(float(chi2_contingency(table, correction=False).pvalue), effect)


def _extremes(values: np.ndarray) -> tuple[float, float]:
    return (float(values[0]), float(values[-1])) if len(values) else (0.0, 0.0)

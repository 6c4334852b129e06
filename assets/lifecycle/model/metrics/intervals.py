"""Confidence intervals of metrics from bootstrap draws of clusters of rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from assets.lifecycle.model.metrics.ranking import Curve, Ranking

TWO_SIDED, ONE_SIDED = 1.96, 1.645
"""Standard deviations on each side of a 95 % interval, and below a value to its lower 95 % bound."""


@dataclass(frozen=True)
class Estimate:
    """The value of a metric and its 95 % interval; ``low`` and ``high`` are None if there are too few rows for one."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def at_least(self) -> float | None:
        """The value that is exceeded with 95 % confidence; None without an interval."""
        return None if self.low is None else self.value - ONE_SIDED / TWO_SIDED * (self.value - self.low)

    def __neg__(self) -> Estimate:
        return Estimate(-self.value, None if self.high is None else -self.high, None if self.low is None else -self.low)


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], clusters: int, *, resamples: int = 200, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Computes metrics on all clusters and on bootstrap draws of clusters.

    A draw takes ``clusters`` clusters with replacement and weights each by the number of times it was drawn. Rows of
    one entity are drawn together, because they are not independent. All metrics use the same draws, so the draws of two
    models may be subtracted.

    Args:
        statistic: maps the weight of each cluster, ``[clusters]``, to metrics, ``[figures]``.
        clusters: number of clusters.
        resamples: number of draws.
        seed: of the random draws.

    Returns:
        The metrics with every cluster once, ``[figures]``, and those of the draws, ``[resamples, figures]``.
    """
    rng = np.random.default_rng(seed)
    draws = [
        statistic(np.bincount(rng.integers(0, clusters, clusters), minlength=clusters).astype(np.float64))
        for _ in range(resamples)
    ]
    point = statistic(np.ones(clusters))
    return point, np.reshape(draws, (resamples, len(point)))


def estimate(value: float, draws: np.ndarray, *, bounds: tuple[float, float] = (0.0, 1.0)) -> Estimate:
    """Returns the value with an interval of ± 1.96 standard deviations of its draws, clipped to ``bounds``.

    The interval has the coverage of a percentile interval and always contains the value. Both are slightly too narrow
    with few positives: with 40 of them in 4,000 rows of clustered entities, the interval contained the true value in
    90–92 % of 150 repetitions. Draws with an undefined metric are ignored; with fewer than 2 others there is no
    interval.
    """
    defined = draws[np.isfinite(draws)]
    if len(defined) < 2:
        return Estimate(float(value))
    half = TWO_SIDED * float(np.std(defined, ddof=1))
    low, high = float(value) - half, float(value) + half
    return Estimate(float(value), max(low, bounds[0]), min(high, bounds[1]))


def paired_difference(
    y: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    metric: Callable[[Curve], float],
    *,
    cluster: np.ndarray | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> Estimate:
    """Estimates ``metric`` of scores ``first`` minus ``metric`` of scores ``second``, on the same rows and draws.

    Args:
        y: labels (0/1), ``[n]``.
        first, second: scores, ``[n]``.
        metric: e.g. ``lambda curve: curve.average_precision``.
        cluster: cluster codes 0, 1, … of rows that are drawn together, ``[n]``; default: each row alone.
        resamples: number of bootstrap draws.
        seed: of the random draws.
    """
    rankings = [Ranking.of(y, p, cluster) for p in (first, second)]

    def difference(weight: np.ndarray) -> np.ndarray:
        a, b = (metric(ranking.curve(weight)) for ranking in rankings)
        return np.array([a - b])

    point, draws = bootstrap(
        difference, len(y) if cluster is None else int(cluster.max()) + 1, resamples=resamples, seed=seed
    )
    return estimate(point[0], draws[:, 0], bounds=(-math.inf, math.inf))

"""How sure a figure is: bootstrap draws of clusters of rows, and the interval that follows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from assets.lifecycle.model.metrics.ranking import Curve, Ranking


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % interval; ``low`` and ``high`` are None where there are too few rows for one."""

    value: float
    low: float | None = None
    high: float | None = None


def bootstrap(
    statistic: Callable[[np.ndarray], np.ndarray], clusters: int, *, resamples: int = 200, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Figures with every cluster once, ``[figures]``, and for ``resamples`` draws, ``[resamples, figures]``.

    A draw takes ``clusters`` clusters with replacement and weighs each by how often it was drawn. Rows of one entity
    come and go together, because they are not independent. All figures see the same draws, so the draws of two
    models may be subtracted.

    Args:
        statistic: ``weight of each cluster, [clusters] -> figures``.
    """
    rng = np.random.default_rng(seed)
    draws = [
        statistic(np.bincount(rng.integers(0, clusters, clusters), minlength=clusters).astype(np.float64))
        for _ in range(resamples)
    ]
    point = statistic(np.ones(clusters))
    return point, np.reshape(draws, (resamples, len(point)))


def estimate(value: float, draws: np.ndarray, *, bounds: tuple[float, float] = (0.0, 1.0)) -> Estimate:
    """The value with ± 1.96 standard deviations of its draws, cut to ``bounds``.

    Covers as often as the draws' percentiles and always holds the value. Both are a little optimistic where positives
    are few: with 40 of them in 4,000 rows of clustered entities the truth was inside in 90–92 % of 150 repetitions.
    Draws in which the figure was undefined are left out.
    """
    defined = draws[np.isfinite(draws)]
    if len(defined) < 2:
        return Estimate(float(value))
    half = 1.96 * float(np.std(defined, ddof=1))
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
    """``metric`` of scores ``first`` minus that of ``second`` on the same rows, both in the same draws.

    Args:
        metric: e.g. ``lambda curve: curve.average_precision``.
        cluster: codes 0, 1, … of the rows that are drawn together, ``[n]``; default: each row by itself.
    """
    rankings = [Ranking.of(y, p, cluster) for p in (first, second)]

    def difference(weight: np.ndarray) -> np.ndarray:
        a, b = (metric(ranking.curve(weight)) for ranking in rankings)
        return np.array([a - b])

    point, draws = bootstrap(
        difference, len(y) if cluster is None else int(cluster.max()) + 1, resamples=resamples, seed=seed
    )
    return estimate(point[0], draws[:, 0], bounds=(-math.inf, math.inf))

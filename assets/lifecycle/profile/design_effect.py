"""The design effect of a column: variance inflation from rows that are clustered by entity.

Belongs here: measuring the design effect on rows whose entities are known, and adjusting it to other numbers of days
and rows. Does not belong here: the tests that it corrects (``histograms.py``), its storage (``reference.py``).

A two-sample test assumes independent rows. Twenty payments of one customer are not twenty independent rows: shares of
such rows vary more from sample to sample, and an uncorrected test reports chance as drift. The design effect is the
ratio of two variances (Kish, 1965): the variance with whole entities drawn, over the variance with rows drawn. Counts
divided by the design effect can be tested as if rows were independent (Rao and Scott, 1981, first-order correction).

Labels have a design effect, too. The frauds of one terminal are missed together, so a weekly metric varies more than
it would with independent rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from assets.lifecycle.profile.histograms import Bins

MOST_ENTITIES = 5_000
"""Maximum number of entities measured: this sample gives the design effect to within a few per cent."""
MOST_BINS = 33
"""Maximum number of bins of a number; finer bins are merged, because a distribution function varies as a whole."""


@dataclass(frozen=True)
class DesignEffect:
    """The design effect of a column; 1 means that rows are independent.

    Args:
        day: design effect within one day, averaged over the days.
        whole: design effect of all rows of the reference; larger, because entities recur on other days.
    """

    day: float = 1.0
    whole: float = 1.0

    def over(self, days: int, of_days: int) -> float:
        """The design effect of the rows of ``days`` days, interpolated, for a reference of ``of_days`` days."""
        share = min((days - 1) / (of_days - 1), 1.0) if of_days > 1 else 1.0
        return self.day + (self.whole - self.day) * share

    def of_all(self, share: float) -> DesignEffect:
        """The design effect of all rows, if this one is that of a random share of them; see :func:`thinned`."""
        return DesignEffect(1 + (self.day - 1) / share, 1 + (self.whole - 1) / share)

    def __or__(self, other: DesignEffect) -> DesignEffect:
        """The larger of both: the entity type that clusters the rows more determines the design effect."""
        return DesignEffect(max(self.day, other.day), max(self.whole, other.whole))


def thinned(effect: float, share: float) -> float:
    """The design effect of a random share of the rows: fewer rows per entity inflate the variance less."""
    return 1 + (effect - 1) * min(share, 1.0)


def measure(
    bins: Bins, values: np.ndarray, entities: Mapping[str, np.ndarray], day: np.ndarray | None = None, seed: int = 0
) -> DesignEffect:
    """Measures the design effect of a column.

    Args:
        bins: bins of the column.
        values: values of the column, ``[n]``; NaN is missing.
        entities: by entity type, the entity of each row, ``[n]``; a row without an entity (NaN) is independent.
        day: day of each row, ``[n]``; ``None`` if the table has no days.
        seed: seed for sampling entities if there are more than :data:`MOST_ENTITIES`.

    Returns:
        The largest design effect over the entity types, at least 1.
    """
    places = bins.places(values)
    width = -(-(len(bins.edges) + 2) // MOST_BINS) if bins.kind == "number" else 1
    found = DesignEffect()
    for of_kind in entities.values():
        known = pd.factorize(of_kind)[0]
        drawn = _drawn(known, seed)
        who, where = known[drawn], places[drawn] // width
        whole = _ratio(who, where, cumulative=bins.kind == "number")
        daily = whole
        if day is not None:
            on = np.asarray(day)[drawn]
            days = [on == d for d in pd.unique(on)]
            daily = float(np.mean([_ratio(who[rows], where[rows], bins.kind == "number") for rows in days] or [1.0]))
        found |= DesignEffect(daily, whole)
    return found


def of_residuals(residuals: np.ndarray, entities: Mapping[str, np.ndarray]) -> float:
    """Measures the design effect of the labels: how strongly the residuals of one entity are correlated.

    Args:
        residuals: differences between labels and probabilities, ``[n]``.
        entities: by entity type, the entity of each row, ``[n]``; a row without an entity (NaN) is independent.

    Returns:
        The largest design effect over the entity types, at least 1.
    """
    by_rows = float((residuals**2).sum())
    found = 1.0
    for of_kind in entities.values():
        known = pd.factorize(of_kind)[0]
        alone = known < 0
        sums = np.bincount(known[~alone], weights=residuals[~alone]) if not alone.all() else np.empty(0)
        by_entities = float((sums**2).sum() + (residuals[alone] ** 2).sum())
        found = max(found, by_entities / by_rows if by_rows and len(sums) > 1 else 1.0)
    return found


def _drawn(known: np.ndarray, seed: int) -> np.ndarray:
    """Boolean ``[n]``: whether the entity of each row is in the sample of entities."""
    several = int(known.max(initial=-1)) + 1
    if several <= MOST_ENTITIES:
        return np.ones(len(known), dtype=bool)
    chosen = np.zeros(several + 1, dtype=bool)  # the last one is for rows without an entity, -1
    chosen[np.random.default_rng(seed).permutation(several)[:MOST_ENTITIES]] = True
    return np.asarray(chosen[known])


def _ratio(who: np.ndarray, where: np.ndarray, cumulative: bool) -> float:
    """Variance of the shares with entities drawn over the variance with rows drawn, each summed over the bins."""
    codes, positions = np.unique(who[who >= 0], return_inverse=True)
    alone = np.flatnonzero(who < 0)
    entity = np.empty(len(who), dtype=np.int64)
    entity[who >= 0], entity[alone] = positions, len(codes) + np.arange(len(alone))
    several, bins = len(codes) + len(alone), int(where.max(initial=0)) + 1
    if several < 2 or bins < 2:
        return 1.0
    counts = np.bincount(entity * bins + where, minlength=several * bins).reshape(several, bins).astype(np.float64)
    if cumulative:
        counts = counts.cumsum(axis=1)[:, :-1]
    rows = np.bincount(entity, minlength=several)
    share = counts.sum(axis=0) / len(who)
    by_rows = len(who) * float((share * (1 - share)).sum())
    if not by_rows:
        return 1.0
    by_entities = float(((counts - share * rows[:, None]) ** 2).sum()) * several / (several - 1)
    return max(by_entities / by_rows, 1.0)

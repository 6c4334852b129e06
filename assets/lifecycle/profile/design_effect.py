"""How much less the rows of few entities say than as many rows of many: the design effect of a column.

Belongs here: measuring it on rows whose entities are known, and what it is of other numbers of days and rows. Does not
belong here: the tests that it makes honest (``histograms.py``), where it is kept (``reference.py``).

A test of two samples takes each row for a draw of its own. Twenty payments of one customer are not twenty draws: shares
of such rows vary more from sample to sample, and the test sees drift in chance. The design effect is that ratio of
variances (Kish, 1965): the one with whole entities drawn, over the one with rows drawn. Counts that are divided by it
can be tested as if rows were independent (Rao and Scott, 1981, of first order).

Labels have one, too: where one terminal's frauds are missed, they are missed together, and a week's figure varies more
than the chance of each row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from assets.lifecycle.profile.histograms import Bins

MOST_ENTITIES = 5_000
"""More are not looked at: with so many drawn, a design effect is known to a few per cent."""
MOST_BINS = 33
"""Finer ones are taken together: a distribution function varies as a whole."""


@dataclass(frozen=True)
class DesignEffect:
    """That of a column, 1 where rows are independent.

    Args:
        day: of the rows of one day, on average.
        whole: of all rows of the reference: larger, since an entity comes back on other days.
    """

    day: float = 1.0
    whole: float = 1.0

    def over(self, days: int, of_days: int) -> float:
        """Of the rows of ``days`` days, where the reference holds ``of_days``."""
        share = min((days - 1) / (of_days - 1), 1.0) if of_days > 1 else 1.0
        return self.day + (self.whole - self.day) * share

    def __or__(self, other: DesignEffect) -> DesignEffect:
        """The larger of both: of two kinds of entities the one that binds the rows more tells."""
        return DesignEffect(max(self.day, other.day), max(self.whole, other.whole))


def thinned(effect: float, share: float) -> float:
    """Of a random share of the rows: the fewer of an entity are drawn, the more each says."""
    return 1 + (effect - 1) * min(share, 1.0)


def measure(
    bins: Bins, values: np.ndarray, entities: Mapping[str, np.ndarray], day: np.ndarray | None = None, seed: int = 0
) -> DesignEffect:
    """The design effect of a column.

    Args:
        bins: of the column.
        values: ``[n]``; NaN is missing.
        entities: by kind, who each row is of, ``[n]``; a row of nobody (NaN) is alone.
        day: of each row, ``[n]``; ``None`` where there are no days.
        seed: of the draw of entities where there are more than :data:`MOST_ENTITIES`.
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
    """The design effect of what probabilities leave open, ``[n]``: how labels of an entity are right or wrong together.

    The largest of the kinds of entities, at least 1.
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
    """Boolean per row: whether its entity is among those looked at."""
    several = int(known.max(initial=-1)) + 1
    if several <= MOST_ENTITIES:
        return np.ones(len(known), dtype=bool)
    chosen = np.zeros(several + 1, dtype=bool)  # the last is that of rows of nobody, -1
    chosen[np.random.default_rng(seed).permutation(several)[:MOST_ENTITIES]] = True
    return np.asarray(chosen[known])


def _ratio(who: np.ndarray, where: np.ndarray, cumulative: bool) -> float:
    """Variance of the shares with entities drawn over that with rows drawn, each summed over the bins."""
    codes, of = np.unique(who[who >= 0], return_inverse=True)
    alone = np.flatnonzero(who < 0)
    entity = np.empty(len(who), dtype=np.int64)
    entity[who >= 0], entity[alone] = of, len(codes) + np.arange(len(alone))
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

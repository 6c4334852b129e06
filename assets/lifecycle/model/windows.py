"""Splits the days of one training run into windows for fitting, validation and testing.

Belongs here: the split, for tables with and without a time column. Does not belong here: reading or fitting anything.

    ... | fold 2: fit .. gap . week | fold 1: fit .. gap . week |
                                     fit (window_days) | gap (label delay) | test (test_days) | label delay | now

The gap is the label delay, or the horizon of a forecast: a model fitted at the start of the test days could not have
known more recent labels.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import numpy as np
import pandas as pd

from assets.declaration import Model, Training

Days = tuple[dt.date, dt.date]
"""First and last day, both inclusive."""


@dataclass(frozen=True)
class Windows:
    """The windows of one training run.

    Args:
        fit: days of the final fit.
        test: latest labelled days, used for reporting and never for selection.
        folds: pairs of (training days, validation days), none after the end of ``fit``.
    """

    fit: Days
    test: Days
    folds: tuple[tuple[Days, Days], ...]

    @property
    def first(self) -> dt.date:
        """Earliest day that the training run needs."""
        return min([self.fit[0], *(fold[0][0] for fold in self.folds)])


def windows_of(as_of: dt.date, recipe: Training, gap_days: int) -> Windows:
    """Returns the windows of a training run whose latest labelled day is ``as_of``."""
    test = days_ending(as_of, recipe.test_days)
    fit = _fit_before(test[0], recipe, gap_days)
    folds = []
    for n in range(recipe.folds):
        valid = days_ending(fit[1] - dt.timedelta(days=n * recipe.test_days), recipe.test_days)
        folds.append((_fit_before(valid[0], recipe, gap_days), valid))
    return Windows(fit, test, tuple(folds))


def days_ending(last: dt.date, days: int) -> Days:
    """Returns the ``days`` days that end with ``last``."""
    return last - dt.timedelta(days=days - 1), last


def iso_days(days: Days) -> list[str]:
    """Returns all days from the first to the last in ISO format."""
    return [(days[0] + dt.timedelta(days=n)).isoformat() for n in range((days[1] - days[0]).days + 1)]


def rows_of(times: pd.Series, days: Days) -> np.ndarray:
    """Returns bool ``[n]``: whether the time of a row is within ``days``."""
    after = pd.Timestamp(days[0]) <= times
    return np.asarray(after & (times < pd.Timestamp(days[1]) + pd.Timedelta(days=1)))


def holdout_rows(n: int, recipe: Training, entity: np.ndarray | None = None) -> np.ndarray:
    """Returns bool ``[n]``: the holdout of a plain table, drawn with the recipe's seed.

    With ``entity`` (``[n]``) whole entities are drawn, because rows of one entity are not independent.
    """
    if entity is not None:
        codes, entities = pd.factorize(entity, sort=True)
        return holdout_rows(len(entities), recipe)[codes]
    test = np.zeros(n, dtype=bool)
    test[np.random.default_rng(recipe.seed).permutation(n)[: round(n * recipe.holdout)]] = True
    return test


def _fit_before(test_start: dt.date, recipe: Training, gap_days: int) -> Days:
    return days_ending(test_start - dt.timedelta(days=gap_days + 1), recipe.window_days)


def history_days(model: Model) -> int:
    """Returns the number of labelled days that a training run needs."""
    split = windows_of(dt.date(2000, 1, 1), model.training, model.gap_days)
    return (split.test[1] - split.first).days + 1

"""The fraud model's own days through the drift check: customers' rows hang together, weekdays differ, none drifts."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd

from assets.lifecycle.drift import Before, Level, compare, count, faults, level_of_faults
from assets.lifecycle.features import compute_features
from assets.lifecycle.reference import ReferenceProfile
from assets.models.fraud import FAST, model
from assets.models.fraud.simulator import PaymentSimulator
from benchmarks.features import events_of

FIRST, DAYS, WARM_UP = dt.date(2026, 1, 5), 100, 32
"""Of one world: features need a month before them."""
REFERENCE_DAYS, LIVED = 7, 14
"""A reference is a week, and a version lives two weeks on it."""


def levels_of_days(seed: int) -> list[Level]:
    """The levels of the days of one world in which nothing shifts; the worse of drift and quality.

    The score is not among the columns: a network for each reference would take hours.
    """
    source = PaymentSimulator(seed=seed)
    payments = source.payments(FIRST, FIRST + dt.timedelta(days=DAYS - 1))
    events = events_of(payments)
    day = (payments["paid_at"].to_numpy() - np.datetime64(FIRST)).astype("timedelta64[D]").astype(int)
    assert model.features is not None
    names = list(model.features.names)
    calendar = list(model.features.calendar)
    wanted = np.flatnonzero(day >= WARM_UP)
    made = pd.DataFrame(compute_features(model.features, events, wanted), columns=names)[[*FAST, *calendar]]
    by_day = {n: made[day[wanted] == n] for n in range(WARM_UP, DAYS)}
    levels: list[Level] = []
    for first in range(WARM_UP, DAYS - REFERENCE_DAYS - LIVED, LIVED):
        week = [by_day[n] for n in range(first, first + REFERENCE_DAYS)]
        usual = {(FIRST + dt.timedelta(days=first + n)).weekday(): float(len(rows)) for n, rows in enumerate(week)}
        reference = ReferenceProfile.build(pd.concat(week), {}, calendar=calendar)
        before: list[Before] = []
        wrong: list[dict[str, str]] = []
        for n in range(first + REFERENCE_DAYS, first + REFERENCE_DAYS + LIVED):
            window = count(reference, [by_day[n]])
            result = compare(reference, window, model.drift, day=str(n), before=before)
            weekday = (FIRST + dt.timedelta(days=n)).weekday()
            found = faults(reference, window, model.drift, rows_of_day=len(by_day[n]), usual_rows=usual[weekday])
            quality = level_of_faults(found, wrong, model.drift.page_after)
            levels.append(max((result.level, quality), key=("ok", "warn", "page").index))
            before.append(Before(str(n), window, True, {c.column: c for c in result.columns}))
            wrong.append(found)
    return levels

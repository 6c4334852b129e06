"""The fraud model's own days through the drift check: rows of a customer hang together, weekdays differ, none drifts.

Worlds of fewer customers are a template's other users: the fewer, the less a row says. The score is that of a logistic
regression on the same columns, fitted on a week before the references: a network for each would take hours.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from assets.lifecycle.data.features import compute_features
from assets.lifecycle.model.reference_rows import REFERENCE_ROWS
from assets.lifecycle.monitoring.drift_rule import EarlierWindow, Level, compare, count
from assets.lifecycle.monitoring.quality import faults, level_of_faults
from assets.lifecycle.prediction_format import SCORE
from assets.lifecycle.profile.reference import ReferenceProfile
from assets.models.fraud import FAST, model
from assets.models.fraud.simulator import PaymentSimulator
from benchmarks.features import events_of

FIRST, DAYS, WARM_UP, FITTED = dt.date(2026, 1, 5), 108, 32, 7
"""Of one world: features need a month before them, and a week is fitted on."""
MOST_WEEKS, LIVED = 3, 14
"""A reference is as many weeks as a training run would take, and a version lives two weeks on it."""
SHIFTED = "amount"
"""The column that a change is made in; those that are computed from it stay, so that it must be seen by itself."""


@dataclass
class Life:
    """A version's reference and the days that it lives on, by their number."""

    reference: ReferenceProfile
    rows: pd.DataFrame
    """Those that the reference is of, with their score."""
    days: dict[int, pd.DataFrame]

    def levels(self, change: str = "none", most_days: int = LIVED) -> list[Level]:
        """The levels of its first days; the worse of drift and quality."""
        before: list[EarlierWindow] = []
        wrong: list[dict[str, str]] = []
        levels: list[Level] = []
        for n, as_it_was in list(self.days.items())[:most_days]:
            rows = self.changed(as_it_was, change)
            window = count(self.reference, [rows])
            result = compare(self.reference, window, model.drift, day=str(n), before=before)
            weekday = (FIRST + dt.timedelta(days=n)).weekday()
            usual = self.reference.rows_of_weekday[weekday]
            found = faults(self.reference, window, model.drift, rows_of_day=len(rows), usual_rows=usual)
            quality = level_of_faults(found, wrong, model.drift.page_after)
            levels.append(max((result.level, quality), key=("ok", "warn", "page").index))
            before.append(EarlierWindow(str(n), window, result.judged, {c.column: c for c in result.columns}))
            wrong.append(found)
        return levels

    def changed(self, rows: pd.DataFrame, change: str) -> pd.DataFrame:
        """A day's rows with a change made in them."""
        if change.startswith("shift"):
            return rows.assign(**{SHIFTED: rows[SHIFTED] + float(change.split()[1]) * self.rows[SHIFTED].std()})
        if change == "missing column":
            return rows.assign(**{SHIFTED: np.nan})
        return rows.iloc[::3] if change == "volume drop" else rows


def lives(seed: int, customers: int = 5_000) -> Iterator[Life]:
    """The versions that live one after another in one world in which nothing shifts."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import QuantileTransformer

    source = PaymentSimulator(seed=seed, customers=customers, terminals=2 * customers)
    payments = source.payments(FIRST, FIRST + dt.timedelta(days=DAYS - 1))
    day = (payments["paid_at"].to_numpy() - np.datetime64(FIRST)).astype("timedelta64[D]").astype(int)
    assert model.features is not None
    calendar, entities = list(model.features.calendar), list(model.features.entities)
    wanted = np.flatnonzero(day >= WARM_UP)
    made = pd.DataFrame(
        compute_features(model.features, events_of(payments), wanted), columns=list(model.features.names)
    )
    fitted = day[wanted] < WARM_UP + FITTED
    seen = made[[*FAST, *calendar]]
    plain = QuantileTransformer(random_state=0).fit(seen[fitted]).transform(seen.fillna(0.0))
    fit = LogisticRegression(max_iter=500).fit(plain[fitted], payments["is_fraud"].to_numpy()[wanted][fitted])
    made[SCORE] = fit.predict_proba(plain)[:, 1]
    who = payments[entities].iloc[wanted].reset_index(drop=True)
    weeks = int(np.clip(np.ceil(REFERENCE_ROWS / (7 * len(wanted) / (DAYS - WARM_UP))), 1, MOST_WEEKS))
    for first in range(WARM_UP + FITTED, DAYS - 7 * weeks - LIVED + 1, LIVED):
        lives_from = first + 7 * weeks
        of_reference = (first <= day[wanted]) & (day[wanted] < lives_from)
        rows, on = made[of_reference], day[wanted][of_reference]
        weekdays = [(FIRST.weekday() + n) % 7 for n in on]
        reference = ReferenceProfile.build(
            rows[[*FAST, *calendar]],
            {SCORE: rows[SCORE].to_numpy()},
            calendar=calendar,
            rows_of_weekday=list(np.bincount(weekdays, minlength=7) / weeks),
            entities={name: who.loc[of_reference, name].to_numpy() for name in entities},
            day=on,
            unwatched=rows[[name for name in model.features.compared if name not in FAST]],
        )
        lived = {n: made[day[wanted] == n] for n in range(lives_from, lives_from + LIVED)}
        yield Life(reference, rows, lived)


SHIFT, AFTER, SETTLING = 83, (6, 20), 30
"""A shift in a world, the last labelled days after it as of which versions are made, and the days that they live."""


def lives_after_a_shift(seed: int, customers: int) -> Iterator[tuple[int, Life]]:
    """How many days after a shift a version is made, and its life while features with a long memory still settle.

    The score is XGBoost's on all features, fitted on the rows of a training run as of that day: a network would take
    hours, and a score on the watched features alone would not settle.
    """
    from assets.lifecycle.model.baselines import xgboost

    delay, training = model.label_delay_days, model.training
    source = PaymentSimulator(
        seed=seed,
        customers=customers,
        terminals=2 * customers,
        shift_from=str(FIRST + dt.timedelta(days=SHIFT)),
    )
    last = SHIFT + max(AFTER) + delay + SETTLING
    payments = source.payments(FIRST, FIRST + dt.timedelta(days=last))
    day = (payments["paid_at"].to_numpy() - np.datetime64(FIRST)).astype("timedelta64[D]").astype(int)
    assert model.features is not None
    names, calendar, entities = list(model.features.names), list(model.features.calendar), model.features.entities
    made = compute_features(model.features, events_of(payments), np.arange(len(payments)))
    frame = pd.DataFrame(made, columns=names)
    truth = payments["is_fraud"].to_numpy()
    for after in AFTER:
        as_of = SHIFT + after
        fitted_until = as_of - training.test_days - delay
        fitted = (day > fitted_until - training.window_days) & (day <= fitted_until)
        frame[SCORE] = xgboost(made[fitted], truth[fitted], made)
        made_on = as_of + delay
        of_reference = (day > made_on - 7) & (day <= made_on)
        rows = frame[of_reference]
        reference = ReferenceProfile.build(
            rows[[*FAST, *calendar]],
            {SCORE: rows[SCORE].to_numpy()},
            calendar=calendar,
            rows_of_weekday=[float(of_reference.sum()) / 7] * 7,
            entities={name: payments[name].to_numpy()[of_reference] for name in entities},
            day=day[of_reference],
            unwatched=rows[[name for name in model.features.compared if name not in FAST]],
        )
        lived = {n: frame[day == n] for n in range(made_on + 1, made_on + 1 + SETTLING)}
        yield made_on - SHIFT, Life(reference, rows, lived)

"""The ceiling: calibrated, blind to what could not be known, and as high as measured before."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from assets.models.fraud.ceiling import CUSTOMER_FRAUD, ceiling
from assets.models.fraud.simulator import (
    ALWAYS_FRAUD_ABOVE,
    CUSTOMER_DAYS,
    CUSTOMER_RATE,
    TERMINAL_DAYS,
    TERMINAL_RATE,
    THEFT_FACTOR,
    THEFT_SHARE,
    PaymentSimulator,
)
from resources.sources import CsvFile

SHIFT = dt.date(2026, 3, 20)
WEEK = pd.Timedelta(days=7)


def rows_and_last_days(source: PaymentSimulator, days: int, last: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Payments of so many days from 2026-01-15 on, and the positions of those of the last ones."""
    first = dt.date(2026, 1, 15)
    events = source.payments(first, first + dt.timedelta(days=days - 1))
    return events, np.flatnonzero(events["paid_at"] >= pd.Timestamp(first) + pd.Timedelta(days=days - last))


@pytest.fixture(scope="module")
def small() -> tuple[PaymentSimulator, pd.DataFrame, np.ndarray, np.ndarray]:
    """The small preset, its rows, the last four weeks' positions and their ceiling."""
    source = PaymentSimulator.small(seed=2)
    events, wanted = rows_and_last_days(source, 91, 28)
    return source, events, wanted, ceiling(source, events, wanted)


def test_the_measured_ceiling_at_the_published_size() -> None:
    source = PaymentSimulator()
    events = source.payments(dt.date(2018, 5, 20), dt.date(2018, 8, 21))
    weeks = [pd.Timestamp("2018-07-25") + i * WEEK for i in range(4)]
    wanted = np.flatnonzero(events["paid_at"] >= weeks[0])
    p = pd.Series(ceiling(source, events, wanted), index=wanted)
    assert p.mean() == pytest.approx(events["is_fraud"].iloc[wanted].mean(), rel=0.06)

    precision, area = [], []
    for week in weeks:  # customers whose fraud of the training week or later is known have left, as published
        frauds = events[(events["is_fraud"] == 1) & (events["paid_at"] >= week - 2 * WEEK)]
        known = events["customer_id"].map(frauds.groupby("customer_id")["paid_at"].min()) + WEEK <= events["paid_at"]
        test = events[events["paid_at"].between(week, week + WEEK, inclusive="left") & ~known]
        precision.append(average_precision_score(test["is_fraud"], p[test.index]))
        area.append(roc_auc_score(test["is_fraud"], p[test.index]))
    assert np.mean(precision) == pytest.approx(0.764, abs=0.02)
    assert np.mean(area) == pytest.approx(0.883, abs=0.025)


def test_it_is_calibrated() -> None:
    expected, happened = [], []
    for seed in range(6):
        source = PaymentSimulator.small(seed=seed, customers=400, terminals=800)
        events, wanted = rows_and_last_days(source, 91, 28)
        expected.append(ceiling(source, events, wanted))
        happened.append(events["is_fraud"].to_numpy()[wanted])
    p, y = np.concatenate(expected), np.concatenate(happened)
    for low, high in ((0, 0.01), (0.01, 0.2), (0.2, 0.8), (0.8, 1.01)):
        inside = (p >= low) & (p < high)
        noise = math.sqrt((p[inside] * (1 - p[inside])).sum()) / inside.sum()
        # Frauds come in clusters (a terminal's whole day), so allow more than independent rows would need.
        assert y[inside].mean() == pytest.approx(p[inside].mean(), abs=6 * noise + 0.001)
    assert average_precision_score(y, p) > 0.6


def test_it_equals_the_formula_written_out_row_by_row(
    small: tuple[PaymentSimulator, pd.DataFrame, np.ndarray, np.ndarray],
) -> None:
    source, events, wanted, p = small
    suspicious, ordinary = np.flatnonzero((p > 0.003) & (p < 1)), np.flatnonzero(p <= 0.003)
    for i in [*suspicious[:60], *ordinary[:20]]:
        assert p[i] == pytest.approx(by_hand(source, events, int(wanted[i])), rel=1e-9)


def by_hand(source: PaymentSimulator, events: pd.DataFrame, row: int) -> float:
    """FINDINGS' posterior with plain loops, for one row of at most 220."""
    mean = source.population().mean_amount

    def own(amount: float, m: float) -> float:
        normal = math.exp(-0.5 * ((amount - m) / (m / 2)) ** 2) / (m / 2 * math.sqrt(2 * math.pi))
        return normal + (0.02275 / (2 * m) if amount <= 2 * m else 0)

    def densities(amount: float, customer: int) -> tuple[float, float]:
        m = mean[customer]
        return own(amount, m), own(amount / THEFT_FACTOR, m) / THEFT_FACTOR

    this = events.iloc[row]
    today = this["paid_at"].floor("D")

    def posterior(past: pd.DataFrame, rate: float, days: int, lookback: int, ratio) -> float:
        covering, everything = Decimal(0), Decimal(0)  # several thefts overflow a float
        others = [(other.paid_at, Decimal(float(ratio(other)))) for other in past.itertuples()]
        for age in range(lookback + 1):
            start = today - pd.Timedelta(days=age)
            end = start + pd.Timedelta(days=days)
            mass = Decimal(rate) * math.prod(of_other for at, of_other in others if start <= at < end)
            everything += mass
            covering += mass if age < days else 0
        return float(covering / (1 + everything))

    def of_terminal(other) -> float:
        if other.paid_at + WEEK > this["paid_at"] or other.amount > ALWAYS_FRAUD_ABOVE:
            return 1.0
        if not other.is_fraud:
            return 0.0
        f1, f5 = densities(other.amount, other.customer_id)
        any_density = CUSTOMER_FRAUD * (f5 / 3 + f1 * 2 / 3) + (1 - CUSTOMER_FRAUD) * f1
        return any_density / (CUSTOMER_FRAUD * f5 / 3)

    def of_customer(other) -> float:
        f1, f5 = densities(other.amount, other.customer_id)
        if other.paid_at + WEEK > this["paid_at"] or other.amount > ALWAYS_FRAUD_ABOVE:
            return (f5 / 3 + f1 * 2 / 3) / f1
        return (f5 / 3 + f1 * 2 / 3 * 0.0056) / (f1 * 0.0056) if other.is_fraud else 2 / 3

    earlier = events[events["paid_at"] < this["paid_at"]]
    terminal = posterior(
        earlier[earlier["terminal_id"] == this["terminal_id"]], TERMINAL_RATE, TERMINAL_DAYS, 62, of_terminal
    )
    customer = posterior(
        earlier[earlier["customer_id"] == this["customer_id"]], CUSTOMER_RATE, CUSTOMER_DAYS, 34, of_customer
    )
    f1, f5 = densities(this["amount"], this["customer_id"])
    theft = customer * f5 * THEFT_SHARE / (customer * (f5 / 3 + f1 * 2 / 3) + (1 - customer) * f1)
    return 1 - (1 - terminal) * (1 - theft)


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(70 * 86_400, 90 * 86_400), seed=st.integers(0, 1_000))
def test_nothing_unknowable_is_used(
    small: tuple[PaymentSimulator, pd.DataFrame, np.ndarray, np.ndarray], cut: int, seed: int
) -> None:
    source, events, wanted, p = small
    now = events["paid_at"].iloc[0].floor("D") + pd.Timedelta(seconds=cut)
    asked = wanted[(events["paid_at"].iloc[wanted] <= now).to_numpy()]
    other = events.astype({"is_fraud": "float64"})
    later = np.flatnonzero(other["paid_at"] > now)
    other.loc[later, "amount"] = np.random.default_rng(seed).permutation(other.loc[later, "amount"])
    last = asked[events["paid_at"].iloc[asked].argmax() :]
    other.loc[other["paid_at"] > events["paid_at"].iloc[last[0]] - WEEK, "is_fraud"] = np.nan
    shuffled = np.random.default_rng(seed).permutation(len(other))
    where = np.empty(len(other), dtype=int)
    where[shuffled] = np.arange(len(other))
    again = ceiling(source, other.iloc[shuffled], where[last])
    np.testing.assert_allclose(again, p[np.searchsorted(wanted, last)], rtol=1e-6)


def test_labels_of_the_last_week_do_not_matter_but_older_ones_do(
    small: tuple[PaymentSimulator, pd.DataFrame, np.ndarray, np.ndarray],
) -> None:
    source, events, wanted, p = small
    last = wanted[-1:]
    border = events["paid_at"].iloc[last[0]] - WEEK
    flipped = events.assign(is_fraud=1 - events["is_fraud"])
    young = events["is_fraud"].where(events["paid_at"] <= border, flipped["is_fraud"])
    same, other = (ceiling(source, events.assign(is_fraud=labels), last) for labels in (young, flipped["is_fraud"]))
    assert same == pytest.approx(p[-1:], rel=1e-9)
    assert other != pytest.approx(p[-1:], rel=1e-3)


def test_the_shifted_world_is_inverted_with_its_own_parameters() -> None:
    sizes = {"customers": 1_000, "terminals": 2_000}
    shifted = PaymentSimulator.small(shift_from=SHIFT.isoformat(), **sizes)
    stale = PaymentSimulator.small(shift_from=SHIFT.isoformat(), shift_theft_factor=THEFT_FACTOR, **sizes)
    events, wanted = rows_and_last_days(shifted, 95, 28)
    y = events["is_fraud"].to_numpy()[wanted]
    p, outdated = ceiling(shifted, events, wanted), ceiling(stale, events, wanted)
    assert p.mean() == pytest.approx(y.mean(), rel=0.15)
    # This is why retraining is worth while: who does not know that thieves now test cards loses a lot.
    assert average_precision_score(y, p) > average_precision_score(y, outdated) + 0.05


def test_nothing_asked_nothing_answered(
    small: tuple[PaymentSimulator, pd.DataFrame, np.ndarray, np.ndarray],
) -> None:
    source, events, _, _ = small
    assert ceiling(source, events, np.array([], dtype=int)).shape == (0,)


def test_another_source_has_no_ceiling() -> None:
    with pytest.raises(TypeError, match="not for CsvFile"):
        ceiling(CsvFile(path="x.csv"), pd.DataFrame(), np.array([0]))

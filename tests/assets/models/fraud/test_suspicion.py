"""The odds of trouble follow from labels known by then and from amounts, and come near what is possible."""

from __future__ import annotations

import datetime as dt
import math

import numpy as np
import pandas as pd
import pytest

from assets.lifecycle.model.metrics import average_precision
from assets.models.fraud import suspicion
from assets.models.fraud.ceiling import ceiling
from assets.models.fraud.features import LABEL_DAYS, ORDINARY_CENTS, compute
from assets.models.fraud.simulator import PaymentSimulator
from benchmarks.features import events_of
from tests.assets.models.fraud.test_features import DAY, START, Row, of_last

NOW = START + 60 * DAY + DAY // 2
TERMINAL = 1


def fraud_at(days: float, cents: int = 3_000) -> Row:
    return (int(NOW - days * DAY), 50 + int(days), TERMINAL, cents, 1.0)


def good_at(days: float) -> Row:
    return (int(NOW - days * DAY), 50 + int(days), TERMINAL, 3_000, 0.0)


def terminal(*history: Row) -> float:
    return of_last(*history, (NOW, 1, TERMINAL, 3_000, np.nan))["terminal_log_odds"]


def test_a_terminal_without_frauds_has_the_odds_of_the_windows_that_its_goods_allow() -> None:
    assert terminal() == terminal(good_at(40)) == pytest.approx(math.log(28 * 2e-4))
    assert terminal(good_at(10)) == pytest.approx(math.log(10 * 2e-4))  # nine midnights and today's lie after it


def test_frauds_raise_a_terminals_odds_small_ones_more_and_a_later_good_one_ends_them() -> None:
    none, one, two = terminal(), terminal(fraud_at(9)), terminal(fraud_at(9), fraud_at(8))
    assert none < one < two
    assert terminal(fraud_at(9, cents=18_000)) < one
    assert terminal(fraud_at(9, cents=ORDINARY_CENTS + 1)) == pytest.approx(none)  # fraud by its amount: no evidence
    # Only windows after the good payment remain; the frauds before it were thefts, or of trouble that was over by then.
    assert terminal(fraud_at(9), fraud_at(8), good_at(7.5)) <= terminal(good_at(7.5)) < none


def test_trouble_that_is_over_explains_old_frauds() -> None:
    assert terminal(fraud_at(32), fraud_at(33), fraud_at(34)) < terminal(fraud_at(20), fraud_at(21), fraud_at(22)) - 3


def test_a_terminals_odds_equal_a_sum_over_its_windows_one_by_one() -> None:
    payments = PaymentSimulator.small().payments(dt.date(2018, 4, 1), dt.date(2018, 7, 10))
    second = payments["paid_at"].to_numpy("datetime64[s]").astype(np.int64)
    cents, label = np.rint(payments["amount"].to_numpy() * 100).astype(np.int64), payments["is_fraud"].to_numpy()
    at = payments["terminal_id"].to_numpy()
    troubled = np.isin(at, at[payments["scenario"] == 2])
    wanted = np.flatnonzero(troubled & (second >= second[-1] - 20 * DAY))[-300:]
    made = compute(events_of(payments), wanted)["terminal_log_odds"]
    assert len(wanted) > 30
    assert (made > 0).any()
    for row, odds in zip(wanted, made, strict=True):
        known = np.flatnonzero((at == at[row]) & (second <= second[row] - LABEL_DAYS * DAY))
        weights = {}
        for age in range(59):
            start = (second[row] // DAY - age) * DAY
            inside = known[(second[known] >= start) & (second[known] < start + 28 * DAY)]
            frauds = inside[(label[inside] == 1) & (cents[inside] <= ORDINARY_CENTS)]
            possible = not (label[inside] == 0).any()
            weights[age] = possible * 2e-4 * math.exp(suspicion.of_fraud(cents[frauds]).sum() / 1000)
        expected = math.log(sum(weights[age] for age in range(28))) if any(weights[a] for a in range(28)) else -20
        seen = known[second[known] >= (second[row] // DAY - 58) * DAY]
        if ((label[seen] == 1) & (cents[seen] <= ORDINARY_CENTS)).any():
            expected -= math.log1p(sum(weights[age] for age in range(28, 59)))
        assert odds == pytest.approx(min(max(expected, -20), 20), abs=1e-4)


def payments_of(*recent: tuple[float, int, float], own: int = 1_000) -> dict[str, float]:
    """A customer with a usual amount of 10 that varies by a half, his recent payments, and one of ``own`` cents."""
    usual = [(int(NOW - (20 + d) * DAY), 1, 100 + d, cents, 0.0) for d, cents in enumerate([500, 1_500] * 8)]
    later = [(int(NOW - days * DAY), 1, 200 + n, cents, label) for n, (days, cents, label) in enumerate(recent)]
    return of_last(*usual, *later, (NOW, 1, 900, own, np.nan))


def test_large_amounts_raise_the_odds_of_a_stolen_card_and_known_good_payments_lower_them() -> None:
    plain, once = payments_of(), payments_of((1, 6_000, np.nan))
    twice = payments_of((1, 6_000, np.nan), (2, 5_000, np.nan))
    odds = "customer_log_odds"
    assert plain[odds] < once[odds] < twice[odds]
    assert payments_of((1, 6_000, np.nan), (2, 1_000, np.nan))[odds] < once[odds]
    assert payments_of((9, 6_000, 0.0))[odds] < plain[odds] < payments_of((9, 6_000, 1.0))[odds]
    assert payments_of((16, 6_000, np.nan))[odds] == pytest.approx(plain[odds], abs=0.1)  # two weeks ago


def test_a_payment_is_a_theft_by_its_customer_and_its_amount_and_a_fraud_by_either_reason() -> None:
    small, large = payments_of(), payments_of(own=6_000)
    assert large["theft_log_odds"] > small["theft_log_odds"] + 5
    stolen = payments_of((1, 6_000, np.nan), own=6_000)
    assert stolen["theft_log_odds"] > large["theft_log_odds"]
    assert large["theft_log_odds"] < large["fraud_log_odds"] > large["terminal_log_odds"]
    assert large["fraud_log_odds"] < suspicion.MOST == payments_of(own=ORDINARY_CENTS + 1)["fraud_log_odds"]


def test_either_of_two_odds() -> None:
    a, b = np.array([0.3, -4.0, 15.0]), np.array([-1.0, -5.0, 2.0])
    p, q = 1 / (1 + np.exp(-a)), 1 / (1 + np.exp(-b))
    either = 1 - (1 - p) * (1 - q)
    np.testing.assert_allclose(suspicion.either(a, b), np.log(either / (1 - either)), rtol=1e-8)


def test_the_usual_amount_of_many_payments_is_their_mean_and_of_none_a_guess() -> None:
    amounts = np.random.default_rng(0).normal(8_000, 4_000, 10_000).astype(np.int64)
    amounts = amounts[amounts > 0]
    one = np.array([1])
    mean, variance = suspicion.usual(len(amounts) * one, amounts.sum() * one, (amounts * amounts).sum() * one)
    assert mean[0] == pytest.approx(8_000, rel=0.03)
    assert variance[0] == pytest.approx(4_000**2, rel=0.06)
    guess, wide = suspicion.usual(0 * one, 0 * one, 0 * one)
    assert suspicion.FIRST_GUESS_CENTS / 2 < guess[0] < suspicion.FIRST_GUESS_CENTS
    assert wide[0] == pytest.approx(2 * (guess[0] / 2) ** 2)


def test_the_odds_alone_come_near_the_best_possible_ranking() -> None:
    source = PaymentSimulator(seed=3, customers=1_000, terminals=2_000)
    payments = source.payments(dt.date(2018, 4, 1), dt.date(2018, 7, 10))
    wanted = np.flatnonzero(payments["paid_at"] >= pd.Timestamp("2018-06-27"))
    odds = compute(events_of(payments), wanted)["fraud_log_odds"]
    truth = payments["is_fraud"].to_numpy()[wanted]
    best = average_precision(truth, ceiling(source, payments, wanted))
    assert 0.96 * best < average_precision(truth, odds) < best

"""The simulator: the published method, the same bytes for any day, and every kind of dirt that it promises."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.models.fraud import simulator
from assets.models.fraud.simulator import ALWAYS_FRAUD_ABOVE, DIRT, LABEL_DELAY, PaymentSimulator
from assets.models.fraud.tables import MAX_AMOUNT, MAX_ENTITIES, clean
from resources.sources import SourceError

DAY = dt.date(2026, 3, 1)
ONE = dt.timedelta(days=1)
any_day = st.dates(dt.date(1700, 1, 1), dt.date(2200, 1, 1))


def forget() -> None:
    """Makes the simulator compute again what it has cached."""
    for cache in (simulator._population, simulator._payments, simulator._sent):
        cache.cache_clear()


@pytest.fixture(scope="module")
def published() -> pd.DataFrame:
    """The published 183 days at the published size."""
    return PaymentSimulator(compromised_from="2018-04-01").payments(dt.date(2018, 4, 1), dt.date(2018, 9, 30))


def test_the_published_figures_are_reproduced(published: pd.DataFrame) -> None:
    assert len(published) == pytest.approx(1_754_155, rel=0.03)
    assert published["is_fraud"].sum() == pytest.approx(14_681, rel=0.06)
    assert published["is_fraud"].mean() == pytest.approx(0.0084, abs=0.0004)
    by_scenario = published["scenario"].value_counts()
    assert by_scenario[1] == pytest.approx(978, rel=0.1)
    assert by_scenario[2] == pytest.approx(9_099, rel=0.06)
    assert by_scenario[3] == pytest.approx(4_604, rel=0.1)
    assert published["transaction_id"].is_unique
    assert published["paid_at"].is_monotonic_increasing
    assert published["transaction_id"].is_monotonic_increasing
    assert (published.loc[published["amount"] > ALWAYS_FRAUD_ABOVE, "is_fraud"] == 1).all()
    assert published["amount"].min() >= 0.01
    assert published["customer_id"].nunique() > 4_900
    assert published["terminal_id"].nunique() > 9_900


def test_terminals_stay_within_reach_of_their_customers(published: pd.DataFrame) -> None:
    people = PaymentSimulator().population()
    for customer in (0, 17, 4_999):
        usable = people.usable[people.first[customer] : people.first[customer + 1]]
        used = published.loc[published["customer_id"] == customer, "terminal_id"]
        assert set(used) <= set(usable)
    assert np.diff(people.first).mean() == pytest.approx(np.pi * 25, rel=0.1)  # less at the borders


@pytest.mark.parametrize(("size", "drawn", "days"), [("TERMINALS", 2, 28), ("CUSTOMERS", 3, 14)])
def test_compromises_begin_daily_and_last_as_published(size: str, drawn: int, days: int) -> None:
    first = DAY.toordinal()
    source, draw = PaymentSimulator(compromised_from=DAY.isoformat()), simulator._Draw[size]
    masks = [simulator._compromised(source, first + i, draw) for i in range(-1, days + 1)]
    assert masks[0].sum() == 0
    assert masks[1].sum() == drawn
    assert days * drawn - 5 <= masks[days].sum() <= days * drawn  # a draw may repeat an earlier one
    assert not (masks[1] & masks[days + 1]).all()


def test_small_keeps_the_rates() -> None:
    shares = []
    for seed in range(4):
        rows = PaymentSimulator.small(seed=seed).payments(DAY, DAY + 120 * ONE)
        assert len(rows) / 121 == pytest.approx(390, rel=0.12)
        shares.append(rows["is_fraud"].mean())
    assert 0.006 < np.mean(shares) < 0.015


@settings(max_examples=25, deadline=None)
@given(day=any_day, before=st.integers(0, 2), seed=st.integers(0, 2**40))
def test_a_day_alone_equals_the_day_within_a_range(day: dt.date, before: int, seed: int) -> None:
    source = PaymentSimulator.small(seed=seed, customers=20, terminals=40, dirty_share=0.3)
    forget()
    alone, landed = source.payments(day, day), source.land(day)
    forget()
    together = source.payments(day - before * ONE, day + ONE)
    landings = [source.land(day + i * ONE) for i in range(-before, 1)]
    of_day = together[together["paid_at"].dt.floor("D") == pd.Timestamp(day)].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, of_day)
    pd.testing.assert_frame_equal(landed, landings[-1])


def test_another_seed_gives_other_payments() -> None:
    one, two = (PaymentSimulator.small(seed=seed).payments(DAY, DAY) for seed in (0, 1))
    assert not one.equals(two)


def test_land_is_text_in_order_of_arrival() -> None:
    landed = PaymentSimulator.small().land(DAY)
    assert list(landed) == ["transaction_id", "paid_at", "customer_id", "terminal_id", "amount", "arrived_at"]
    assert (landed.dtypes == "string[pyarrow]").all()
    assert landed["arrived_at"].is_monotonic_increasing
    assert landed["arrived_at"].str.startswith(DAY.isoformat()).all()


@pytest.fixture(scope="module")
def dirty() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Truth of twenty days and all that landed about them, half of it dirty or late."""
    source = PaymentSimulator.small(dirty_share=0.4, late_share=0.1)
    landed = [source.land(DAY + i * ONE) for i in range(22)]
    rows = pd.concat(landed, ignore_index=True)
    truth = source.payments(DAY, DAY + 19 * ONE)
    return truth, rows[rows["arrived_at"] >= DAY.isoformat()]


def test_every_kind_of_dirt_lands(dirty: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    truth, rows = dirty
    typed = clean(rows)
    same = ["transaction_id", "paid_at", "customer_id", "terminal_id", "amount"]
    ids = ["transaction_id", "customer_id", "terminal_id"]
    repeated = rows[rows["transaction_id"] != ""].groupby("transaction_id")["arrived_at"]
    found = {
        "duplicate": rows.duplicated().sum(),
        "resent": (repeated.max() > repeated.min()).sum(),
        "separated": rows["amount"].str.contains(",").sum(),
        "padded": rows["amount"].str.startswith(" ").sum(),
        "garbled_time": typed["paid_at"].isna().sum(),
        "future_time": (typed["paid_at"] > typed["arrived_at"]).sum(),
        "negative": (typed["amount"] < 0).sum(),
        "absurd": (typed["amount"] > MAX_AMOUNT).sum(),
        "missing_id": (rows[ids] == "").any(axis=1).sum(),
        "unknown_terminal": (typed["terminal_id"] >= MAX_ENTITIES).sum(),
    }
    assert found.keys() == DIRT.keys()
    expected = {name: 0.4 * share * len(truth) for name, share in DIRT.items()}
    assert {name: int(n) for name, n in found.items()} == pytest.approx(expected, rel=0.25)
    assert rows.duplicated(same).sum() > rows.duplicated().sum()  # a re-sent row differs in its arrival alone


def test_late_rows_arrive_one_or_two_days_later(dirty: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    typed = clean(dirty[1]).dropna()
    first = typed.sort_values("arrived_at").drop_duplicates("transaction_id")
    delay = (first["arrived_at"].dt.floor("D") - first["paid_at"].dt.floor("D")).dt.days
    share = delay[delay >= 0].value_counts(normalize=True)
    assert set(share.index) == {0, 1, 2}
    assert share[1] == pytest.approx(0.05, rel=0.3)
    assert share[2] == pytest.approx(0.05, rel=0.3)


@pytest.mark.parametrize("late", [0.0, 0.3])
def test_without_dirt_what_lands_is_the_truth(late: float) -> None:
    source = PaymentSimulator.small(dirty_share=0, late_share=late)
    typed = clean(pd.concat([source.land(DAY + i * ONE) for i in range(-2, 6)], ignore_index=True))
    of_days = typed[typed["paid_at"].between(pd.Timestamp(DAY), pd.Timestamp(DAY + 4 * ONE), inclusive="left")]
    truth = source.payments(DAY, DAY + 3 * ONE).drop(columns=["is_fraud", "scenario"])
    landed = of_days.drop(columns="arrived_at").sort_values("transaction_id", ignore_index=True)
    pd.testing.assert_frame_equal(landed, truth, check_dtype=False)


def test_harmless_dirt_keeps_the_true_payment_and_little_is_lost() -> None:
    source = PaymentSimulator(late_share=0)
    truth = source.payments(DAY, DAY).set_index("transaction_id")
    typed = clean(source.land(DAY)).dropna().drop_duplicates("transaction_id").set_index("transaction_id")
    readable = typed[typed["amount"].between(0, MAX_AMOUNT) & (typed["terminal_id"] < MAX_ENTITIES)]
    readable = readable[readable["paid_at"] <= readable["arrived_at"]]
    kept = truth.index.intersection(readable.index)
    assert 0.994 < len(kept) / len(truth) < 1
    assert (readable.loc[kept, "amount"].to_numpy() == truth.loc[kept, "amount"].to_numpy()).all()


def test_labels_land_seven_days_after_the_payment() -> None:
    source = PaymentSimulator.small()
    truth = source.payments(DAY, DAY)
    labels = source.land_labels(DAY + LABEL_DELAY)
    pd.testing.assert_frame_equal(labels, truth[["transaction_id", "is_fraud", "scenario"]])


def test_landings_cannot_be_changed_through_what_was_handed_out() -> None:
    source = PaymentSimulator.small()
    labels, landed = source.land_labels(DAY), source.land(DAY)
    labels.loc[:, "is_fraud"] = 9
    landed.loc[:, "amount"] = "x"
    assert (source.land_labels(DAY)["is_fraud"] < 2).all()
    assert not (source.land(DAY)["amount"] == "x").any()


def test_yesterday_is_the_latest_complete_landing() -> None:
    assert dt.datetime.now(dt.UTC).date() - PaymentSimulator().landed_until() == ONE


def test_the_shift_changes_later_days_alone() -> None:
    old, new = PaymentSimulator.small(), PaymentSimulator.small(shift_from=DAY.isoformat())
    pd.testing.assert_frame_equal(old.payments(DAY - ONE, DAY - ONE), new.payments(DAY - ONE, DAY - ONE))
    old_rows, new_rows = (source.payments(DAY, DAY + 90 * ONE) for source in (old, new))
    honest, shifted = (rows[rows["scenario"] == 0] for rows in (old_rows, new_rows))
    assert shifted["amount"].median() / honest["amount"].median() == pytest.approx(1.3, rel=0.03)
    hours = [rows["paid_at"].dt.hour.mean() for rows in (honest, shifted)]
    assert 0.7 < hours[1] - hours[0] < 1.5
    stolen = [rows.loc[rows["scenario"] == 3, "amount"].median() for rows in (old_rows, new_rows)]
    assert stolen[1] < 0.1 * stolen[0]
    assert (new_rows.loc[new_rows["amount"] > ALWAYS_FRAUD_ABOVE, "is_fraud"] == 1).all()


def test_a_mistyped_day_is_named() -> None:
    with pytest.raises(SourceError, match=r"shift_from='1\.3\.2026' is not a day"):
        PaymentSimulator.small(shift_from="1.3.2026").land(DAY)


def test_an_empty_range_is_refused() -> None:
    with pytest.raises(ValueError, match="2026-03-01 is after 2026-02-28"):
        PaymentSimulator.small().payments(DAY, DAY - ONE)

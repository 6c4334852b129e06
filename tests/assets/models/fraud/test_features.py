"""The features see what they may and no more; the published ones equal pandas; the others are what they say."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.models.fraud.features import LABEL_DAYS, LOOKBACK_DAYS, compute, compute_published, features, join
from assets.models.fraud.simulator import PaymentSimulator
from benchmarks.features import CLOSE, events_of, largest_difference, published_by_pandas, tied

DAY = 86_400
START = int(np.datetime64("2018-04-01", "s").astype(np.int64))
Row = tuple[int, int, int, int, float]
"""Second, customer, terminal, cents, label."""

# Few entities and few seconds of the day: rows share seconds, and windows end exactly on rows.
seconds = st.builds(
    lambda day, second: START + day * DAY + second,
    st.integers(0, 70),
    st.sampled_from([0, 1, DAY // 2, DAY - 1]),
)
labels = st.sampled_from([0.0, 0.0, 1.0, np.nan])
rows = st.tuples(seconds, st.integers(0, 1), st.integers(0, 1), st.integers(1, 30_000), labels)
histories = st.lists(rows, min_size=1, max_size=60)
many = settings(max_examples=150, deadline=None)


def events(history: list[Row]) -> dict[str, np.ndarray]:
    second, customer, terminal, cents, label = (np.array(column) for column in zip(*history, strict=True))
    return {
        "transaction_id": np.arange(len(history)),
        "paid_at": second.astype("datetime64[s]").astype("datetime64[us]"),
        "customer_id": customer,
        "terminal_id": terminal,
        "amount": cents / 100,
        "label": label.astype(np.float64),
    }


def of_rows(history: list[Row], wanted: list[int]) -> np.ndarray:
    made = compute(events(history), np.array(wanted, dtype=np.int64))
    return np.column_stack([made[name] for name in features.names])


def of_last(*history: Row) -> dict[str, float]:
    made = compute(events(list(history)), np.array([len(history) - 1]))
    return {name: float(values[0]) for name, values in made.items()}


def same(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_array_equal(a, b)  # to the bit; NaN equals NaN


@many
@given(history=histories, later=st.lists(rows, max_size=10), other_labels=st.lists(labels, min_size=60, max_size=60))
def test_nothing_later_or_of_the_same_second_matters_and_no_label_younger_than_7_days(
    history: list[Row], later: list[Row], other_labels: list[float]
) -> None:
    now = history[0][0]
    earlier = [row for row in history[1:] if row[0] < now]
    relabelled = [
        (*row[:4], label if row[0] > now - LABEL_DAYS * DAY else row[4])
        for row, label in zip([history[0], *earlier], other_labels, strict=False)
    ]
    new = [(max(row[0], now), *row[1:]) for row in later]
    same(of_rows(history, [0]), of_rows([*relabelled, *new], [0]))


@many
@given(history=histories, data=st.data())
def test_the_order_of_events_and_of_the_wanted_rows_does_not_matter(history: list[Row], data: Any) -> None:
    order = data.draw(st.permutations(range(len(history))))
    wanted = data.draw(st.lists(st.sampled_from(range(len(history))), max_size=10))  # rows may be wanted twice
    shuffled = [history[i] for i in order]
    same(of_rows(history, wanted), of_rows(shuffled, [order.index(i) for i in wanted]))


@many
@given(history=histories, old=histories)
def test_nothing_before_the_declared_lookback_matters(history: list[Row], old: list[Row]) -> None:
    window = features.lookback_days * DAY
    within = [row for row in history if row[0] > history[0][0] - window]
    before = [(history[0][0] - window - (START + 71 * DAY - row[0]), *row[1:]) for row in old]
    before.append((history[0][0] - window, *before[0][1:]))
    same(of_rows(within, [0]), of_rows([*within, *before], [0]))


@many
@given(history=histories)
def test_one_row_with_its_customers_and_its_terminals_past_equals_the_batch(history: list[Row]) -> None:
    batch = of_rows(history, list(range(len(history))))
    for i, (now, customer, terminal, _, _) in enumerate(history):
        past = [
            (*row[:4], row[4] if row[0] <= now - LABEL_DAYS * DAY else np.nan)
            for row in history
            if row[0] < now and (row[1] == customer or row[2] == terminal)
        ]
        same(batch[[i]], of_rows([*past, history[i]], [len(past)]))


def test_days_computed_alone_equal_all_of_history_on_simulated_payments() -> None:
    payments = PaymentSimulator.small().payments(dt.date(2018, 4, 1), dt.date(2018, 7, 10))
    history, paid_at = events_of(payments), payments["paid_at"].to_numpy()
    day = np.datetime64("2018-07-09")
    inside = (paid_at >= day) & (paid_at < day + 1)
    window = (paid_at >= day - LOOKBACK_DAYS) & (paid_at < day + 1)
    whole = compute(history, np.flatnonzero(inside))
    alone = compute({name: values[window] for name, values in history.items()}, np.flatnonzero(inside[window]))
    assert inside.sum() > 200
    assert window.sum() < len(payments) - 10_000
    for name in features.names:
        same(whole[name], alone[name])


def test_the_published_features_equal_pandas_outside_ties() -> None:
    payments = PaymentSimulator.small().payments(dt.date(2018, 4, 1), dt.date(2018, 5, 31))
    payments.loc[1, ["paid_at", "customer_id"]] = payments.loc[0, ["paid_at", "customer_id"]]
    everything = compute_published(events_of(payments), np.arange(len(payments)))
    theirs = published_by_pandas(payments)
    assert tuple(everything) == tuple(theirs) == features.names[:15]
    assert tied(payments).sum() == 2
    assert theirs["terminal_fraud_share_30d"].max() == 1
    assert largest_difference(payments, everything, theirs) < CLOSE
    everything["terminal_count_7d"][5] += 1
    assert largest_difference(payments, everything, theirs) == 1


def test_payments_of_one_second_do_not_see_each_other() -> None:
    first, second = (START, 1, 1, 1_000, np.nan), (START, 1, 1, 5_000, np.nan)
    made = compute(events([first, second]), np.array([0, 1]))
    assert made["customer_count_1d"].tolist() == [1, 1]
    assert made["customer_mean_1d"].tolist() == [10, 50]
    later = of_last(first, second, (START + 1, 1, 2, 3_000, np.nan))
    assert (later["customer_count_1d"], later["customer_mean_1d"]) == (3, 30)


@pytest.mark.parametrize(("age", "known"), [(LABEL_DAYS * DAY, 1), (LABEL_DAYS * DAY - 1, 0)])
def test_a_label_is_known_after_7_days_to_the_second(age: int, known: int) -> None:
    now = START + 20 * DAY
    made = of_last((now - age, 5, 1, 1_000, 1.0), (now, 1, 1, 1_000, np.nan))
    assert made["terminal_run"] == made["terminal_count_1d"] == made["terminal_fraud_share_1d"] == known


def test_a_terminals_labelled_history() -> None:
    now = START + 40 * DAY
    made = of_last(
        (now - 30 * DAY, 5, 1, 1_000, 1.0),  # before the last good one: not of the run
        (now - 20 * DAY, 5, 1, 1_000, 0.0),
        (now - 20 * DAY, 6, 1, 1_000, 1.0),  # in its second: neither
        (now - 18 * DAY, 7, 1, 30_000, 1.0),
        (now - 15 * DAY, 7, 2, 1_000, 0.0),  # elsewhere
        (now - 12 * DAY, 7, 1, 15_000, 1.0),
        (now - 11 * DAY, 7, 1, 1_000, np.nan),  # label never landed
        (now - 9 * DAY, 7, 1, 1_000, 1.0),
        (now - 2 * DAY, 7, 1, 1_000, 0.0),  # not known yet
        (now, 1, 1, 1_000, np.nan),
    )
    assert (made["terminal_run"], made["terminal_run_ordinary"], made["terminal_run_small"]) == (3, 2, 1)
    assert (made["terminal_run_days"], made["terminal_days_since_good"]) == (18, 20)
    assert made["terminal_onset_days"] == 2
    assert made["terminal_days_since_fraud"] == made["terminal_days_since_label"] == 9
    assert made["terminal_goods_since_fraud"] == 0
    assert (made["terminal_count_30d"], made["terminal_fraud_share_30d"]) == (6, np.float32(5 / 6))


def test_a_terminal_that_recovered_and_one_never_seen() -> None:
    now = START + 40 * DAY
    fraud, good = (now - 10 * DAY, 5, 1, 1_000, 1.0), [(now - d * DAY, 5, 1, 1_000, 0.0) for d in (9, 8)]
    made = of_last(fraud, *good, (now, 1, 1, 1_000, np.nan))
    assert (made["terminal_run"], made["terminal_run_days"], made["terminal_goods_since_fraud"]) == (0, 0, 2)
    assert (made["terminal_days_since_fraud"], made["terminal_days_since_good"]) == (10, 8)
    unseen = of_last(fraud, *good, (now, 1, 2, 1_000, np.nan))
    assert {unseen[f"terminal_days_since_{what}"] for what in ("good", "fraud", "label")} == {LOOKBACK_DAYS}
    assert unseen["terminal_run"] == unseen["terminal_goods_since_fraud"] == 0


def test_a_customers_habit() -> None:
    now = START + 50 * DAY
    made = of_last(
        (now - 56 * DAY, 1, 9, 90_000, 0.0),  # too long ago to be usual
        *((now - days * DAY, 1, 9, cents, 0.0) for days, cents in ((30, 800), (20, 1_000), (10, 1_200))),
        (now - 9 * DAY, 1, 9, 5_000, 1.0),  # large, and a known fraud: not usual
        (now - 3 * DAY, 1, 9, 4_000, 0.0),  # large; that it is good nobody knows yet
        (now - 2 * DAY, 1, 9, 2_000, np.nan),  # twice the usual
        (now, 1, 9, 2_500, np.nan),
    )
    assert (made["customer_usual_amount"], made["amount_to_usual"]) == (10, 2.5)
    assert made["amount_deviations"] == pytest.approx(15 / np.std([8, 10, 12]))
    assert (made["customer_large_7d"], made["customer_large_14d"]) == (1, 2)
    assert made["customer_large_share_14d"] == 0.5
    assert made["customer_mean_to_usual_7d"] == 3
    assert (made["customer_days_since_large"], made["customer_days_since_last"]) == (3, 2)
    assert (made["customer_known_goods_7_14d"], made["customer_known_frauds_7_21d"]) == (1, 1)


def test_of_a_new_customer_nothing_usual_can_be_said() -> None:
    made = of_last((START, 1, 1, 1_000, np.nan))
    missing = {name for name, value in made.items() if np.isnan(value)}
    assert missing == {"customer_usual_amount", "amount_to_usual", "amount_deviations"}
    known_by_two = of_last(*((START + s, 1, 1, 1_000 * (s + 1), np.nan) for s in range(3)))
    assert (known_by_two["customer_usual_amount"], known_by_two["amount_to_usual"]) == (15, 2)


def test_the_calendar() -> None:
    made = compute(events([(START + h * 3_600, 1, 1, 100, np.nan) for h in (0, 6, 7, 24)]), np.arange(4))
    assert made["is_night"].tolist() == [1, 1, 0, 1]
    assert made["is_weekend"].tolist() == [1, 1, 1, 0]  # 2018-04-01 was a Sunday


def test_what_is_declared_is_what_is_made() -> None:
    made = compute(events([(START, 1, 1, 100, np.nan)]), np.array([0]))
    assert tuple(made) == features.names
    assert {values.dtype for values in made.values()} == {np.dtype(np.float32)}
    assert all(len(values) == 0 for values in compute(events([(START, 1, 1, 100, np.nan)]), np.array([], int)).values())


@pytest.mark.parametrize("seed", range(3))
def test_parts_need_the_rows_of_their_own_entities_alone(seed: int) -> None:
    first = dt.date(2018, 5, 1)
    payments = PaymentSimulator.small(seed=seed).payments(first, first + dt.timedelta(days=40))
    given = events_of(payments)
    wanted = np.sort(np.random.default_rng(seed).choice(len(payments), 500, replace=False))
    values: dict[str, np.ndarray] = {}
    for entity, part in features.parts.items():
        for shard in range(3):
            rows = np.flatnonzero(given[entity] % 3 == shard)
            asked = np.flatnonzero(np.isin(rows, wanted))
            made = part({name: of_all[rows] for name, of_all in given.items()}, asked)
            for name, of_shard in made.items():
                values.setdefault(name, np.empty(len(wanted), of_shard.dtype))
                values[name][np.searchsorted(wanted, rows[asked])] = of_shard
    joined = join({name: given[name][wanted] for name in features.reads}, values)
    whole = compute(given, wanted)
    assert {name: of_name.tobytes() for name, of_name in joined.items()} == {
        name: of_name.tobytes() for name, of_name in whole.items()
    }

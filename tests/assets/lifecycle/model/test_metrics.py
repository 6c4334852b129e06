"""Figures against scikit-learn and by hand; what weights, intervals and the daily review list promise."""

import datetime as dt
import itertools
import json
import time as clock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from assets.declaration import Evaluation
from assets.lifecycle.model import metrics
from assets.lifecycle.model.metrics import Ranking, Reviews, estimate, evaluate, known_positive, reliability, saved

# Few distinct scores, so that ties are the rule.
labelled = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), min_size=2, max_size=40).filter(
    lambda rows: len({y for y, _ in rows}) == 2
)
weighted = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5), st.integers(0, 3)), min_size=2, max_size=40).filter(
    lambda rows: len({y for y, _, w in rows if w}) == 2
)


def columns(rows):
    return (np.array(column, float) for column in zip(*rows, strict=True))


# --- Curve ---


@given(labelled)
def test_auc_and_ap_are_those_of_scikit_learn_ties_included(rows):
    y, p = columns(rows)
    assert metrics.roc_auc(y, p) == pytest.approx(roc_auc_score(y, p))
    assert metrics.average_precision(y, p) == pytest.approx(average_precision_score(y, p))


@given(weighted)
def test_a_weight_is_a_repeat(rows):
    y, p, weight = columns(rows)
    repeat = weight.astype(int)
    weighed, repeated = Ranking.of(y, p).curve(weight), Ranking.of(y.repeat(repeat), p.repeat(repeat)).curve()
    for name in ("average_precision", "roc_auc"):
        assert getattr(weighed, name) == pytest.approx(getattr(repeated, name))
    assert weighed.recall_at(0.1) == pytest.approx(repeated.recall_at(0.1))
    assert weighed.average_precision == pytest.approx(average_precision_score(y, p, sample_weight=weight))


@given(labelled, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_is_of_no_account(rows, random):
    shuffled = random.sample(rows, len(rows))
    one, other = (Ranking.of(*columns(some)).curve() for some in (rows, shuffled))
    assert one.average_precision == other.average_precision
    assert one.precision_at(0.3) == other.precision_at(0.3)


def test_precision_and_recall_at_a_share_by_hand():
    curve = Ranking.of(np.array([1, 0, 1, 0, 0, 0, 0, 0, 0, 1]), np.arange(10)[::-1]).curve()
    assert curve.precision_at(0.3) == pytest.approx(2 / 3)
    assert curve.recall_at(0.3) == pytest.approx(2 / 3)
    # Two of the three rows that tie are alerted: two thirds of the tie's one positive.
    tied = Ranking.of(np.array([1, 0, 0, 0, 0, 0, 0, 0, 0, 0]), np.array([5, 5, 5, 1, 1, 1, 1, 1, 1, 1])).curve()
    assert tied.recall_at(0.2) == pytest.approx(2 / 3)


def test_figures_of_an_absent_class_are_undefined_not_zero():
    none = Ranking.of(np.zeros(3), np.array([0.1, 0.2, 0.3])).curve()
    assert np.isnan([none.average_precision, none.roc_auc, none.recall_at(0.5)]).all()
    assert none.precision_at(0.5) == 0
    assert np.isnan(Ranking.of(np.ones(3), np.array([0.1, 0.2, 0.3])).curve().roc_auc)
    empty = Ranking.of(np.array([]), np.array([])).curve()
    assert np.isnan([empty.average_precision, empty.roc_auc, empty.precision_at(0.5)]).all()


# --- CP@k ---


def test_card_precision_by_hand():
    # Day 0: cards a (two payments, the weaker one a fraud), b, c. k = 1.
    day = np.array([0, 0, 0, 0, 1, 1, 1])
    card = np.array([0, 0, 1, 2, 0, 1, 2])
    y = np.array([0, 1, 0, 1, 1, 1, 0])
    p = np.array([0.9, 0.1, 0.5, 0.3, 0.9, 0.6, 0.7])
    # Day 0 looks at a: a fraud of that day, found. Day 1 leaves a out and looks at c, which is good.
    assert Reviews.of(day, card, y, p, 1).by_day().tolist() == [1.0, 0.0]
    # k = 2: a and b, of which a; then c and b, of which b.
    assert Reviews.of(day, card, y, p, 2).by_day().tolist() == [0.5, 0.5]
    # A day with fewer cards than k still counts k.
    assert Reviews.of(day, card, y, p, 10).by_day().tolist() == [0.2, 0.1]
    # Best for k = 1: two of the three found, one a day. For k = 10 all three of them once: 3 / 20.
    assert Reviews.of(day, card, y, p, 1).maximum() == 1.0
    assert Reviews.of(day, card, y, p, 10).maximum() == pytest.approx(0.15)


def test_the_maximum_looks_ahead():
    # Cards 0 and 1 are positive on day 0, only card 0 on day 1: one a day finds both if day 0 takes card 1.
    day, card, y = np.array([0, 0, 1]), np.array([0, 1, 0]), np.ones(3)
    assert Reviews.of(day, card, y, np.array([0.9, 0.8, 0.9]), 1).by_day().tolist() == [1.0, 0.0]
    assert Reviews.of(day, card, y, np.array([0.8, 0.9, 0.9]), 1).by_day().tolist() == [1.0, 1.0]
    assert Reviews.of(day, card, y, np.array([0.9, 0.8, 0.9]), 1).maximum() == 1.0


def test_no_positive_means_a_maximum_of_zero():
    assert Reviews.of(np.array([0, 1]), np.array([0, 1]), np.zeros(2), np.array([0.1, 0.2]), 1).maximum() == 0


payments = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 1), st.integers(0, 9)), min_size=1, max_size=12
)


@given(payments, st.integers(1, 3))
def test_card_precision_never_exceeds_its_maximum(rows, k):
    reviews = Reviews.of(*(column.astype(int) for column in columns(rows)), k)
    assert reviews.by_day().mean() <= reviews.maximum() + 1e-12


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 1)), min_size=1, max_size=5, unique=True)
)
def test_the_maximum_is_reached_by_some_scores(rows):
    day, card, y = (column.astype(int) for column in columns(rows))
    best = max(
        Reviews.of(day, card, y, np.array(p), 1).by_day().mean() for p in itertools.permutations(range(len(rows)))
    )
    assert best == pytest.approx(Reviews.of(day, card, y, np.zeros(len(rows)), 1).maximum())


def test_weighing_cards_is_drawing_them_more_than_once():
    day, card = np.array([0, 0, 0]), np.array([0, 1, 2])
    reviews = Reviews.of(day, card, np.array([0, 1, 1]), np.array([0.9, 0.8, 0.7]), 2)
    assert reviews.by_day(np.array([1.0, 1, 1])).tolist() == [0.5]
    assert reviews.by_day(np.array([0.0, 2, 1])).tolist() == [1.0]
    assert reviews.by_day(np.array([2.0, 1, 1])).tolist() == [0.0]


# --- Known entities ---


def test_an_entity_is_known_from_the_delay_on_to_the_second():
    week = dt.timedelta(days=7)
    event = pd.Timestamp("2025-06-01 12:00:00")
    times = pd.to_datetime(["2025-06-08 11:59:59", "2025-06-08 12:00:00", "2025-07-01 00:00:00", "2025-07-01 00:00:00"])
    known = known_positive(np.array([1, 1, 1, 2]), times, np.array([1, 1]), [event + week, event], delay=week)
    assert known.tolist() == [False, True, True, False]
    nobody = known_positive(np.array([1, 2]), times[:2], np.array([], int), pd.to_datetime([]), delay=week)
    assert nobody.tolist() == [False, False]


def test_without_a_delay_a_row_does_not_make_its_own_entity_known():
    times = pd.to_datetime(["2025-06-01 12:00:00", "2025-06-01 12:00:00", "2025-06-01 12:00:01", "2025-06-01 11:00:00"])
    known = known_positive(np.array([1, 1, 1, 1]), times, np.array([1]), times[:1], delay=dt.timedelta())
    assert known.tolist() == [False, False, True, False]


# --- Calibration and money ---


def test_reliability_bins_hold_every_row_and_equal_expected_positives():
    rng = np.random.default_rng(0)
    p = rng.beta(0.3, 20, 20_000)
    y = rng.random(20_000) < p
    bins = reliability(y, p)
    assert sum(one.rows for one in bins) == 20_000
    assert [one.predicted for one in bins] == sorted(one.predicted for one in bins)
    expected = [one.rows * one.predicted for one in bins]
    assert max(expected) < 1.1 * min(expected)
    assert sum(one.low <= one.predicted <= one.high for one in bins) >= 8  # calibrated by construction
    assert reliability(y, np.zeros(20_000))[0].rows == 20_000


def test_the_calibration_error_by_hand():
    # Two bins of equal expected positives: one row at 1.0, two rows at 0.5.
    p, y = np.array([1.0, 0.5, 0.5]), np.array([1.0, 0.0, 0.0])
    assert metrics.calibration_error(y, p).error == pytest.approx((0 + 2 * 0.5) / 3)


@pytest.mark.parametrize(("rows", "rate"), [(150, 0.3), (2_000, 0.1), (20_000, 0.01)])
def test_calibrated_probabilities_exceed_the_error_of_chance_in_about_one_case_in_twenty(rows, rate):
    rng = np.random.default_rng(0)
    beyond, beyond_if_squared = 0, 0
    for _ in range(100):
        p = 1 / (1 + np.exp(-rng.normal(np.log(rate / (1 - rate)), 1.5, rows)))
        y = (rng.random(rows) < p).astype(float)
        found, squared = metrics.calibration_error(y, p, draws=60), metrics.calibration_error(y, p**2, draws=60)
        beyond += found.error > found.by_chance
        beyond_if_squared += squared.error > squared.by_chance
    assert beyond <= 15
    assert beyond_if_squared >= 95


def test_the_lower_bound_of_an_estimate_and_its_mirror():
    found = metrics.Estimate(0.1, 0.1 - 1.96, 0.1 + 0.98)
    assert found.at_least == pytest.approx(0.1 - 1.645)
    assert -found == metrics.Estimate(-0.1, -0.1 - 0.98, -0.1 + 1.96)
    assert metrics.Estimate(0.1).at_least is None
    assert -metrics.Estimate(0.1) == metrics.Estimate(-0.1)


def test_saved_by_hand():
    y, p = np.array([1, 0, 1, 1]), np.array([0.5, 0.5, 0.01, 0.5])
    amount = np.array([100.0, 100, 100, 3])
    # Alerted: rows 0 and 1 (50 > 2). Row 2 is worth 1, row 3 is worth 1.50: cheaper to lose.
    assert saved(y, p, amount, 2.0).tolist() == [98, -2, 0, 0]
    assert saved(y, y, amount, 2.0).tolist() == [98, 0, 98, 1]


# --- Intervals ---


@given(st.lists(st.floats(0, 1), max_size=50), st.floats(0, 1))
def test_an_interval_holds_its_figure_and_stays_in_bounds(draws, value):
    found = estimate(value, np.array(draws))
    if len(draws) < 2:
        assert found.low is None
    else:
        assert 0 <= found.low <= value <= found.high <= 1


def test_rows_of_one_entity_are_one_observation():
    """Every row ten times adds nothing to know: drawn by entity the interval stays, drawn by rows it shrinks."""
    y, p, _, _ = sample(400)
    entity = np.arange(400)
    worse = np.clip(p + np.random.default_rng(1).normal(0, 0.2, 400), 0, 1)

    def width(repeats, cluster):
        found = metrics.paired_difference(
            y.repeat(repeats), p.repeat(repeats), worse.repeat(repeats), lambda curve: curve.roc_auc, cluster=cluster
        )
        return found.high - found.low

    assert width(10, entity.repeat(10)) == pytest.approx(width(1, entity))
    assert width(10, None) < 0.5 * width(1, entity)


def test_a_paired_difference_is_narrower_than_the_figures_apart():
    y, p, _, _ = sample(2000)
    other = np.clip(p + np.random.default_rng(1).normal(0, 0.01, len(p)), 0, 1)
    found = metrics.paired_difference(y, p, other, lambda curve: curve.average_precision)
    apart = evaluate(pd.DataFrame({"y": y}), {"a": p}, Evaluation(), target="y").models["a"]["average_precision"]
    assert found.value == pytest.approx(average_precision_score(y, p) - average_precision_score(y, other))
    assert found.low <= found.value <= found.high
    assert found.high - found.low < 0.3 * (apart.high - apart.low)
    same = metrics.paired_difference(y, p, p, lambda curve: curve.average_precision)
    assert (same.value, same.low, same.high) == (0, 0, 0)


# --- evaluate ---


def sample(n, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.beta(0.5, 3, n)
    return (rng.random(n) < p).astype(int), p, rng.integers(0, max(n // 10, 1), n), rng.gamma(2, 30, n).round(2)


def stream(n=3000):
    y, p, entity, amount = sample(n)
    at = pd.Timestamp("2025-06-01") + pd.to_timedelta(np.random.default_rng(2).integers(0, 7 * 86_400, n), unit="s")
    rows = pd.DataFrame({"is_fraud": y, "paid_at": at, "customer_id": entity, "amount": amount})
    return rows, {"torch": p, "flat": np.full(n, y.mean())}


def slices(rows):
    return {
        "small": (rows["amount"] < 20).to_numpy(),
        "frauds": (rows["is_fraud"] == 1).to_numpy(),
        "nobody": np.zeros(len(rows), bool),
    }


FULL = Evaluation(entity="customer_id", top_k=20, amount="amount", slices=slices)


def test_a_stream_gets_every_figure():
    rows, scores = stream()
    known = (rows["customer_id"] < 30).to_numpy()
    report = evaluate(rows, scores, FULL, target="is_fraud", time="paid_at", known=known, resamples=50)
    y, p = rows["is_fraud"].to_numpy()[~known], scores["torch"][~known]
    mine = report.models["torch"]

    assert report.candidate == "torch"
    assert (report.rows, report.positives, report.removed) == (len(y), y.sum(), known.sum())
    assert mine["average_precision"].value == pytest.approx(average_precision_score(y, p))
    assert mine["roc_auc"].value == pytest.approx(roc_auc_score(y, p))
    assert mine["brier"].value == pytest.approx(((p - y) ** 2).mean())
    amount = rows["amount"].to_numpy()[~known]
    assert mine["saved"].value == pytest.approx(saved(y, p, amount, 2.0).sum())
    assert report.money["lost_without_alerts"] == pytest.approx((y * amount).sum())
    assert report.money["oracle"] >= mine["saved"].value
    assert len(report.reviews["days"]) == len(report.reviews["by_day"]["torch"]) == 7
    assert np.mean(report.reviews["by_day"]["torch"]) == pytest.approx(mine["cp_at_k"].value)
    assert mine["cp_at_k"].value <= report.reviews["maximum"]
    for figures in report.models.values():
        for figure in figures.values():
            assert figure.low <= figure.value <= figure.high
    assert report.with_removed["torch"]["roc_auc"].value == pytest.approx(
        roc_auc_score(rows["is_fraud"], scores["torch"])
    )
    difference = report.differences["flat"]["roc_auc"]
    assert difference.value == pytest.approx(mine["roc_auc"].value - 0.5)
    assert difference.low > 0
    assert (
        json.loads(json.dumps(report.to_dict(), allow_nan=False))["models"]["torch"]["roc_auc"]["value"]
        == (report.numbers("torch")["roc_auc"])
    )


def test_slices_give_what_is_defined_there_and_say_how_much_it_rests_on():
    rows, scores = stream()
    found = evaluate(rows, scores, FULL, target="is_fraud", resamples=20).slices
    small = rows["amount"] < 20
    assert found["small"].figures["average_precision"].value == pytest.approx(
        average_precision_score(rows["is_fraud"][small], scores["torch"][small])
    )
    assert (found["small"].rows, found["small"].positives) == (small.sum(), rows["is_fraud"][small].sum())
    assert set(found["frauds"].figures) == {"recall_at_1pct"}  # without negatives AP would be 1 whatever the scores
    assert found["frauds"].figures["recall_at_1pct"].low is not None
    assert found["nobody"].figures == {}
    assert found["nobody"].rows == 0


def test_slices_are_compared_with_the_champion_on_the_same_rows_and_draws():
    rows, scores = stream()
    small = (rows["amount"] < 20).to_numpy()
    scores["champion"] = np.where(small, 1 - scores["torch"], scores["torch"])
    found = evaluate(rows, scores, FULL, target="is_fraud", resamples=20)
    truth = rows["is_fraud"][small]
    gain = found.slice_differences["small"]["roc_auc"]
    assert gain.value == pytest.approx(
        roc_auc_score(truth, scores["torch"][small]) - roc_auc_score(truth, scores["champion"][small])
    )
    assert gain.low > 0
    assert found.slice_differences["nobody"] == {}
    same = evaluate(rows, scores | {"champion": scores["torch"]}, FULL, target="is_fraud", resamples=20)
    assert same.slice_differences["small"]["roc_auc"] == metrics.Estimate(0.0, 0.0, 0.0)
    without = evaluate(rows, {"torch": scores["torch"]}, FULL, target="is_fraud", resamples=20)
    assert without.slice_differences == {}


def test_a_plain_table_lacks_what_does_not_apply():
    y, p, _, _ = sample(500)
    report = evaluate(pd.DataFrame({"Churn": y}), {"torch": p}, Evaluation(), target="Churn", resamples=20)
    assert not {"cp_at_k", "saved", "saved_share", "alert_rate"} & set(report.models["torch"])
    assert (report.reviews, report.money) == (None, None)
    assert (report.slices, report.differences, report.with_removed) == ({}, {}, {})
    assert report.models["torch"]["average_precision"].low is not None


def test_few_positives_give_a_figure_without_a_pretended_interval():
    y = np.zeros(300)
    y[:3] = 1
    frame = pd.DataFrame({"y": y})
    report = evaluate(frame, {"torch": np.linspace(1, 0, 300)}, Evaluation(), target="y", resamples=20)
    assert report.models["torch"]["roc_auc"] == metrics.Estimate(1.0)


def test_the_same_seed_gives_the_same_report():
    rows, scores = stream(1000)
    one, other = (evaluate(rows, scores, FULL, target="is_fraud", time="paid_at", resamples=20) for _ in range(2))
    assert one.to_dict() == other.to_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "fraud"}, r"no column 'fraud'.*is_fraud, paid_at"),
        ({"evaluation": Evaluation(amount="price")}, r"no column 'price'"),
        ({"scores": {"torch": np.full(1000, np.nan)}}, r"'torch' has 1000 values that are not probabilities, e.g. nan"),
        ({"scores": {"torch": np.full(1000, 1.5)}}, r"not probabilities, e.g. 1.5"),
        ({"scores": {"torch": np.zeros(3)}}, r"shape \(3,\); it must give one probability for each of 1000 rows"),
        ({"scores": {}}, r"no scores"),
        ({"target": "customer_id"}, r"must be 0 or 1"),
        ({"evaluation": Evaluation(slices=lambda rows: {"x": np.ones(2)})}, r"slice 'x' is float64 of shape \(2,\)"),
        ({"known": np.ones(1000, bool)}, r"0 test rows with 0 positive"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, message):
    rows, scores = stream(1000)
    arguments = {"scores": scores, "evaluation": Evaluation(), "target": "is_fraud"} | change
    with pytest.raises(ValueError, match=message):
        evaluate(rows, **arguments)


def test_a_probability_may_be_off_by_a_rounding_error():
    rows, scores = stream(1000)
    off = scores["torch"] + np.where(scores["torch"] > 0.5, 1 - scores["torch"] + 1e-15, 0)
    assert off.max() > 1
    assert evaluate(rows, {"torch": off}, Evaluation(), target="is_fraud", resamples=2).rows == 1000


def test_one_class_is_refused_with_the_mend():
    with pytest.raises(ValueError, match="both classes are needed; evaluate on a longer period"):
        evaluate(pd.DataFrame({"y": np.zeros(50)}), {"torch": np.zeros(50)}, Evaluation(), target="y")


def test_missing_labels_are_refused():
    with pytest.raises(ValueError, match="'y' of the test rows has missing values"):
        evaluate(pd.DataFrame({"y": [0, 1, None]}), {"torch": np.zeros(3)}, Evaluation(), target="y")


def test_seventy_thousand_rows_take_seconds():
    rows, scores = stream(70_000)
    started = clock.process_time()
    evaluate(rows, scores, FULL, target="is_fraud", time="paid_at", known=(rows["customer_id"] < 30).to_numpy())
    assert clock.process_time() - started < 6  # 0.6 on the machine it was written on

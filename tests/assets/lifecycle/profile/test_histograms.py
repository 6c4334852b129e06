"""Counts add up exactly, and the tests on them are those on the values."""

import numpy as np
import pytest

from assets.lifecycle.profile.histograms import Bins, Histogram, difference


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


NUMBERS = Bins.of(rng().normal(size=20_000))
CATEGORIES = Bins.of(rng().choice(4, 1_000).astype(float))


@pytest.mark.parametrize("bins", [NUMBERS, CATEGORIES], ids=["numbers", "categories"])
def test_parts_add_up_to_the_whole(bins):
    values = np.concatenate([rng(1).normal(size=5_000), rng(2).choice(4, 5_000), [np.nan] * 7])
    whole, parts = bins.count(values), [bins.count(part) for part in np.array_split(values, 13)]
    added = sum(parts[1:], parts[0])
    assert added.to_json() == whole.to_json()
    assert whole.rows == len(values)
    assert whole.missing == 7


def test_numbers_fall_where_they_belong():
    bins = Bins("number", np.array([0.0, 1.0, 2.0]), 0.0, 3.0)
    counted = bins.count(np.array([-1.0, 0.0, 0.5, 1.0, 2.5, 3.0, 9.0, np.nan]))
    assert counted.counts.tolist() == [2, 2, 0, 3]
    assert (counted.missing, counted.below, counted.above) == (1, 1, 1)


def test_a_value_that_the_reference_does_not_know_is_counted_as_new():
    counted = CATEGORIES.count(np.array([0.0, 3.0, 1.5, 9.0, -1.0]))
    assert counted.counts.tolist() == [1, 0, 0, 1, 3]
    assert counted.new == 3


def test_other_bins_are_refused():
    with pytest.raises(ValueError, match="cannot be added"):
        NUMBERS.count(np.zeros(3)) + CATEGORIES.count(np.zeros(3))
    with pytest.raises(ValueError, match="cannot be compared"):
        difference(NUMBERS.count(np.zeros(3)), CATEGORIES.count(np.zeros(3)))
    with pytest.raises(ValueError, match="other bins"):
        Histogram.from_json(CATEGORIES, NUMBERS.count(np.full(3, 9.0)).to_json())


def test_it_comes_back_from_json():
    counted = NUMBERS.count(rng(3).normal(size=100))
    assert Histogram.from_json(NUMBERS, counted.to_json()).counts.tolist() == counted.counts.tolist()


@pytest.mark.parametrize(("n", "shift"), [(300, 0.0), (1_000, 0.1), (1_000, 0.2), (10_000, 0.05)])
def test_the_ks_test_on_counts_is_that_on_the_values(n, shift):
    from scipy.stats import ks_2samp

    before, now = rng(4).normal(size=20_000), rng(5).normal(shift, size=n)
    bins = Bins.of(before)
    found, exact = difference(bins.count(before), bins.count(now)), ks_2samp(before, now)
    assert found.effect == pytest.approx(exact.statistic, abs=1 / 200)
    assert np.log(found.p_value) == pytest.approx(np.log(exact.pvalue), rel=0.2, abs=0.3)


def test_a_float_that_was_rounded_falls_where_the_reference_put_it():
    values = np.array([0.1, 0.2, 0.3] * 10 + list(np.linspace(1, 2, 20)))
    bins = Bins.of(values.astype(np.float32))
    assert bins.count(values).counts.tolist() == bins.count(values.astype(np.float32)).counts.tolist()


def test_an_empty_side_differs_in_nothing_and_an_empty_reference_is_all_missing():
    assert difference(NUMBERS.count(np.array([])), NUMBERS.count(np.zeros(9))).p_value == 1.0
    empty = Bins.of(np.full(500, np.nan))
    assert difference(empty.count(np.full(500, np.nan)), empty.count(np.full(400, np.nan))).p_value == 1.0
    assert difference(empty.count(np.full(500, np.nan)), empty.count(np.ones(400))).effect == 1.0

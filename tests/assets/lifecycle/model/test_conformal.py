"""Intervals of forecasts: how many true values they contain, and when too few do."""

import numpy as np
import pytest

from assets.lifecycle.model.conformal import Coverage, Intervals


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
def test_the_declared_share_of_new_values_lies_within(coverage):
    shares = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        spread = rng.choice([1.0, 10.0], 1_200)
        truth = rng.standard_t(4, 1_200) * spread
        intervals = Intervals.fit(truth[:200], np.zeros(200), spread[:200], coverage)
        low, high = intervals.ends(np.zeros(1_000), spread[200:])
        shares.append(np.mean((truth[200:] >= low) & (truth[200:] <= high)))
    assert np.mean(shares) == pytest.approx(coverage, abs=0.02)
    assert np.mean(shares) >= coverage - 0.005


def test_a_restless_series_has_wider_intervals():
    rng = np.random.default_rng(0)
    spread = np.repeat([1.0, 10.0], 500)
    intervals = Intervals.fit(rng.normal(0, spread), np.zeros(1_000), spread, 0.9)
    low, high = intervals.ends(np.zeros(2), np.array([1.0, 10.0]))
    assert (high - low)[1] == pytest.approx(10 * (high - low)[0])


def test_few_errors_give_their_widest_interval():
    intervals = Intervals.fit(np.array([-2.0, 1.0, 3.0]), np.zeros(3), np.ones(3), 0.9)
    assert (intervals.low, intervals.high, intervals.rows) == (-2.0, 3.0, 3)


@pytest.mark.parametrize("spread", [np.full(50, np.nan), np.zeros(50)])
def test_a_series_without_a_spread_has_the_usual_interval(spread):
    intervals = Intervals.fit(np.linspace(-1, 1, 50), np.zeros(50), spread, 0.9)
    low, high = intervals.ends(np.zeros(1), np.array([np.nan]))
    assert np.isfinite([*low, *high]).all()
    assert low < 0 < high


def test_values_survive_json():
    intervals = Intervals.fit(np.linspace(-1, 1, 50), np.zeros(50), np.ones(50), 0.9)
    assert Intervals(**intervals.to_dict()) == intervals


DAY = np.repeat(np.arange(20), 50)


def coverage_of(share: float, seed: int = 0) -> Coverage:
    truth = np.where(np.random.default_rng(seed).random(1_000) < share, 0.0, 5.0)
    return Coverage.of(truth, np.full(1_000, -1.0), np.full(1_000, 1.0), DAY, 0.9)


@pytest.mark.parametrize(("share", "short"), [(0.95, False), (0.9, False), (0.89, False), (0.8, True), (0.5, True)])
def test_too_few_within_are_told_from_chance(share, short):
    assert [coverage_of(share, seed).is_short for seed in range(10)] == [short] * 10
    assert coverage_of(share).width == 2


def test_one_day_says_nothing():
    one = Coverage.of(np.full(50, 5.0), np.full(50, -1.0), np.full(50, 1.0), np.zeros(50), 0.9)
    assert one.share == 0
    assert not one.is_short


def test_the_ends_are_the_errors_of_their_ranks():
    errors = np.arange(19.0) - 5
    intervals = Intervals.fit(errors[::-1] + 2, np.full(19, 2.0), np.ones(19), 0.8)
    assert (intervals.low, intervals.high, intervals.rows) == (errors[1], errors[17], 19)
    assert intervals.coverage == 0.8
    assert Intervals.fit(errors[:9], np.zeros(9), np.ones(9), 0.8).high == errors[8]


def test_a_spread_that_is_missing_or_tiny_has_the_usual_one_and_the_smallest():
    spread = np.array([2.0, 4.0, 8.0, 0.0, np.nan, np.inf])
    intervals = Intervals.fit(np.zeros(6), np.zeros(6), spread, 0.9)
    assert (intervals.typical, intervals.floor) == (4.0, 0.2)
    assert intervals.scale(np.array([np.nan, np.inf, 0.0, 0.1, 3.0])).tolist() == [4.0, 4.0, 0.2, 0.2, 3.0]
    assert Intervals.fit(np.zeros(3), np.zeros(3), np.array([0.25, 0.5, 4.0]), 0.9).typical == 0.5
    blank = Intervals.fit(np.zeros(2), np.zeros(2), np.array([np.nan, 0.0]), 0.9)
    assert (blank.typical, blank.floor) == (1.0, 0.05)


def test_errors_are_scaled_before_they_are_ranked_and_the_ends_scaled_back():
    intervals = Intervals.fit(np.array([10.0, 1.0]), np.zeros(2), np.array([10.0, 0.5]), 0.9)
    assert (intervals.low, intervals.high) == (1.0, 2.0)
    assert Intervals.fit(np.array([1.0, 0.4]), np.zeros(2), np.array([0.0, 4.0]), 0.9).high == 5.0, "1 by the floor"
    low, high = intervals.ends(np.array([3.0]), np.array([4.0]))
    assert (low[0], high[0]) == (7.0, 11.0)


def test_the_share_is_the_mean_of_the_days():
    day = np.array([1, 1, 2, 2, 2, 2])
    truth = np.array([0.0, 1.0, -1.0, 0.5, 5.0, -5.0])
    found = Coverage.of(truth, np.full(6, -1.0), np.full(6, 1.0), day, 0.9)
    assert (found.share, found.days, found.width) == (0.75, 2, 2.0), "a value at an end lies within"
    assert found.error == pytest.approx(0.25)
    assert (found.wanted, Coverage.of(truth[:2], truth[:2], truth[:2], day[:2], 0.9).error) == (0.9, np.inf)


def test_short_is_below_the_tolerance_and_beyond_chance():
    def is_short(share: float, error: float) -> bool:
        return Coverage(0.9, share, error, 20, 1.0).is_short

    assert not is_short(0.9 - 0.02, 0.0)
    assert is_short(np.nextafter(0.9 - 0.02, 0), 0.0)
    assert is_short(0.8, 0.03)
    assert not is_short(0.8, 0.05)

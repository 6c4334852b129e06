"""The surge rule on simulated topics: how often it is wrong, what it finds, and what its history is."""

import numpy as np
import pytest

from assets.lifecycle.monitoring.surge_rule import HOURS, expectation, judge, wilson
from assets.surge import Surge

RULE = Surge(value="negative", column="topic")
MONDAY = 738_998
"""An ordinal."""
WEEK = np.array([1.15, 1.25, 1.25, 1.2, 1.15, 0.5, 0.5])


def at_noon(counts) -> np.ndarray:
    """Counts of days, all of them at noon."""
    found = np.zeros((len(counts), HOURS), dtype=int)
    found[:, 12] = counts
    return found


def drawn(seed: int, days: range, level: float, dispersion: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mean = level * WEEK[(np.array(days) - 1) % 7]
    return rng.poisson(rng.gamma(mean / (dispersion - 1), dispersion - 1) if dispersion > 1 else mean)


def verdict(counts, count, *, levels=None, rule=RULE, day=MONDAY):
    """The verdict on a day after days with these counts."""
    days = range(day - len(counts), day)
    levels = levels or ["ok"] * len(counts)
    return judge(day, at_noon([count])[0], days, at_noon(counts), levels, rule)


@pytest.mark.parametrize(("level", "dispersion"), [(5, 1.0), (30, 1.0), (30, 2.0), (100, 1.5)])
def test_quiet_days_page_in_at_most_one_per_cent(level, dispersion):
    days = range(MONDAY, MONDAY + 56 + 300)
    counts, levels = drawn(3, days, level, dispersion), ["ok"] * 56
    for i in range(56, len(days)):
        found = judge(days[i], at_noon(counts[i : i + 1])[0], days[i - 56 : i], at_noon(counts[i - 56 : i]),
                      levels[i - 56 :], RULE)  # fmt: skip
        levels.append(found.level)
    assert levels.count("page") <= 3


@pytest.mark.parametrize("dispersion", [1.0, 1.5])
def test_doublings_at_thirty_a_day_page_within_two_days(dispersion):
    found = 0
    for seed in range(60):
        first = MONDAY + seed % 4
        counts = drawn(seed, range(first - 56, first + 2), 30, dispersion)
        counts[-2:] = drawn(seed + 1_000, range(first, first + 2), 60, dispersion)
        one = verdict(counts[:56], counts[56], day=first)
        two = verdict(counts[1:57], counts[57], day=first + 1, levels=[*["ok"] * 55, one.level])
        found += "page" in (one.level, two.level)
    assert found >= 57


def test_a_weekday_is_compared_with_its_like():
    counts = np.round(30 * np.resize(WEEK, 56)).astype(int)
    on_monday = verdict(counts, 36)
    assert on_monday.level == "ok"
    assert on_monday.expected.mean == pytest.approx(34.5, rel=0.1)
    # The same count on a Saturday: the history then ends on a Friday.
    history = np.round(30 * WEEK[(np.arange(MONDAY + 5 - 56, MONDAY + 5) - 1) % 7]).astype(int)
    on_saturday = verdict(history, 36, day=MONDAY + 5)
    assert on_saturday.level == "page"
    assert on_saturday.expected.mean < 20


def test_too_short_a_history_is_not_judged():
    short = verdict(np.full(20, 10), 500)
    assert (short.level, short.judged, short.history_days) == ("ok", False, 20)
    assert verdict(np.full(21, 10), 500).level == "page"


def test_two_days_that_are_each_a_little_high_page_together():
    counts = drawn(0, range(MONDAY - 56, MONDAY), 30)
    counts[-1] = 15
    assert verdict(counts, 50).level != "page"
    counts[-1] = 28
    together = verdict(counts, 50)
    assert together.pooled_p < together.p_value
    assert together.level == "page"


def test_a_day_that_is_back_to_normal_does_not_page_for_the_day_before():
    counts = drawn(0, range(MONDAY - 56, MONDAY), 30)
    counts[-1] = 200
    assert verdict(counts, 30, levels=[*["ok"] * 55, "page"]).level == "ok"


def test_days_that_paged_do_not_hide_the_next_surge():
    counts = drawn(1, range(MONDAY - 56, MONDAY), 20)
    counts[20:26] = 90
    paged = ["page" if 20 <= i < 26 else "ok" for i in range(56)]
    assert verdict(counts, 60, levels=paged).level == "page"
    assert verdict(counts, 60).level != "page", "were they history, they would hide it"


def test_a_surge_that_lasts_becomes_the_usual_state():
    counts = drawn(2, range(MONDAY - 56, MONDAY), 20)
    counts[16:] = 60
    lasting = ["page" if i >= 16 else "ok" for i in range(56)]
    assert verdict(counts, 60, levels=lasting).level == "ok"


def test_a_small_rise_or_a_small_count_is_no_surge():
    assert verdict(np.full(56, 10_000), 12_500).level == "ok", "less than 1.3 times what was expected"
    assert verdict(np.zeros(56, dtype=int), 4).level == "ok", "fewer than 5 rows"
    assert verdict(np.zeros(56, dtype=int), 9).level == "page"


def test_a_surge_shows_by_the_hour():
    rng = np.random.default_rng(0)
    days = range(MONDAY - 56, MONDAY)
    earlier = rng.poisson(np.full((56, HOURS), 2.0))
    rule = Surge(value="negative", column="topic", hourly=True)
    today = np.full(HOURS, 8)
    found = judge(MONDAY, today, days, earlier, ["ok"] * 56, rule)
    assert found.level == "page"
    assert found.hour is not None
    assert 1 <= found.hour <= 6
    landed = judge(MONDAY, np.where(np.arange(HOURS) < 8, today, 0), days, earlier, ["ok"] * 56, rule, until_hour=8)
    assert landed.level == "page", "a day that has landed up to 8:00 is compared with 8 hours of other days"
    quiet = judge(MONDAY, np.full(HOURS, 2), days, earlier, ["ok"] * 56, rule)
    assert (quiet.level, quiet.hour) == ("ok", None)


def test_the_expectation_covers_what_is_not_known():
    few, many = (expectation(np.full(n, 10), np.arange(n) % 7, [0]) for n in (21, 56))
    assert few.variance > many.variance > many.mean
    low, high = many.bounds()
    assert low < 10 < high
    assert expectation(np.zeros(28), np.arange(28) % 7, [0]).tail(0) == 1


def test_the_interval_of_a_share_is_wilsons():
    low, high = wilson(np.array([8, 0, 0]), np.array([20, 10, 0]))
    assert low == pytest.approx([0.2188, 0, 0], abs=1e-4)
    assert high == pytest.approx([0.6134, 0.2775, 1], abs=1e-4)

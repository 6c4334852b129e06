"""The surge rule: whether a count of a day is more than the topic's own history explains.

Belongs here: pure functions of counts. Does not belong here: counting rows and storing the counts
(``topics_by_day.py``), notification (``sensors/alerts.py``).

The rule. A topic's count on a day is expected to be its level times the factor of the weekday, both from the last weeks
of its own history. Weekday factors are shrunk to 1, because eight Mondays say little. Counts vary more than Poisson's,
because texts follow events; how much more is estimated from the history (Pearson's residuals). The probability of a
count as large or larger is a negative binomial tail that also covers how uncertain level, factor and variation are.

A day below ``warn_p`` warns. A day below ``page_p`` pages, and so do a day and the day before together. Days that paged
are left out of the history, because they would hide the next surge. If they leave too few days, the surge has lasted so
long that it is the usual state, and they count as history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from assets.surge import Surge

Level = Literal["ok", "warn", "page"]

SHRINKAGE = 12.0
"""Number of expected rows, in units of the overdispersion, with which a weekday factor is drawn to 1."""
USUAL_DISPERSION, DISPERSION_DAYS = 1.3, 10.0
"""The overdispersion before any history, and the number of days that this assumption weighs."""
HOURS = 24
HOURLY_SHARE = 1 / 6
"""Share of ``page_p`` that a single hour must be below. 24 looks at one day are not 24 independent tests; this share
keeps a quiet day's false pages about as rare as one look at its end does (``benchmarks/surge.py``)."""


@dataclass(frozen=True)
class Expectation:
    """What a topic's history says of a count.

    Args:
        mean: expected count.
        variance: variance of the count around ``mean``, with the uncertainty of ``mean``.
        days: number of days of the history.
        dispersion: how many times Poisson's variance the counts vary.
        freedom: degrees of freedom of ``dispersion``.
        uncertainty: variance of the relative error of ``mean``.
    """

    mean: float
    variance: float
    days: int
    dispersion: float
    freedom: float
    uncertainty: float

    def tail(self, count: int) -> float:
        """Probability of ``count`` or more."""
        from scipy.stats import nbinom, poisson

        if count <= 0:
            return 1.0
        if self.variance <= self.mean * (1 + 1e-9):
            return float(poisson.sf(count - 1, self.mean))
        size = self.mean**2 / (self.variance - self.mean)
        return float(nbinom.sf(count - 1, size, self.mean / self.variance))

    def bounds(self, coverage: float = 0.95) -> tuple[float, float]:
        """The interval that holds a count with this probability."""
        from scipy.stats import nbinom

        size = self.mean**2 / max(self.variance - self.mean, 1e-9 * self.mean)
        at = [(1 - coverage) / 2, (1 + coverage) / 2]
        low, high = nbinom.ppf(at, size, size / (size + self.mean))
        return float(low), float(high)


@dataclass(frozen=True)
class SurgeResult:
    """The verdict on a topic's day.

    Args:
        count: rows of the counted class.
        level: the verdict; ``ok`` if it is not judged.
        judged: whether the history is long enough.
        expected: what was expected; ``None`` without a history.
        p_value: probability of the day's count or more; NaN if it is not judged.
        pooled_p: the same of the day and the day before together; NaN if the day before is not known.
        hour: first hour of the day, 0 to 23, after which the counts since midnight paged; ``None`` if none did.
        history_days: number of days of the history.
    """

    count: int
    level: Level = "ok"
    judged: bool = False
    expected: Expectation | None = None
    p_value: float = float("nan")
    pooled_p: float = float("nan")
    hour: int | None = None
    history_days: int = 0


def expectation(counts: np.ndarray, weekdays: np.ndarray, wanted: Sequence[int]) -> Expectation:
    """What is expected of the sum of some days, from the counts of earlier days.

    Args:
        counts: counts of the earlier days, ``[n]``, at least 14.
        weekdays: their weekdays, ``[n]``, Monday is 0.
        wanted: weekdays of the days whose sum is expected.
    """
    counts = np.asarray(counts, dtype=float)
    total, n = float(counts.sum()) + 0.5, len(counts)
    of_weekday = np.bincount(weekdays, counts, minlength=7)
    days = np.bincount(weekdays, minlength=7)
    factors, dispersion = np.ones(7), USUAL_DISPERSION
    for _ in range(8):
        level = total / float(days @ factors)
        prior = SHRINKAGE * dispersion
        factors = (of_weekday + prior) / (days * level + prior)
        factors /= float(days @ factors) / n
        fitted = np.maximum(level * factors[weekdays], 1e-9)
        residuals = float(((counts - fitted) ** 2 / fitted).sum())
        used = 1 + 6 * float(np.mean(days * level / (days * level + prior)))
        freedom = max(n - used, 1.0)
        dispersion = max(1.0, (residuals + USUAL_DISPERSION * DISPERSION_DAYS) / (freedom + DISPERSION_DAYS))
    means = level * factors[list(wanted)]
    mean = float(means.sum())
    of_level = dispersion / total
    of_factor = dispersion / (days * level + prior)
    # The days of one weekday share the error of its factor; those of all weekdays share that of the level.
    relative = of_level + float(
        sum((means[np.asarray(wanted) == d].sum() / mean) ** 2 * of_factor[d] for d in set(wanted))
    )
    variance = dispersion * mean + mean**2 * relative
    # The dispersion is an estimate, too: inflated as the variance of Student's t with these degrees of freedom.
    known = freedom + DISPERSION_DAYS
    return Expectation(mean, variance * known / max(known - 2, 1.0), n, dispersion, freedom, relative)


def history_of(days: Sequence[int], levels: Sequence[Level], surge: Surge) -> list[int]:
    """Positions of the earlier days that are a topic's history.

    Args:
        days: earlier days of the window as ordinals, ascending.
        levels: their verdicts.
        surge: the declaration.
    """
    paged = {day for day, level in zip(days, levels, strict=True) if level == "page"}
    # The day before a page that warned is the first day of the same surge.
    left_out = paged | {day for day, level in zip(days, levels, strict=True) if level == "warn" and day + 1 in paged}
    kept = [i for i, day in enumerate(days) if day not in left_out]
    return kept if len(kept) >= surge.least_days else list(range(len(days)))


def judge(
    day: int,
    by_hour: np.ndarray,
    days: Sequence[int],
    earlier: np.ndarray,
    levels: Sequence[Level],
    surge: Surge,
    *,
    until_hour: int = HOURS,
) -> SurgeResult:
    """Judges a topic's day.

    Args:
        day: the day as an ordinal (``date.toordinal``).
        by_hour: rows of the counted class by hour, ``[24]``.
        days: earlier days as ordinals, ascending; only those of the last ``surge.weeks`` weeks count.
        earlier: their counts by hour, ``[n, 24]``.
        levels: their verdicts, ``[n]``.
        surge: the declaration.
        until_hour: hours of the day that have landed; below 24, the day is compared with the same hours of other days.

    Returns:
        The verdict; not judged if fewer than ``surge.least_days`` days are known.
    """
    window = [i for i, earlier_day in enumerate(days) if day - 7 * surge.weeks <= earlier_day < day]
    known, counts = [days[i] for i in window], np.asarray(earlier).reshape(-1, HOURS)[window]
    count = int(np.sum(by_hour[:until_hour]))
    if len(known) < surge.least_days:
        return SurgeResult(count, history_days=len(known))
    kept = history_of(known, [levels[i] for i in window], surge)
    weekdays = np.array([(known[i] - 1) % 7 for i in kept])  # ordinal 1 is a Monday
    today = (day - 1) % 7
    cumulative, so_far = counts[kept].cumsum(axis=1), np.cumsum(by_hour)

    def at_hour(hour: int) -> tuple[Expectation, float]:
        expected = expectation(cumulative[:, hour], weekdays, [today])
        return expected, expected.tail(int(so_far[hour]))

    def rises(number: int, expected: Expectation) -> bool:
        return number >= surge.least_rows and number >= surge.least_rise * expected.mean

    expected, p_value = at_hour(until_hour - 1)
    pooled_p, pages = float("nan"), p_value < surge.page_p and rises(count, expected)
    warns = p_value < surge.warn_p and rises(count, expected)
    if known and known[-1] == day - 1 and until_hour == HOURS:
        before = [i for i in kept if i != len(known) - 1]
        if len(before) >= min(surge.least_days, len(kept)) - 1 and before:
            both = count + int(counts[-1].sum())
            of_both = expectation(
                cumulative[[kept.index(i) for i in before], -1],
                np.array([(known[i] - 1) % 7 for i in before]),
                [(day - 2) % 7, today],
            )
            pooled_p = of_both.tail(both)
            # A day that is back to normal does not page for the day before.
            pages = pages or (pooled_p < surge.page_p and rises(both, of_both) and rises(count, expected))
    hour = None
    if surge.hourly:
        limit = surge.page_p * HOURLY_SHARE
        for one in range(until_hour):
            of_hour, p = at_hour(one)
            if p < limit and rises(int(so_far[one]), of_hour):
                hour = one
                break
    level: Level = "page" if pages or hour is not None else "warn" if warns else "ok"
    return SurgeResult(count, level, True, expected, p_value, pooled_p, hour, len(kept))


def wilson(successes: np.ndarray, rows: np.ndarray, z: float = 1.959964) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % interval of shares, ``[n]`` each; 0 to 1 without rows."""
    k, n = np.asarray(successes, dtype=float), np.asarray(rows, dtype=float)
    share = np.divide(k, n, out=np.full_like(k, 0.5), where=n > 0)
    spread = z * np.sqrt(np.divide(share * (1 - share), n, out=np.zeros_like(k), where=n > 0) + _over(z**2, 4 * n**2))
    middle, width = share + _over(z**2, 2 * n), 1 + _over(z**2, n)
    low = np.where(n > 0, (middle - spread) / width, 0.0)
    high = np.where(n > 0, (middle + spread) / width, 1.0)
    return np.clip(low, 0, 1), np.clip(high, 0, 1)


def _over(number: float, by: np.ndarray) -> np.ndarray:
    return np.divide(number, by, out=np.zeros_like(by), where=by > 0)

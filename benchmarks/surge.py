"""How often the surge rule is wrong: false pages on quiet days, and doublings that it finds.

    python -m benchmarks surge                  500 quiet days and 200 doublings of each kind and seed: about 6 minutes
    python -m benchmarks surge --days 200       quicker, and less sure

Quiet topics have a level, a weekday pattern and a variation; the rule judges each day by the 56 days before it. Surges
begin at midnight and double the counts for two days. The table is in ``docs/news.md``.
"""

from __future__ import annotations

import argparse
import itertools
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from assets.lifecycle.monitoring.surge_rule import HOURS, SurgeResult, judge
from assets.surge import Surge

PATTERNS = {
    "even": np.ones(7),
    "weekend .5": np.array([1.15, 1.25, 1.25, 1.2, 1.15, 0.5, 0.5]),
    "weekend .15": np.array([1.3, 1.4, 1.4, 1.35, 1.25, 0.15, 0.15]),
}
"""Factors of the weekdays, Monday first; their mean is 1."""
DISPERSIONS = (1.0, 1.5, 2.5)
"""Variance of a day's count over Poisson's."""
LEVELS = (5, 10, 30, 100)
HOUR_SHARES = np.array([1, 1, 1, 1, 1, 2, 4, 7, 9, 9, 8, 7, 6, 7, 8, 8, 7, 6, 5, 4, 3, 3, 2, 1], dtype=float)
HISTORY = 56
MONDAY = 738_998
"""A Monday as an ordinal."""


def counts(
    rng: np.random.Generator, days: range, level: float, pattern: np.ndarray, dispersion: float, rise: dict[int, float]
) -> np.ndarray:
    """Simulated counts by hour, int ``[days, 24]``: gamma-Poisson, so that a whole day is high or low.

    Args:
        rng: random numbers.
        days: days as ordinals.
        level: mean count of a day.
        pattern: factors of the weekdays.
        dispersion: variance over Poisson's.
        rise: factor by day; 1 for all others.
    """
    mean = np.array([level * pattern[(day - 1) % 7] * rise.get(day, 1.0) for day in days])
    if dispersion > 1:
        shape = mean / (dispersion - 1)
        mean = rng.gamma(shape, dispersion - 1)
    return rng.poisson(mean[:, None] * HOUR_SHARES / HOUR_SHARES.sum())


def lived(by_hour: np.ndarray, days: range, surge: Surge, begin: int) -> list[SurgeResult]:
    """Judges the days from position ``begin`` on, each with the verdicts of the days before it."""
    found: list[SurgeResult] = []
    levels = ["ok"] * begin
    for i in range(begin, len(days)):
        first = max(0, i - HISTORY)
        result = judge(days[i], by_hour[i], days[first:i], by_hour[first:i], levels[first:i], surge)  # type: ignore[arg-type]
        levels.append(result.level)
        found.append(result)
    return found


def quiet(surge: Surge, level: float, pattern: np.ndarray, dispersion: float, days: int, seed: int) -> np.ndarray:
    """Whether each quiet day warned, and whether it paged, boolean ``[days, 2]``."""
    rng = np.random.default_rng([seed, int(level), int(10 * dispersion)])
    all_days = range(739_000, 739_000 + HISTORY + days)
    results = lived(counts(rng, all_days, level, pattern, dispersion, {}), all_days, surge, HISTORY)
    return np.array([[one.level != "ok", one.level == "page"] for one in results])


def doubled(
    surge: Surge, level: float, pattern: np.ndarray, dispersion: float, seed: int, factor: float = 2.0
) -> tuple[bool, bool, int | None]:
    """Whether a surge of two days paged on its first day, within two days, and at which hour of the first day."""
    rng = np.random.default_rng([seed, int(level), int(10 * dispersion), 7])
    first = MONDAY + seed % 4  # from Monday to Thursday, because there are not `level` texts on a quiet weekend
    days = range(first - HISTORY, first + 2)
    by_hour = counts(rng, days, level, pattern, dispersion, dict.fromkeys(days[HISTORY:], factor))
    results = lived(by_hour, days, surge, HISTORY)
    return results[0].level == "page", "page" in [one.level for one in results], results[0].hour


def main() -> None:
    """Prints the tables; fails if a claim of ``docs/news.md`` does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=500)
    parser.add_argument("--surges", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    began, broken = time.monotonic(), []
    console = Console(width=120)
    for hourly in (False, True):
        surge = Surge(value="negative", column="topic", hourly=hourly)
        table = Table(title=f"Surge(hourly={hourly})")
        for name in ("counts a day", "variance", "quiet days warned", "paged", "doublings: day 1", "within 2 days",
                     *(("median hour, x3",) if hourly else ())):  # fmt: skip
            table.add_column(name, justify="right")
        for level, dispersion in itertools.product(LEVELS, DISPERSIONS):
            calm = np.concatenate(
                [
                    quiet(surge, level, pattern, dispersion, given.days // (3 if hourly else 1), seed)
                    for pattern in PATTERNS.values()
                    for seed in range(given.seeds)
                ]
            )
            number = given.surges // (2 if hourly else 1)
            patterns = itertools.cycle(PATTERNS.values())
            found = [doubled(surge, level, next(patterns), dispersion, seed) for seed in range(number)]
            first, within = (np.mean([one[i] for one in found]) for i in (0, 1))
            cells = [f"{level}", f"{dispersion:.1f}", f"{calm[:, 0].mean():.2%}", f"{calm[:, 1].mean():.2%}",
                     f"{first:.0%}", f"{within:.1%}"]  # fmt: skip
            if hourly:
                hours = [doubled(surge, level, PATTERNS["even"], dispersion, s, 3.0)[2] for s in range(number // 2)]
                seen = [HOURS if hour is None else hour + 1 for hour in hours]
                cells.append(f"{np.median(seen):.0f}")
            table.add_row(*cells)
            if calm[:, 1].mean() > 0.01:
                broken.append(f"{calm[:, 1].mean():.2%} of quiet days paged at {level} a day, variance {dispersion}")
            if level >= 30 and dispersion <= 1.5 and within < 0.95:
                broken.append(f"{within:.1%} of doublings were found at {level} a day, variance {dispersion}")
        console.print(table)
    console.print(f"{time.monotonic() - began:.0f} s")
    if broken:
        raise SystemExit("; ".join(broken))


if __name__ == "__main__":
    main()

"""Data quality faults of rows: missing, new or out-of-range values, too few or too many rows.

Belongs here: pure functions of profiles and counts. Does not belong here: drift of distributions
(``drift_rule.py``), the choice of window (``drift.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from assets.declaration import Drift
from assets.lifecycle.monitoring.drift_rule import Level, WindowCounts
from assets.lifecycle.prediction_format import PREDICTED, SCORE
from assets.lifecycle.profile.reference import ReferenceProfile

LEAST = 4
"""Minimum number of faulty rows: fewer are no fault, even if they are a large share of a small window."""


def faults(
    reference: ReferenceProfile,
    window: WindowCounts,
    drift: Drift,
    *,
    rows_of_day: int,
    usual_rows: float | None = None,
) -> dict[str, str]:
    """Finds faults of the rows: missing, new or out-of-range values, too few or too many rows.

    Args:
        reference: profile of the version that scored the window.
        window: counts of the window.
        drift: the declared limits.
        rows_of_day: number of rows of its latest day.
        usual_rows: usual number of rows on that weekday; ``None`` if unknown.

    Returns:
        By feature, the fault in words; the empty name is for the number of rows.
    """
    found = {}
    for column, usual in reference.histograms.items():
        counts = window.histograms[column]
        if column in (SCORE, PREDICTED) or not counts.rows:
            continue
        n, effect = counts.rows, reference.design_effect(column)
        missing, was = counts.missing / n, usual.missing / usual.rows
        independent = n / effect.over(window.days, reference.days), usual.rows / effect.whole
        number, outside = counts.bins.kind == "number", counts.below + counts.above
        if missing - was >= drift.missing and counts.missing >= LEAST and _is_more(missing, was, *independent):
            found[column] = f"{missing:.1%} are missing, {was:.1%} in the reference"
        elif counts.new / n > drift.new and counts.new >= LEAST:
            found[column] = f"{counts.new / n:.1%} have values that are not in the reference"
        elif number and outside / n > drift.outside and outside >= LEAST:
            low, high = counts.bins.low, counts.bins.high
            found[column] = f"{outside / n:.1%} are outside the reference's range, {low:g} to {high:g}"
    if usual_rows and not usual_rows * drift.volume <= rows_of_day <= usual_rows / drift.volume:
        found[""] = f"{rows_of_day:,} rows, {usual_rows:,.0f} are usual on this weekday"
    return found


def _is_more(share: float, was: float, n: float, m: float) -> bool:
    """Whether ``share`` of ``n`` rows exceeds ``was`` of ``m`` rows by more than three and a half standard errors."""
    pooled = (share * n + was * m) / (n + m)
    return share - was > 3.5 * float(np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m)))


def level_of_faults(found: Mapping[str, str], before: Sequence[Mapping[str, str]], page_after: int) -> Level:
    """The level of a day's faults: a column's first faulty day warns, its ``page_after``-th consecutive one pages.

    Args:
        found: faults of the day by column.
        before: faults of the earlier days by column, oldest first.
        page_after: declared number of consecutive days after which a fault pages.
    """
    if not found:
        return "ok"
    recent = list(before)[1 - page_after :] if page_after > 1 else []
    lasts = [c for c in found if len(recent) >= page_after - 1 and all(c in known for known in recent)]
    return "page" if lasts else "warn"

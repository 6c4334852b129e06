"""What is wrong with rows, however they are distributed: missing, new, out of range, too few or too many.

Belongs here: pure functions of profiles and counts. Does not belong here: whether a distribution moved (``drift.py``),
which window (``drift_days.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from assets.declaration import Drift
from assets.lifecycle.answers import PREDICTED, SCORE
from assets.lifecycle.monitoring.drift import Level, Window
from assets.lifecycle.profile.reference import ReferenceProfile

LEAST = 4
"""Fewer strange rows than this are no fault, whatever share of a small window they are."""


def faults(
    reference: ReferenceProfile, window: Window, drift: Drift, *, rows_of_day: int, usual_rows: float | None = None
) -> dict[str, str]:
    """What is wrong with the rows, by column (empty: no column's): missing, new, out of range, too few or too many.

    Args:
        reference: of the version that scored the window.
        window: its counts.
        drift: the declared limits.
        rows_of_day: rows of its latest day.
        usual_rows: rows usual on that weekday; ``None`` where nothing is known.
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
            found[column] = f"{counts.new / n:.1%} have values that the reference does not know"
        elif number and outside / n > drift.outside and outside >= LEAST:
            low, high = counts.bins.low, counts.bins.high
            found[column] = f"{outside / n:.1%} are outside the reference's range, {low:g} to {high:g}"
    if usual_rows and not usual_rows * drift.volume <= rows_of_day <= usual_rows / drift.volume:
        found[""] = f"{rows_of_day:,} rows, {usual_rows:,.0f} are usual on this weekday"
    return found


def _is_more(share: float, was: float, n: float, m: float) -> bool:
    """Whether the difference of two shares, of ``n`` and ``m`` rows, is more than three and a half standard errors."""
    pooled = (share * n + was * m) / (n + m)
    return share - was > 3.5 * float(np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m)))


def level_of_faults(found: Mapping[str, str], before: Sequence[Mapping[str, str]], page_after: int) -> Level:
    """The first day with a fault of a column warns, the ``page_after``-th in a row pages.

    Args:
        found: faults of the day by column.
        before: those of the days before, oldest first.
        page_after: as declared.
    """
    if not found:
        return "ok"
    recent = list(before)[1 - page_after :] if page_after > 1 else []
    lasts = [c for c in found if len(recent) >= page_after - 1 and all(c in known for known in recent)]
    return "page" if lasts else "warn"

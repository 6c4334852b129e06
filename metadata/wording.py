"""Days and figures as short text, for the terminal and the pages alike.

Belongs here: the wording of values. Does not belong here: tables and pages (``cli/metadata.py``, ``serving/watch``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

MOST_SPANS = 3
"""Maximum number of spans of days that are named."""


def days_in_words(days: Sequence[str]) -> str:
    """Returns sorted ISO days as spans of consecutive days, e.g. ``2026-08-17 to 2026-09-16, 2026-10-01``."""
    spans: list[list[str]] = []
    for day in days:
        if spans and _follows(spans[-1][1], day):
            spans[-1][1] = day
        else:
            spans.append([day, day])
    named = [first if first == last else f"{first} to {last}" for first, last in spans[:MOST_SPANS]]
    more = f" and {len(spans) - MOST_SPANS} more" if len(spans) > MOST_SPANS else ""
    return ", ".join(named) + more


def figure_in_words(value: float, *, signed: bool = False) -> str:
    """Returns a figure with four digits, or whole with thousands separated."""
    sign = "+" if signed else ""
    return f"{value:{sign},.0f}" if abs(value) >= 1000 else f"{value:{sign}.4g}"


def _follows(day: str, other: str) -> bool:
    try:
        return dt.date.fromisoformat(day) + dt.timedelta(days=1) == dt.date.fromisoformat(other)
    except ValueError:  # the day of a table without days
        return False

"""The plan of the simulated world of articles and their readers.

Belongs here: the lengths and sizes of the world. Does not belong here: the events in it (``simulator.py``), the story
(``story/recommend.py``), the world's file (``assets/simulated.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

from assets.simulated import WorldPlan

STORY_DAYS = 41
"""Number of days, first and last included, that ``assetline run --model recommend`` plays."""
SHIFT_AFTER_DAYS = 28
"""Number of days in the world before tastes turn and a new topic appears."""


@dataclass(frozen=True)
class Size:
    """Numbers of readers, and of articles that appear each day."""

    readers: int
    articles: int


SIZES = {"small": Size(300, 12), "large": Size(2_000, 40)}
"""``small`` is the default of the story."""

PLAN = WorldPlan("world-recommend.json", STORY_DAYS, SHIFT_AFTER_DAYS, tuple(SIZES))

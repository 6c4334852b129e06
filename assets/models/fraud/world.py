"""The plan of the simulated world of payments.

Belongs here: its sizes, and the days of its story and of its shift. Does not belong here: the events in the world
(``simulator.py``), the story that runs in it (``story/fraud.py``), the world's file (``assets/simulated.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

from assets.simulated import WorldPlan


@dataclass(frozen=True)
class Size:
    """Numbers of customers and terminals. The rates of payments and frauds are the published ones."""

    customers: int
    terminals: int


SIZES = {"small": Size(1_750, 3_500), "published": Size(5_000, 10_000)}
"""``small`` is the default of ``make run``; ``published`` is the size of Le Borgne et al. (2022)."""

PLAN = WorldPlan(file="world.json", story_days=173, shift_after_days=143, sizes=tuple(SIZES))
"""Its payments shift permanently from day 144 on."""

"""The plan of the simulated world of the questions (``assets/simulated.py``).

Belongs here: how long the story is, and when the new topic appears. Does not belong here: what happens in the world
(``simulator.py``), the story (``story/support.py``).
"""

from __future__ import annotations

from pathlib import Path

from assets.simulated import World, WorldPlan
from resources.sources import SourceUnavailable

PLAN = WorldPlan(file="world-support.json", story_days=46, shift_after_days=35)
LEARNING_DAYS = 31
"""Days before the first model."""


def existing_world(home: Path) -> World:
    """Returns the world of a state folder; unlike that of the payments, it is not drawn up by looking at it.

    Raises:
        SourceUnavailable: there is none yet; the message is the command that draws one up.
        SourceError: the stored file does not describe a world.
    """
    found = PLAN.find(home)
    if found is None:
        raise SourceUnavailable(
            "the simulated questions have no days yet; `assetline run --model support` draws up their world"
        )
    return found

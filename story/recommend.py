"""`assetline run --model recommend`: lists of articles, from the first event to readers whose tastes turn.

Belongs here: the order of the steps, and what must have happened. Does not belong here: the steps themselves
(``playing.py``), the work.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from assets.models.recommend import model
from assets.models.recommend.world import PLAN, SIZES
from assets.simulated import World
from resources.settings import Settings
from runner import alone
from story.playing import Story, StoryError, world_to_play

LEARNING_DAYS = 24
"""Days before the first model: 14 to fit, 4 to test, and histories before them."""
MOST_FURTHER_DAYS = 14
"""Maximum days that the story may continue after its last one."""
METRICS = {"ndcg": "NDCG@10", "recall": "recall@10", "coverage": "coverage", "novelty": "novelty", "new_share": "new"}


def play(settings: Settings, *, until: dt.date | None = None, size: str = "", seed: int | None = None) -> None:
    """Plays the story on the state folder of ``settings``.

    Args:
        settings: settings of the state folder.
        until: last day to play; default: yesterday.
        size: size of the simulated world, one of :data:`~assets.models.recommend.world.SIZES`.
        seed: seed of the simulated world; default: 0, or the seed of the existing world.

    Raises:
        RunError: a run failed, or the state folder has a different world or one that does not fit ``until``.
        StoryError: a step did not happen.
    """
    world, last = world_to_play(PLAN, model, settings.home, until, size, seed)
    with alone(settings, lambda: model) as runner:
        _play(Story(runner, journal="story-recommend.json", rows="tastes"), world, last)


def _play(story: Story, world: World, until: dt.date) -> None:
    readers = SIZES[world.size].readers
    champion = story.learn(world.first_day, LEARNING_DAYS, until, f"activity of {readers:,} readers")
    begin = world.first_day + dt.timedelta(days=LEARNING_DAYS)
    trainings, last = story.live(begin, until, world.shift_from, further=MOST_FURTHER_DAYS)
    story.console.print()
    story.tell_rows(world.first_day, last)
    story.tell_quality([champion, *trainings], METRICS)
    story.tell_alerts()
    story.tell_champions()
    _refuse_incomplete(story, [champion, *trainings], world.shift_from)
    story.tell_end()


def _refuse_incomplete(story: Story, trainings: list[dict[str, Any]], shift: dt.date) -> None:
    """Raises :class:`StoryError` naming the steps that did not happen."""
    before = {day: level for day, level in story.windows.items() if day < str(shift)}
    week = [level for day, level in story.windows.items() if str(shift) <= day <= str(shift + dt.timedelta(days=3))]
    steps = {
        f"no page before {shift}": "page" not in before.values(),
        "the turned tastes paged within four days": "page" in week,
        "an alert for the drift opened": bool(story.drift_alerts()),
        "a challenger was compared with the champion by user": any(
            "champion" in training["report"]["models"] for training in trainings[1:]
        ),
        "a version that was fitted on the new tastes was promoted": any(
            training["promoted"] and training["fitted_until"] >= str(shift) for training in trainings
        ),
        "a version is in production": story.runner.resources["ledger"].champion(story.model.name) is not None,
    }
    missing = [step for step, happened in steps.items() if not happened] + story.unfinished()
    if missing:
        raise StoryError(
            f"this did not happen: {'; '.join(missing)}; see the alerts and the runs in the UI (`make dev`)"
        )

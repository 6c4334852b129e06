"""`make run`: the whole lifecycle of the example model, from raw payments to a resolved alert.

Belongs here: the order of the steps, and what must have happened at the end. Does not belong here: steps that other
stories have, too (``playing.py``).
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from assets.models.fraud import model
from assets.models.fraud.world import PLAN, SIZES
from assets.simulated import World
from resources.settings import Settings
from runner import alone
from story.playing import Story, StoryError, world_to_play

LEARNING_DAYS = 140
"""Days before the first model: a training run needs 70 labelled days, and features look back 60 more."""
MOST_FURTHER_DAYS = 21
"""Maximum days that the story may continue after its last one: one more cool-down, a training run and its check."""


def play(settings: Settings, *, until: dt.date | None = None, size: str = "", seed: int | None = None) -> None:
    """Plays the story on the state folder of ``settings``.

    A second story on the same folder waits for the first, and then finds all steps done.

    Args:
        settings: settings of the state folder.
        until: last day to play; default: yesterday.
        size: size of the simulated world, one of :data:`~assets.models.fraud.world.SIZES`; default: ``small``, or the
            size of the existing world.
        seed: seed of the simulated world; default: 0, or the seed of the existing world.

    Raises:
        RunError: a run failed, or the state folder has a different world or one that does not fit ``until``.
        StoryError: a step did not happen.
    """
    world, last = world_to_play(PLAN, model, settings.home, until, size, seed)
    with alone(settings, lambda: model) as runner:
        _play(Story(runner, rows="payments"), world, last)


def _play(story: Story, world: World, until: dt.date) -> None:
    customers = SIZES[world.size].customers
    champion = story.learn(world.first_day, LEARNING_DAYS, until, f"payments of {customers:,} customers")
    begin = world.first_day + dt.timedelta(days=LEARNING_DAYS)
    trainings, last = story.live(begin, until, world.shift_from, further=MOST_FURTHER_DAYS)
    _close(story, [champion, *trainings], world, until, last)


def _close(story: Story, trainings: list[dict[str, Any]], world: World, until: dt.date, last: dt.date) -> None:
    """Prints the closing tables, and checks that every step of the story happened."""
    story.console.print()
    story.tell_rows(world.first_day, last)
    if last > until:
        story.console.print(
            f"The story continued for {(last - until).days} more days of the simulated world, to {last}, until the "
            "promoted version was checked and the alert was resolved."
        )
    metrics = {"roc_auc": "AUC", "average_precision": "AP", "cp_at_k": f"CP@{model.evaluation.top_k}"}
    story.tell_quality(trainings, metrics, positive="frauds")
    story.tell_alerts()
    story.tell_champions()
    _refuse_incomplete(story, trainings, world.shift_from)
    story.tell_end()


def _refuse_incomplete(story: Story, trainings: list[dict[str, Any]], shift: dt.date) -> None:
    """Raises :class:`StoryError` naming the steps that did not happen."""
    before = {day: level for day, level in story.windows.items() if day < str(shift)}
    first, second = str(shift), str(shift + dt.timedelta(days=1))
    ledger = story.runner.resources["ledger"]
    steps = {
        f"no page before {first}": "page" not in before.values(),
        f"the first shifted window, {first}, warned": story.windows.get(first) == "warn",
        f"the second, {second}, paged": story.windows.get(second) == "page",
        "an alert for the drift opened": bool(story.drift_alerts()),
        "a challenger was compared with the champion on later labelled rows": any(
            "champion" in training["report"]["models"] for training in trainings[1:]
        ),
        "a version that was fitted on shifted payments was promoted": any(
            training["promoted"] and training["fitted_until"] >= first for training in trainings
        ),
        "a version is in production": ledger.champion(story.model.name) is not None,
    }
    missing = [step for step, happened in steps.items() if not happened] + story.unfinished()
    if missing:
        raise StoryError(
            f"this did not happen: {'; '.join(missing)}; see the alerts and the runs in the UI (`make dev`)"
        )

"""`assetline run --model news`: news turns negative on one topic and is about new things; both models learn it.

Belongs here: the order of the steps, and what must have happened at the end. Does not belong here: steps that other
stories have, too (``playing.py``).
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from assets.lifecycle.jobs import DAILY, FEATURES, LABEL, TOPICS
from assets.lifecycle.model.windows import iso_days
from assets.models.news import model
from assets.models.news.simulator import PLAN, SURGE_TOPIC
from assets.models.news_topics import model as topics_model
from assets.simulated import World
from resources.alerts import Alert
from resources.settings import Settings
from runner import RunError, Runner, alone
from story.playing import Story, StoryError, is_open_page, world_to_play

LEARNING_DAYS = 32
"""Days before the first model."""
HISTORY_DAYS = 15
"""Days before the first live day that are scored and counted, so that surges can be judged at once."""
MOST_FURTHER_DAYS = 14
SURGE_CAUSE = "topics_by_day/surge"


class NewsStory(Story):
    """The story of the model ``news``, with the model of the topics beside it."""

    def __init__(self, runner: Runner, topics: Runner) -> None:
        super().__init__(runner, journal="story-news.json", rows="texts")
        self.topics = Story(topics, journal="story-news-topics.json", rows="texts")

    def count(self, days: list[str]) -> None:
        """Scores days by both models and counts them by topic."""
        for story in (self, self.topics):
            story.runner.make(DAILY, days)
        self.runner.make(TOPICS, days)

    def live_through(self, day: str, shift: dt.date) -> list[dict[str, Any]]:
        """Plays one day: both models, then the counts by topic and their alerts."""
        trainings = super().live_through(day, shift)
        of_topics = self.topics.live_through(day, shift)
        made = self.runner.make(TOPICS, [day])
        self.check_alerts()
        rows = self.tables.read(self.model.key("topics_by_day"), [day])
        found = rows[rows["level"] != "ok"]
        for row in found.to_dict("records"):
            hour = f", seen at {row['hour'] + 1:02}:00 UTC" if row["hour"] >= 0 else ""
            self.say(f"{day} surge [red]{row['level']}[/red]: {row['topic']} has {row['counted']} negative texts, "
                     f"{row['expected']:.1f} expected{hour}", fresh=not made)  # fmt: skip
        return [*trainings, *of_topics]

    def surges(self) -> list[Alert]:
        """The alerts of the check ``surge``, open and resolved."""
        store = self.runner.resources["alerts"].store
        return [alert for alert in store.alerts(self.model.name) if alert.cause == SURGE_CAUSE]

    def unfinished(self) -> list[str]:
        """Also what is open of the topics' model, and of the surge."""
        left = super().unfinished() + [f"{self.topics.model.name}: {one}" for one in self.topics.unfinished()]
        # Another topic may page on the last day by chance.
        if any(is_open_page(alert) and alert.column == SURGE_TOPIC for alert in self.surges()):
            left.append("the surge was resolved")
        return left


def play(settings: Settings, *, until: dt.date | None = None, size: str = "", seed: int | None = None) -> None:
    """Plays the story on the state folder of ``settings``.

    Args:
        settings: settings of the state folder.
        until: last day to play; default: yesterday.
        size: size of the simulated world; there is one, ``small``.
        seed: seed of the simulated world; default: 0, or the seed of the existing world.

    Raises:
        RunError: a run failed, or the state folder has a different world or one that does not fit ``until``.
        StoryError: a step did not happen.
    """
    world, last = world_to_play(PLAN, model, settings.home, until, size, seed)
    with alone(settings, lambda: model) as runner:
        _play(NewsStory(runner, Runner(topics_model, settings, runner.instance)), world, last)


def _play(story: NewsStory, world: World, until: dt.date) -> None:
    champion = story.learn(world.first_day, LEARNING_DAYS, until, "news texts")
    learn_until = world.first_day + dt.timedelta(days=LEARNING_DAYS - 1)
    labelled = learn_until - dt.timedelta(days=topics_model.label_delay_days)
    story.topics.runner.make(LABEL, iso_days((world.first_day, labelled)))
    story.topics.runner.make(FEATURES, iso_days((world.first_day, learn_until)))
    of_topics = story.topics.train(str(labelled), "the first model of topics")
    if not of_topics["promoted"]:
        raise StoryError(f"the first model of topics was refused: {'; '.join(of_topics['reasons'])}")
    history = iso_days((learn_until - dt.timedelta(days=HISTORY_DAYS - 1), learn_until))
    story.count(history)
    story.say(f"{len(history)} earlier days scored and counted by topic, as the history of surges")
    begin = learn_until + dt.timedelta(days=1)
    trainings, last = story.live(begin, until, world.shift_from, further=MOST_FURTHER_DAYS)
    _close(story, [champion, of_topics, *trainings], world, last)


def _close(story: NewsStory, trainings: list[dict[str, Any]], world: World, last: dt.date) -> None:
    """Prints the closing tables, and checks that every step of the story happened."""
    story.console.print()
    story.tell_rows(world.first_day, last)
    story.tell_quality(trainings, {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"})
    for one in (story, story.topics):
        one.tell_alerts()
        one.tell_champions()
    _refuse_incomplete(story, trainings, world.shift_from)
    story.tell_end()


def _refuse_incomplete(story: NewsStory, trainings: list[dict[str, Any]], shift: dt.date) -> None:
    """Raises :class:`StoryError` naming the steps that did not happen."""
    before = {day: level for day, level in story.windows.items() if day < str(shift)}
    soon = {str(shift + dt.timedelta(days=n)) for n in range(3)}
    surges = story.surges()
    steps = {
        f"no page for drift before {shift}": "page" not in before.values(),
        # Of the other topics, up to one day in a hundred pages by chance.
        f"no page for a surge on '{SURGE_TOPIC}' before {shift}": not any(
            a.column == SURGE_TOPIC and a.severity == "page" and str(a.since_day) < str(shift) for a in surges
        ),
        f"a surge of negative texts on '{SURGE_TOPIC}' paged within two days of {shift}": any(
            a.column == SURGE_TOPIC and a.severity == "page" and str(a.since_day) in soon for a in surges
        ),
        f"drift of the texts paged after {shift}": any(
            level == "page" for day, level in story.windows.items() if day >= str(shift)
        ),
        "an alert for the drift opened": bool(story.drift_alerts()),
        "a version that was fitted on texts of the new world was promoted": any(
            training["promoted"] and training["fitted_until"] >= str(shift) for training in trainings
        ),
    }
    missing = [step for step, happened in steps.items() if not happened] + story.unfinished()
    if missing:
        raise StoryError(
            f"this did not happen: {'; '.join(missing)}; see the alerts and the runs in the UI (`make dev`)"
        )


__all__ = ["RunError", "play"]

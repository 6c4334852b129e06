"""What must have happened in the story of news: each step that did not is named."""

import datetime as dt
from types import SimpleNamespace

import pytest

from assets.models.news.simulator import SURGE_TOPIC
from story.news import _refuse_incomplete
from story.playing import StoryError

SHIFT = dt.date(2026, 9, 4)
WINDOWS = {"2026-09-03": "ok", "2026-09-04": "warn", "2026-09-06": "page"}


def surge(topic: str = SURGE_TOPIC, severity: str = "page", since: str = "2026-09-04") -> SimpleNamespace:
    return SimpleNamespace(column=topic, severity=severity, since_day=since)


def told(*, windows=WINDOWS, surges=None, alerts=1, fitted="2026-09-05", promoted=True, unfinished=()):
    """A story with one retraining, and whether it counts as complete."""
    story = SimpleNamespace(
        windows=windows,
        surges=lambda: [surge()] if surges is None else surges,
        drift_alerts=lambda: [object()] * alerts,
        unfinished=lambda: list(unfinished),
    )
    trainings = [{"promoted": True, "fitted_until": "2026-08-20"}, {"promoted": promoted, "fitted_until": fitted}]
    _refuse_incomplete(story, trainings, SHIFT)


def test_a_story_with_every_step_is_complete():
    told()
    told(surges=[surge(), surge("jobs", since="2026-08-30")])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"windows": {**WINDOWS, "2026-09-02": "page"}}, "no page for drift before 2026-09-04"),
        ({"windows": {"2026-09-04": "warn"}}, "drift of the texts paged after 2026-09-04"),
        ({"surges": []}, f"a surge of negative texts on '{SURGE_TOPIC}' paged within two days of 2026-09-04"),
        ({"surges": [surge(severity="warn")]}, "paged within two days of"),
        ({"surges": [surge("jobs")]}, "paged within two days of"),
        ({"surges": [surge(), surge(since="2026-09-01")]}, f"no page for a surge on '{SURGE_TOPIC}' before"),
        ({"alerts": 0}, "an alert for the drift opened"),
        ({"fitted": "2026-09-01"}, "fitted on texts of the new world was promoted"),
        ({"promoted": False}, "fitted on texts of the new world was promoted"),
        ({"unfinished": ["the surge was resolved"]}, "the surge was resolved"),
    ],
)
def test_a_step_that_did_not_happen_is_named(given, words):
    with pytest.raises(StoryError, match=words):
        told(**given)

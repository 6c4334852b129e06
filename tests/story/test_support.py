"""The story of the questions refuses an end at which something did not happen."""

from types import SimpleNamespace
from typing import Any

import pytest

from assets.lifecycle.retrieval.reply import Reply
from story.playing import StoryError
from story.support import ARTICLE, _refuse_incomplete

SHIFT = "2026-05-10"
TRAININGS = [{"promoted": True, "fitted_until": "2026-05-12"}]


def told(**given: Any) -> Any:
    """A story in which everything happened, except for what is given."""
    answered = SimpleNamespace(abstained=False, citations=[SimpleNamespace(document=ARTICLE)])
    parts = {
        "levels": {"2026-05-09": "warn", "2026-05-10": "warn", "2026-05-11": "page"},
        "topic_alerts": lambda: ["an alert"],
        "reply": lambda _: answered,
        "journal": SimpleNamespace(entries={"publish the article": {}}),
        "unfinished": list,
    }
    return SimpleNamespace(**(parts | given))


def test_a_complete_story_ends():
    _refuse_incomplete(told(), TRAININGS, SHIFT)


@pytest.mark.parametrize(
    ("given", "trainings", "said"),
    [
        ({"levels": {"2026-05-09": "page", "2026-05-11": "page"}}, TRAININGS, "no page before 2026-05-10"),
        ({"levels": {"2026-05-11": "warn"}}, TRAININGS, "the new topic paged"),
        ({"topic_alerts": list}, TRAININGS, "an alert opened for it"),
        ({"journal": SimpleNamespace(entries={})}, TRAININGS, "its article was published"),
        ({"reply": lambda _: Reply(abstained=True)}, TRAININGS, "the new topic is answered from its article"),
        ({"unfinished": lambda: ["the alert was resolved"]}, TRAININGS, "the alert was resolved"),
        ({}, [{"promoted": False, "fitted_until": "2026-05-12"}], "a version that was fitted on 'scam_message'"),
        ({}, [{"promoted": True, "fitted_until": "2026-05-09"}], "a version that was fitted on 'scam_message'"),
    ],
)
def test_what_did_not_happen_is_named(given, trainings, said):
    with pytest.raises(StoryError, match="this did not happen: ") as refused:
        _refuse_incomplete(told(**given), trainings, SHIFT)
    assert said in str(refused.value)

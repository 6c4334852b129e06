"""Which world is played and towards which day; a step that did not happen is named."""

import datetime as dt
from types import SimpleNamespace

import pytest

from assets.models.fraud import model
from assets.models.fraud.world import PLAN
from assets.simulated import yesterday
from runner import RunError
from story.fraud import _refuse_incomplete
from story.playing import StoryError
from story.playing import world_to_play as to_play

ONE = dt.timedelta(days=1)
LAST = dt.date(2026, 10, 3)


def test_a_fresh_folder_gets_the_world_that_is_asked_for(tmp_path):
    world, last = world_to_play(tmp_path, LAST, "published", 4)
    assert (world, last) == (PLAN.ending(LAST, size="published", seed=4), LAST)
    assert PLAN.world_of(tmp_path) == world


def test_by_default_the_story_ends_yesterday_in_the_small_world(tmp_path):
    world, last = world_to_play(tmp_path, None, "", None)
    assert (last, world.size, world.seed) == (yesterday(), "small", 0)


def test_a_later_day_goes_on_in_the_same_world(tmp_path):
    first, _ = world_to_play(tmp_path, LAST, "", None)
    assert world_to_play(tmp_path, LAST + 5 * ONE, "", None) == (first, LAST + 5 * ONE)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ((LAST - ONE, "", None), "its story ends on 2026-10-03; choose that day or a later one"),
        ((LAST, "published", None), "was created with size 'small' and seed 0"),
        ((LAST, "huge", None), "--size huge: the world of 'fraud' has the sizes: small, published"),
        ((LAST, "", 1), "was created with size 'small' and seed 0"),
        ((yesterday() + 30 * ONE, "", None), "is not over yet"),
    ],
)
def test_another_world_or_day_than_the_folder_has_is_refused(tmp_path, asked, words):
    world_to_play(tmp_path, LAST, "", None)
    with pytest.raises(RunError, match=words):
        world_to_play(tmp_path, *asked)


def test_days_before_the_table_starts_cannot_be_played(tmp_path):
    soonest = model.table.start + (PLAN.story_days - 1) * ONE
    with pytest.raises(RunError, match=f"choose {soonest} or later"):
        world_to_play(tmp_path, soonest - ONE, "", None)
    assert not (tmp_path / PLAN.file).exists()
    assert world_to_play(tmp_path, soonest, "", None)[0].first_day == model.table.start


def world_to_play(*asked):
    """The world and the last day that the story of payments plays."""
    return to_play(PLAN, model, *asked)


SHIFT = dt.date(2026, 9, 4)
WINDOWS = {"2026-09-03": "ok", "2026-09-04": "warn", "2026-09-05": "page"}


def told(*, windows=WINDOWS, fitted="2026-09-10", promoted=True, alerts=1, unfinished=(), champion=True, met=True):
    """A story of two trainings, and whether it counts as complete."""
    ledger = SimpleNamespace(champion=lambda name: SimpleNamespace(version="2") if champion else None)
    story = SimpleNamespace(
        windows=windows,
        model=model,
        runner=SimpleNamespace(resources={"ledger": ledger}),
        drift_alerts=lambda: [object()] * alerts,
        unfinished=lambda: list(unfinished),
    )
    first = {"promoted": True, "fitted_until": "2026-08-01", "report": {"models": {"torch": {}}}}
    second = {
        "promoted": promoted,
        "fitted_until": fitted,
        "report": {"models": {"torch": {}, **({"champion": {}} if met else {})}},
    }
    _refuse_incomplete(story, [first, second], SHIFT)


def test_a_story_in_which_all_of_it_happened_is_complete():
    told()


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ({"windows": {**WINDOWS, "2026-09-03": "page"}}, "no page before 2026-09-04"),
        ({"windows": {**WINDOWS, "2026-09-04": "ok"}}, "the first shifted window, 2026-09-04, warned"),
        ({"windows": {**WINDOWS, "2026-09-05": "warn"}}, "the second, 2026-09-05, paged"),
        ({"alerts": 0}, "an alert for the drift opened"),
        ({"met": False}, "a challenger was compared with the champion"),
        ({"fitted": "2026-09-03"}, "a version that was fitted on shifted payments was promoted"),
        ({"promoted": False}, "a version that was fitted on shifted payments was promoted"),
        ({"champion": False}, "a version is in production"),
        ({"unfinished": ["the alert was resolved"]}, "the alert was resolved"),
    ],
)
def test_a_step_that_did_not_happen_is_named(missing, words):
    with pytest.raises(StoryError, match=f"this did not happen: {words}"):
        told(**missing)

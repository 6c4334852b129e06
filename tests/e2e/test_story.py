"""`make run` towards other last days and in other worlds, as a user plays it; the bench plays 28."""

import datetime as dt
from pathlib import Path

import pytest

import assets.models.fraud  # noqa: F401 - what is played: goes with the example
from assets.models.fraud.world import PLAN
from benchmarks.stories import Played, play, read

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]

ONE = dt.timedelta(days=1)


@pytest.mark.parametrize(
    ("until", "seed"),
    [(dt.date(2026, 10, 3), 0), pytest.param(dt.date(2026, 10, 7), 3, marks=pytest.mark.long)],
)
def test_the_story_ends_well_on_other_last_days_and_goes_on_the_next(tmp_path: Path, until: dt.date, seed: int):
    home = tmp_path / "home"
    played = play(until, seed, home)
    assert played.exit_code == 0, (home.parent / "log").read_text()
    assert played.shift == str(PLAN.ending(until).shift_from)
    assert played.warned_first_and_paged_second
    assert played.paged_outside == []
    assert [training["as_of"] for training in played.trainings][1] >= played.shift
    last = max(played.levels)
    assert last == str(until + played.further * ONE)

    later = play(dt.date.fromisoformat(last) + ONE, seed, home)
    assert later.exit_code == 0, (home.parent / "log").read_text()
    assert later.seconds < played.seconds, "what is fresh is not done again"
    again = Played(later.until, seed, 0, 0, 0, 0, "")
    read(again, home)
    assert len(again.levels) == len(played.levels) + 1
    assert again.trainings[: len(played.trainings)] == played.trainings

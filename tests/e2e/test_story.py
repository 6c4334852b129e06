"""`make run` towards other last days and in other worlds, as a user plays it; the bench plays 28.

Where ``STORY_HOME`` names the state folder of a story of seed 0 that ended the day before yesterday, as in `.ci/run`,
that story is looked at and goes on there, and is not played a second time.
"""

import datetime as dt
import os
from pathlib import Path

import pytest

import assets.models.fraud  # noqa: F401 - what is played: goes with the example
from assets.models.fraud.world import PLAN
from benchmarks.stories import Played, play, read

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]

ONE = dt.timedelta(days=1)


def story(until: dt.date, seed: int, home: Path) -> Played:
    """What a story left in its state folder."""
    found = Played(until, seed, 0, 0, 0, 0, "")
    read(found, home)
    return found


def written(home: Path, until: dt.date) -> dict[Path, int]:
    """When the files of days up to ``until`` were written, in nanoseconds: those of rows, labels and features."""
    names = ("raw_payments", "raw_labels", "payments", "labels", "features")
    files = (path for name in names for path in (home / "tables" / "fraud" / name).glob("*.parquet"))
    return {path: path.stat().st_mtime_ns for path in files if path.stem <= str(until)}


@pytest.mark.parametrize(
    ("until", "seed"), [(dt.date(2026, 10, 3), 0), pytest.param(dt.date(2026, 10, 7), 3, marks=pytest.mark.long)]
)
def test_the_story_ends_well_on_other_last_days_and_goes_on_the_next(tmp_path: Path, until: dt.date, seed: int):
    given = os.environ.get("STORY_HOME") if seed == 0 else None
    home, log = Path(given or tmp_path / "home"), tmp_path / "log"
    if given:
        until = PLAN.soonest(PLAN.world_of(home).first_day)
    else:
        assert play(until, seed, home, log=log).exit_code == 0, log.read_text()
    played = story(until, seed, home)
    assert played.shift == str(PLAN.ending(until, seed=seed).shift_from)
    assert played.warned_first_and_paged_second
    assert played.paged_outside == []
    assert [training["as_of"] for training in played.trainings][1] >= played.shift
    last = max(played.levels)
    assert last == str(until + played.further * ONE)

    # Labels come after a week and rows up to two days late: what is older than a fortnight stays as it is.
    settled = dt.date.fromisoformat(last) - 14 * ONE
    before = written(home, settled)
    later = play(None if given else dt.date.fromisoformat(last) + ONE, seed, home, log=log)
    assert later.exit_code == 0, log.read_text()
    assert len(before) > 4 * len(played.levels)
    assert written(home, settled) == before, "what is fresh is not done again"
    again = story(later.until, seed, home)
    assert len(again.levels) == len(played.levels) + (later.until - dt.date.fromisoformat(last)) // ONE
    assert later.until >= dt.date.fromisoformat(last)
    assert again.trainings[: len(played.trainings)] == played.trainings

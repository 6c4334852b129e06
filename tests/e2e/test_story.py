"""`make run` towards other last days and in other worlds, as a user plays it; the bench plays 28.

Where ``STORY_HOME`` names the state folder of `make run UNTIL=2026-10-03`, as in `.ci/run`, that story is looked at and
goes on there, and is not played a second time.
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
PLAYED_BY_CI = (dt.date(2026, 10, 3), 0)
"""The last day and the seed of the story in ``STORY_HOME``."""


def story(until: dt.date, seed: int, home: Path) -> Played:
    """What a story left in its state folder."""
    found = Played(until, seed, 0, 0, 0, 0, "")
    read(found, home)
    return found


def written(home: Path) -> dict[Path, int]:
    """When each file of the landed, cleaned, labelled and computed days was written, in nanoseconds."""
    tables = home / "tables" / "fraud"
    return {
        path: path.stat().st_mtime_ns
        for name in ("raw_payments", "payments", "labels", "features")
        for path in (tables / name).rglob("*.parquet")
    }


@pytest.mark.parametrize(
    ("until", "seed"), [PLAYED_BY_CI, pytest.param(dt.date(2026, 10, 7), 3, marks=pytest.mark.long)]
)
def test_the_story_ends_well_on_other_last_days_and_goes_on_the_next(tmp_path: Path, until: dt.date, seed: int):
    given = os.environ.get("STORY_HOME") if (until, seed) == PLAYED_BY_CI else None
    home, log = Path(given or tmp_path / "home"), tmp_path / "log"
    if not given:
        assert play(until, seed, home, log).exit_code == 0, log.read_text()
    played, before = story(until, seed, home), written(home)
    assert played.shift == str(PLAN.ending(until, seed=seed).shift_from)
    assert played.warned_first_and_paged_second
    assert played.paged_outside == []
    assert [training["as_of"] for training in played.trainings][1] >= played.shift
    last = max(played.levels)
    assert last == str(until + played.further * ONE)

    later = play(dt.date.fromisoformat(last) + ONE, seed, home, log)
    assert later.exit_code == 0, log.read_text()
    after = written(home)
    assert len(before) > 4 * len(played.levels), "there are files to look at"
    changed = [path for path, at in before.items() if after.get(path) != at]
    assert not changed, "what is fresh is not done again"
    again = story(later.until, seed, home)
    assert len(again.levels) == len(played.levels) + 1
    assert again.trainings[: len(played.trainings)] == played.trainings

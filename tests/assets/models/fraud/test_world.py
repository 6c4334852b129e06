"""The world of a state folder: drawn up once, and its n-th day is the same whatever the date."""

import datetime as dt
import json
import subprocess
import sys

import pandas as pd
import pytest

from assets.models.fraud.simulator import PaymentSimulator, WorldPayments, simulator_of
from assets.models.fraud.world import PLAN, SIZES
from assets.simulated import yesterday
from resources.sources import SourceError

ONE = dt.timedelta(days=1)
SMALL = {"customers": 40, "terminals": 80, "dirty_share": 0.3, "late_share": 0.2}


def moved(rows: pd.DataFrame, days: int) -> pd.DataFrame:
    """Landed or true rows with all their moments put off by so many days."""
    times = {
        name: pd.to_datetime(rows[name], errors="coerce", format="ISO8601") + days * ONE
        for name in ("paid_at", "arrived_at")
        if name in rows
    }
    return rows.assign(**times)


@pytest.mark.parametrize("first", [dt.date(2025, 6, 1), dt.date(2026, 2, 28), dt.date(2028, 2, 29)])
@pytest.mark.parametrize("number", [0, 1, 13, 150])
def test_what_happens_on_a_day_depends_on_its_number_alone(first, number):
    other = dt.date(2026, 6, 7)
    apart = (other - first).days
    one, two = (
        PaymentSimulator(first_day=str(day), shift_from=str(day + 100 * ONE), seed=3, **SMALL) for day in (first, other)
    )
    for what in ("land", "land_labels"):
        rows = getattr(one, what)(first + number * ONE)
        same = getattr(two, what)(other + number * ONE)
        pd.testing.assert_frame_equal(moved(rows, apart), moved(same, 0))


def test_without_a_first_day_the_calendar_counts():
    march, april = (PaymentSimulator(seed=3, **SMALL).land(dt.date(2026, month, 1)) for month in (3, 4))
    assert len(march) != len(april) or not march["amount"].equals(april["amount"])


def test_a_day_before_the_first_cannot_land():
    source = PaymentSimulator(first_day="2026-03-01", **SMALL)
    for land in (source.land, source.land_labels):
        with pytest.raises(SourceError, match="2026-02-28: the simulated world begins on 2026-03-01"):
            land(dt.date(2026, 2, 28))


def test_a_state_folder_has_one_world(tmp_path):
    drawn = PLAN.draw_up(tmp_path, PLAN.ending(dt.date(2026, 10, 3), size="published", seed=5))
    assert drawn == PLAN.world_of(tmp_path)
    assert drawn.first_day + (PLAN.story_days - 1) * ONE == dt.date(2026, 10, 3)
    assert PLAN.draw_up(tmp_path, PLAN.ending(dt.date(2026, 10, 4))) == drawn, "the first one stays"


def test_whoever_asks_first_draws_up_a_world_that_ends_yesterday(tmp_path):
    assert PLAN.world_of(tmp_path / "new") == PLAN.ending(yesterday())
    assert json.loads((tmp_path / "new" / PLAN.file).read_text())["size"] == "small"


def test_many_processes_at_once_draw_up_one_world(tmp_path):
    code = (
        "import sys, datetime as dt\nfrom pathlib import Path\nfrom assets.models.fraud.world import PLAN\n"
        "print(PLAN.draw_up(Path(sys.argv[1]), PLAN.ending(dt.date(2026, 10, 3), seed=int(sys.argv[2]))).seed)"
    )
    racing = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "home"), str(seed)], stdout=subprocess.PIPE)
        for seed in range(4)
    ]
    seeds = {process.communicate(timeout=60)[0] for process in racing}
    assert len(seeds) == 1
    assert [path.name for path in (tmp_path / "home").iterdir()] == [PLAN.file]


SAID = {"first_day": "2026-03-01", "shift_from": "2026-05-01", "size": "small", "seed": 0}


@pytest.mark.parametrize(
    "content", ["", "{}", json.dumps({**SAID, "shift_from": "x"}), json.dumps({**SAID, "size": "big"})]
)
def test_a_damaged_world_is_named_with_the_mend(tmp_path, content):
    (tmp_path / PLAN.file).write_text(content)
    with pytest.raises(SourceError, match=r"world\.json does not describe a simulated world .*\(`make clean`\)"):
        PLAN.world_of(tmp_path)


def test_the_source_of_the_declaration_lands_the_world_of_the_state_folder(tmp_path, monkeypatch):
    world = PLAN.draw_up(tmp_path, PLAN.ending(dt.date(2026, 10, 3), seed=7))
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))
    size = SIZES["small"]
    same = PaymentSimulator(
        customers=size.customers, terminals=size.terminals, seed=7, first_day=str(world.first_day),
        shift_from=str(world.shift_from),
    )  # fmt: skip
    assert WorldPayments().simulator() == same == simulator_of(world)
    day = world.shift_from
    pd.testing.assert_frame_equal(WorldPayments().land(day), same.land(day))
    pd.testing.assert_frame_equal(WorldPayments().land_labels(day), same.land_labels(day))
    assert same.shifted(day.toordinal())
    assert not same.shifted(day.toordinal() - 1)
    assert WorldPayments().landed_until() == yesterday()

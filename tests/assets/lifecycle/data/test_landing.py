"""An empty landing is refused and nothing is written; a day without rows passes where that is nothing unusual."""

from dataclasses import replace

import pandas as pd
import pytest

from resources.sources import Snapshot
from tests.declarations.readings import Feed, plain, readings, stream
from tests.stages import Stages

DAY, NEXT = "2026-01-10", "2026-01-11"


class OneDayMissing(Feed):
    """Lands nothing on one day, neither rows nor labels."""

    missing: str

    def land(self, day):
        return super().land(day).iloc[: 0 if str(day) == self.missing else None]

    def land_labels(self, day):
        return super().land_labels(day).iloc[: 0 if str(day) == self.missing else None]


class Nothing(Snapshot):
    """A file with a header and no line."""

    def read(self) -> pd.DataFrame:
        return readings(0).astype("string[pyarrow]")


def landing(tmp_path, **table) -> Stages:
    model = stream()
    return Stages(
        replace(model, table=replace(model.table, **{"source": OneDayMissing(missing=NEXT), **table})), tmp_path
    )


@pytest.mark.closes("raw", "arrived")
def test_a_day_on_which_nothing_landed_is_refused_and_names_itself(tmp_path):
    stages = landing(tmp_path)
    made = stages.make("raw_readings", NEXT)
    assert not made.success
    assert not made.check("arrived", NEXT).passed
    assert f"meter/raw_readings: the source returned no rows for {NEXT}; check the upstream system" in made.why
    assert not stages.has("raw_readings", NEXT)


@pytest.mark.closes("raw_labels", "arrived")
def test_a_day_without_labels_is_refused_too(tmp_path):
    stages = landing(tmp_path)
    assert stages.make("raw_labels", DAY).success
    made = stages.make("raw_labels", NEXT)
    assert not made.success
    assert not made.check("arrived", NEXT).passed
    assert not stages.has("raw_labels", NEXT)


def test_a_refused_day_holds_back_the_days_of_its_run(tmp_path):
    stages = landing(tmp_path)
    made = stages.make("raw_readings", DAY, NEXT)
    assert made.check("arrived", DAY).passed
    assert not made.check("arrived", NEXT).passed
    assert not stages.has("raw_readings", DAY)
    assert stages.make("raw_readings", DAY).success
    assert stages.has("raw_readings", DAY)


def test_where_days_are_quiet_an_empty_one_is_data(tmp_path):
    stages = landing(tmp_path, quiet_days=True)
    made = stages.make("raw_readings", NEXT)
    assert made.success, made.why
    assert made.check("arrived", NEXT).passed
    assert len(stages.tables.read(stages.model.key("raw_readings"), [NEXT])) == 0


@pytest.mark.closes("raw", "arrived")
def test_a_table_without_a_row_is_refused(tmp_path):
    model = plain()
    stages = Stages(replace(model, table=replace(model.table, source=Nothing())), tmp_path)
    made = stages.make("raw_readings")
    assert not made.check("arrived").passed
    assert not stages.has("raw_readings")

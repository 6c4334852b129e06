"""What lands and what is refused: empty landings, changed columns, sources that do not answer, growing columns."""

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from assets.lifecycle.data import landing as module
from assets.lifecycle.data.landing import TRIES, UNAVAILABLE, greatest
from resources.sources import CsvFile, Snapshot, SourceError, SourceUnavailable
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


# -- the source's columns ---------------------------------------------------------------------------------------------


class Renaming(Feed):
    """A column has another name from one day on."""

    since: str

    def _renamed(self, rows, day, name):
        return rows.rename(columns={name: f"{name}_2"}) if str(day) >= self.since else rows

    def land(self, day):
        return self._renamed(super().land(day), day, "level")

    def land_labels(self, day):
        return self._renamed(super().land_labels(day), day, "faulty")


@pytest.mark.closes("raw", "schema")
@pytest.mark.closes("raw_labels", "schema")
@pytest.mark.parametrize(("asset", "column"), [("raw_readings", "level"), ("raw_labels", "faulty")])
def test_a_renamed_column_is_refused_until_a_person_accepts_it(tmp_path, asset, column):
    stages = landing(tmp_path, source=Renaming(since=NEXT))
    assert stages.make(asset, DAY).success
    made = stages.make(asset, NEXT)
    assert not made.success
    assert not made.check("schema", NEXT).passed
    assert f"no column '{column}' any more; is it '{column}_2' now?" in made.why
    assert not stages.has(asset, NEXT)
    accepted = stages.make(asset, NEXT, accept_schema=True)
    assert accepted.success, accepted.why
    assert accepted.check("schema", NEXT).passed
    after = stages.make(asset, "2026-01-12")
    assert after.check("schema", "2026-01-12").passed, "the next day is compared with what was accepted"


def test_days_of_one_run_are_compared_with_each_other(tmp_path):
    stages = landing(tmp_path, source=Renaming(since=NEXT))
    made = stages.make("raw_readings", DAY, NEXT)
    assert made.check("schema", DAY).passed
    assert not made.check("schema", NEXT).passed
    assert not stages.has("raw_readings", DAY)


def test_a_damaged_landing_before_does_not_stop_the_next(tmp_path):
    stages = landing(tmp_path, source=Feed())
    assert stages.make("raw_readings", DAY).success
    Path(stages.tables.path(stages.model.key("raw_readings"), DAY)).write_bytes(b"PAR1")
    assert stages.make("raw_readings", NEXT).success
    assert stages.make("raw_readings", DAY).success


@pytest.mark.closes("raw", "schema")
def test_a_table_without_days_is_compared_with_what_it_was(tmp_path):
    table = tmp_path / "readings.csv"
    readings(40).to_csv(table, index=False)
    model = plain()
    stages = Stages(replace(model, table=replace(model.table, source=CsvFile(path=str(table)))), tmp_path)
    assert stages.make("raw_readings").success
    readings(40).drop(columns="site").to_csv(table, index=False)
    made = stages.make("raw_readings")
    assert not made.check("schema").passed
    assert "site" in stages.tables.read(stages.model.key("raw_readings"))


# -- a source that does not answer ------------------------------------------------------------------------------------


class Down(Feed):
    """Does not answer for a number of tries."""

    tries: int

    def land(self, day):
        asked.append(day)
        if len(asked) <= self.tries:
            raise SourceUnavailable("the meters' database refused the connection")
        return super().land(day)


asked: list[dt.date] = []


@pytest.fixture
def no_wait(monkeypatch):
    asked.clear()
    monkeypatch.setattr(module, "FIRST_WAIT_S", 0)


@pytest.mark.parametrize("tries", range(1, TRIES))
def test_a_source_that_does_not_answer_is_asked_again(tmp_path, no_wait, tries):
    stages = landing(tmp_path, source=Down(tries=tries))
    made = stages.make("raw_readings", DAY)
    assert made.success, made.why
    assert len(stages.tables.read(stages.model.key("raw_readings"), [DAY])) == 40
    assert UNAVAILABLE not in stages.instance.get_run_by_id(made.result.run_id).tags


def test_after_the_last_try_the_run_fails_and_is_marked(tmp_path, no_wait):
    stages = landing(tmp_path, source=Down(tries=TRIES))
    made = stages.make("raw_readings", DAY)
    assert not made.success
    assert "the meters' database refused the connection" in made.why
    assert stages.instance.get_run_by_id(made.result.run_id).tags[UNAVAILABLE] == "true"
    assert not stages.has("raw_readings", DAY)
    assert stages.make("raw_readings", DAY).success


def test_a_source_that_a_person_must_fix_is_asked_once(tmp_path, no_wait):
    class Wrong(Feed):
        def land(self, day):
            asked.append(day)
            raise SourceError("the password is wrong; set METERS_URL")

    stages = landing(tmp_path, source=Wrong())
    made = stages.make("raw_readings", DAY)
    assert "the password is wrong; set METERS_URL" in made.why
    assert len(asked) == 1
    assert UNAVAILABLE not in stages.instance.get_run_by_id(made.result.run_id).tags


# -- a growing column -------------------------------------------------------------------------------------------------


class Growing(Feed):
    """Readings by their number; rows of the day after ``newest`` are there, too, and wait for their day."""

    def growing_column(self):
        return self.column

    column: str = "reading_id"
    newest: str = "2026-01-12"

    def land_after(self, day, after, until):
        days = pd.date_range("2026-01-09", self.newest)
        rows = pd.concat([Feed.land(self, d.date()) for d in days], ignore_index=True)
        number = rows["reading_id"].astype(int)
        rows = rows[number > int(after or 0)]
        if until is not None:
            return rows[number[rows.index] <= int(until)]
        return rows[rows["read_at"] < str(day + dt.timedelta(days=1))]


def growing(tmp_path, **given) -> Stages:
    return landing(tmp_path, source=Growing(**given))


def landed(stages, *days):
    rows = stages.tables.read(stages.model.key("raw_readings"), list(days))
    return list(zip(rows["landing_day"].dt.strftime("%d"), rows["reading_id"], strict=True))


def test_rows_land_once_by_a_growing_column_whatever_the_runs(tmp_path):
    stages, together = growing(tmp_path / "a"), growing(tmp_path / "b")
    days = ["2026-01-10", "2026-01-11", "2026-01-12"]
    for day in days:
        assert stages.make("raw_readings", day).success
    assert together.make("raw_readings", *days).success
    rows = landed(stages, *days)
    assert len({number for _, number in rows}) == len(rows) == 160
    assert rows == landed(together, *days)
    before = landed(stages, days[1])
    assert stages.make("raw_readings", days[1]).success
    assert landed(stages, days[1]) == before, "a day that lands again has the same rows"


def test_an_older_day_cannot_land_after_a_younger_one(tmp_path):
    stages = growing(tmp_path)
    assert stages.make("raw_readings", NEXT).success
    made = stages.make("raw_readings", DAY)
    assert f"{NEXT} has landed, so {DAY} cannot: rows land in the order of 'reading_id'" in made.why


def test_marks_are_numbers_where_they_are_whole(tmp_path):
    rows = pd.DataFrame({"a": ["9", "10"], "b": ["2026-01-09", "2026-01-10"]}, dtype="string[pyarrow]")
    assert [greatest(rows, "a"), greatest(rows, "b")] == ["10", "2026-01-10"]
    with pytest.raises(SourceError, match="no column 'c'; the columns are: a, b"):
        greatest(rows, "c")
    with pytest.raises(SourceError, match="'a' is missing in 1 rows"):
        greatest(rows.assign(a=["9", None]).astype("string[pyarrow]"), "a")


def test_a_source_without_its_growing_column_is_named(tmp_path):
    stages = growing(tmp_path, column="number")
    assert "the source has no column 'number'" in stages.make("raw_readings", DAY, NEXT).why

"""Every landed row meets exactly one fate, whatever landed; and refusals say which column, which rule, which mend."""

import datetime as dt
from dataclasses import replace

import dagster as dg
import pandas as pd
import pandera.pandas as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.declaration import Table
from assets.lifecycle.data.cleaning import (
    ContractError,
    event_day,
    fates,
    first_landed,
    type_and_refuse,
)
from assets.lifecycle.data.landing import LANDING_DAY, ROW_ID, number_rows
from resources.sources import CsvFile
from tests.declarations.readings import plain, readings, stream
from tests.stages import Stages

START = dt.date(2026, 1, 1)


class Readings(pa.DataFrameModel):
    """A small stream."""

    reading_id: int = pa.Field(ge=0)
    read_at: pa.typing.Series[pa.engines.pandas_engine.DateTime] = pa.Field()
    value: float = pa.Field(gt=0, le=100)
    site: str = pa.Field(isin=["north", "south"], nullable=True)


TABLE = Table(
    name="readings", source=CsvFile(path="unused"), key="reading_id", contract=Readings, time="read_at", start=START,
    late_days=2,
)  # fmt: skip

text = st.one_of(st.none(), st.sampled_from(["", " ", "nan", "-1", "1,000", "north", "1e3", "∞", "2026-13-40"]))
ids = st.one_of(st.integers(0, 6).map(str), text)
values = st.one_of(st.floats(-5, 120).map(lambda v: f"{v:.2f}"), st.just(" 7.5 "), text)
times = st.one_of(
    st.tuples(st.integers(-4, 7), st.integers(0, 86_399)).map(
        lambda when: str(pd.Timestamp(START) + pd.Timedelta(days=when[0], seconds=when[1]))
    ),
    text,
)
sites = st.one_of(st.sampled_from(["north", "south", "east"]), text)
rows = st.lists(st.tuples(ids, times, values, sites), max_size=12)


def landed(days: list[list[tuple]]) -> pd.DataFrame:
    columns = ["reading_id", "read_at", "value", "site"]
    return number_rows(
        {
            str(START + dt.timedelta(days=n)): pd.DataFrame(day, columns=columns).astype("string[pyarrow]")
            for n, day in enumerate(days)
        }
    )


@settings(deadline=None, max_examples=80)
@given(days=st.lists(rows, min_size=1, max_size=6), built_after=st.integers(0, 6))
def test_every_landed_row_meets_exactly_one_fate(days: list[list[tuple]], built_after: int) -> None:
    raw = landed(days)
    accepted, refused = type_and_refuse(raw, TABLE)
    # The cleaned tables were built when only the first landings were there: what landed since is pending.
    seen = accepted[accepted[LANDING_DAY] < pd.Timestamp(START) + pd.Timedelta(days=built_after)]
    in_clean = seen.loc[first_landed(seen, TABLE), ROW_ID]
    late = accepted[~accepted.index.isin(seen.index)]
    stale = set(zip(event_day(late, TABLE), late[LANDING_DAY].dt.strftime("%Y-%m-%d"), strict=True))
    met = fates(raw, accepted, TABLE, in_clean=in_clean, in_quarantine=refused[ROW_ID], stale=stale)
    assert (met.sum(axis=1) == 1).all(), met[met.sum(axis=1) != 1]
    assert refused["reason"].notna().all()


@settings(deadline=None, max_examples=40)
@given(days=st.lists(rows, min_size=1, max_size=5))
def test_later_landings_change_no_verdict_on_earlier_ones(days: list[list[tuple]]) -> None:
    raw = landed(days)
    accepted, _ = type_and_refuse(raw, TABLE)
    first = first_landed(accepted, TABLE)
    for last in range(len(days)):
        part = accepted[accepted[LANDING_DAY] <= pd.Timestamp(START) + pd.Timedelta(days=last)]
        assert first_landed(part, TABLE).equals(first[part.index])


def test_a_row_lost_or_used_twice_is_found() -> None:
    raw = landed([[("1", "2026-01-01", "1", "north"), ("2", "2026-01-01", "2", "north")]])
    accepted, _ = type_and_refuse(raw, TABLE)
    ids = raw[ROW_ID]
    lost = fates(raw, accepted, TABLE, in_clean=ids[:1], in_quarantine=ids[:0], stale=set())
    twice = fates(raw, accepted, TABLE, in_clean=ids, in_quarantine=ids[1:2], stale=set())
    assert lost.sum(axis=1).tolist() == [1, 0]
    assert twice.sum(axis=1).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("", "2026-01-01", "1", "north"), "reading_id: missing or unreadable"),
        (("1", "yesterday", "1", "north"), "read_at: missing or unreadable"),
        (("1", "2026-01-01", "-1", "north"), "value: greater_than(0)"),
        (("1", "2026-01-01", "500", "north"), "value: less_than_or_equal_to(100)"),
        (("1", "2026-01-01", "1", "east"), "site: isin(['north', 'south'])"),
        (("1", "2026-01-03", "1", "north"), "read_at: after the day it landed"),
        (("1", "2025-12-20", "1", "north"), "read_at: landed more than 2 days late"),
    ],
)
def test_a_refused_row_says_which_column_and_which_rule(row: tuple, reason: str) -> None:
    _, refused = type_and_refuse(landed([[row]]), TABLE)
    assert refused["reason"].tolist() == [reason]


def test_a_missing_or_renamed_column_is_one_clear_error() -> None:
    raw = landed([[("1", "2026-01-01", "1", "north")]]).rename(columns={"value": "values"})
    with pytest.raises(ContractError) as error:
        type_and_refuse(raw, TABLE)
    assert "the column 'value' did not land (renamed to 'values'?)" in str(error.value.description)


def test_a_clean_function_that_drops_rows_is_refused() -> None:
    table = Table(name="t", source=CsvFile(path="unused"), key="reading_id", contract=Readings, time="read_at",
                  start=START, clean=lambda raw: raw.iloc[:0])  # fmt: skip
    with pytest.raises(dg.Failure) as error:
        type_and_refuse(landed([[("1", "2026-01-01", "1", "north")]]), table)
    assert "must keep the index" in str(error.value.description)


# -- the assets --------------------------------------------------------------------------------------------------------

DAY = "2026-01-10"


def as_landed(rows: pd.DataFrame, day: str) -> pd.DataFrame:
    """Rows as ``raw_readings`` has them."""
    return number_rows({day: rows.astype("string[pyarrow]")})


def landed_on(day: str = DAY, refused: int = 0, rows: int = 40) -> pd.DataFrame:
    """A day's landing of which so many rows break the contract."""
    made = readings(rows, dt.date.fromisoformat(day)).drop(columns="faulty").astype("string[pyarrow]")
    made.loc[: refused - 1, "level"] = "-5"
    return as_landed(made, day)


@pytest.mark.closes("cleaned", "contract")
def test_a_day_of_which_too_much_breaks_the_contract_leaves_what_was_there(tmp_path):
    stages = Stages(stream(), tmp_path)
    stages.put("raw_readings", landed_on(), DAY)
    assert stages.make("readings", DAY).success
    before = stages.tables.stamp(stages.model.key("readings"), DAY)

    stages.put("raw_readings", landed_on(refused=3), DAY)
    made = stages.make("readings", DAY)
    assert not made.success
    assert not made.check("contract", DAY).passed
    assert (
        f"7.5% of what landed on {DAY} was refused (at most 5%), mostly for 'level: greater_than_or_equal_to(0)'"
        in (made.why)
    )
    assert stages.tables.stamp(stages.model.key("readings"), DAY) == before


def test_as_much_as_is_allowed_may_break_the_contract(tmp_path):
    stages = Stages(stream(), tmp_path)
    stages.put("raw_readings", landed_on(refused=2), DAY)
    made = stages.make("readings", DAY)
    assert made.success, made.why
    assert made.check("contract", DAY).description == "38 rows meet the contract; 2 of 40 landed were refused"


@pytest.mark.closes("cleaned", "contract")
def test_a_table_of_which_nothing_meets_the_contract_is_refused(tmp_path):
    model = plain()
    stages = Stages(replace(model, table=replace(model.table, max_refused=1.0)), tmp_path)
    stages.put("raw_readings", as_landed(readings(20).astype("string[pyarrow]").assign(level="-5"), "all"))
    made = stages.make("readings")
    assert not made.check("contract").passed, "whatever share may be refused, a table without a row is none"
    assert not stages.has("readings")


def account(tmp_path, cleaned, landed, **table) -> tuple[Stages, "object"]:
    """The quarantine of a plain table, whose cleaned rows are given."""
    model = plain()
    stages = Stages(replace(model, table=replace(model.table, **table)), tmp_path)
    stages.put("raw_readings", landed)
    stages.put("readings", cleaned)
    return stages, stages.make("quarantine")


@pytest.fixture
def landed_table() -> pd.DataFrame:
    """Forty rows of which two break the contract."""
    rows = readings(40).astype("string[pyarrow]")
    rows.loc[:1, "level"] = "-5"
    return as_landed(rows, "all")


@pytest.mark.closes("quarantine", "one_fate")
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda cleaned, landed: cleaned.iloc[1:], "1 rows met no fate or several, the first is 0000002"),
        (lambda cleaned, landed: pd.concat([cleaned, landed.iloc[[0]]]), "the first is 0000000"),
    ],
    ids=["lost", "used twice"],
)
def test_a_row_that_is_lost_or_used_twice_stops_the_table(tmp_path, landed_table, wrong, words):
    sound = landed_table.iloc[2:]
    stages, made = account(tmp_path, wrong(sound, landed_table), landed_table)
    assert not made.check("one_fate").passed
    assert words in made.why
    assert "materialise readings and quarantine of that day again" in made.why
    assert not stages.has("quarantine")


def test_rows_that_are_all_accounted_for_pass(tmp_path, landed_table):
    stages, made = account(tmp_path, landed_table.iloc[2:], landed_table)
    assert made.success, made.why
    assert made.check("one_fate").passed
    assert made.check("refused_share").passed, "2 of 40 are 5 %, as much as is allowed"
    assert len(stages.tables.read(stages.model.key("quarantine"))) == 2


@pytest.mark.closes("quarantine", "refused_share")
def test_a_landing_of_which_too_much_is_refused_warns_and_is_written(tmp_path, landed_table):
    stages, made = account(tmp_path, landed_table.iloc[2:], landed_table, max_refused=0.04)
    assert made.success, made.why
    refused = made.check("refused_share")
    assert not refused.passed
    assert refused.severity == dg.AssetCheckSeverity.WARN
    assert refused.description == "5.00% of the landing was refused (at most 4%)"
    assert stages.has("quarantine")


def labelled(tmp_path, unlabelled: int) -> tuple[Stages, "object"]:
    """Labels of a day of a stream, of which so many rows have none."""
    stages = Stages(stream(), tmp_path)
    rows = readings(40, dt.date.fromisoformat(DAY))
    known = rows[["reading_id", "faulty"]].astype({"faulty": int}).astype("string[pyarrow]").iloc[unlabelled:]
    stages.put("readings", rows.drop(columns="faulty"), DAY)
    stages.put("raw_labels", as_landed(known, "2026-01-17"), "2026-01-17")
    return stages, stages.make("labels", DAY)


@pytest.mark.closes("labels", "coverage")
def test_a_row_without_its_label_holds_the_day_back(tmp_path):
    stages, made = labelled(tmp_path, unlabelled=1)
    assert not made.check("coverage", DAY).passed
    assert f"1 of 40 clean rows of {DAY} have no label; have the upstream land them" in made.why
    assert not stages.has("labels", DAY)


def test_a_day_of_which_each_row_has_its_label_passes(tmp_path):
    stages, made = labelled(tmp_path, unlabelled=0)
    assert made.success, made.why
    assert made.check("coverage", DAY).passed
    assert stages.tables.read(stages.model.key("labels"), [DAY])["faulty"].sum() > 0

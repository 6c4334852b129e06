"""Every landed row has exactly one outcome, whatever landed; a refusal names the column, the rule and the fix."""

import datetime as dt
from dataclasses import replace
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.declaration import Table
from assets.lifecycle.data import row_outcomes as module
from assets.lifecycle.data.event_days import event_day
from assets.lifecycle.data.landing import LANDING_DAY, ROW_ID, number_rows
from assets.lifecycle.data.row_outcomes import (
    ContractError,
    first_landed,
    first_of_keys,
    landings,
    row_outcomes,
    rules_on_the_whole,
    type_and_refuse,
)
from resources.sources import CsvFile
from resources.tables import InBatches, ParquetTables

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
    met = row_outcomes(raw, accepted, TABLE, in_clean=in_clean, in_quarantine=refused[ROW_ID], stale=stale)
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
    lost = row_outcomes(raw, accepted, TABLE, in_clean=ids[:1], in_quarantine=ids[:0], stale=set())
    twice = row_outcomes(raw, accepted, TABLE, in_clean=ids, in_quarantine=ids[1:2], stale=set())
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
    assert "keep the index" in str(error.value.description)


# -- landing by landing --------------------------------------------------------------------------------------------


def stored(tmp_path: Path, days: dict[str, pd.DataFrame]) -> InBatches:
    tables, key = ParquetTables(root=str(tmp_path)), dg.AssetKey(["meter", "raw_readings"])
    for day, rows in days.items():
        tables.write(key, number_rows({day: rows}), day)
    return InBatches(tables, key, tuple(days))


def random_landings(seed: int) -> dict[str, pd.DataFrame]:
    """Six landings with few ids, late, future, dirty and repeated rows."""
    rng = np.random.default_rng(seed)
    found = {}
    for n in range(6):
        rows = int(rng.integers(1, 30))
        moment = pd.Timestamp(START) + pd.to_timedelta(
            (n - rng.integers(-1, 5, rows)) * 86_400 + rng.integers(0, 86_400, rows), "s"
        )
        columns = {
            "reading_id": rng.choice(["", "x", *map(str, range(25))], rows),
            "read_at": np.where(rng.random(rows) < 0.1, "soon", moment.strftime("%Y-%m-%d %H:%M:%S")),
            "value": np.where(rng.random(rows) < 0.1, "-3", rng.uniform(1, 99, rows).round(2).astype(str)),
            "site": rng.choice(["north", "south", "east", ""], rows),
        }
        found[str(START + dt.timedelta(days=n))] = pd.DataFrame(columns).astype("string[pyarrow]")
    return found


@pytest.mark.parametrize("by", ["event", "landing"])
@pytest.mark.parametrize("seed", range(20))
def test_landing_by_landing_is_all_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, by: str
) -> None:
    raw = stored(tmp_path, random_landings(seed))
    days = list(raw.days[2 : 3 + seed % 2])
    together = landings(raw, TABLE, days, by=by)
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 0)
    apart = landings(raw, TABLE, days, by=by)
    pd.testing.assert_frame_equal(apart.accepted, together.accepted.reset_index(drop=True))
    pd.testing.assert_frame_equal(apart.refused, together.refused.reset_index(drop=True))
    assert (apart.first == together.first).all()
    assert apart.landed == together.landed


def test_a_column_that_one_landing_lacks_refuses_that_landing_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = random_landings(0)
    broken = str(START + dt.timedelta(days=3))
    days[broken] = days[broken].rename(columns={"value": "values"})
    raw = stored(tmp_path, days)
    together = landings(raw, TABLE, list(raw.days), by="landing")
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 0)
    apart = landings(raw, TABLE, list(raw.days), by="landing")
    assert "value: the column did not land (renamed to 'values'?)" in set(apart.refused["reason"])
    assert apart.refused["reason"].tolist() == together.refused["reason"].tolist()


def test_a_rule_on_the_whole_table_sees_all_landings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unique(Readings):
        value: float = pa.Field(unique=True)

    assert not rules_on_the_whole(TABLE)
    table = replace(TABLE, contract=Unique)
    assert rules_on_the_whole(table)
    rows = pd.DataFrame({"reading_id": ["1"], "read_at": ["2026-01-01"], "value": ["5"], "site": ["north"]})
    raw = stored(tmp_path, {str(START): rows, str(START + dt.timedelta(days=1)): rows.assign(reading_id="2")})
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 0)
    assert len(landings(raw, table, list(raw.days), by="landing").refused) == 2


def test_missing_keys_are_no_copies_of_each_other() -> None:
    landed_on = np.array(["2026-01-01"] * 4, dtype="datetime64[s]")
    assert first_of_keys(np.array([1.0, np.nan, np.nan, 1.0]), landed_on, 2).tolist() == [True, True, True, False]

"""Columns of text as people and programs write them."""

import math

import pandas as pd
import pandera.pandas as pa
import pytest
from pandera.typing.pandas import Series

from assets.lifecycle.data.landing import number_rows
from assets.lifecycle.data.row_outcomes import REASON, type_and_refuse
from assets.reading import hours, number, typed
from assets.words import FALSE, SIGNS, TRUE, says_yes
from resources.tables import WHOLE


def text(*values: str | None) -> pd.Series:
    return pd.Series(values, dtype="string[pyarrow]")


def read(value: str, **how) -> float:
    return float(pd.to_numeric(number(text(value), **how)).astype("float64").iloc[0])


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1,234.50", 1234.5), ("$1,234", 1234), ("USD 5", 5), ("€ 5.50", 5.5), ("5 kr", 5), ("₹ 1,23,456.7", 123456.7),
        ("1 234.5", 1234.5), ("1\xa0234", 1234), ("1'234.50", 1234.5), ("12%", 12), ("(1,234.5)", -1234.5), ("5-", -5),
        ("1'234.-", 1234),
        ("−7", -7), ("-7", -7), ("1e5", 1e5), ("1.5E-3", 1.5e-3), (".5", 0.5), ("５６", 56), ("٣٤", 34),
    ],
)  # fmt: skip
def test_amounts_are_read_as_they_are_meant(written, value):
    assert read(written) == value


@pytest.mark.parametrize(
    ("written", "value"),
    [("1.234,50", 1234.5), ("0,512", 0.512), ("1.234", 1234), ("1 234,5 €", 1234.5), ("1,5E+03", 1500), ("-0,5", -0.5),
     ("12.5", 12.5), ("1.2340", 1.234), ("1.234e-05", 1.234e-05)],
)  # fmt: skip
def test_a_decimal_comma_is_one_where_it_is_declared(written, value):
    assert read(written, decimal=",") == value


@pytest.mark.parametrize(
    "written", ["12,50", "0,512", "1,2345", "1.2.3", "12,34,5", "1.006e-38,5", "abc", "12 apples", "", "--5"]
)
def test_what_can_be_meant_otherwise_is_no_amount(written):
    assert math.isnan(read(written))


def test_a_unit_behind_the_number_goes():
    assert read("61.2 kg", unit="kg") == 61.2
    assert math.isnan(read("61.2 lb", unit="kg"))


def test_times_of_the_day_are_hours():
    found = hours(text("14:30", "02:30:00 PM", "12:00 am", "36:15", "25:99", "noon", None))
    assert found.tolist()[:4] == [14.5, 14.5, 0.0, 36.25]
    assert found.isna().tolist()[4:] == [True, True, True]
    assert hours(text("14.5")).tolist() == [14.5]


def test_words_for_yes_and_no_are_never_both():
    assert not set(TRUE) & set(FALSE)
    assert says_yes("是", "否")
    assert says_yes("Positive", "NEGATIVE")
    assert not says_yes("good", "bad")
    assert all(says_yes(*pair) and not says_yes(*pair[::-1]) for pair in SIGNS)


class Rows(pa.DataFrameModel):
    whole: Series[int] = pa.Field(ge=0)
    ratio: Series[float] = pa.Field(nullable=True)
    at: Series[pd.Timestamp] = pa.Field(nullable=True)
    on: Series[bool]


GOOD = {"whole": "3", "ratio": "0.5", "at": "2026-11-26T01:40:00+02:00", "on": "oui"}


def test_typing_reads_infinite_as_missing_offsets_as_utc_and_booleans_of_many_languages():
    raw = pd.DataFrame([GOOD, GOOD | {"ratio": "-inf", "at": "2026-11-26 01:40", "on": "否"}], dtype="string[pyarrow]")
    rows = typed(raw, Rows)
    assert rows["ratio"].isna().tolist() == [False, True]
    assert rows["at"].astype(str).tolist() == ["2026-11-25 23:40:00", "2026-11-26 01:40:00"]
    assert rows["on"].tolist() == [True, False]


@pytest.mark.parametrize("value", ["3.5", "99999999999999999999", "1e300", "inf", "nan", "x"])
def test_one_row_that_is_no_whole_number_is_refused_and_the_others_stand(value):
    class Table:
        name, key, time, columns, contract = "rows", "whole", None, tuple(GOOD), Rows
        clean = staticmethod(lambda raw: typed(raw, Rows))

    raw = pd.DataFrame([GOOD, GOOD | {"whole": value}], dtype="string[pyarrow]")
    accepted, refused = type_and_refuse(number_rows({WHOLE: raw}), Table)
    assert list(accepted["whole"]) == [3]
    assert list(refused[REASON]) == ["whole: missing or unreadable"]


def test_a_refused_row_keeps_what_landed_as_its_reason():
    class Reasons(pa.DataFrameModel):
        key: Series[str]
        n: Series[int]

    class Table:
        name, key, time, columns, contract = "rows", "key", None, ("key", "n"), Reasons
        clean = staticmethod(lambda raw: typed(raw, Reasons))

    raw = pd.DataFrame({"key": ["a"], "n": ["x"], "reason": ["moved away"]}, dtype="string[pyarrow]")
    _, refused = type_and_refuse(number_rows({WHOLE: raw}), Table)
    assert refused.iloc[0][[REASON, "landed_reason"]].tolist() == ["n: missing or unreadable", "moved away"]

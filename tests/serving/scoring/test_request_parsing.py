"""One row has one verdict, whichever way it goes."""

import datetime as dt
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from assets.declaration import Model, Table
from assets.models.fraud import model
from assets.reading import number, typed
from resources.sources import CsvFile
from serving.scoring.request_parsing import RefusedRows, RequestParser, as_text

NOW = dt.datetime(2026, 10, 3, 14, 5, 9)
GOOD = {"transaction_id": 7, "paid_at": "2026-10-03 14:00:00", "customer_id": 5, "terminal_id": "77", "amount": 12.5,
        "arrived_at": "2026-10-03T14:00:01"}  # fmt: skip
PARSER = RequestParser(model)

value = st.one_of(
    st.integers(-5, 2_000_000),
    st.decimals(-3, 20_000, places=3).map(str),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from(["1,234.50", " 12.5 ", "", "12,50", "1e3", "0x1f", "٣", "-0", "007", "12.", ".5", None, True]),
    st.datetimes(dt.datetime(2026, 10, 1), dt.datetime(2026, 10, 5)).map(lambda t: f"{t:%Y-%m-%d %H:%M:%S}"),
    st.datetimes(dt.datetime(2026, 10, 1), dt.datetime(2026, 10, 5), timezones=st.timezones()).map(
        lambda t: t.isoformat()
    ),
    st.sampled_from(
        ["2026-10-03T14:00:00Z", "2026-10-03t14:00:00.5z", "2026-10-03T24:00:00Z", "2026-10-03T14:00:00+99:00"]
    ),
    st.sampled_from(["2026-02-31 00:00:00", "1650-01-01 00:00:00", "9999-01-01 00:00:00", "2026-10-03 14:00"]),
)


def verdict(judge, row):
    try:
        return {name: values.tolist() for name, values in judge([row], NOW).items()}
    except RefusedRows as refused:
        return [(p.column, p.problem, p.right) for p in refused.problems]


@given(column=st.sampled_from(sorted(GOOD)), value=value)
@example(column="amount", value="12.345")
@example(column="amount", value=10_000.01)
@example(column="customer_id", value=1_000_000)
def test_the_fast_way_and_the_pipelines_own_give_the_same_verdict(column, value):
    row = {**GOOD, column: value}
    assert verdict(PARSER.parse, row) == verdict(PARSER._slow, row)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12.0, "12"),
        (12.5, "12.5"),
        (1e-7, "0.0000001"),
        (1e16, "10000000000000000"),
        (1.234, "1.2340"),
        (True, "true"),
        (7, "7"),
    ],
)
def test_a_json_number_is_read_however_it_was_written(value, text):
    assert as_text(value) == text


def test_a_good_row_goes_the_fast_way_and_is_typed():
    assert PARSER._fast(GOOD, NOW) is not None
    typed = PARSER.parse([GOOD], NOW)
    assert {name: values.dtype for name, values in typed.items()} == PARSER.dtypes
    assert typed["terminal_id"].tolist() == [77]
    assert typed["paid_at"].tolist() == np.array(["2026-10-03T14:00:00"], "datetime64[ns]").tolist()


@pytest.mark.parametrize(
    "text",
    ["2026-10-03T13:59:59Z", "2026-10-03T15:59:59+02:00", "2026-10-03T08:29:59-05:30", "2026-10-03T13:59:59.750Z"],
)
def test_moments_as_programs_send_them_are_turned_to_utc(text):
    typed = PARSER.parse([{**GOOD, "paid_at": text}, GOOD], NOW)
    assert typed["paid_at"].tolist() == np.array(["2026-10-03T13:59:59", "2026-10-03T14:00:00"], "M8[ns]").tolist()


def test_moments_with_an_offset_go_the_fast_way():
    assert PARSER._fast({**GOOD, "paid_at": "2026-10-03T15:59:59+02:00"}, NOW) is not None
    assert PARSER._fast({**GOOD, "paid_at": "2026-10-03T13:59:59.5"}, NOW) is None, "this clean() leaves fractions out"


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("amount", -3, "above 0, at most 10000"),
        ("amount", "lots", "a number"),
        ("customer_id", [1], "a whole number"),
        ("paid_at", "2026-10-04 00:00:00", "not in the future"),
        ("paid_at", "yesterday", "2026-10-03 14:05:09"),
    ],
)
def test_a_refusal_names_the_column_the_value_and_what_would_be_right(column, value, said):
    with pytest.raises(RefusedRows) as refused:
        PARSER.parse([GOOD, {**GOOD, column: value}], NOW)
    (problem,) = refused.value.problems
    assert (problem.row, problem.column, problem.value) == (1, column, value)
    assert said in problem.right
    assert column in str(refused.value)


def test_a_column_that_did_not_come_is_named():
    row = {name: value for name, value in GOOD.items() if name != "amount"}
    with pytest.raises(RefusedRows, match="amount is missing"):
        PARSER.parse([row], NOW)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": 3, "Monthly fee": "abc", "plan": "full"}, "monthly is missing or unreadable"),
        ({"id": 3, "plan": "full"}, "monthly is missing$"),
    ],
)
def test_a_column_that_came_under_another_name_may_be_unreadable(row, said):
    def renamed(raw: pd.DataFrame) -> pd.DataFrame:
        raw = raw.rename(columns={"Monthly fee": "monthly"})
        return raw.assign(monthly=pd.to_numeric(raw["monthly"], errors="coerce"))

    class Paying(Customers):
        monthly: float = pa.Field(ge=0)

    table = Table(name="customers", source=CsvFile(path="none.csv"), key="id", contract=Paying, clean=renamed)
    with pytest.raises(RefusedRows) as refused:
        RequestParser(Model(name="churn", table=table, target="left")).parse([row], NOW)
    assert re.search(said, refused.value.problems[0].problem)


def test_when_a_row_arrived_is_filled_in():
    row = {name: value for name, value in GOOD.items() if name != "arrived_at"}
    assert PARSER.parse([row], NOW)["arrived_at"][0] == np.datetime64(NOW)


def test_a_cleaning_that_changes_canonical_values_is_noticed_and_followed():
    def in_cents(raw: pd.DataFrame) -> pd.DataFrame:
        typed = model.table.clean(raw)
        return typed.assign(amount=typed["amount"] / 100)

    parser = RequestParser(replace(model, table=replace(model.table, clean=in_cents)))
    assert not parser._readers
    assert parser.parse([GOOD], NOW)["amount"].tolist() == [0.125]


class Customers(pa.DataFrameModel):
    id: int = pa.Field(ge=0)
    plan: str = pa.Field(isin=["basic", "full"])
    monthly: float = pa.Field(nullable=True)
    left: int = pa.Field(isin=[0, 1])


def test_a_plain_tables_target_is_not_asked_for():
    table = Table(name="customers", source=CsvFile(path="none.csv"), key="id", contract=Customers)
    parser = RequestParser(Model(name="churn", table=table, target="left"))
    assert parser._fast({"id": 3, "plan": "full", "monthly": 20.5}, NOW) is not None
    missing = parser.parse([{"id": 3, "plan": "full", "monthly": None}], NOW)
    assert list(missing) == ["id", "plan", "monthly"]
    assert np.isnan(missing["monthly"][0])
    with pytest.raises(RefusedRows, match="plan='gold'"):
        parser.parse([{"id": 3, "plan": "gold", "monthly": 1}], NOW)


@pytest.mark.parametrize("sent", [1.234, -0.5, 12.34, 1234, 1e-7, 0.12345, "1,234", "1234,0", "-0,5"])
def test_a_number_is_itself_where_the_table_has_decimal_commas(sent):
    class Paying(Customers):
        monthly: float = pa.Field(nullable=True)

    def clean(raw: pd.DataFrame) -> pd.DataFrame:
        return typed(raw.assign(monthly=number(raw["monthly"], decimal=",")), table.contract)

    table = Table(name="customers", source=CsvFile(path="none.csv"), key="id", contract=Paying)
    parser = RequestParser(Model(name="churn", table=replace(table, clean=clean), target="left"))
    accepted = parser.parse([{"id": 3, "plan": "full", "monthly": sent}], NOW)
    assert accepted["monthly"][0] == (float(sent.replace(",", ".")) if isinstance(sent, str) else sent)


class Visitors(pa.DataFrameModel):
    """Text without rules, numbers that may be missing, and yes or no."""

    name: str
    note: str = pa.Field(nullable=True)
    visits: float = pa.Field(ge=0, le=1_000, nullable=True)
    member: bool
    left: bool


def visitors(clean=None) -> RequestParser:
    table = Table(name="visitors", source=CsvFile(path="none.csv"), key="name", contract=Visitors, clean=clean)
    return RequestParser(Model(name="visits", table=table, target="left"))


PLAIN = visitors()
VISITOR = {"name": "7590-VHVEG", "note": "two words", "visits": 12.5, "member": "Yes"}
text = st.one_of(st.text(max_size=8), st.sampled_from(["NA", " a", "a ", "\u00a0a", "a\u2028", "\x1ca", "true", "1e5"]))
words = st.sampled_from(
    ["yes", "Yes", "YES", "yEs", "no", "t", "F", "1", "0", "1.0", "oui", "SÍ", "是", " yes", "maybe"]
)


def same(one, other) -> bool:
    """Whether two verdicts are equal; missing values are equal to each other."""
    plain = lambda values: {n: [None if pd.isna(v) else v for v in of] for n, of in values.items()}  # noqa: E731
    return plain(one) == plain(other) if isinstance(one, dict) and isinstance(other, dict) else one == other


@settings(max_examples=40)
@given(
    row=st.fixed_dictionaries({
        "name": st.one_of(text, st.none(), st.integers(0, 99)),
        "note": st.one_of(text, st.none()),
        "visits": st.one_of(st.floats(-1, 1_001), st.integers(0, 1_001), st.sampled_from(["", " ", "1e2", None])),
        "member": st.one_of(words, st.booleans(), st.none()),
    })
)  # fmt: skip
@example(row={**VISITOR, "visits": None})
@example(row={**VISITOR, "visits": 1_001})
@example(row={**VISITOR, "note": None})
@example(row={**VISITOR, "name": "\u2003a"})
def test_text_and_missing_numbers_have_the_same_verdict_whichever_way_they_go(row):
    assert same(verdict(PLAIN.parse, row), verdict(PLAIN._slow, row))


def test_text_and_missing_numbers_go_the_fast_way_where_the_contract_alone_types_them():
    assert PLAIN._fast(VISITOR, NOW) is not None
    assert PLAIN._fast({**VISITOR, "visits": None, "member": False}, NOW) is not None
    assert PLAIN._fast({**VISITOR, "name": " a"}, NOW) is None


def test_free_text_beside_a_clean_goes_through_it():
    def renames(raw: pd.DataFrame) -> pd.DataFrame:
        return typed(raw.assign(name=raw["name"].replace({"München": "Munich"})), Visitors)

    parser = visitors(renames)
    assert not parser._readers
    assert parser.parse([{**VISITOR, "name": "München"}], NOW)["name"].tolist() == ["Munich"]


def test_words_for_yes_and_no_go_the_fast_way_where_clean_reads_them():
    class Members(pa.DataFrameModel):
        id: int
        member: bool

    def parser(clean) -> RequestParser:
        table = Table(name="members", source=CsvFile(path="none.csv"), key="id", contract=Members, clean=clean)
        return RequestParser(Model(name="members", table=table, target="id"))

    def only_true(raw: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"id": 1, "member": raw["member"].str.lower() == "true"})

    assert parser(lambda raw: typed(raw, Members))._fast({"member": "YES"}, NOW) == {"member": True}
    strict = parser(only_true)
    assert strict._fast({"member": "yes"}, NOW) is None
    assert strict.parse([{"member": "yes"}], NOW)["member"].tolist() == [False]

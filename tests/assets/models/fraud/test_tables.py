"""Cleaning of payments and their contract."""

from __future__ import annotations

import pandas as pd
import pandera.errors
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.models.fraud.tables import MAX_AMOUNT, MAX_ENTITIES, Payments, clean

GOOD = {
    "transaction_id": "739676000001",
    "paid_at": "2026-03-01 12:30:05",
    "customer_id": "17",
    "terminal_id": "4711",
    "amount": "57.16",
    "arrived_at": "2026-03-01 12:30:08",
}
COLUMNS = list(GOOD)


def rows(*changes: dict[str, str | None]) -> pd.DataFrame:
    """A good landed row for each change, with the change."""
    return pd.DataFrame([GOOD | change for change in changes], dtype="string[pyarrow]")


def contract_ready(typed: pd.DataFrame) -> pd.DataFrame:
    """Nullable integers as the contract wants them."""
    return typed.astype(dict.fromkeys(("transaction_id", "customer_id", "terminal_id"), "int64"))


def test_a_good_row_is_typed_and_meets_the_contract() -> None:
    typed = contract_ready(clean(rows({})))
    Payments.validate(typed)
    assert typed.iloc[0].to_dict() == {
        "transaction_id": 739676000001,
        "paid_at": pd.Timestamp("2026-03-01 12:30:05"),
        "customer_id": 17,
        "terminal_id": 4711,
        "amount": 57.16,
        "arrived_at": pd.Timestamp("2026-03-01 12:30:08"),
    }


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1,234.50", 1234.5),
        ("0,057.16", 57.16),
        (" 12.5 ", 12.5),
        ("7", 7.0),
        ("-3.10", -3.1),
        ("1,234,567.89", 1234567.89),
    ],
)
def test_readable_amounts(text: str, amount: float) -> None:
    assert clean(rows({"amount": text}))["amount"].tolist() == [amount]


@pytest.mark.parametrize(
    "text", ["", "12,50", "1,23", ",123", "1.2.3", "n/a", "1e3", "nan", "inf", "12 50", "١٢", None]
)
def test_unreadable_amounts_are_missing(text: str | None) -> None:
    assert clean(rows({"amount": text}))["amount"].isna().all()


@pytest.mark.parametrize(
    "text", ["", "n/a", "2018-02-31 12:00:00", "2018-01-01 25:61:00", "2018", "9999-01-01 00:00:00"]
)
def test_unreadable_moments_are_missing(text: str) -> None:
    assert clean(rows({"paid_at": text}))["paid_at"].isna().all()


@pytest.mark.parametrize(
    "text", ["2026-03-01T12:30:05Z", "2026-03-01T14:30:05+02:00", "2026-03-01 12:30:05.987", "2026-03-01T07:00:05-0530"]
)
def test_moments_as_programs_send_them_are_whole_seconds_of_utc(text: str) -> None:
    later = {"paid_at": "2026-03-01 12:30:06"}  # without an offset, beside one with
    assert clean(rows({"paid_at": text}, later))["paid_at"].astype(str).tolist() == [
        "2026-03-01 12:30:05", "2026-03-01 12:30:06"
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "12.0", "-4", "1" * 19, "x"])
def test_unreadable_ids_are_missing(text: str) -> None:
    assert clean(rows({"customer_id": text}))["customer_id"].isna().all()


@given(
    cents=st.integers(1, int(MAX_AMOUNT) * 100), style=st.sampled_from(["{:.2f}", "{:,.2f}", " {:.10g}\t", "{:09,.2f}"])
)
def test_an_amount_survives_its_styles(cents: int, style: str) -> None:
    assert clean(rows({"amount": style.format(cents / 100)}))["amount"].tolist() == [cents / 100]


@settings(max_examples=60, deadline=None)
@given(
    table=st.lists(
        st.tuples(*[st.none() | st.text(max_size=12) | st.just(good) for good in GOOD.values()]), max_size=8
    ),
    first=st.integers(-5, 5),
)
def test_any_text_is_typed_row_by_row_without_an_error(table: list[tuple[str | None, ...]], first: int) -> None:
    raw = pd.DataFrame(table, columns=COLUMNS, dtype="string[pyarrow]", index=range(first, first + len(table)))
    typed = clean(raw)
    assert typed.index.equals(raw.index)
    assert list(typed) == COLUMNS
    assert [str(kind) for kind in typed.dtypes] == [
        "Int64", "datetime64[ns]", "Int64", "Int64", "float64", "datetime64[ns]",
    ]  # fmt: skip
    for position in range(len(raw)):
        pd.testing.assert_frame_equal(clean(raw.iloc[[position]]), typed.iloc[[position]])


@pytest.mark.parametrize(
    ("change", "column", "rule"),
    [
        ({"amount": "-1"}, "amount", "greater_than(0)"),
        ({"amount": "0"}, "amount", "greater_than(0)"),
        ({"amount": "10000.01"}, "amount", "less_than_or_equal_to(10000.0)"),
        ({"amount": "n/a"}, "amount", "not_nullable"),
        ({"paid_at": "n/a"}, "paid_at", "not_nullable"),
        ({"terminal_id": str(MAX_ENTITIES)}, "terminal_id", "less_than(1000000)"),
        ({"customer_id": str(MAX_ENTITIES)}, "customer_id", "less_than(1000000)"),
    ],
)
def test_the_contract_refuses_a_row_and_says_why(change: dict[str, str], column: str, rule: str) -> None:
    typed = contract_ready(clean(rows({}, change, {})))
    with pytest.raises(pandera.errors.SchemaErrors) as refused:
        Payments.validate(typed, lazy=True)
    cases = refused.value.failure_cases
    assert cases[["index", "column", "check"]].to_numpy().tolist() == [[1, column, rule]]


def test_a_missing_column_is_named() -> None:
    with pytest.raises(KeyError, match="amount"):
        clean(rows({}).drop(columns="amount"))


def test_every_column_is_described() -> None:
    assert all(column.description for column in Payments.to_schema().columns.values())


def test_how_a_column_is_stored_does_not_matter() -> None:
    row = {"transaction_id": "1", "paid_at": "2026-01-01 00:00:00", "customer_id": "2", "terminal_id": "3",
           "amount": "1.50", "arrived_at": "2026-01-01 00:00:01"}  # fmt: skip
    rows = pd.DataFrame([row, row | {"amount": "n/a"}, row | {"paid_at": ""}, row | {"amount": None}])
    in_one_piece = rows.astype("string[pyarrow]")
    in_pieces = pd.concat([in_one_piece.iloc[:2], in_one_piece.iloc[2:]])
    wide = in_one_piece.astype(pd.ArrowDtype(pa.large_string()))
    expected = clean(in_one_piece)
    assert expected["amount"].isna().tolist() == [False, True, False, True]
    for stored in (in_pieces, rows.astype("string[python]"), wide):
        pd.testing.assert_frame_equal(clean(stored), expected)
    pd.testing.assert_frame_equal(clean(in_one_piece.iloc[1:3]), expected.iloc[1:3])
    assert len(clean(in_one_piece.iloc[:0])) == 0

"""Every row of a table meets the contract that is made of it, whatever finite numbers its columns hold."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from assets.declaration import Table
from assets.lifecycle.data.landing import number_rows
from assets.lifecycle.data.row_outcomes import REASON, type_and_refuse
from resources.sources import CsvFile
from resources.tables import WHOLE
from scaffold.guessing import guess
from scaffold.tables import RawTable
from scaffold.writing import files_of


def contract_of(columns: dict[str, list]) -> tuple[pd.DataFrame, Table]:
    """Rows as text, and the table as its written and imported contract has it."""
    rows = len(next(iter(columns.values())))
    columns = columns | {"other": [n * 7 % 11 for n in range(rows)], "goal": list(np.resize(["yes", "no"], rows))}
    text = {name: pd.array([None if v is None else str(v) for v in values]) for name, values in columns.items()}
    raw = pd.DataFrame({name: values.astype("string[pyarrow]") for name, values in text.items()})
    table = RawTable(Path("numbers.csv"), raw)
    written: dict = {}
    exec(files_of("trial", "numbers", "numbers.csv", table, guess(table, "goal"))["table.py"], written)
    source = CsvFile(path="numbers.csv")
    return raw, Table(name="numbers", source=source, key="row", contract=written["Numbers"], clean=written["clean"])


def refused(columns: dict[str, list]) -> list[str]:
    raw, table = contract_of(columns)
    return list(type_and_refuse(number_rows({WHOLE: raw}), table)[1][REASON])


finite = st.floats(allow_nan=False, allow_infinity=False)
numbers = st.one_of(
    st.lists(finite, min_size=30, max_size=40),
    st.lists(finite.map(lambda v: -abs(v)), min_size=30, max_size=40),
    st.lists(st.integers(-(2**53) + 1, 2**53 - 1), min_size=30, max_size=40),
    st.lists(st.floats(-88, -87), min_size=30, max_size=40),
    st.lists(st.floats(1e-30, 1e-9), min_size=30, max_size=40),
)


@settings(max_examples=50, deadline=None)
@given(values=numbers)
@example(values=[-87.9, -87.5] * 15)
@example(values=[-1e-5, -2e-5] * 15)
@example(values=[1.7e308, -1.7e308] * 15)
@example(values=[5e-324, 0.0] * 15)
@example(values=[-0.0, -1.0] * 15)
@example(values=[99.5, 100.5] * 15)
@example(values=[1e15, -1e15, 3] * 10)
def test_every_row_meets_the_contract_that_was_made_of_it(values):
    assert refused({"value": values}) == []


@pytest.mark.parametrize(
    ("values", "bounds"),
    [
        ([-87.9, -87.5], {"greater_than_or_equal_to": -89, "less_than_or_equal_to": -87}),
        ([-488.0, -1.0], {"greater_than_or_equal_to": -980, "less_than_or_equal_to": 0}),
        ([0.5, 2.5], {"greater_than_or_equal_to": 0, "less_than_or_equal_to": 4.5}),
        ([-3.25, 2.5], {"greater_than_or_equal_to": -9.0, "less_than_or_equal_to": 8.3}),
    ],
)
def test_bounds_are_rounded_outwards_on_both_sides(values, bounds):
    _, table = contract_of({"value": values * 20})
    checks = table.contract.to_schema().columns["value"].checks
    assert {check.name: next(iter(check.statistics.values())) for check in checks} == bounds

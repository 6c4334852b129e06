"""A table of which too much breaks the contract is refused, and what was there stays."""

import datetime as dt
from dataclasses import replace

import pandas as pd
import pytest

from assets.lifecycle.data.landing import number_rows
from tests.declarations.readings import plain, readings, stream
from tests.stages import Stages

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
        f"{DAY}: 7.5% of the landed rows were refused (at most 5%), mostly for 'level: greater_than_or_equal_to(0)'"
        in (made.why)
    )
    assert stages.tables.stamp(stages.model.key("readings"), DAY) == before


def test_as_much_as_is_allowed_may_break_the_contract(tmp_path):
    stages = Stages(stream(), tmp_path)
    stages.put("raw_readings", landed_on(refused=2), DAY)
    made = stages.make("readings", DAY)
    assert made.success, made.why
    assert made.check("contract", DAY).description == "38 rows meet the contract; 2 of 40 landed rows were refused"


@pytest.mark.closes("cleaned", "contract")
def test_a_table_of_which_nothing_meets_the_contract_is_refused(tmp_path):
    model = plain()
    stages = Stages(replace(model, table=replace(model.table, max_refused=1.0)), tmp_path)
    stages.put("raw_readings", as_landed(readings(20).astype("string[pyarrow]").assign(level="-5"), "all"))
    made = stages.make("readings")
    assert not made.check("contract").passed, "whatever share may be refused, a table without a row is none"
    assert not stages.has("readings")

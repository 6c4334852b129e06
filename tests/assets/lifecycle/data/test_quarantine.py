"""A row that is lost or used twice stops the table; too many refused rows warn."""

from dataclasses import replace

import dagster as dg
import pandas as pd
import pytest

from tests.assets.lifecycle.data.test_cleaning import as_landed
from tests.declarations.readings import plain, readings
from tests.stages import Stages


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
        (lambda cleaned, landed: cleaned.iloc[1:], "1 rows have no outcome or several outcomes, the first is 0000002"),
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
    assert refused.description == "5.00% of the landed rows were refused (at most 4%)"
    assert stages.has("quarantine")

"""A clean row without its label holds its day back."""

import datetime as dt

import pytest

from tests.assets.lifecycle.data.test_cleaning import DAY, as_landed
from tests.declarations.readings import readings, stream
from tests.stages import Stages


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
    assert f"1 of 40 clean rows of {DAY} have no label; land the missing labels" in made.why
    assert not stages.has("labels", DAY)


def test_a_day_of_which_each_row_has_its_label_passes(tmp_path):
    stages, made = labelled(tmp_path, unlabelled=0)
    assert made.success, made.why
    assert made.check("coverage", DAY).passed
    assert stages.tables.read(stages.model.key("labels"), [DAY])["faulty"].sum() > 0

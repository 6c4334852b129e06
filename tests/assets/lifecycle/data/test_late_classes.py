"""Labels that land later as the names of classes, and classes that are declared before their first label."""

import datetime as dt

import pandas as pd
import pytest

from assets.lifecycle.data.landing import number_rows
from tests.declarations.helpdesk import START, Desk, asked, helpdesk
from tests.stages import Stages

DAYS = [str(START + dt.timedelta(days=n)) for n in range(10)]


@pytest.fixture
def stages(tmp_path):
    return Stages(helpdesk(tmp_path / "none"), tmp_path)


def test_class_names_become_codes_and_an_unknown_class_has_no_label(stages):
    day, later = DAYS[:2]
    rows = asked(START)
    landed = number_rows({later: Desk().land_labels(START + dt.timedelta(days=1))})
    landed.loc[0, "intent"] = "weather"
    landed.loc[1, "intent"] = f" {landed.loc[1, 'intent']} "
    stages.put("asked", rows.assign(intent=pd.array([None] * len(rows), dtype="string[pyarrow]")), day)
    stages.put("raw_labels", landed, later)
    done = stages.make("labels", day)
    check = done.check("coverage", day)
    assert not check.passed
    assert check.metadata["unlabelled"].value == 1
    landed.loc[0, "intent"] = rows["intent"][0]
    stages.put("raw_labels", landed, later)
    assert stages.make("labels", day).success
    found = stages.tables.read(stages.model.key("labels"), [day])
    assert found["intent"].tolist() == [stages.model.task.names.index(name) for name in rows["intent"]]


def put_training_days(stages) -> None:
    names = [f"text#{n}" for n in range(48)]
    for number, day in enumerate(DAYS):
        rows = asked(START + dt.timedelta(days=number))
        codes = rows["intent"].map({name: code for code, name in enumerate(stages.model.task.names)})
        stages.put("asked", rows.assign(intent=None), day)
        stages.put("labels", rows[["question_id", "asked_at"]].assign(intent=codes.astype("int8")), day)
        parts = dict.fromkeys([f"asked_at.{part}" for part in ("month", "weekday", "hour")] + names, 0.0)
        stages.put("features", rows[["question_id", "asked_at"]].assign(**parts), day)


def test_an_awaited_class_may_have_no_rows(stages):
    put_training_days(stages)
    assert stages.make("training_set").check("enough").passed


def test_without_being_awaited_it_may_not(tmp_path):
    from dataclasses import replace

    model = helpdesk(tmp_path / "none")
    stages = Stages(replace(model, training=replace(model.training, awaited=())), tmp_path)
    put_training_days(stages)
    check = stages.make("training_set").check("enough")
    assert not check.passed
    assert "loan 0" in check.description

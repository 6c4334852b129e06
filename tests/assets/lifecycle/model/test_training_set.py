"""Too few rows and rows that give the target away stop the lineage; the split has the right rows on each side."""

import datetime as dt
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from assets.declaration import Evaluation, Gate, Model, Training
from assets.lifecycle.model.training_set import MIN_OF_EACH_CLASS, _too_few, fit_rows, fold_rows, training_set_asset
from assets.lifecycle.model.training_set import test_rows as rows_of_test
from tests.declarations.readings import START, labelled_stream, plain, readings, stream
from tests.stages import Stages

STREAM = stream()

# -- the training set ------------------------------------------------------------------------------------------------


def frozen(tmp_path, rows: pd.DataFrame, **declared):
    """The training set of a plain table, from its cleaned rows."""
    stages = Stages(plain(**declared), tmp_path)
    stages.put("readings", rows)
    for name in ("labels", "features"):
        made = stages.make(name)
        assert made.success, made.why
    return stages, stages.make("training_set")


def test_rows_enough_that_give_nothing_away_pass(tmp_path):
    stages, made = frozen(tmp_path, readings(600))
    assert made.success, made.why
    enough = made.check("enough")
    assert enough.passed
    assert enough.description == "480 rows for fitting, 120 for testing"
    counts = {name: value.value for name, value in enough.metadata.items()}
    assert (counts["fit_rows"], counts["test_rows"]) == (480, 120)
    assert counts["fit_positives"] + counts["test_positives"] == readings(600)["faulty"].sum()
    assert made.check("leakage").passed
    assert len(stages.tables.read(stages.model.key("training_set"))) == 600
    inputs = stages.tables.stamp(stages.model.key("training_set")).inputs
    assert inputs == {f"meter/{name}": stages.tables.versions(stages.model.key(name))
                      for name in ("readings", "labels", "features")}  # fmt: skip


@pytest.mark.closes("training_set", "enough")
@pytest.mark.parametrize(
    ("rows", "declared", "words"),
    [
        (readings(124), {}, "fit: needs 100 rows, found 99"),
        (readings(240), {"training": Training()}, "fit: needs 200 rows, found 192; test: needs 50 rows, found 48"),
        (
            readings(600).assign(faulty=np.arange(600) == 0),
            {},
            "fit: needs 10 rows of each class, found for faulty: True 1; test: needs 10 rows of each class, found "
            "for faulty: True 0",
        ),
        (readings(600).assign(level=50.0), {"target": "level", "gate": Gate()}, "all values of level are the same"),
        (
            readings(600).assign(site=pd.array(["north"] * 591 + ["south"] * 9, dtype="string[pyarrow]")),
            {"target": "site", "gate": Gate()},
            "fit: needs 10 rows of each class, found for site: south 7, east 0",
        ),
    ],
    ids=["rows to fit on", "rows to report on", "positives", "values", "classes"],
)  # fmt: skip
def test_too_few_rows_freeze_nothing_and_say_what_is_missing(tmp_path, rows, declared, words):
    stages, made = frozen(tmp_path, rows, **declared)
    assert not made.success
    assert made.checks == ["enough"], "what is too little is not searched for leaks"
    assert not made.check("enough").passed
    assert words in made.why
    assert "land more labelled rows, or declare smaller windows (Training.min_rows)" in made.why
    assert not stages.has("training_set")


@pytest.mark.parametrize(
    ("part", "declared", "target", "enough"),
    [
        ("fit", {}, [0, 1] * 50, True),
        ("fit", {}, [0] * 90 + [1] * MIN_OF_EACH_CLASS, True),
        ("fit", {}, [0] * 91 + [1] * (MIN_OF_EACH_CLASS - 1), False),
        ("fit", {}, [1] * 91 + [0] * (MIN_OF_EACH_CLASS - 1), False),
        ("test", {}, [0, 1] * 25, True),
        ("test", {}, [0, 1] * 24 + [0], False),
        ("test", {}, [0] * 91 + [1] * (MIN_OF_EACH_CLASS - 1), False),
        ("test", {"training": Training(min_rows=20)}, [0, 1] * 10, True),
        ("test", {"training": Training(min_rows=20)}, [0, 1] * 9 + [0], False),
        # Of several classes a rare one need only be there to report on.
        ("test", {"target": "site", "gate": Gate()}, [0] * 49 + [1, 2], True),
        ("test", {"target": "site", "gate": Gate()}, [0] * 51 + [1], False),
        ("test", {"target": "level", "gate": Gate()}, [1.0] * 99 + [2.0], True),
        ("test", {"target": "level", "gate": Gate()}, [1.0] * 100, False),
    ],
)
def test_how_many_are_enough(part, declared, target, enough):
    assert (_too_few(part, pd.Series(target), plain(**declared)) == "") is enough


@pytest.mark.closes("training_set", "leakage")
def test_a_column_that_gives_the_target_away_freezes_nothing(tmp_path):
    stages, made = frozen(tmp_path, readings(600).assign(level=lambda rows: rows["faulty"] * 50.0 + 1))
    assert made.check("enough").passed
    leakage = made.check("leakage")
    assert not leakage.passed
    assert "'level' alone nearly determines the target" in made.why
    assert "No model is trained" in made.why
    assert leakage.metadata["found"].value == [
        "'level' alone nearly determines the target (AUC 1.000 on held-out rows)"
    ]
    assert not stages.has("training_set")


def test_a_leak_that_was_accepted_by_name_passes_and_says_why(tmp_path):
    leaking = readings(600).assign(level=lambda rows: rows["faulty"] * 50.0 + 1)
    _, made = frozen(tmp_path, leaking, accepted_leaks={"level": "it is read before anybody looks"})
    assert made.success, made.why
    leakage = made.check("leakage")
    assert leakage.passed
    assert leakage.description == "accepted: level (it is read before anybody looks)"
    assert leakage.metadata["accepted"].value == {"level": "it is read before anybody looks"}


def test_of_other_targets_no_positives_are_counted(tmp_path):
    _, made = frozen(tmp_path, readings(600), target="site", gate=Gate())
    assert set(made.check("enough").metadata) == {"fit_rows", "test_rows"}


# -- which rows, of a stream -----------------------------------------------------------------------------------------


def past(days: int, without: int | None = None, tmp_path=None, model: Model = STREAM) -> Stages:
    """A stream of so many labelled days."""
    stages = Stages(model, tmp_path)
    for number in range(days):
        day = START + dt.timedelta(days=number)
        rows = readings(60, day)
        stages.put("readings", rows.drop(columns="faulty"), str(day))
        features = rows[["reading_id", "read_at", "level"]].assign(before=0.0)
        stages.put("features", features.astype({"level": "float32", "before": "float32"}), str(day))
        if number != without:
            labels = rows[["reading_id", "read_at", "faulty"]].astype({"faulty": "int8"})
            stages.put("labels", labels, str(day))
    return stages


def days_of(frame: pd.DataFrame) -> list[int]:
    """Numbers of the days of some rows, from the first of all."""
    return sorted({(at.date() - START).days for at in frame["read_at"]})


def test_a_stream_is_split_by_the_calendar_as_of_its_latest_labelled_day(tmp_path):
    """Test day 29; a gap of seven days; fit on two; the fold's day 21 with its gap and two days before."""
    stages = past(30, tmp_path=tmp_path)
    made = stages.make("training_set")
    assert made.success, made.why
    rows = stages.tables.read(STREAM.key("training_set"))
    assert days_of(rows) == list(range(12, 30))
    assert days_of(rows[rows_of_test(rows, STREAM)]) == [29]
    assert days_of(rows[fit_rows(rows, STREAM)]) == [20, 21]
    [(fit, valid)] = fold_rows(rows, STREAM)
    assert (days_of(rows.iloc[fit]), days_of(rows.iloc[valid])) == ([12, 13], [21])
    shown = stages.instance.get_latest_materialization_event(STREAM.key("training_set")).asset_materialization.metadata
    day = [str(START + dt.timedelta(days=n)) for n in range(30)]
    assert shown["test"].value == f"{day[29]} … {day[29]}"
    assert shown["fit"].value == f"{day[20]} … {day[21]}"
    assert shown["folds"].value == [f"{day[12]} … {day[13]} → {day[21]} … {day[21]}"]


def test_all_test_days_are_frozen_to_the_last(tmp_path):
    longer = stream(training=replace(STREAM.training, test_days=2))
    stages = past(30, tmp_path=tmp_path, model=longer)
    assert stages.make("training_set").success
    rows = stages.tables.read(longer.key("training_set"))
    assert days_of(rows[rows_of_test(rows, longer)]) == [28, 29]


def test_an_earlier_day_may_be_asked_for(tmp_path):
    stages = past(30, tmp_path=tmp_path)
    assert stages.make("training_set", as_of=str(START + dt.timedelta(days=25))).success
    assert days_of(stages.tables.read(STREAM.key("training_set"))) == list(range(8, 26))


def test_a_day_that_is_not_labelled_is_named(tmp_path):
    stages = past(30, without=15, tmp_path=tmp_path)
    made = stages.make("training_set")
    assert not made.success
    assert "as of 2026-01-30 needs 18 labelled days, but 1 are missing, the first is 2026-01-16" in made.why


def test_where_nothing_is_labelled_yet_that_is_said(tmp_path):
    assert "no day is labelled yet; materialise labels first" in past(0, tmp_path=tmp_path).make("training_set").why
    made = past(3, tmp_path=tmp_path).make("training_set", as_of="2026-01-20")
    assert "labelled days" in made.why


# -- which rows, of a plain table ------------------------------------------------------------------------------------


def of_meters(rows: int = 600, **declared):
    """A plain table of readings of sixty meters, and its declaration."""
    frame = readings(rows).assign(meter=np.arange(rows) % 60)
    return frame, replace(plain(**declared), evaluation=Evaluation())


def test_no_row_chooses_and_reports_and_each_row_validates_once():
    frame, model = of_meters(training=Training(folds=3, min_rows=100))
    test, fit = rows_of_test(frame, model), fit_rows(frame, model)
    assert (test ^ fit).all()
    assert test.sum() == 120
    folds = fold_rows(frame, model)
    assert len(folds) == 3
    validated = np.concatenate([valid for _, valid in folds])
    assert sorted(validated) == list(np.flatnonzero(fit))
    for positions, valid in folds:
        assert not set(positions) & set(valid)
        assert abs(frame["faulty"].iloc[valid].mean() - frame["faulty"].iloc[positions].mean()) < 0.02, "stratified"


@pytest.mark.parametrize(("declared", "folds"), [(0, 2), (1, 2), (2, 2), (4, 4)])
def test_there_are_at_least_two_folds(declared, folds):
    frame, model = of_meters(training=Training(folds=declared))
    assert len(fold_rows(frame, model)) == folds


def test_of_a_measured_value_each_fold_is_drawn_and_no_stretch_of_the_table():
    frame, model = of_meters(target="level", gate=Gate())
    for _, valid in fold_rows(frame, model):
        assert valid.min() < 30
        assert valid.max() > 570


def test_a_class_that_is_younger_than_the_rows_for_fitting_validates_nothing():
    model = labelled_stream(target="site", gate=Gate(), training=Training(window_days=4, test_days=2, folds=1))
    days = pd.date_range("2026-03-01", periods=12)
    rows = pd.concat([readings(30, day.date()) for day in days], ignore_index=True)
    rows["site"] = rows["site"].map({"north": 0, "south": 1, "east": 2}).astype("int8")
    [(fit, valid)] = fold_rows(rows, model)
    assert set(rows["site"].iloc[valid]) == {0, 1, 2}
    young = rows[(rows["site"] != 2) | (rows["read_at"] >= rows["read_at"].iloc[valid].min().floor("D"))]
    [(fit, valid)] = fold_rows(young, model)
    assert set(young["site"].iloc[fit]) == {0, 1}
    assert set(young["site"].iloc[valid]) == {0, 1}


def test_the_rows_of_an_entity_are_all_on_one_side():
    frame = readings(600)
    model = plain(evaluation=Evaluation(entity="reading_id"))
    frame["reading_id"] = np.arange(600) % 60
    test = rows_of_test(frame, model)
    assert test.sum() == 120
    assert not set(frame["reading_id"][test]) & set(frame["reading_id"][~test])
    for fit, valid in fold_rows(frame, model):
        assert not set(frame["reading_id"].iloc[fit]) & set(frame["reading_id"].iloc[valid])


def test_it_has_no_days_and_depends_on_what_it_reads():
    asset = training_set_asset(STREAM)
    assert asset.partitions_def is None
    assert asset.dependency_keys == {STREAM.key(name) for name in ("features", "labels", "readings")}

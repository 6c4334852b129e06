"""Predictions of each kind come back from their table and from JSON as they were."""

import jsonschema_rs
import numpy as np
import pandas as pd
import pytest

from assets.lifecycle.prediction_format import PREDICTED, SCORE, format_of
from assets.task import BINARY, Task

CLASSES, MEASURED = Task("multiclass", ("a", "b", "c")), Task("regression")
SCORES = {
    "binary": np.array([0.25, 1.0]),
    "multiclass": np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]]),
    "regression": np.array([-7.5, 300.0]),
}
KINDS = pytest.mark.parametrize("task", [BINARY, CLASSES, MEASURED], ids=lambda task: task.kind)


def case(task: Task):
    form, scores = format_of(task), SCORES[task.kind]
    return form, scores, np.array([False, True]) if form.has_alerts else None


@KINDS
def test_scores_come_back_from_their_columns(task):
    form, scores, alerts = case(task)
    table = pd.DataFrame(form.columns(scores, alerts))
    assert form.scores_in(table).tolist() == scores.tolist()
    assert scores.shape == form.shape(2)
    assert set(form.score_columns) <= set(table)


@KINDS
def test_no_rows_have_the_same_columns_as_some(task):
    form, scores, alerts = case(task)
    none = pd.DataFrame(form.columns(scores[:0], None if alerts is None else alerts[:0]))
    assert list(none) == list(pd.DataFrame(form.columns(scores, alerts)))
    assert form.scores_in(none).shape == form.shape(0)
    assert {name: values.dtype for name, values in form.compared(scores[:0]).items()} == {
        name: np.dtype("float32") for name in form.compared(scores)
    }


@KINDS
def test_what_the_service_answers_matches_its_schema(task):
    form, scores, alerts = case(task)
    fields = form.schema()
    for one in form.to_json(scores, alerts):
        assert set(one) == set(fields)
        for name, value in one.items():
            jsonschema_rs.validate(fields[name], value)


def test_the_answers_and_what_drift_compares():
    assert format_of(BINARY).to_json(SCORES["binary"], np.array([False, True])) == [
        {"probability": 0.25, "decision": "pass"}, {"probability": 1.0, "decision": "alert"},
    ]  # fmt: skip
    assert format_of(MEASURED).to_json(SCORES["regression"], None) == [{"prediction": -7.5}, {"prediction": 300.0}]
    assert format_of(CLASSES).to_json(SCORES["multiclass"], None)[0] == {
        "prediction": "c", "probability": 0.5, "probabilities": {"a": 0.2, "b": 0.3, "c": 0.5},
    }  # fmt: skip
    compared = format_of(CLASSES).compared(SCORES["multiclass"])
    assert (compared[SCORE].tolist(), compared[PREDICTED].tolist()) == ([0.5, 1.0], [2.0, 0.0])
    assert list(format_of(BINARY).compared(SCORES["binary"])) == [SCORE]


@pytest.mark.parametrize(
    ("task", "scores", "valid"),
    [
        (BINARY, [0.0, 1.0, -0.01, 1.01, np.nan], [True, True, False, False, False]),
        (CLASSES, [[0.0, 1.0, 0.0], [0.5, 1.5, np.inf]], [[True] * 3, [True, False, False]]),
        (MEASURED, [-1e9, 1e9, np.inf, np.nan], [True, True, False, False]),
    ],
)
def test_which_scores_are_valid(task, scores, valid):
    assert format_of(task).valid(np.array(scores)).tolist() == valid


def test_predictions_and_labels_are_summarised():
    table = pd.DataFrame(format_of(BINARY).columns(SCORES["binary"], np.array([False, True])))
    assert format_of(BINARY).summary(table) == {"alerts": 1, "mean_probability": 0.625}
    table = pd.DataFrame(format_of(CLASSES).columns(SCORES["multiclass"], None))
    assert format_of(CLASSES).summary(table) == {"predicted": {"c": 1, "a": 1}}
    assert format_of(MEASURED).summary(pd.DataFrame({"prediction": [1.0, 4.0]})) == {"mean_prediction": 2.5}
    assert format_of(BINARY).label_summary(pd.Series([0, 1, 1, 1])) == {"positive_share": 0.75}
    assert format_of(CLASSES).label_summary(pd.Series([0, 2, 2])) == {"classes": {"0: a": 1, "1: b": 0, "2: c": 2}}
    assert format_of(MEASURED).label_summary(pd.Series([1.0, 4.0])) == {"mean": 2.5, "lowest": 1.0, "highest": 4.0}

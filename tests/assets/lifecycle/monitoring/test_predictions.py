"""Each row gets one valid score of the champion."""

from dataclasses import replace

import pytest

from assets.lifecycle.data.features import features_of
from tests.assets.lifecycle.monitoring.test_performance import WEEK
from tests.declarations.readings import labelled_stream, plain, readings
from tests.stages import Stages, copied_bundle


def in_production(tmp_path, toy_bundle, model=None, **head) -> Stages:
    """The toy model as version 1 in production, its features as a table; with another head it answers otherwise."""
    stages = Stages(model or plain(), tmp_path / "stages")
    stages.mlflow.folders["1"] = copied_bundle(toy_bundle, tmp_path / "bundle", head=head)
    stages.ledger.promote("meter", "1", reason="r", verdicts={}, dagster_run="r", who="ada")
    return stages


def features_put(stages: Stages, rows: int = 50) -> None:
    stages.put("readings", readings(rows))
    made = stages.make("features")
    assert made.success, made.why


def test_each_row_gets_a_score_of_the_champion(tmp_path, toy_bundle):
    stages = in_production(tmp_path, toy_bundle)
    features_put(stages)
    made = stages.make("predictions")
    assert made.success, made.why
    assert made.check("scored").passed
    assert made.check("scored").description == "50 rows, each with a probability between 0 and 1"
    said = stages.tables.read(stages.model.key("predictions"))
    assert set(said["version"]) == {"1"}
    assert said["probability"].between(0, 1).all()


@pytest.mark.closes("predictions", "scored")
@pytest.mark.parametrize(
    ("head", "words"),
    [
        ({"offset": float("nan")}, "50 of 50 rows have no probability between 0 and 1"),
        ({"kind": "regression", "offset": 7.0}, "50 of 50 rows have no probability between 0 and 1"),
        ({"kind": "regression", "offset": -7.0}, "50 of 50 rows have no probability between 0 and 1"),
    ],
)
def test_scores_that_are_no_probabilities_are_not_published(tmp_path, toy_bundle, head, words):
    stages = in_production(tmp_path, toy_bundle, **head)
    features_put(stages)
    made = stages.make("predictions")
    assert not made.check("scored").passed
    assert words in made.why
    assert "roll back to the previous version" in made.why
    assert not stages.has("predictions")


@pytest.mark.closes("predictions", "scored")
@pytest.mark.parametrize(("quiet", "passed"), [(False, False), (True, True)])
def test_a_day_without_a_row_is_refused_unless_that_is_nothing_unusual(tmp_path, toy_bundle, quiet, passed):
    model = labelled_stream(features=None)
    model = replace(model, table=replace(model.table, quiet_days=quiet))
    stages = in_production(tmp_path, toy_bundle, model)
    names = features_of(model).names
    copied_bundle(stages.mlflow.folders["1"], tmp_path / "narrow", feature_names=names)
    stages.mlflow.folders["1"] = tmp_path / "narrow"
    rows = readings(1)[["reading_id", "read_at"]].assign(**dict.fromkeys(names, 0.0))
    stages.put("features", rows.iloc[:0], WEEK[0])
    made = stages.make("predictions", WEEK[0])
    assert made.check("scored", WEEK[0]).passed is passed
    assert made.success is passed

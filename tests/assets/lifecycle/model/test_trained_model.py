"""A candidate that learnt nothing stops the lineage; a good one is a version with its figures."""

import json
from dataclasses import replace

import pytest

from assets.declaration import Drift
from assets.lifecycle.factory import lifecycle_assets
from assets.lifecycle.model import trained_model
from assets.lifecycle.model.trained_model import trained_model_asset
from assets.lifecycle.model.version.bundle import model_code
from tests.assets.lifecycle.model.test_training_set import frozen
from tests.declarations.readings import readings, stream
from tests.stages import Stages, copied_bundle

STREAM = stream()


def candidate(tmp_path, toy_bundle, **fitted):
    """The version that there is for the frozen rows, as fitted with these figures."""
    stages, _ = frozen(tmp_path / "stages", readings(600))
    stages.mlflow.folders["1"] = copied_bundle(toy_bundle, tmp_path / "bundle", fitted=fitted)
    return stages, stages.make("trained_model")


def test_a_candidate_that_beats_the_base_rate_passes(tmp_path, toy_bundle):
    stages, made = candidate(tmp_path, toy_bundle, folds_score=0.41, chance=0.4)
    assert made.success, made.why
    converged = made.check("converged")
    assert converged.passed
    assert converged.description == "average_precision 0.4100 on the folds, 0.4000 by chance"
    model, row = stages.model, stages.row("trained_model")
    data_version = stages.tables.stamp(model.key("training_set")).data_version
    assert (row["version"], row["run_id"], row["data_version"]) == ("1", "run-of-1", data_version)
    assert row["code"] == model_code(model)
    assert json.loads(row["curves"]) == {}
    [asked] = stages.mlflow.asked
    assert (asked["data_version"], asked["code"]) == (data_version, row["code"])
    assert str(model.training) in asked["recipe"], "another recipe is another version"
    event = stages.instance.get_latest_materialization_event(model.key("trained_model"))
    shown = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    assert shown["mlflow"] == "http://mlflow/run-of-1"
    assert (shown["version"], shown["data_version"]) == ("1", data_version)
    assert (shown["epochs"], shown["threshold"], shown["folds_average_precision"]) == (1, 0.5, 0.41)


@pytest.mark.parametrize(
    ("git", "same"),
    [
        ({"git_branch": "main", "git_dirty": "false"}, {"git_branch": "main", "git_dirty": "false"}),
        ({"git_branch": "main", "git_dirty": "true"}, {"git_branch": "main"}),
        ({"git_commit": "unknown (git is not installed)"}, {}),
    ],
    ids=["a clean tree needs a version of a clean tree", "a tree with changes takes either", "without git"],
)
def test_a_branch_has_versions_of_its_own(tmp_path, toy_bundle, monkeypatch, git, same):
    monkeypatch.setattr(trained_model, "git_tags", lambda _: git)
    stages, made = candidate(tmp_path, toy_bundle, folds_score=0.41, chance=0.4)
    assert made.success, made.why
    [asked] = stages.mlflow.asked
    assert {name: value for name, value in asked.items() if name.startswith("git_")} == same


@pytest.mark.closes("trained_model", "converged")
@pytest.mark.parametrize("score", [0.4, 0.1, float("nan"), float("-inf")], ids=["chance", "worse", "nan", "-inf"])
def test_a_candidate_that_learnt_nothing_stops_there(tmp_path, toy_bundle, score):
    stages, made = candidate(tmp_path, toy_bundle, folds_score=score, chance=0.4)
    assert not made.success
    assert not made.check("converged").passed
    assert "0.4000 by chance; the candidate learnt nothing, so check the learning curves and the features" in made.why
    assert not stages.has("trained_model")


def test_what_drift_compares_is_declared_or_all_that_can_be(monkeypatch, tmp_path):
    """Columns that the reference profile of a new version holds."""
    seen = []
    monkeypatch.setattr(
        trained_model, "_train", lambda context, frozen, model, of, compared: seen.append(tuple(compared))
    )
    for declared, expected in ((Drift(), {"level", "before"}), (Drift(columns=("level",)), {"level"})):
        model = stream(drift=declared)
        stages = Stages(model, tmp_path / str(len(seen)))
        stages.put("training_set", readings(10))
        stages.make("trained_model")
        assert set(seen[-1]) == expected


def test_it_has_no_days_and_depends_on_the_training_set_and_the_tuning():
    asset = trained_model_asset(STREAM)
    assert asset.partitions_def is None
    assert asset.dependency_keys == {STREAM.key("training_set"), STREAM.key("tuning")}


def test_tags_of_the_training_are_those_of_the_steps_that_fit_and_no_part_of_the_recipe():
    tags = {"dagster-k8s/config": {"container_config": {"resources": {"requests": {"cpu": "8"}}}}}
    model = replace(STREAM, training=replace(STREAM.training, tags=tags))
    assert str(model.training) == str(STREAM.training)
    tagged = {spec.key.path[-1]: asset.op.tags for asset in lifecycle_assets(model) for spec in asset.specs}
    assert {name for name, given in tagged.items() if "dagster-k8s/config" in given} == {
        "tuning",
        "trained_model",
        "backtest",
    }

"""The asset `tuning` on real stores: its trials in MLflow, its table, its check; and training with what it found."""

import json
from dataclasses import replace

import pytest

from assets.lifecycle.jobs import TUNE, assets_of_jobs
from assets.lifecycle.model.candidate import fit_candidate
from assets.lifecycle.model.search import SearchResult, Trial
from assets.lifecycle.model.tuning import _best_trials, tuning_asset
from assets.lifecycle.model.version.bundle import Facts
from assets.search_space import Choice, Tuning
from resources.mlflow import MlflowTracking, create_store
from tests.declarations.readings import VARIANTS, readings
from tests.declarations.tunable import tunable
from tests.stages import Stages

BLIND = tunable({"blind": True})
"""The declared network sees nothing, so a trial that sees is better: the planted value."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a training set, and a store of MLflow."""
    folder = tmp_path_factory.mktemp("tuned")
    create_store(folder / "mlflow.db", folder / "artifacts")
    stages = stages_of(BLIND, folder)
    stages.put("readings", readings(400))
    for name in ("labels", "features", "training_set"):
        made = stages.make(name)
        assert made.success, made.why
    return folder


def stages_of(model, folder):
    return Stages(model, folder, mlflow=MlflowTracking(tracking_uri=f"sqlite:///{folder}/mlflow.db"))


@pytest.fixture(scope="module")
def tuned(folder):
    """The stages after a search, and the search's outcome."""
    stages = stages_of(BLIND, folder)
    made = stages.make("tuning", trials=6)
    assert made.success, made.why
    return stages, made


def runs_of(stages, kind="dagster_asset = 'meter/tuning'"):
    client = stages.resources["mlflow"].client()
    experiments = [found.experiment_id for found in client.search_experiments()]
    return client.search_runs(experiments, f"tags.{kind}", order_by=["attributes.start_time"])


def shown(stages, name):
    event = stages.instance.get_latest_materialization_event(stages.model.key(name))
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def test_the_result_is_one_row(tuned):
    stages, made = tuned
    row = stages.row("tuning")
    assert json.loads(row["chosen"])["network.blind"] is False
    assert row["score"] > row["declared_score"]
    assert row["gain"] > row["gain_error"] > 0
    assert row["trials"] == 6
    assert row["data_version"] == stages.tables.stamp(stages.model.key("training_set")).data_version
    assert made.check("searched").passed
    assert made.check("searched").description == "6 trials ended without an error, 0 failed"


def test_the_ui_shows_the_result_the_best_trials_and_the_plots(tuned):
    stages, _ = tuned
    found = shown(stages, "tuning")
    assert found["result"].startswith("tuned: ")
    assert "network.blind False" in found["result"]
    assert found["chosen"]["network.blind"] is False
    assert found["best_trials"].splitlines()[0].startswith("| trial | average_precision | ")
    assert "(declared)" in found["best_trials"]
    for plot in ("history", "importance"):
        assert found[plot].startswith("![picture](data:image/png;base64,")
    assert found["study"] == stages.row("tuning")["study"]
    assert "/runs/" in found["mlflow"]


def test_each_trial_is_a_child_run_in_mlflow(tuned):
    stages, _ = tuned
    runs = runs_of(stages)
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    [parent] = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert sorted(run.info.run_name for run in children) == [f"trial {n}" for n in range(1, 7)]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert parent.data.params["chosen.network.blind"] == "False"
    assert parent.data.metrics["gain"] == stages.row("tuning")["gain"]
    [declared] = [run for run in children if run.data.params["declared"] == "True"]
    assert declared.data.params["network.blind"] == "True"
    assert declared.data.metrics["folds_score"] == stages.row("tuning")["declared_score"]


def test_training_uses_the_planted_better_value_and_says_so(tuned, toy_bundle):
    stages, _ = tuned
    made = stages.make("trained_model")
    assert made.success, made.why
    mlflow, row = stages.resources["mlflow"], stages.row("trained_model")
    fitted = Facts.read(mlflow.download("meter", row["version"])).fitted
    chosen, study = json.loads(stages.row("tuning")["chosen"]), stages.row("tuning")["study"]
    assert (fitted["tuned"], fitted["study"]) == (chosen, study)
    tags = mlflow.version_tags("meter", row["version"])
    assert str(chosen["learning_rate"]) in tags["recipe"], "the tuned values are part of what makes a version"
    params = mlflow.client().get_run(row["run_id"]).data.params
    assert params["study"] == study
    assert params["learning_rate"] == str(chosen["learning_rate"])
    assert shown(stages, "trained_model")["recipe"].startswith("tuned: ")


def test_a_declaration_that_changed_since_trains_with_the_declared_recipe(tuned, folder):
    changed = replace(BLIND, training=replace(BLIND.training, weight_decay=0.01, network_arguments={}))
    stages = stages_of(changed, folder)
    before = stages.row("tuning")
    made = stages.make("trained_model")
    assert made.success, made.why
    version = stages.row("trained_model")["version"]
    fitted = Facts.read(stages.resources["mlflow"].download("meter", version)).fitted
    assert (fitted["tuned"], fitted["study"]) == ({}, "")
    assert "its result is not used" in shown(stages, "trained_model")["recipe"]
    assert stages.row("tuning") == before


def test_the_backtest_uses_the_same_recipe(tuned, monkeypatch):
    from assets.lifecycle.model import backtest

    stages, _ = tuned
    fitted = []
    monkeypatch.setattr(
        backtest, "fit_candidate", lambda frozen, model, log: fitted.append(model) or fit_candidate(frozen, model, log)
    )
    made = stages.make("backtest", weeks=2)
    assert made.success, made.why
    assert [model.training.network_arguments for model in fitted] == [{"blind": False}] * 2
    assert [model.training.seed for model in fitted] == [0, 1]
    assert shown(stages, "backtest")["recipe"].startswith("tuned: ")


def test_the_same_rows_are_not_searched_twice(tuned):
    stages, _ = tuned
    before, children = stages.row("tuning"), len(runs_of(stages, "trial != ''"))
    made = stages.make("tuning", trials=6)
    assert made.success, made.why
    assert stages.row("tuning") == before
    assert len(runs_of(stages, "trial != ''")) == children == 6


@pytest.mark.closes("tuning", "searched")
@pytest.mark.parametrize(
    ("declared", "budget", "said"),
    [
        ({"broken": True}, {"trials": 3}, "the declared recipe has no score to compare with: the loss is nan"),
        ({}, {"trials": 20, "minutes": 1e-9}, "5 are needed; the 1e-09 minutes were too few: run it again to continue"),
        ({"blind": True}, {"trials": 6}, "5 are needed; the first failed because the loss is nan"),
    ],
    ids=["declared recipe fails", "no time", "too many fail"],
)
def test_a_search_that_was_none_is_refused_and_the_last_result_stays(tuned, folder, declared, budget, said):
    space = {"network.broken": Choice(True)}
    stages = stages_of(tunable(declared, tuning=Tuning(space=space)), folder)
    before = stages.row("tuning")
    made = stages.make("tuning", **budget)
    assert not made.success
    assert not made.check("searched").passed
    assert said in made.why
    assert stages.row("tuning") == before


@pytest.mark.parametrize("budget", [{"trials": 0}, {"minutes": 0}, {"trails": 3}], ids=str)
def test_a_budget_that_cannot_work_is_refused_and_nothing_changes(tuned, budget):
    stages, _ = tuned
    before, runs = stages.row("tuning"), len(runs_of(stages))
    with pytest.raises(Exception, match=next(iter(budget))):
        assert stages.make("tuning", **budget).success, next(iter(budget))
    assert (stages.row("tuning"), len(runs_of(stages))) == (before, runs)


def test_the_best_trials_come_first_and_the_declared_one_is_always_there():
    trials = [Trial(1, "complete", {}, True, 0.1)]
    trials += [Trial(n, "complete", {"rate": n / 10}, False, n / 10) for n in range(2, 9)]
    lines = _best_trials(SearchResult(trials, trials[-1], trials[0], 0.0, 0.0, {}), "r2", most=2).splitlines()
    assert lines == [
        "| trial | r2 | rate |", "| --- | --- | --- |", "| 8 | 0.8000 | 0.8 |", "| 7 | 0.7000 | 0.7 |",
        "| 1 (declared) | 0.1000 |  |",
    ]  # fmt: skip


@pytest.mark.parametrize("model", VARIANTS.values(), ids=VARIANTS)
def test_every_kind_of_model_has_it_on_request(model):
    asset = tuning_asset(model)
    assert asset.partitions_def is None
    assert asset.dependency_keys == {model.key("training_set")}
    jobs = assets_of_jobs(model)
    assert jobs[TUNE] == ["tuning"]
    assert [work for work, names in jobs.items() if "tuning" in names] == [TUNE], "no other work waits for a search"

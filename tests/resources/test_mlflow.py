"""Runs that always end, on a real SQLite store; the contract of the one API that is not public."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import mlflow as library
import pytest

from resources.mlflow import MlflowTracking, TrackingError, create_store
from resources.settings import Settings, project_root


@pytest.fixture(scope="module")
def tracking(tmp_path_factory) -> MlflowTracking:
    folder = tmp_path_factory.mktemp("mlflow")
    create_store(folder / "mlflow.db", folder / "artifacts")
    return MlflowTracking(tracking_uri=f"sqlite:///{folder}/mlflow.db", ui_url="http://127.0.0.1:5055")


@pytest.fixture
def folder(tracking) -> Path:
    return Path(tracking.tracking_uri.removeprefix("sqlite:///")).parent


@pytest.fixture(autouse=True)
def nothing_stays_open():
    yield
    assert library.active_run() is None


@dg.asset(key_prefix="toy")
def fitted(context: dg.AssetExecutionContext, mlflow: MlflowTracking) -> dg.MaterializeResult:
    with mlflow.run(context, experiment="toy", tags={"data_version": "d1"}) as run:
        run.log_params({"epochs": 3})
        run.log_metric("loss", 0.5, step=1)
    return dg.MaterializeResult(metadata={"run_id": run.mlflow_run_id})


@dg.asset(key_prefix="toy")
def failing(context: dg.AssetExecutionContext, mlflow: MlflowTracking) -> None:
    with mlflow.run(context, experiment="toy"):
        raise ValueError("the loss is not a number")


def materialized(tracking, asset=fitted, **options) -> dg.ExecuteInProcessResult:
    return dg.materialize([asset], resources={"mlflow": tracking}, **options)


def run_of(tracking, result):
    experiment = tracking.client().get_experiment_by_name("toy")
    (run,) = tracking.client().search_runs([experiment.experiment_id], f"tags.dagster_run_id = '{result.run_id}'")
    return run


@pytest.fixture
def trained(tracking) -> str:
    """Id of a run that has ended."""
    return run_of(tracking, materialized(tracking)).info.run_id


# -- runs ------------------------------------------------------------------------------------------------------------


def test_the_contract_of_dagster_mlflow(tracking):
    """Of ``dagster_mlflow.resources.MlFlow`` we need: it joins the run that is open, tags it, and opens none."""
    from dagster_mlflow.resources import MlFlow

    experiment = tracking.client().create_experiment("contract")
    library.set_tracking_uri(tracking.tracking_uri)
    try:
        run_id = library.start_run(experiment_id=experiment, run_name="toy/fitted").info.run_id
        opened = MlFlow(
            SimpleNamespace(
                log=SimpleNamespace(info=lambda message: None),
                run_id="dagster-run-1",
                dagster_run=SimpleNamespace(job_name="ignored"),
                resource_config={
                    "mlflow_tracking_uri": tracking.tracking_uri,
                    "experiment_name": "contract",
                    "mlflow_run_id": run_id,
                },
            )
        )
        opened.log_params({str(n): n for n in range(150)})
        opened.log_metric("loss", 0.5)
        assert opened.mlflow_run_id == opened.active_run().info.run_id == run_id
    finally:
        library.end_run()
        library.set_tracking_uri(None)
        os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
    (run,) = tracking.client().search_runs([experiment])
    assert (run.data.tags["dagster_run_id"], run.info.run_name) == ("dagster-run-1", "toy/fitted")
    assert len(run.data.params) == 150


def test_a_run_ends_finished_and_is_linked_both_ways(tracking):
    result = materialized(tracking)
    run = run_of(tracking, result)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == run.data.tags["dagster_asset"] == "toy/fitted"
    assert run.data.tags["data_version"] == "d1"
    assert f"http://127.0.0.1:3000/runs/{result.run_id}" in run.data.tags["mlflow.note.content"]
    assert "http://127.0.0.1:3000/assets/toy/fitted" in run.data.tags["mlflow.note.content"]
    assert run.data.params == {"epochs": "3"}
    assert run.data.metrics == {"loss": 0.5}
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.metadata["run_id"].value == run.info.run_id
    url = tracking.run_url(run.info.run_id)
    assert url == f"http://127.0.0.1:5055/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"


def test_a_run_that_raises_ends_failed(tracking):
    result = materialized(tracking, failing, raise_on_error=False)
    assert not result.success
    assert run_of(tracking, result).info.status == "FAILED"


@pytest.mark.parametrize(("asset", "status"), [(fitted, "FINISHED"), (failing, "FAILED")])
def test_it_ends_too_in_the_job_behind_the_materialize_button(tracking, asset, status):
    definitions = dg.Definitions(assets=[fitted, failing], resources={"mlflow": tracking})
    job = definitions.resolve_implicit_global_asset_job_def()
    assert job.name == "__ASSET_JOB"
    result = job.execute_in_process(asset_selection=[asset.key], raise_on_error=False)
    assert run_of(tracking, result).info.status == status


def test_a_run_that_cannot_be_set_up_ends_failed(tracking, monkeypatch):
    import dagster_mlflow.resources

    def unable(self, context):
        raise RuntimeError("the package has changed")

    monkeypatch.setattr(dagster_mlflow.resources.MlFlow, "__init__", unable)
    result = materialized(tracking, raise_on_error=False)
    assert not result.success
    assert run_of(tracking, result).info.status == "FAILED"


def test_a_retried_step_has_a_run_for_each_try(tracking):
    tries = []

    @dg.asset(key_prefix="toy", retry_policy=dg.RetryPolicy(max_retries=1))
    def flaky(context: dg.AssetExecutionContext, mlflow: MlflowTracking) -> None:
        with mlflow.run(context, experiment="retried") as run:
            run.log_params({"try": len(tries)})
            tries.append(run.mlflow_run_id)
            if len(tries) == 1:
                raise RuntimeError("the network is down")

    assert materialized(tracking, flaky).success
    assert [tracking.client().get_run(run_id).info.status for run_id in tries] == ["FAILED", "FINISHED"]


def test_the_address_may_come_from_the_environment(tracking, monkeypatch):
    monkeypatch.setenv("TEST_TRACKING_URI", tracking.tracking_uri)
    result = materialized(MlflowTracking(tracking_uri=dg.EnvVar("TEST_TRACKING_URI")))
    assert run_of(tracking, result).info.status == "FINISHED"


def test_an_asset_called_directly_has_its_run_too(tracking):
    result = fitted(dg.build_asset_context(resources={"mlflow": tracking}))
    assert tracking.client().get_run(result.metadata["run_id"]).info.status == "FINISHED"


def test_two_models_in_one_dagster_run_have_a_run_each(tracking):
    def fit(name: str) -> dg.AssetsDefinition:
        @dg.asset(key_prefix=name, name="fitted")
        def asset(context: dg.AssetExecutionContext, mlflow: MlflowTracking) -> None:
            with mlflow.run(context, experiment=name) as run:
                run.log_params({"model": name})

        return asset

    result = dg.materialize([fit("one"), fit("two")], resources={"mlflow": tracking})
    for name in ("one", "two"):
        experiment = tracking.client().get_experiment_by_name(name)
        (run,) = tracking.client().search_runs([experiment.experiment_id])
        assert run.data.params == {"model": name}
        assert run.data.tags["dagster_run_id"] == result.run_id


def test_a_run_inside_a_run_is_refused(tracking):
    @dg.asset(key_prefix="toy")
    def nested(context: dg.AssetExecutionContext, mlflow: MlflowTracking) -> None:
        with mlflow.run(context, experiment="toy"), mlflow.run(context, experiment="other"):
            pytest.fail("it never opens")

    with pytest.raises(TrackingError, match="still open in this process"):
        materialized(tracking, nested)


def test_the_process_is_as_before_and_no_file_lands_in_the_current_folder(tracking, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW")}

    @dg.asset(key_prefix="toy")
    def drawing(context: dg.AssetExecutionContext, mlflow: MlflowTracking) -> None:
        with mlflow.run(context, experiment="drawings") as run:
            run.log_text("x", "note.txt")

    materialized(tracking, drawing)
    assert {name: value for name, value in os.environ.items() if name.startswith("MLFLOW")} == before
    assert not library.is_tracking_uri_set()
    assert list(tmp_path.iterdir()) == []
    assert len(list((folder / "artifacts" / "drawings").glob("*/artifacts/note.txt"))) == 1


def test_an_ended_run_is_added_to_and_stays_as_it_ended(tracking, trained):
    from matplotlib.figure import Figure

    before = tracking.client().get_run(trained).info
    with tracking.reopen(trained) as log:
        log.log_metrics({"auc": 0.9})
        log.log_params({"folds": 2})
        log.set_tags({"gate": "passed"})
        log.log_text("<html></html>", "evaluation/report.html")
        log.log_dict({"a": 1}, "evaluation/report.json")
        log.log_figure(Figure(), "evaluation/curve.png")
    after = tracking.client().get_run(trained)
    assert (after.info.status, after.info.end_time) == (before.status, before.end_time)
    assert after.data.metrics["auc"] == 0.9
    assert after.data.params["folds"] == "2"
    assert after.data.tags["gate"] == "passed"
    names = {file.path for file in tracking.client().list_artifacts(trained, "evaluation")}
    assert names == {"evaluation/report.html", "evaluation/report.json", "evaluation/curve.png"}


def test_a_run_that_does_not_exist_is_named(tracking):
    with (
        pytest.raises(TrackingError, match="has no run 0123456789abcdef; train again"),
        tracking.reopen("0123456789abcdef"),
    ):
        pass


# -- reaper ----------------------------------------------------------------------------------------------------------


def test_a_killed_run_is_ended_as_failed(tracking, folder):
    code = f"""
import dagster as dg, os, signal
from resources.mlflow import MlflowTracking
@dg.asset
def doomed(context, mlflow: MlflowTracking):
    with mlflow.run(context, experiment="doomed"):
        os.kill(os.getpid(), signal.SIGKILL)
dg.materialize([doomed], resources={{"mlflow": MlflowTracking(tracking_uri={tracking.tracking_uri!r})}})
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=project_root(), capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    experiment = tracking.client().get_experiment_by_name("doomed")
    (run,) = tracking.client().search_runs([experiment.experiment_id])
    assert run.info.status == "RUNNING"
    with dg.DagsterInstance.ephemeral() as instance:
        assert tracking.reap(instance) == [run.info.run_id]
        assert tracking.client().get_run(run.info.run_id).info.status == "FAILED"
        assert tracking.reap(instance) == []


def test_a_child_run_is_below_its_parent_ends_with_its_block_and_is_reaped_after_a_kill(tracking):
    client = tracking.client()
    process = f"{socket.gethostname()} 999999999 0"
    tags = {"dagster_run_id": "unknown", "assetline.process": process}
    parent = client.create_run(client.create_experiment("children"), tags=tags).info.run_id
    with tracking.child_run(parent, "trial 1") as one:
        one.log_metrics({"score": 0.5})
    with pytest.raises(ValueError, match="broken"), tracking.child_run(parent, "trial 2") as two:
        raise ValueError("broken")
    with tracking.child_run(parent, "trial 3") as three, dg.DagsterInstance.ephemeral() as instance:
        assert set(tracking.reap(instance)) == {parent, three.run_id}, "as a kill in this block would leave them"
    found = {run_id: client.get_run(run_id) for run_id in (one.run_id, two.run_id)}
    assert [run.info.status for run in found.values()] == ["FINISHED", "FAILED"]
    assert [run.info.run_name for run in found.values()] == ["trial 1", "trial 2"]
    assert {run.data.tags["mlflow.parentRunId"] for run in found.values()} == {parent}
    assert found[one.run_id].data.metrics == {"score": 0.5}
    with pytest.raises(TrackingError, match="has no run gone"), tracking.child_run("gone", "trial 4"):
        pass


def test_the_reaper_takes_what_its_dagster_run_left_and_nothing_that_may_live(tracking):
    client = tracking.client()
    experiment = client.create_experiment("reaped")
    here, elsewhere = socket.gethostname(), "another-machine"
    with dg.DagsterInstance.ephemeral() as instance:
        finished = dg.materialize([dg.asset(lambda: None, name="done")], instance=instance).run_id

        def left_open(host: str, dagster_run: str) -> str:
            process = f"{host} {os.getpid()} {time.time():.0f}"
            tags = {"dagster_run_id": dagster_run, "assetline.process": process}
            return client.create_run(experiment, tags=tags).info.run_id

        orphans = {left_open(here, finished), left_open(elsewhere, finished)}
        living = {left_open(here, "not-known-here"), left_open(elsewhere, "not-known-here")}
        foreign = client.create_run(experiment, tags={"dagster_run_id": finished}).info.run_id
        assert set(tracking.reap(instance)) == orphans
    for run_id in {*living, foreign}:
        assert client.get_run(run_id).info.status == "RUNNING"
        client.set_terminated(run_id)


# -- registry --------------------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path) -> Path:
    (tmp_path / "bundle" / "code").mkdir(parents=True)
    (tmp_path / "bundle" / "bundle.json").write_text('{"name": "toy"}')
    (tmp_path / "bundle" / "code" / "features.py").write_text("x = 1")
    return tmp_path / "bundle"


def test_a_version_carries_its_files_and_tags(tracking, folder, trained, bundle):
    version = tracking.register("toy", trained, bundle, tags={"code_hash": "c1", "data_version": "d1"})
    found = tracking.download("toy", version)
    assert found.is_relative_to(folder / "artifacts")  # the store's own folder: nothing was copied
    assert (found / "bundle.json").read_text() == '{"name": "toy"}'
    assert (found / "code" / "features.py").exists()
    tags = tracking.version_tags("toy", version)
    assert (tags["code_hash"], tags["data_version"]) == ("c1", "d1")
    assert tags["dagster_run_id"] == tracking.client().get_run(trained).data.tags["dagster_run_id"]
    assert tracking.run_of_version("toy", version) == trained
    tracking.set_version_tag("toy", version, "gate", "passed")
    assert tracking.version_tags("toy", version)["gate"] == "passed"


def test_a_run_gives_one_version(tracking, bundle):
    first = run_of(tracking, materialized(tracking)).info.run_id
    second = run_of(tracking, materialized(tracking)).info.run_id
    version = tracking.register("single", first, bundle)
    assert tracking.register("single", first, bundle) == version
    assert tracking.register("single", second, bundle) == str(int(version) + 1)


def test_an_alias_moves_and_is_none_before(tracking, trained, bundle):
    assert tracking.version_of_alias("moving", "champion") is None  # no such model yet
    version = tracking.register("moving", trained, bundle)
    assert tracking.version_of_alias("moving", "champion") is None
    tracking.set_alias("moving", "champion", version)
    assert tracking.version_of_alias("moving", "champion") == version


def test_what_does_not_exist_is_named_with_the_mend(tracking, trained, tmp_path):
    with pytest.raises(TrackingError, match="save the bundle before registering toy"):
        tracking.register("toy", trained, tmp_path / "nowhere")
    with pytest.raises(TrackingError, match="no version 99 of the model nothing"):
        tracking.download("nothing", "99")
    with pytest.raises(TrackingError, match="no version 99 of the model nothing"):
        tracking.set_alias("nothing", "champion", "99")


def test_others_can_load_a_version_by_its_name(tracking, trained, bundle):
    import mlflow.pyfunc

    version = tracking.register("loadable", trained, bundle, loader_module="tests.resources.fake_bundle")
    library.set_tracking_uri(tracking.tracking_uri)
    try:
        loaded = mlflow.pyfunc.load_model(f"models:/loadable/{version}")
        assert loaded.predict([1, 2]) == ["toy", "toy"]
    finally:
        library.set_tracking_uri(None)


def test_settings_give_the_addresses(tmp_path):
    settings = Settings.from_env({"ASSETLINE_HOME": str(tmp_path), "ASSETLINE_MLFLOW_PORT": "5001"})
    tracking = MlflowTracking.from_settings(settings)
    assert tracking.tracking_uri == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    assert tracking.artifact_location == f"{tmp_path}/mlflow/artifacts"
    assert tracking.ui_url == "http://127.0.0.1:5001"


# -- reading ---------------------------------------------------------------------------------------------------------


def test_before_the_first_run_there_is_nothing_to_read_and_no_store_is_created(tmp_path):
    nothing = MlflowTracking(tracking_uri=f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}")
    assert not nothing.exists()
    assert nothing.versions() == nothing.runs() == []
    assert not (tmp_path / "mlflow").exists()


def test_versions_are_all_of_all_models_by_number(tmp_path, tracking, monkeypatch):
    from mlflow import MlflowClient

    for name in ("paged", "paged_too"):
        tracking.client().create_registered_model(name)
        for _ in range(2):
            tracking.client().create_model_version(name, str(tmp_path))
    search = MlflowClient.search_model_versions
    monkeypatch.setattr(
        MlflowClient,
        "search_model_versions",
        lambda self, found, page_token=None: search(self, found, max_results=1, page_token=page_token),
    )
    found = [(one.model, one.version) for one in tracking.versions() if one.model.startswith("paged")]
    assert found == [("paged", "1"), ("paged", "2"), ("paged_too", "1"), ("paged_too", "2")], "of more than one page"


def test_an_artifact_is_read_and_one_that_is_not_there_is_none(tracking):
    client = tracking.client()
    experiment = client.create_experiment("read", artifact_location=tracking._artifacts())
    run = client.create_run(experiment).info.run_id
    client.log_text(run, "in a folder", "deep/text.txt")
    client.log_metric(run, "loss", 0.5)
    assert tracking.read_text(run, "deep/text.txt") == "in a folder"
    assert tracking.read_text(run, "deep/other.txt") is None
    assert tracking.read_text(run, "text.txt") is None
    [read] = [one for one in tracking.runs() if one.run_id == run]
    assert (read.experiment, read.metrics, read.ended_at) == ("read", {"loss": 0.5}, None)

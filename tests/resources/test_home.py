"""The state folder under first-use races and kills."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from resources import home
from resources.settings import Settings, project_root


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Settings:
    """A fresh home in which one run has ended."""
    settings = Settings.from_env({"ASSETLINE_HOME": str(tmp_path_factory.mktemp("prepared") / "var")})
    before = os.environ.get("DAGSTER_HOME", "")
    home.prepare(settings)

    @dg.asset
    def made() -> None: ...

    with dg.DagsterInstance.get() as instance:
        assert dg.materialize([made], instance=instance).success
    os.environ["DAGSTER_HOME"] = before
    return settings


@pytest.fixture(scope="module")
def raced(tmp_path_factory) -> tuple[Settings, list[str]]:
    """A fresh home that four processes prepared and used at once, and what each of them printed."""
    folder = tmp_path_factory.mktemp("raced") / "var"
    code = """
import dagster as dg
from resources.home import prepare
from resources.mlflow import MlflowTracking
from resources.settings import Settings
settings = Settings.from_env()
prepare(settings)
@dg.asset
def model(context, mlflow: MlflowTracking):
    with mlflow.run(context, experiment="raced"):
        pass
with dg.DagsterInstance.get() as instance:
    resources = {"mlflow": MlflowTracking.from_settings(settings)}
    print(dg.materialize([model], resources=resources, instance=instance).success)
"""
    processes = [_python(code, folder) for _ in range(4)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    return Settings.from_env({"ASSETLINE_HOME": str(folder)}), outputs


@pytest.fixture
def dagster_home(monkeypatch) -> None:
    """Undoes what ``prepare`` sets for the processes that it is called in."""
    monkeypatch.setenv("DAGSTER_HOME", "")


def _python(code: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=project_root(),
        env={**os.environ, "ASSETLINE_HOME": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_four_processes_at_once_on_a_fresh_home_all_end_well(raced, dagster_home):
    settings, outputs = raced
    assert [output.strip().splitlines()[-1] for output in outputs] == ["True"] * 4, outputs
    home.prepare(settings)
    with dg.DagsterInstance.get() as instance:
        assert instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])) == 4
    from mlflow import MlflowClient

    client = MlflowClient(settings.tracking_uri)
    experiment = client.get_experiment_by_name("raced")
    assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FINISHED"] * 4

    nothing_is_left_beside_the_stores(settings)


def nothing_is_left_beside_the_stores(settings):
    assert sorted(p.name for p in settings.home.iterdir() if p.name != ".lock") == [".prepared", "dagster", "mlflow"]
    assert not list((settings.home / "mlflow").glob(".new-*"))


def test_nothing_is_left_beside_the_stores(prepared):
    nothing_is_left_beside_the_stores(prepared)


def test_the_instance_runs_one_at_a_time_in_sqlite_below_home_and_calls_nobody(prepared, dagster_home):
    settings = prepared
    home.prepare(settings)
    with dg.DagsterInstance.get() as instance:
        assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 1
        assert not instance.telemetry_enabled
        assert instance.run_monitoring_enabled
    assert (settings.dagster_home / "runs.db").exists()


def test_preparing_again_is_cheap_and_imports_no_mlflow(prepared):
    settings = prepared
    code = """
import sys, time
from resources.home import prepare
from resources.settings import Settings
settings = Settings.from_env()
def cost():
    begin = time.process_time()
    prepare(settings)
    return time.process_time() - begin
print(max(cost(), cost()) < 0.02, "mlflow" in sys.modules)
"""
    output, _ = _python(code, settings.home).communicate(timeout=60)
    assert output.split() == ["True", "False"]


def test_another_version_or_a_changed_file_prepares_again_and_keeps_the_runs(prepared, dagster_home):
    settings = prepared
    (settings.home / ".prepared").write_text("dagster 0.1")
    (settings.dagster_home / "dagster.yaml").write_text("nonsense: true")
    home.prepare(settings)
    assert (settings.dagster_home / "dagster.yaml").read_text() == (project_root() / "deploy/dagster.yaml").read_text()
    with dg.DagsterInstance.get() as instance:
        assert instance.get_runs_count() == 1


def test_killed_while_making_a_store_the_next_one_makes_it_whole(tmp_path, dagster_home):
    folder = tmp_path / "var"
    code = "from resources.home import prepare; from resources.settings import Settings; prepare(Settings.from_env())"
    first = _python(code, folder)
    deadline = time.monotonic() + 60
    while not list(folder.glob("mlflow/.new-*/mlflow.db")):  # it is migrating MLflow's tables now
        assert time.monotonic() < deadline
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    settings = Settings.from_env({"ASSETLINE_HOME": str(folder)})
    assert not settings.mlflow_database.exists()
    home.prepare(settings)
    from mlflow import MlflowClient

    assert MlflowClient(settings.tracking_uri).create_experiment("after")
    assert not list(folder.glob("mlflow/.new-*"))


def test_a_killed_run_is_marked_failed_and_a_living_one_is_left_alone(prepared, dagster_home):
    settings = prepared
    home.prepare(settings)
    code = """
import dagster as dg, os, signal
from resources.home import prepare
from resources.settings import Settings
prepare(Settings.from_env())
@dg.asset
def doomed():
    os.kill(os.getpid(), signal.SIGKILL)
with dg.DagsterInstance.get() as instance:
    dg.materialize([doomed], instance=instance)
"""
    killed = _python(code, settings.home)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    seen: dict[str, list[str]] = {}

    @dg.asset
    def living(context: dg.AssetExecutionContext) -> None:
        seen["ended"] = home.end_dead_runs(context.instance)

    with dg.DagsterInstance.get() as instance:
        (orphan,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        assert dg.materialize([living], instance=instance).success
        assert seen["ended"] == [orphan.run_id]
        assert instance.get_run_by_id(orphan.run_id).status == dg.DagsterRunStatus.FAILURE
        assert home.end_dead_runs(instance) == []


def test_a_store_that_cannot_be_created_leaves_nothing_beside_it(tmp_path, monkeypatch):
    settings = Settings.from_env({"ASSETLINE_HOME": str(tmp_path / "home")})
    monkeypatch.setenv("DAGSTER_HOME", os.environ.get("DAGSTER_HOME", ""))  # prepare() changes it
    monkeypatch.setattr(dg.DagsterInstance, "from_config", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        home.prepare(settings)
    assert list(settings.home.glob(".dagster-*")) == []
    assert not settings.dagster_home.exists()

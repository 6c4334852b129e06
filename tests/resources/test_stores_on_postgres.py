"""MLflow's and Dagster's stores on a real PostgreSQL, as production requires."""

import os
import subprocess
import sys

import dagster as dg
import pytest

from resources import home
from resources.dagster_internals import check_evaluations, remove_chatter, runs_with_current_facts, size_of_events
from resources.defaults import default_resources
from resources.settings import Settings, project_root
from tests.resources.conftest import POSTGRES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(POSTGRES is None, reason="needs the Debian package postgresql"),
]
PASSWORD = "hushhushhush"  # the server trusts everybody, so any password is right


@pytest.fixture(scope="module")
def stored(postgres, tmp_path_factory):
    """A state folder whose databases are all on PostgreSQL, and its settings."""
    urls = {
        name: postgres(name).replace("assetline@", f"assetline:{PASSWORD}@") for name in ("own", "mlflow", "dagster")
    }
    env = {
        "ASSETLINE_HOME": str(tmp_path_factory.mktemp("stored") / "home"),
        "ASSETLINE_DATABASE_URL": urls["own"],
        "ASSETLINE_MLFLOW_STORE": urls["mlflow"],
        "ASSETLINE_DAGSTER_STORE": urls["dagster"],
    }
    before = dict(os.environ)
    os.environ.update(env)
    settings = Settings.from_env()
    home.prepare(settings)
    yield settings
    os.environ.clear()
    os.environ.update(before)


def test_nothing_is_in_sqlite_and_no_file_holds_the_password(stored):
    files = [path for path in stored.home.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if path.suffix == ".db"] == []
    assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []


def test_a_run_its_checks_and_its_version_are_recorded(stored, tmp_path):
    @dg.asset(check_specs=[dg.AssetCheckSpec("fine", asset="made")])
    def made(context: dg.AssetExecutionContext):
        with default_resources(stored, {}, ready=True)["mlflow"].run(context, experiment="toy") as run:
            (tmp_path / "bundle").mkdir()
            (tmp_path / "bundle" / "file").write_text("x")
            mlflow = default_resources(stored, {}, ready=True)["mlflow"]
            version = mlflow.register("toy", run.mlflow_run_id, tmp_path / "bundle", tags={"data_version": "d"})
        yield dg.MaterializeResult(metadata={"version": version}, check_results=[dg.AssetCheckResult(passed=True)])

    with dg.DagsterInstance.get() as instance:
        result = dg.materialize([made], instance=instance)
        assert result.success
        [one] = check_evaluations(instance)
        assert (one.check, one.passed, one.run_id) == ("fine", True, result.run_id)
        assert runs_with_current_facts(instance) == {result.run_id}
        assert size_of_events(instance, result.run_id, chatter_only=True) > 0
        remove_chatter(instance, result.run_id)
        assert size_of_events(instance, result.run_id, chatter_only=True) == 0
        assert home.end_dead_runs(instance) == []
    mlflow, ledger = (default_resources(stored, {}, ready=True)[name] for name in ("mlflow", "ledger"))
    [version] = mlflow.versions()
    assert (version.model, version.version, version.tags["data_version"]) == ("toy", "1", "d")
    ledger.promote("toy", "1", reason="r", verdicts={}, dagster_run="", who="ada")
    assert ledger.reconcile(mlflow) == {"toy": "1"}


def test_other_processes_use_the_same_stores(stored):
    code = "from cli import main; raise SystemExit(main(['versions', '--json']))"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=project_root(), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert '"model": "toy"' in ended.stdout
    assert PASSWORD not in ended.stdout + ended.stderr


def test_an_error_of_mlflow_shows_no_password(stored):
    from resources.mlflow import TrackingError

    with pytest.raises(TrackingError) as error:
        default_resources(stored, {}, ready=True)["mlflow"].version_tags("toy", "9")
    assert PASSWORD not in str(error.value)


def test_the_definitions_hide_the_url(stored):
    from resources.mlflow import MlflowTracking

    assert PASSWORD not in repr(MlflowTracking.from_settings(stored))

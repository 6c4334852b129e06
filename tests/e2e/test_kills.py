"""Killed in the middle of any asset, the same command ends the same; two at once both end well; nobody is called."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

import assets.models.fraud  # noqa: F401 - what is played and shown: goes with the example
from resources.settings import Settings, project_root

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3_600)]

ASSETS = (
    "raw_payments", "raw_labels", "payments", "quarantine", "labels", "features", "training_set", "fit",
    "trained_model", "evaluation", "staged", "deployment", "model_card", "predictions", "drift",
)  # fmt: skip
"""In the order in which the command makes them; ``fit`` is the middle of ``trained_model``."""

SOME = ("raw_payments", "fit", "deployment", "predictions")
"""A first write, a run of MLflow, a promotion, and a table that names the version."""


def start(home: Path, kill: str = "", **more: str) -> subprocess.Popen:
    environment = {**os.environ, "ASSETLINE_HOME": str(home), "KILL": kill, "OMP_NUM_THREADS": "1", **more}
    environment.pop("DAGSTER_HOME", None)
    return subprocess.Popen([sys.executable, "-m", "tests.e2e.small_story"], cwd=project_root(), env=environment,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # fmt: skip


def finish(process: subprocess.Popen) -> tuple[int, str]:
    said, _ = process.communicate(timeout=1_200)
    return process.returncode, said


def tables(home: Path) -> dict[str, str]:
    """Hash of the rows by file; of tables that name versions, runs and moments, only what they say of the model."""
    found = {}
    for path in sorted((home / "tables").rglob("*.parquet")):
        name = str(path.relative_to(home / "tables"))
        rows = pd.read_parquet(path)
        if path.parent.name == "evaluation":
            rows = pd.DataFrame({"report": rows["report"], "passed": rows["passed"]})
        if path.parent.name == "model_card":
            rows = rows.drop(columns="card")
        rows = rows.drop(columns=["run_id", "ledger_entry", "verdicts"], errors="ignore")
        found[name] = hashlib.sha256(pd.util.hash_pandas_object(rows.astype("string")).to_numpy().tobytes()).hexdigest()
    return found


def mlflow_runs(home: Path) -> Counter:
    with sa.create_engine(f"sqlite:///{home / 'mlflow' / 'mlflow.db'}").connect() as connection:
        return Counter(row[0] for row in connection.execute(sa.text("select status from runs")))


def ledger(home: Path) -> list[tuple[str, str]]:
    url = Settings.from_env({"ASSETLINE_HOME": str(home)}).database_url
    with sa.create_engine(url).connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text("select action, version from promotions order by id"))]


def unfinished_dagster_runs(home: Path) -> int:
    with sa.create_engine(f"sqlite:///{home / 'dagster' / 'runs.db'}").connect() as connection:
        query = "select count(*) from runs where status not in ('SUCCESS', 'FAILURE')"
        return connection.execute(sa.text(query)).scalar_one()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """Played to its end, without a network: see ``no_network/sitecustomize.py``."""
    home = tmp_path_factory.mktemp("undisturbed")
    blocked = str(Path(__file__).parent / "no_network")
    code, said = finish(start(home, PYTHONPATH=blocked, ATTEMPTS=str(home / "attempts")))
    assert code == 0, said
    return home


def test_it_needs_no_network_and_tells_nobody(undisturbed):
    attempts = undisturbed / "attempts"
    assert not attempts.exists(), attempts.read_text()


def test_the_blocked_network_is_blocked(tmp_path):
    blocked = str(Path(__file__).parent / "no_network")
    environment = {**os.environ, "PYTHONPATH": blocked, "ATTEMPTS": str(tmp_path / "a")}
    code = "import urllib.request; urllib.request.urlopen('http://telemetry.example/', timeout=5)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "no network: telemetry.example" in done.stderr
    assert "telemetry.example" in (tmp_path / "a").read_text()


@pytest.mark.parametrize(
    "assets", [pytest.param(SOME, id="some"), pytest.param(ASSETS, id="every", marks=pytest.mark.long)]
)
def test_killed_in_assets_the_end_is_the_same_but_for_one_failed_mlflow_run(undisturbed, tmp_path, assets):
    home = tmp_path / "killed"
    for asset in assets:
        code, said = finish(start(home, kill=asset))
        assert code == -signal.SIGKILL, (asset, said)
    code, said = finish(start(home))
    assert code == 0, said

    assert tables(home) == tables(undisturbed)
    assert mlflow_runs(undisturbed) == {"FINISHED": 1}
    assert mlflow_runs(home) == {"FINISHED": 1, "FAILED": 1}
    assert ledger(home) == ledger(undisturbed)
    assert unfinished_dagster_runs(home) == 0
    # Nothing but what a kill leaves in the middle of a write: no reader looks at names that begin with a dot.
    left = {path.name for path in (home / "tables").rglob(".*") if path.is_file()}
    assert left == {".half.tmp"}

    code, said = finish(start(home))
    assert code == 0
    assert " done " not in said, f"all is fresh: {said}"


def test_two_at_once_on_a_fresh_folder_both_end_well(undisturbed, tmp_path):
    home = tmp_path / "shared"
    both = [start(home), start(home)]
    for code, said in map(finish, both):
        assert code == 0, said
    assert tables(home) == tables(undisturbed)
    assert mlflow_runs(home) == {"FINISHED": 1}
    assert json.loads((home / "story.json").read_text())

"""Twenty runs of ten models on the state folder's PostgreSQL: in parallel, one at a time of each model, none lost."""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import dagster as dg
import pytest

from resources import home, local_postgres
from resources.settings import Settings, project_root
from resources.tables import ParquetTables
from tests.e2e.many_models import DAYS, MODELS, TOGETHER
from tests.resources.conftest import POSTGRES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(1_800),
    pytest.mark.skipif(POSTGRES is None, reason="needs the Debian package postgresql"),
]
ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


@pytest.fixture
def settings(open_folder, monkeypatch) -> Settings:
    for name, value in {"HOME": str(open_folder / "home"), "STACK": "postgres", "RUNS_AT_ONCE": "20"}.items():
        monkeypatch.setenv(f"ASSETLINE_{name}", value)
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("PYTHONPATH", str(project_root()))
    return Settings.from_env()


def most_at_once(times: list[tuple[float, float]]) -> int:
    """The largest number of intervals that overlap."""
    changes = sorted([(begin, 1) for begin, _ in times] + [(end, -1) for _, end in times])
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def test_twenty_runs_none_lost(settings, tmp_path):
    log = tmp_path / "daemon.log"
    with local_postgres.in_use(settings.home):
        home.prepare(settings)
        with log.open("w") as output, dg.DagsterInstance.get() as instance:
            command = [str(Path(sys.executable).with_name("dagster-daemon")), "run", "-m", "tests.e2e.many_models"]
            daemon = subprocess.Popen(command, cwd=project_root(), stdout=output, stderr=output, start_new_session=True)
            try:
                deadline = time.monotonic() + 1_500
                while time.monotonic() < deadline and daemon.poll() is None:
                    runs = instance.get_run_records()
                    if len(runs) >= 20 and all(run.dagster_run.status in ENDED for run in runs):
                        break
                    time.sleep(1)
                failed = [
                    f"{entry.job_name}: {entry.user_message}"
                    for run in runs if run.dagster_run.status != dg.DagsterRunStatus.SUCCESS
                    for entry in instance.all_logs(run.dagster_run.run_id) if entry.level >= logging.ERROR
                ]  # fmt: skip
            finally:
                daemon.terminate()
                daemon.wait(300)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(daemon.pid, signal.SIGKILL)  # its code server, which would wait for a heartbeat
    said = log.read_text()
    assert Counter(run.dagster_run.status.value for run in runs) == {"SUCCESS": 20}, [*failed, said[-5_000:]]
    assert "database is locked" not in said
    times = {}
    for run in runs:
        times.setdefault(run.dagster_run.job_name, []).append((run.start_time, run.end_time))
    assert {job: most_at_once(of_model) for job, of_model in times.items()} == dict.fromkeys(times, 1)
    assert most_at_once([interval for of_model in times.values() for interval in of_model]) >= TOGETHER
    tables = ParquetTables(root=str(settings.tables))
    landed = {model.name: tables.days(model.key("raw_readings")) for model in MODELS}
    assert landed == {model.name: list(DAYS) for model in MODELS}
    assert not list(settings.home.rglob("*.db")), "nothing is in SQLite"

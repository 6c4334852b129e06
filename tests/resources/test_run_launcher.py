"""Runs as forks of one process: they run, fail, are stopped and watched as runs in a Python of their own."""

import json
import os
import signal
import sys
import time

import dagster as dg
import pytest
from dagster._core.launcher.base import WorkerStatus

from resources import run_launcher
from resources.home import end_dead_runs
from resources.run_launcher import WORKER, ForkingRunLauncher
from resources.settings import project_root

pytestmark = pytest.mark.slow
NEWEST_CODE = run_launcher.newest_code
MODULE = "run_launcher_location"
LOCATION = """
import os, time
import dagster as dg

LOADED_IN = os.getpid()
FOLDER = os.environ["RUN_LAUNCHER_FOLDER"]

@dg.op
def works():
    open(os.path.join(FOLDER, f"{os.getpid()}"), "w").write(f"{LOADED_IN}")

@dg.op
def fails():
    raise ValueError("as it should")

@dg.op
def waits():
    open(os.path.join(FOLDER, "waiting"), "w").close()
    time.sleep(600)

@dg.job(executor_def=dg.in_process_executor)
def good():
    works()

@dg.job(executor_def=dg.in_process_executor)
def bad():
    fails()

@dg.job(executor_def=dg.in_process_executor)
def long():
    waits()

defs = dg.Definitions(jobs=[good, bad, long])
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """An instance whose launcher forks, and what launches a job of a location of its own on it."""
    folder = tmp_path_factory.mktemp("launcher")
    (folder / f"{MODULE}.py").write_text(LOCATION)
    done = folder / "done"
    done.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{project_root()}{os.pathsep}{folder}")
        patch.setenv("RUN_LAUNCHER_FOLDER", str(done))
        patch.setattr(run_launcher, "newest_code", lambda: 0.0)
        patch.setattr(sys, "path", [*sys.path, str(folder)])
        launcher = {"module": "resources.run_launcher", "class": "ForkingRunLauncher"}
        with dg.instance_for_test(temp_dir=str(folder), overrides={"run_launcher": launcher}) as instance:
            yield World(instance, done)


class World:
    def __init__(self, instance, done):
        self.instance, self.done = instance, done
        self.launcher = instance.run_launcher
        assert isinstance(self.launcher, ForkingRunLauncher)

    def launch(self, job: str) -> str:
        from dagster._core.definitions.reconstruct import ReconstructableRepository
        from dagster._core.launcher.base import LaunchRunContext

        repository = ReconstructableRepository.for_module(MODULE, "defs")
        definition = repository.get_definition().get_job(job)
        origin = repository.get_reconstructable_job(job).get_python_origin()
        run = self.instance.create_run_for_job(definition, job_code_origin=origin)
        self.launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))
        return run.run_id

    def run(self, run_id: str) -> dg.DagsterRun:
        return self.instance.get_run_by_id(run_id)

    def until(self, run_id: str, *statuses: str) -> dg.DagsterRun:
        deadline = time.monotonic() + 300
        while (run := self.run(run_id)).status.value not in statuses and time.monotonic() < deadline:
            time.sleep(0.05)
        assert run.status.value in statuses, self.instance.all_logs(run_id)[-1]
        return run


def test_runs_are_forks_of_a_process_that_has_loaded_the_location(world):
    runs = [world.until(world.launch("good"), "SUCCESS") for _ in range(2)]
    pids = {json.loads(run.tags[WORKER])["pid"] for run in runs}
    loaded_in = {int((world.done / str(pid)).read_text()) for pid in pids}
    assert len(pids) == 2
    assert loaded_in == {world.launcher._server.pid}


def test_a_failure_is_in_the_log_of_the_run(world):
    failed = world.until(world.launch("bad"), "FAILURE")
    [step] = list(world.instance.all_logs(failed.run_id, of_type=dg.DagsterEventType.STEP_FAILURE))
    assert "as it should" in str(step.dagster_event.step_failure_data.error)


def test_a_run_is_stopped(world):
    run_id = world.launch("long")
    world.until(run_id, "STARTED")
    while not (world.done / "waiting").exists():
        time.sleep(0.05)
    assert world.launcher.check_run_worker_health(world.run(run_id)).status == WorkerStatus.RUNNING
    assert world.launcher.terminate(run_id)
    stopped = world.until(run_id, "CANCELED")
    assert not world.launcher.terminate(run_id)
    assert json.loads(stopped.tags[WORKER])["pid"] != world.launcher._server.pid


def test_a_killed_run_is_found(world):
    (world.done / "waiting").unlink(missing_ok=True)
    run_id = world.launch("long")
    world.until(run_id, "STARTED")
    while not (world.done / "waiting").exists():
        time.sleep(0.05)
    os.kill(json.loads(world.run(run_id).tags[WORKER])["pid"], signal.SIGKILL)
    while (health := world.launcher.check_run_worker_health(world.run(run_id))).status == WorkerStatus.RUNNING:
        time.sleep(0.05)
    assert health.status == WorkerStatus.NOT_FOUND
    assert "no longer exists" in health.msg
    assert end_dead_runs(world.instance) == [run_id]


def test_a_process_of_another_machine_is_left_alone(world):
    """Its number may be that of any process here."""
    run_id = world.launch("good")
    world.until(run_id, "SUCCESS")
    run = world.run(run_id)
    elsewhere = {WORKER: json.dumps({"pid": os.getpid(), "host": "elsewhere", "at": time.time()})}
    world.instance.add_run_tags(run_id, elsewhere)
    assert run_launcher._process_of(world.run(run_id)) is None
    assert run_launcher._process_of(run) is not None
    assert world.launcher.check_run_worker_health(world.run(run_id)).status == WorkerStatus.RUNNING


def test_changed_code_is_loaded(world, monkeypatch):
    world.until(world.launch("good"), "SUCCESS")
    first = world.launcher._server.pid
    world.until(world.launch("good"), "SUCCESS")
    assert world.launcher._server.pid == first
    monkeypatch.setattr(run_launcher, "newest_code", lambda: 1.0)
    world.until(world.launch("good"), "SUCCESS")
    assert world.launcher._server.pid != first


def test_code_is_the_project_without_its_state_and_tests(tmp_path, monkeypatch):
    monkeypatch.setattr(run_launcher, "project_root", lambda: tmp_path)
    counted = {"a.py": 1, "b/c.py": 5, "b/h.toml": 3}
    for path, at in {**counted, "b/d.txt": 8, "var/e.py": 9, ".venv/f.py": 9, "tests/g.py": 9}.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
        os.utime(tmp_path / path, (at, at))
    assert NEWEST_CODE() == 5


def test_a_server_that_has_ended_is_started_again(world):
    world.until(world.launch("good"), "SUCCESS")
    first = world.launcher._server
    first.kill()
    world.until(world.launch("good"), "SUCCESS")
    assert world.launcher._server.pid != first.pid


def test_one_that_cannot_start_is_an_error(world, monkeypatch):
    monkeypatch.setattr(run_launcher, "newest_code", lambda: 2.0)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(dg.DagsterError, match="the process that starts runs ends by itself"):
        world.launcher._forked(["api"], ())

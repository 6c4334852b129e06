"""A real cluster of two nodes on this machine, with a token: what runs there, and what happens when parts of it die.

One cluster serves all tests of this module; a node that a test kills is replaced.
"""

import contextlib
import datetime as dt
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from assets.declaration import Training, for_workers
from assets.lifecycle.data.features import features_of
from assets.lifecycle.model import search as searching
from assets.lifecycle.model.candidate import fit_candidate
from assets.lifecycle.model.objectives import ScoreTransform
from assets.lifecycle.model.search import search
from assets.lifecycle.model.training_set import matrix
from assets.lifecycle.model.version.bundle import Bundle, loaded
from assets.lifecycle.monitoring import predictions
from resources.compute import HERE, Compute, ComputeError, on_worker
from resources.compute.resource import Computing
from resources.settings import project_root
from resources.studies import Studies
from tests.declarations.readings import START, labelled_stream, plain, readings
from tests.declarations.tunable import tunable
from tests.resources.compute import work
from tests.stages import Stages

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the package ray: pip install '.[ray]'"),
]

SMALL = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
TWO = Compute(workers=2)


class Nodes:
    """A cluster whose processes are ended by their recorded numbers."""

    def __init__(self, workers: int) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster()
        self.head = self.started(include_dashboard=False)
        self.workers = [self.started() for _ in range(workers)]

    def started(self, **options):
        """A new node. Ray gives it 30 seconds to start, which a busy machine may exceed."""
        for attempt in range(4):
            try:
                return self.cluster.add_node(**SMALL, **options)
            except Exception as error:  # Ray raises exactly this class
                if "timed out during startup" not in str(error) or attempt == 3:
                    raise
        return None

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def kill(self, node) -> None:
        """Ends all processes of a node at once, as a loss of power would."""
        for started in [one for kind in node.all_processes.values() for one in kind]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(started.process.pid, signal.SIGKILL)

    def replace(self, node) -> None:
        self.kill(node)
        self.workers = [one for one in self.workers if one is not node] + [self.started()]

    def end(self) -> None:
        for node in self.cluster.list_all_nodes():
            self.kill(node)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Variables that the cluster and this process share: the token, and where workers find the tests."""
    folder = tmp_path_factory.mktemp("ray")
    (folder / "token").write_text("a" * 40)
    (folder / "marks").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(folder / "token"))
        patch.setenv("PYTHONPATH", str(project_root()))
        patch.setenv("MARKS", str(folder / "marks"))
        yield folder


@pytest.fixture(scope="module")
def nodes(environment):
    started = Nodes(workers=1)
    yield started
    started.end()


@pytest.fixture
def marks(environment):
    """An empty folder that workers know."""
    folder = environment / "marks"
    for path in folder.iterdir():
        path.unlink()
    return folder


@pytest.fixture
def computing(nodes, tmp_path):
    return Computing(address=nodes.address, checkpoints=str(tmp_path / "checkpoints"), patience_s=3)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory):
    """A training set, and the stages that made it."""
    stages = Stages(plain(), tmp_path_factory.mktemp("frozen"))
    stages.put("readings", readings(400))
    for name in ("labels", "features", "training_set"):
        made = stages.make(name)
        assert made.success, made.why
    return stages.tables.read(stages.model.key("training_set"))


def test_pieces_run_on_both_nodes_with_the_code_of_this_process(computing, nodes):
    lines, heard = [], []
    with computing.open(TWO, lines.append) as pool:
        squares = pool.map(work.square, range(8), shared=10, hear=lambda number, said: heard.append((number, said)))
        places = pool.map(work.where, range(8))
        with pytest.raises(ValueError, match="item 2 is wrong") as failure:
            pool.map(work.fails, range(4))
        told = pool.map(work.until_told, [0, 1], hear=lambda number, told: told >= 3)
    assert squares == [10 + n**2 for n in range(8)]
    assert sorted(heard) == [(n, f"piece {n}") for n in range(8)]
    assert len({node for _, _, node in places}) == 2
    for file, folder, _ in places:
        assert Path(file).parent.parent == Path(folder) != project_root()
    assert "in fails" in failure.value.__notes__[0]
    assert told[0] == 0
    assert told[1] >= 3
    assert lines[0].startswith(f"Ray at {nodes.address}: 2 nodes (1 CPU and ")
    assert lines[0].endswith("asked for 2 workers with 1 CPU each")


def test_a_request_that_no_node_can_meet_is_refused_after_some_time(computing):
    said = "has too little: workers with 4 CPU each are declared, and there are 2 nodes"
    with computing.open(Compute(cpus=4)) as pool, pytest.raises(ComputeError, match=said):
        pool.map(work.square, range(2), shared=0)
    said = "3 workers with 1 CPU each are declared, .*declare a smaller `compute`"
    with computing.open(Compute(workers=3, data_parallel=True)) as pool, pytest.raises(ComputeError, match=said):
        pool.together(work.fit_of_a_group)


def test_other_versions_on_the_workers_are_refused(computing, monkeypatch):
    mine = on_worker.versions()
    monkeypatch.setattr(on_worker, "versions", lambda: {**mine, "torch": "1.0.0"})
    with (
        computing.open(TWO) as pool,
        pytest.raises(ComputeError, match=r"other versions: torch 1.0.0, here 2") as refusal,
    ):
        pool.map(work.square, range(2), shared=0)
    assert "install the same packages on all nodes" in str(refusal.value)


def test_another_python_or_ray_is_refused(nodes, computing, monkeypatch):
    monkeypatch.setattr("ray.__version__", "2.1.0")
    with pytest.raises(ComputeError, match=r"runs other versions: .*install the same Python and"), computing.open(TWO):
        pass


def test_another_token_is_refused(nodes, environment, tmp_path):
    (tmp_path / "other").write_text("b" * 40)
    code = f"""
from resources.compute import Compute, ComputeError
from resources.compute.resource import Computing
try:
    with Computing(address={nodes.address!r}).open(Compute()):
        pass
except ComputeError as error:
    print(error)
"""
    env = {**os.environ, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "other")}
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert f"Ray at {nodes.address} cannot be used: Failed to connect" in ended.stdout, ended.stderr
    assert "RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH must be those that the cluster was started with" in ended.stdout


ALONE = ["unshare", "--pid", "--fork", "--mount-proc"]
"""Runs a command that sees no process of this machine: for Ray, it is on another one."""


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode != 0,
    reason="needs the right to make a process namespace: run it as root",
)
def test_a_machine_that_is_no_node_joins_for_the_time_of_a_step(nodes):
    code = f"""
import ray
from resources.compute import Compute
from resources.compute.resource import Computing
from tests.resources.compute import work
with Computing(address={nodes.address!r}).open(Compute(workers=2), print) as pool:
    print(pool.map(work.square, range(4), shared=1))
"""
    ended = subprocess.run([*ALONE, sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ": 3 nodes (" in ended.stdout
    assert "0 CPU and " in ended.stdout
    assert "[1, 2, 5, 10]" in ended.stdout
    raylets = [one.info["cmdline"] for one in psutil.process_iter(["name", "cmdline"]) if one.info["name"] == "raylet"]
    assert len([one for one in raylets if f"--gcs-address={nodes.address}" in one]) == 2, "it left with the step"


def test_a_worker_that_always_dies_is_named(computing):
    with computing.open(TWO) as pool, pytest.raises(ComputeError, match="a piece lost its worker 4 times"):
        pool.map(work.crash, [0])


def test_the_fits_of_a_training_give_the_same_weights_as_in_one_process(computing, frozen):
    model = plain(training=Training(min_rows=100, max_epochs=2))
    lines = []
    here = fit_candidate(frozen, model, lambda _: None)
    with computing.open(TWO) as pool:
        there = fit_candidate(frozen, model, lines.append, pool)
    X = matrix(frozen, model)
    assert np.array_equal(here.predict(X), there.predict(X))
    assert here.selection.shares == there.selection.shares
    assert any(line.startswith("fold 2/2, epoch 1/2: loss ") for line in lines)


def test_rounds_of_a_backtest_are_those_of_one_process(computing, frozen, tmp_path):
    frames = []
    for n, compute in enumerate((Computing(), computing)):
        model = tunable(compute=TWO, training=replace(tunable().training, ensemble=("trees",), max_epochs=2))
        stages = Stages(model, tmp_path / str(n), compute=compute)
        stages.put("readings", readings(400))
        for name in ("labels", "features"):
            assert stages.make(name).success
        made = stages.make("backtest", weeks=3)
        assert made.success, made.why
        frames.append(stages.tables.read(model.key("backtest")))
    assert frames[0].equals(frames[1])
    assert list(frames[1]["round"].unique()) == ["seed 0", "seed 1", "seed 2"]


def test_trials_in_parallel_are_trials_of_the_same_study(computing, frozen, tmp_path):
    model, lines = for_workers(tunable({"blind": True})), []
    studies = Studies(database_url=f"sqlite:///{tmp_path}/studies.db")
    search(studies, "study", frozen, model, trials=2, minutes=60)
    with computing.open(TWO) as pool:
        found = search(studies, "study", frozen, model, trials=8, minutes=60, log=lines.append, pool=pool)
    assert [trial.number for trial in found.trials] == list(range(1, 9))
    assert found.trials[0].declared
    assert [line.partition(":")[0] for line in lines[:6]] == [f"trial {n}/8" for n in range(3, 9)]
    assert found.chosen["network.blind"] is False
    scored = {tuple(trial.values.items()): trial.score for trial in found.trials if trial.score is not None}
    again = search(studies, "study", frozen, model, trials=8, minutes=60)
    assert again.gain == found.gain
    folds = searching._Folds(frozen, model)
    values = {name: model.search_space[name].value(value) for name, value in found.best.values.items()}
    assert folds.score(folds.select(values)) == scored[tuple(found.best.values.items())] == found.best.score


def test_a_worker_killed_within_an_epoch_goes_on_from_the_last_one_to_the_same_end(computing, frozen, marks):
    model = tunable()
    rows = matrix(frozen, model), frozen["faulty"].to_numpy(dtype=float), replace(model.training, batch_size=100)
    alone, lines = HERE.together(work.fit_of_a_group, shared=rows), []
    (marks / "fuse").touch()
    with computing.open(Compute(workers=2, data_parallel=True)) as pool:
        end = pool.together(work.fit_of_a_group, shared=rows, hear=lambda _, line: lines.append(line))
    assert not (marks / "fuse").exists(), "a worker was killed"
    assert [line.partition(":")[0] for line in lines] == [f"epoch {n}/5" for n in range(1, 6)]
    np.testing.assert_allclose(end, alone, atol=1e-4)
    assert list(Path(computing.checkpoints).iterdir()) == [], "what a fit saved is removed when it is over"


def to_score(folder, days, compute):
    """A stream with a version in production and features of some days without a score."""
    import torch

    model = labelled_stream(features=None, compute=TWO)
    names = features_of(model).names
    stages = Stages(model, folder, compute=compute)
    module = torch.nn.Sequential(torch.nn.Linear(len(names), 1), torch.nn.Flatten(0))
    Bundle.save(folder / "bundle", module=module, model=model, feature_names=names,
                head=ScoreTransform(kind="binary"), threshold=0.5, fitted={})  # fmt: skip
    stages.mlflow.folders["1"] = folder / "bundle"
    stages.ledger.promote("meter", "1", reason="r", verdicts={}, dagster_run="r", who="ada")
    rng = np.random.default_rng(0)
    dates = [START + dt.timedelta(days=n) for n in range(days)]
    for day in dates:
        rows = readings(20, day)[["reading_id", "read_at"]]
        stages.put(
            "features", rows.assign(**{name: rng.normal(size=20).astype(np.float32) for name in names}), str(day)
        )
    return stages, [str(day) for day in dates]


def after_some(marks, kill):
    """Calls ``kill`` in a thread when twenty pieces have begun."""

    def watch():
        begun, until = marks / "begun", time.monotonic() + 600
        while not (begun.exists() and len(begun.read_text().split()) >= 20) and time.monotonic() < until:
            time.sleep(0.05)
        kill()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_node_lost_while_days_are_scored_leaves_each_row_scored_once(computing, nodes, tmp_path, marks, monkeypatch):
    monkeypatch.setattr(predictions, "_scores", work.score_slowly)
    stages, days = to_score(tmp_path, 100, computing)
    killing = after_some(marks, lambda: nodes.kill(nodes.workers[0]))
    made = stages.make("predictions", days[0], days[-1])
    killing.join()
    nodes.replace(nodes.workers[0])
    assert made.success, made.why
    begun = len((marks / "begun").read_text().split())
    assert 100 <= begun <= 104, "only what the node had in progress was repeated"
    found = stages.tables.read(stages.model.key("predictions"), days)
    features = stages.tables.read(stages.model.key("features"), days)
    assert list(found["reading_id"]) == list(features["reading_id"])
    assert found["reading_id"].is_unique
    assert np.allclose(
        found["probability"], loaded(stages.mlflow.folders["1"]).predict(matrix_of(features, stages.model))
    )


def matrix_of(features, model):
    return features[list(features_of(model).names)].to_numpy(dtype=np.float32)


def test_a_lost_head_fails_the_run_with_the_mend_and_it_runs_again(environment, nodes, tmp_path, marks, monkeypatch):
    monkeypatch.setattr(predictions, "_scores", work.score_slowly)
    other = Nodes(workers=0)
    try:
        stages, days = to_score(tmp_path, 100, Computing(address=other.address))
        killing = after_some(marks, other.end)
        made = stages.make("predictions", days[0], days[-1])
        killing.join()
    finally:
        other.end()
    assert not made.success
    assert (
        f"the head of the Ray cluster at {other.address} was lost; nothing was written: start the cluster" in made.why
    )
    assert not stages.has("predictions", days[0])
    again = Stages(stages.model, tmp_path, compute=Computing(address=nodes.address), mlflow=stages.mlflow)
    made = again.make("predictions", days[0], days[-1])
    assert made.success, made.why
    assert len(again.tables.read(stages.model.key("predictions"), days)) == 2000

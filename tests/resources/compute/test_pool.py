"""Pools without a cluster: this process, what a declaration may ask for, and refusals that need no Ray."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from assets.declaration import DeclarationError, for_workers
from resources.compute import HERE, Compute, ComputeError
from resources.compute.resource import Computing
from resources.settings import Settings, SettingsError, project_root
from tests.declarations.readings import plain
from tests.resources.compute import work


def test_this_process_runs_one_piece_after_the_other_and_takes_each_item_after_the_result_before():
    order = []

    def items():
        for n in range(3):
            order.append(("item", n))
            yield n

    heard = []
    for number, result in HERE.run(work.square, items(), shared=10, hear=lambda n, said: heard.append((n, said))):
        order.append(("result", number, result))
    assert order == [("item", 0), ("result", 0, 10), ("item", 1), ("result", 1, 11), ("item", 2), ("result", 2, 14)]
    assert heard == [(0, "piece 0"), (1, "piece 1"), (2, "piece 2")]


def test_a_piece_in_this_process_stops_when_it_is_told_to():
    assert HERE.map(work.until_told, [1, 1], hear=lambda number, told: told == 2 + number) == [2, 3]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"workers": 0}, "compute.workers=0 is invalid: give a whole number of at least 1"),
        ({"workers": 1.5}, "compute.workers=1.5 is invalid: give a whole number of at least 1"),
        ({"cpus": 0}, "compute.cpus=0 is invalid: give more than 0"),
        (
            {"cpus": 1.5},
            "compute.cpus=1.5 is invalid: Ray divides only the first one: give a whole number, or less than",
        ),
        ({"gpus": -1}, "compute.gpus=-1 is invalid: give 0 or more"),
        ({"memory": float("nan")}, "compute.memory=nan is invalid: give 0 or more GiB"),
        ({"memory": "4Gi"}, "compute.memory='4Gi' is invalid: give 0 or more GiB"),
        ({"data_parallel": 1}, "compute.data_parallel=1 is invalid: give True or False"),
    ],
)
def test_a_request_that_cannot_work_is_refused(wrong, said):
    with pytest.raises(DeclarationError, match="model 'meter': ") as refusal:
        plain(compute=Compute(**wrong))
    assert said in str(refusal.value)


def test_a_request_is_shown_in_words_and_in_rays_terms():
    need = Compute(workers=3, cpus=2, gpus=0.5, memory=4)
    assert str(need) == "3 workers with 2 CPU, 0.5 GPU, 4 GiB of memory each"
    assert need.resources == {"CPU": 2.0, "GPU": 0.5, "memory": 4 * 2**30}
    assert plain(compute=need).compute == need


def test_workers_get_a_declaration_without_its_source():
    model = plain(compute=Compute())
    sent = for_workers(model)
    assert sent.table.source == model.key("elsewhere")
    assert replace(sent, table=model.table) == model


@pytest.mark.parametrize("given", ["", "local", "ray-head:6379", "10.0.0.7:6379", "[::1]:6379"])
def test_the_address_is_a_setting(given, tmp_path):
    env = {"ASSETLINE_HOME": str(tmp_path), **({"ASSETLINE_RAY": given} if given else {})}
    settings = Settings.from_env(env)
    assert settings.ray == given
    assert Computing.from_settings(settings).checkpoints == str(tmp_path / "checkpoints")


@pytest.mark.parametrize("given", ["ray-head", "ray://head:10001", "head:port", "head:0"])
def test_what_is_no_address_is_refused(given, tmp_path):
    with pytest.raises(SettingsError, match="ASSETLINE_RAY="):
        Settings.from_env({"ASSETLINE_HOME": str(tmp_path), "ASSETLINE_RAY": given})


def test_checkpoints_are_in_the_bucket_of_the_tables(tmp_path):
    env = {"ASSETLINE_HOME": str(tmp_path), "ASSETLINE_TABLES": "s3://bucket/prefix"}
    assert Computing.from_settings(Settings.from_env(env)).checkpoints == "s3://bucket/prefix/.checkpoints"


@pytest.mark.parametrize(("address", "need"), [("", Compute()), ("127.0.0.1:1", None)])
def test_without_an_address_or_a_request_the_pool_is_this_process(address, need):
    with Computing(address=address).open(need) as pool:
        assert pool is HERE


def test_without_the_package_the_setting_is_refused_with_the_command_that_installs_it(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "ray" else find(name, *more))
    with (
        pytest.raises(ComputeError, match=r"Ray is not installed; run `pip install 'assetline\[ray\]'`, or unset"),
        Computing(address="local").open(Compute()),
    ):
        pass


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the package ray: pip install '.[ray]'")
def test_an_address_that_does_not_answer_is_refused_at_once():
    with (
        pytest.raises(ComputeError, match=r"ASSETLINE_RAY='127.0.0.1:1' does not answer .*start Ray there"),
        Computing(address="127.0.0.1:1").open(Compute()),
    ):
        pass


def test_nothing_of_ray_is_imported_without_the_setting(tmp_path, toy_bundle):
    """The location, a training and a scoring of a model that declares `compute`, where importing Ray is an error."""
    code = f"""
import sys
from pathlib import Path

class NoRay:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ray":
            raise AssertionError("ray was imported")

sys.meta_path.insert(0, NoRay())
import definitions
from assets.lifecycle.model.candidate import fit_candidate
from resources.compute import Compute
from tests.declarations.readings import readings
from tests.declarations.tunable import tunable
from tests.stages import Stages, copied_bundle

folder = Path({str(tmp_path)!r})
model = tunable(compute=Compute(workers=4))
stages = Stages(model, folder / "stages")
stages.put("readings", readings(400))
for name in ("labels", "features", "training_set"):
    assert stages.make(name).success
with stages.resources["compute"].open(model.compute) as pool:
    fit_candidate(stages.tables.read(model.key("training_set")), model, lambda _: None, pool)
stages.mlflow.folders["1"] = copied_bundle(Path({str(toy_bundle)!r}), folder / "bundle")
stages.ledger.promote("meter", "1", reason="r", verdicts={{}}, dagster_run="r", who="ada")
made = stages.make("predictions")
assert made.success, made.why
assert not [name for name in sys.modules if name.partition(".")[0] == "ray"]
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=project_root(), capture_output=True, text=True, check=False,
        env={**os.environ, "ASSETLINE_HOME": str(tmp_path / "home"), "PYTHONPATH": str(project_root())},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-2000:]


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the package ray: pip install '.[ray]'")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ObjectStoreFullError", "the object store of a node is full, and so is its disk; free disk space there, or"),
        ("OutOfDiskError", "the object store of a node is full, and so is its disk; free disk space there, or"),
        ("OutOfMemoryError", "a node ran out of memory and ended a worker; declare Compute(memory=…)"),
        ("WorkerCrashedError", "a piece lost its worker 4 times; the log of that node says why"),
        ("AuthenticationError", "the token is not accepted; set RAY_AUTH_MODE=token"),
        ("RuntimeEnvSetupError", "a worker could not get our code; the log of that node says why"),
    ],
)
def test_errors_of_ray_become_one_sentence_with_the_mend(name, said):
    from ray import exceptions

    from resources.compute.on_ray import _said

    kind = getattr(exceptions, name)
    error = kind() if name == "WorkerCrashedError" else kind("first line\nsecond line")
    assert _said(error).startswith(said)
    assert "\n" not in _said(error)

"""A version is trained again from its commit and its rows, or it is said what prevents that or what differs."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from cli.reproduce import format_reproduction
from metadata.facts import Metadata
from metadata.reproduction import (
    FigurePair,
    Reproduction,
    ReproductionError,
    WeightDifference,
    compared_weights,
    reproduce,
)
from resources.mlflow import MlflowTracking
from resources.runtime import Runtime
from resources.settings import Settings, project_root
from resources.tables import ParquetTables
from tests.declarations.readings import readings
from tests.state import MODEL, new_version, small_state


@pytest.fixture(scope="module")
def world(make_world, tmp_path_factory, toy_bundle):
    return small_state(make_world, tmp_path_factory.mktemp("reproduced"), toy_bundle)


@pytest.fixture
def repository(tmp_path) -> Path:
    """A git repository with one commit, which is not that of any version."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    git(folder, "commit", "-q", "--allow-empty", "-m", "first")
    return folder


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


# -- what prevents it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({}, "the commit of version {n} of meter is not recorded"),
        ({"git_commit": "unknown (git is not installed)"},
         "the commit of version {n} of meter is not recorded: unknown (git is not installed)"),
        ({"git_commit": "0" * 40, "git_dirty": "true"},
         "version {n} of meter was trained with changes that are not in commit 0000000000, so its code cannot"),
        ({"git_commit": "0" * 40, "git_dirty": "false"},
         "commit 0000000000 of version {n} of meter is not in this repository; fetch it"),
    ],
)  # fmt: skip
def test_a_version_without_its_commit_is_refused_with_what_can_still_be_done(
    world, toy_bundle, repository, tags, reason
):
    number = new_version(world, toy_bundle, **tags)
    with pytest.raises(ReproductionError) as error:
        reproduce(Metadata(world.settings, [MODEL], world.instance), "meter", number, repository=repository)
    assert str(error.value).startswith(reason.format(n=number))
    assert f"assetline rows --model meter --version {number} --out rows.parquet" in str(error.value)


def test_rows_that_cannot_be_found_again_are_named_and_no_worktree_is_left(world, toy_bundle, repository, monkeypatch):
    monkeypatch.setattr("tests.declarations.readings.model", MODEL, raising=False)
    number = new_version(world, toy_bundle, git_commit=git(repository, "rev-parse", "HEAD"), git_dirty="false")
    with pytest.raises(ReproductionError, match="was trained before versions recorded their days"):
        reproduce(Metadata(world.settings, [MODEL], world.instance), "meter", number, repository=repository)
    assert git(repository, "worktree", "list").count("\n") == 0


# -- what differs ----------------------------------------------------------------------------------------------------


def test_networks_are_compared_byte_by_byte(toy_bundle, tmp_path):
    tensors, weights, different = compared_weights(toy_bundle, toy_bundle)
    assert tensors >= 2
    assert weights >= 2
    assert different == []
    other = bundle_with(toy_bundle, tmp_path / "other", shift=0.25)
    _, _, different = compared_weights(toy_bundle, other)
    [one] = different
    assert one.tensor.endswith("bias")
    assert one.largest == pytest.approx(0.25)
    _, _, different = compared_weights(toy_bundle, bundle_with(toy_bundle, tmp_path / "wide", inputs=9))
    assert [one.largest for one in different if one.tensor.endswith("weight")] == [None]


def bundle_with(bundle: Path, folder: Path, *, shift: float = 0.0, inputs: int | None = None) -> Path:
    """A copy of the toy bundle whose bias is shifted, or with another number of inputs."""
    import torch

    class Line(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = torch.nn.Linear(inputs or names, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.line(torch.nan_to_num(x) / 1_000).squeeze(-1)

    names = len(json.loads((bundle / "bundle.json").read_text())["feature_names"])
    torch.manual_seed(0)
    module = Line().eval()
    with torch.no_grad():
        module.line.bias += shift
    shutil.copytree(bundle, folder)
    rows = torch.export.Dim.DYNAMIC
    program = torch.export.export(module, (torch.zeros(2, inputs or names),), dynamic_shapes=({0: rows},))
    torch.export.save(program, folder / "network.pt2")
    return folder


def made(world, **given) -> Reproduction:
    version = Metadata(world.settings, [MODEL], world.instance).versions()[0]
    facts = {"runtime": [], "code": [], "recipe": {}, "different": [], "figures": [FigurePair("test.auc", 0.5, 0.5)]}
    return Reproduction(**{"version": version, "rows": 9, "tensors": 2, "weights": 7, **facts, **given})


def test_only_equal_bytes_and_equal_figures_count_as_equal(world):
    nan = FigurePair("test.auc", float("nan"), float("nan"))
    assert made(world, figures=[nan]).equal
    assert made(world).within(0)
    for given, largest in (
        ({"different": [WeightDifference("w", 1e-7)]}, 1e-7),
        ({"different": [WeightDifference("w", 0.0)]}, 0.0),  # other bytes: 0.0 and -0.0
        ({"figures": [FigurePair("test.auc", 0.5, 0.5 + 2**-20)]}, 2**-20),
    ):
        found = made(world, **given)
        assert not found.equal
        assert found.within(largest)
        assert found.within(largest / 2) == (largest == 0)
    for given in (
        {"different": [WeightDifference("w", None)]},
        {"figures": [FigurePair("test.auc", 0.5, None)]},
        {"figures": [FigurePair("test.auc", float("nan"), 0.5)]},
        {"not_scored": "the features differ: level"},
    ):
        assert not made(world, **given).within(1.0)


def test_the_text_names_each_difference(world):
    found = made(
        world,
        runtime=["torch 2.9.0, now 2.9.1"],
        recipe={"max_epochs": ("2", "3")},
        different=[WeightDifference("line.bias", 0.25), WeightDifference("line.weight", None)],
        figures=[FigurePair("test.auc", 0.5, 0.75), FigurePair("epochs", 2, 2)],
    )
    text = format_reproduction(found, 0.1)
    for said in (
        "torch 2.9.0, now 2.9.1", "max_epochs 2, now 3", "2 tensors differ, by up to no number", "1 of 2 are equal",
        "line.bias    0.25", "line.weight  no number", "test.auc  0.5   0.75  0.25", "not reproduced within 0.1",
    ):  # fmt: skip
        assert said in text, text
    assert format_reproduction(made(world), 0).endswith("the weights have equal bytes, and all figures are equal")
    assert found.to_json()["largest_weight_difference"] is None


def test_a_runtime_is_read_as_it_was_saved_and_differences_are_named(tmp_path):
    now = Runtime.now()
    now.save(tmp_path)
    read = Runtime.read(tmp_path)
    assert read == now
    assert read.lock == now.lock
    assert now.differences(read) == []
    other = replace(now, packages={**now.packages, "torch": "1.0"}, threads=8)
    assert other.lock != now.lock
    assert other.differences(now) == [f"threads 8, now {now.threads}", f"torch 1.0, now {now.packages['torch']}"]
    assert Runtime.read(tmp_path / "nowhere") is None


# -- for real --------------------------------------------------------------------------------------------------------

DECLARED = """
model = plain(
    name="trial_meter",
    gate=Gate(metric="roc_auc", floor=0.0, margin=-0.9, baseline_margin=-0.9, calibration_error=None),
    training=Training(min_rows=100, max_epochs=2, members=1, folds=2, ensemble=()),
)
"""

TRAIN = """
from assets.models import declared_models
from resources.settings import Settings
from runner import alone
[model] = [one for one in declared_models() if one.name == "trial_meter"]
assets = ("raw_readings", "readings", "quarantine", "labels", "features", "training_set", "trained_model")
with alone(Settings.from_env(), lambda: model) as runner:
    job = runner.defs.resolve_implicit_global_asset_job_def()
    job.execute_in_process(instance=runner.instance, asset_selection=[model.key(name) for name in assets])
"""


class Clone:
    """A repository of its own with the project and a small model, and its state folder beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder / "project", folder / "home"
        listed = git(project_root(), "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        for name in filter(None, listed.split("\0")):
            source = project_root() / name
            if source.is_file() and not name.startswith("docs/images"):
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / name).write_bytes(source.read_bytes())
        declared = project_root() / "tests" / "declarations" / "readings" / "__init__.py"
        self.module = self.folder / "assets" / "models" / "trial_meter" / "__init__.py"
        self.module.parent.mkdir()
        self.module.write_text(declared.read_text() + DECLARED)
        readings(600).to_csv(self.folder / "readings.csv", index=False)
        git(self.folder, "init", "-q", "-b", "main")
        self.commit("the project")

    def commit(self, message: str) -> str:
        git(self.folder, "add", "-A")
        git(self.folder, "commit", "-q", "-m", message)
        return git(self.folder, "rev-parse", "HEAD")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ASSETLINE_")}
        environment = {**kept, "ASSETLINE_HOME": str(self.home), "PYTHONPATH": str(self.folder)}
        return subprocess.run(
            [sys.executable, "-W", "ignore", *arguments], cwd=self.folder, env=environment, capture_output=True,
            text=True, check=False,
        )  # fmt: skip

    @property
    def settings(self) -> Settings:
        return Settings.from_env({"ASSETLINE_HOME": str(self.home)})

    def again(self) -> Reproduction:
        """Reproduces version 1 from this process, whose own project does not declare the model."""
        return reproduce(Metadata(self.settings, [], None), "trial_meter", "1", repository=self.folder)

    def tag(self, name: str, value: str) -> None:
        MlflowTracking.from_settings(self.settings).set_version_tag("trial_meter", "1", name, value)


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Clone:
    """Version 1 is of the first commit; the second one trains longer."""
    clone = Clone(tmp_path_factory.mktemp("clone"))
    ended = clone.run("-c", TRAIN)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    clone.module.write_text(clone.module.read_text().replace("max_epochs=2", "max_epochs=3"))
    clone.commit("more epochs")
    return clone


@pytest.mark.slow
@pytest.mark.timeout(1_800)  # two processes that start everything
def test_a_version_is_reproduced_byte_for_byte(clone):
    ended = clone.run("-m", "cli", "reproduce", "trial_meter", "--version", "1", "--json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["equal"]
    assert (found["different"], found["code"], found["recipe"], found["runtime"]) == ([], [], {}, [])
    assert found["weights"] > 100
    assert {"folds_score", "epochs", "test.roc_auc"} <= {one["figure"] for one in found["figures"]}
    first = git(clone.folder, "rev-parse", "HEAD~1")
    assert (found["version"]["git_branch"], found["version"]["git_commit"]) == ("main", first)
    assert git(clone.folder, "worktree", "list").count("\n") == 0, "the worktree is removed"
    assert git(clone.folder, "status", "--porcelain") == ""


@pytest.mark.slow
@pytest.mark.timeout(1_800)  # two processes that start everything
def test_what_another_commit_makes_differently_is_named(clone):
    clone.tag("git_commit", git(clone.folder, "rev-parse", "HEAD"))  # as if the version said so of itself
    try:
        found = clone.again()
    finally:
        clone.tag("git_commit", git(clone.folder, "rev-parse", "HEAD~1"))
    assert found.recipe == {"max_epochs": ("2", "3")}
    assert [(one.path, one.change) for one in found.code] == [("__init__.py", "changed")]
    assert found.different
    assert 0 < found.largest_weight_difference < 1
    assert found.largest_figure_difference > 0
    assert not found.equal
    assert git(clone.folder, "worktree", "list").count("\n") == 0


@pytest.mark.slow
@pytest.mark.timeout(1_800)  # two processes that start everything
def test_rows_that_changed_are_named(clone):
    tables, key = ParquetTables(root=str(clone.settings.tables)), dg.AssetKey(["trial_meter", "labels"])
    labels, frozen = tables.read(key), dg.AssetKey(["trial_meter", "training_set"])
    before = {path: Path(path).read_bytes() for path in (tables.path(key), tables.path(frozen))}
    labels.loc[0, "faulty"] = 1 - labels.loc[0, "faulty"]
    tables.write(key, labels)
    tables.write(frozen, tables.read(frozen).head(300))  # as a later training would
    try:
        with pytest.raises(ReproductionError, match="changed since the training: trial_meter/labels"):
            clone.again()
    finally:
        for path, content in before.items():
            Path(path).write_bytes(content)


def test_figures_of_a_bundle_are_numbers(toy_bundle):
    from assets.lifecycle.model.version.bundle import Facts
    from metadata.reproduction import _selected

    figures = _selected(Facts.read(toy_bundle))
    assert figures["folds_score"] == 0.5
    assert figures["threshold"] == 0.5
    assert all(np.isfinite(value) for value in figures.values())

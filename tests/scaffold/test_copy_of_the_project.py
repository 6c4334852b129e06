"""Models come and go in a copy of the project: only their folders change, and the location loads each time."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.made import energy, tickets
from resources.settings import project_root
from scaffold.new_model import new_model

GROUPS = """
import json
from definitions import defs
groups = {}
for asset in defs.assets:
    for spec in asset.specs:
        groups.setdefault(spec.key.path[0], {})[spec.key.path[-1]] = spec.description
print(json.dumps(groups))
"""


class Copy:
    """The project's files as git knows them, with what is not committed yet, in a folder of its own.

    It has a model ``trial_usage`` beside those of the project, which may have none: a fork removes the example.
    Names begin with ``trial_``: a fork has models of its own.
    """

    def __init__(self, folder: Path, usage: Path) -> None:
        self.folder = folder
        listed = self._git(project_root(), "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        for name in filter(None, listed.split("\0")):
            source = project_root() / name
            if source.exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(source.read_bytes())
        shutil.copytree(usage, folder / "assets" / "models" / "trial_usage")
        self._git(folder, "init", "--quiet")
        self._git(folder, "add", "-A")
        who = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
        self._git(folder, *who, "commit", "--quiet", "-m", "the copy")

    @staticmethod
    def _git(folder: Path, *arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "ASSETLINE_HOME": str(self.folder / "var"), "PYTHONPATH": str(self.folder)}
        return subprocess.run(
            [sys.executable, *arguments], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )

    def groups(self) -> dict[str, dict[str, str]]:
        """By first part of their keys, the last parts of all assets' keys with their descriptions."""
        ran = self.run("-W", "ignore", "-c", GROUPS)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout.splitlines()[-1])

    def changed(self) -> list[str]:
        return [line[3:] for line in self._git(self.folder, "status", "--porcelain").splitlines()]


@pytest.fixture(scope="module")
def usage(tmp_path_factory) -> Path:
    """The folder of a model that ``new_model`` wrote."""
    root = tmp_path_factory.mktemp("written")
    (root / "assets" / "models").mkdir(parents=True)
    (root / "pyproject.toml").write_text((project_root() / "pyproject.toml").read_text())
    energy(600).to_csv(root / "trial_usage.csv", index=False)
    return new_model(root, "trial_usage", root / "trial_usage.csv", "use").folder


@pytest.fixture
def copy(tmp_path, usage) -> Copy:
    folder = tmp_path / "project"
    folder.mkdir()
    return Copy(folder, usage)


@pytest.mark.slow
def test_models_are_added_and_removed_and_nothing_else_changes(copy, tmp_path):
    before = copy.groups()
    for name, frame, target in (("trial_leaving", tickets(600), "left"), ("trial_load", energy(600), "use")):
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        made = copy.run("-m", "cli", "new-model", "--name", name, "--table", str(tmp_path / f"{name}.csv"),
                        "--target", target)  # fmt: skip
        assert made.returncode == 0, made.stderr
    after = copy.groups()
    assert set(after) - set(before) == {"trial_leaving", "trial_load"}
    assert {"raw_trial_leaving", "features", "deployment"} <= set(after["trial_leaving"])
    assert after.items() >= before.items(), "the others are as they were"
    assert sorted(copy.changed()) == ["assets/models/trial_leaving/", "assets/models/trial_load/"]
    refused = copy.run("-m", "cli", "remove-model", "--name", "trial_load")
    assert refused.returncode == 1
    assert "git cannot restore" in refused.stderr
    for name in ("trial_leaving", "trial_load"):
        assert copy.run("-m", "cli", "remove-model", "--name", name, "--force").returncode == 0
    assert copy.changed() == []
    assert copy.groups() == before


BROKEN = {
    "a wrong declaration": (
        "from dataclasses import replace\nfrom assets.models.trial_usage import model as usage\n"
        "model = replace(usage, name='Oh No')\n",
        "name='Oh No' is invalid",
    ),
    "no declaration": ("", "declares no model"),
    "a syntax error": ("model = (\n", "SyntaxError"),
    "an import of nothing": ("import nothing_of_that_name\n", "line 1: ModuleNotFoundError"),
    "a name that is taken": ("from assets.models.trial_usage import model as model\n", "two folders declare a model"),
    "an asset of another's key": (
        "from dataclasses import replace\nimport dagster as dg\nfrom assets.models.trial_usage import model as usage\n"
        "@dg.asset(key=['trial_usage', 'features'])\ndef mine() -> None: ...\n"
        "model = replace(usage, name='trial_zebra', assets=[mine])\n",
        "trial_usage/features already belongs to 'trial_usage'",
    ),
}


# Each takes ten seconds: a copy, two loads. One of them is quick enough.
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] * bool(n)) for n, kind in enumerate(BROKEN)]
)
def test_a_broken_model_shows_with_its_reason_and_takes_no_other_away(copy, kind):
    text, words = BROKEN[kind]
    folder = copy.folder / "assets" / "models" / "trial_zebra"
    folder.mkdir()
    (folder / "__init__.py").write_text(text)
    groups = copy.groups()
    assert {"features", "deployment"} <= set(groups["trial_usage"])
    assert list(groups["trial_zebra"]) == ["broken"]
    assert words in groups["trial_zebra"]["broken"]
    ran = copy.run("-m", "cli", "materialize", "--model", "trial_zebra")
    assert ran.returncode == 1
    assert words in ran.stderr.splitlines()[-1]


def test_a_model_that_others_need_is_not_removed(copy):
    (copy.folder / "sensors" / "extra.py").write_text("from assets.models.trial_usage import model\n")
    ran = copy.run("-m", "cli", "remove-model", "--name", "trial_usage")
    assert ran.returncode == 1
    assert "sensors/extra.py imports assets/models/trial_usage; remove that import first" in ran.stderr
    assert (copy.folder / "assets" / "models" / "trial_usage").exists()


def test_a_model_that_is_not_there_is_named_with_those_that_are(copy):
    ran = copy.run("-m", "cli", "remove-model", "--name", "trial_usgae")
    assert "NAME=trial_usgae: there is no such model folder; there are: " in ran.stderr
    assert "trial_usage" in ran.stderr.partition("there are: ")[2]


SEE_THE_MODELS = ("tests/assets/test_*.py", "tests/cli", "tests/docs", "tests/test_*.py")
ALSO_SEE_THE_MODELS = ("tests/e2e", "tests/sensors", "tests/serving")
"""Tests of what reads the declared models. The others never see the example, so they would pass as they do with it."""


@pytest.mark.slow
@pytest.mark.timeout(2_400)  # a part of the quick tests once more, without those of the example
@pytest.mark.parametrize(
    "see_the_models",
    [pytest.param(SEE_THE_MODELS, id="some"), pytest.param(ALSO_SEE_THE_MODELS, id="others", marks=pytest.mark.long)],
)
def test_without_the_example_the_project_loads_lints_and_passes_its_tests(copy, see_the_models):
    if (cache := project_root() / ".mypy_cache").exists():  # of `make lint`: what did not change is not checked again
        shutil.copytree(cache, copy.folder / cache.name)
    for name in sorted(path.parent.name for path in (copy.folder / "assets" / "models").glob("*/__init__.py")):
        ran = copy.run("-m", "cli", "remove-model", "--name", name)
        assert ran.returncode == 0, ran.stderr
    assert list(copy.groups()) == ["assetline"], "what is left is of no model: the alerts"
    collected = ["pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    seeing = [str(path.relative_to(copy.folder)) for name in see_the_models for path in copy.folder.glob(name)]
    tests = ["pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", *seeing]
    for command in (["ruff", "check", "."], ["mypy"], collected, tests):
        ran = copy.run("-m", *command)
        assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-2000:]
    played = copy.run("-m", "cli", "run")
    assert played.returncode == 1
    assert "there is no story to play" in played.stderr

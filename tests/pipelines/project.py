"""A copy of the project as a repository of its own, in which a test runs the pipeline of a provider.

Real: git, make, the providers' files, and with ``stages="real"`` the stages ``unit`` to ``promote`` on a model that is
trained in seconds. Stand-ins, in a folder that takes the place of ``.venv``: ruff, mypy, import-linter, the benchmarks,
and the image, which other tests cover. With ``stages="scripted"`` every program is a stand-in: it writes down what it
was asked, and fails where the test says so. That shows what a provider does with the exit status of a stage.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Literal

import yaml

from benchmarks.made import energy
from resources.settings import Settings, project_root
from scaffold.new_model import new_model

NAME = "trial_energy"
LEFT_OUT = ("docs/images", "tests/pipelines")
"""Nothing in the copy reads them."""
NEVER = 4_102_444_800
"""A time later than that of any file, so that make never installs into the folder of stand-ins."""

REAL = """#!/bin/sh
cd "$(pwd)" && PYTHONPATH="$(pwd)" exec {python} {arguments} "$@"
"""
SCRIPTED = """#!/bin/sh
echo "{name} $*" >> {calls}
case "{name} $*" in {failing}) echo "{name}: fails on purpose" >&2; exit 1;; esac
mkdir -p build/state build/releases build/reports
case "$*" in
    *"pipeline train"*) echo {{}} > build/state/train.json; echo archive > build/state/state.tar.gz;;
    *"pipeline gate"*) cat build/state/train.json build/state/state.tar.gz && echo {{}} > build/releases/release.json;;
    *"pipeline compare"*) cat build/state/train.json build/state/state.tar.gz;;
    *"pipeline deploy"*) cat build/releases/release.json;;
    *"pipeline smoke"*) cat build/releases/release.json && echo {{}} > build/state/smoke-staging.json;;
    *"pipeline promote"*) cat build/releases/release.json build/state/smoke-staging.json;;
esac
"""
PROGRAMS = ("python", "assetline", "ruff", "mypy", "lint-imports")

QUICK_TEST = """import pytest


def test_quick():
    assert {holds}


@pytest.mark.slow
def test_slow():
    assert True
"""


class Project:
    """The copy: ``folder`` is the repository, ``bin`` the stand-ins, ``calls`` what they were asked."""

    def __init__(self, folder: Path, stages: Literal["real", "scripted"]) -> None:
        self.root, self.folder, self.stages = folder, folder / "project", stages
        self.venv, self.calls_file = folder / "venv", folder / "calls.txt"
        self.folder.mkdir(parents=True)
        self.calls_file.touch()
        listed = self.git("ls-files", "-z", "--cached", "--others", "--exclude-standard", at=project_root())
        wanted = None if stages == "real" else ("Makefile", "Jenkinsfile", ".travis.yml", ".gitlab-ci.yml", ".github/",
                                                ".gitignore", "constraints.txt", "pyproject.toml")  # fmt: skip
        for name in filter(None, listed.split("\0")):
            source = project_root() / name
            if not source.is_file() or name.startswith(LEFT_OUT) or (wanted and not name.startswith(wanted)):
                continue
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, self.folder / name)
        with (self.folder / "Makefile").open("a") as makefile:
            makefile.write('\nimage:\n\t@echo "image: a stand-in, other tests build it"\n')
        self.fails()
        if stages == "real":
            self._model()
            self._environments()
            self.test(holds=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit("the copy")

    # -- the copy ----------------------------------------------------------------------------------------------------

    def git(self, *arguments: str, at: Path | None = None) -> str:
        """What git says."""
        who = ["-c", "user.name=ada", "-c", "user.email=ada@localhost"]
        command = ["git", "-C", str(at or self.folder), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def commit(self, message: str) -> str:
        """Commits everything; returns the commit."""
        self.git("add", "-A")
        self.git("commit", "--quiet", "-m", message)
        return self.git("rev-parse", "HEAD").strip()

    def fails(self, *patterns: str) -> None:
        """Writes the stand-ins; calls that match a pattern of the shell fail."""
        (self.venv / "bin").mkdir(parents=True, exist_ok=True)
        failing = "|".join(pattern for pattern in patterns) or "nothing"
        for name in PROGRAMS:
            if self.stages == "real" and name in ("python", "assetline"):
                text = REAL.format(python=sys.executable, arguments="-m cli" if name == "assetline" else "")
                if name == "python":
                    text = text.replace("cd ", 'case "$*" in *benchmarks*) echo "a stand-in"; exit 0;; esac\ncd ', 1)
            else:
                text = SCRIPTED.format(name=name, calls=self.calls_file, failing=failing)
            path = self.venv / "bin" / name
            path.write_text(text)
            path.chmod(0o755)
        for stamp in (".installed", ".installed-dev"):
            (self.venv / stamp).touch()
            os.utime(self.venv / stamp, (NEVER, NEVER))

    def calls(self) -> list[str]:
        """What the stand-ins were asked since the last call."""
        lines = self.calls_file.read_text().splitlines()
        self.calls_file.write_text("")
        return lines

    @property
    def own(self) -> dict[str, str]:
        """Variables that make the stages small and keep them out of the environments of this machine."""
        home = {} if "env" in {field.name for field in fields(Settings)} else {"ASSETLINE_HOME": str(self.places)}
        return {
            "MAKEFLAGS": f"VENV={self.venv}", "MODEL": NAME, "TESTS": "tests/test_trial.py", "JOBS": "0",
            "OMP_NUM_THREADS": "1", **home,
        }  # fmt: skip

    @property
    def variables(self) -> dict[str, str]:
        """The environment of the machine that runs the pipeline."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ASSETLINE_", "DAGSTER_"))}
        return {**{k: v for k, v in kept.items() if k not in ("PYTHONPATH", "CI")}, **self.own}

    @property
    def places(self) -> Path:
        """Folder of the environments."""
        return self.root / "places"

    def production(self, database_url: str, mlflow_store: str, dagster_store: str) -> Path:
        """Writes the variables of the environment ``production``, as its provider's store has them; returns the file.

        The file has the form of gitlab-ci-local.
        """
        backups, tokens = self.root / "backups", self.root / "service-tokens.toml"
        backups.mkdir(exist_ok=True)
        tokens.touch()
        values = {
            "DATABASE_URL": database_url, "MLFLOW_STORE": mlflow_store, "DAGSTER_STORE": dagster_store,
            "TOKEN": "a-token-of-enough-letters", "BACKUP": str(backups), "SERVICE_TOKENS": str(tokens),
        }  # fmt: skip
        known = {field.name.upper() for field in fields(Settings)}
        scoped = {
            f"ASSETLINE_{name}": {"values": {"production": value}} for name, value in values.items() if name in known
        }
        path = self.root / "variables.yml"
        path.write_text(yaml.safe_dump(scoped))
        return path

    # -- its model and its tests -------------------------------------------------------------------------------------

    def _model(self) -> None:
        """A measured value of 600 rows, with one epoch, as `make new-model` writes it."""
        table = self.folder / "data" / f"{NAME}.csv"
        table.parent.mkdir()
        energy(600).to_csv(table, index=False)
        new_model(self.folder, NAME, table, "use")
        self.replace(f"assets/models/{NAME}/__init__.py", "model = Model(",
                     "model = Model(\n    training=Training(max_epochs=10, members=2),")  # fmt: skip
        self.replace(f"assets/models/{NAME}/__init__.py", "import Model", "import Model, Training")

    def _environments(self) -> None:
        """State folders of the environments outside of the copy."""
        folder = self.folder / "deploy" / "environments"
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("staging", "prod"):
            (folder / f"{name}.toml").write_text(f'home = "{self.places / name}"\n')

    def test(self, *, holds: bool) -> None:
        """The tests that the stages ``unit`` and ``integration`` run."""
        (self.folder / "tests" / "test_trial.py").write_text(QUICK_TEST.format(holds=holds))

    def replace(self, path: str, old: str, new: str) -> None:
        """Replaces a text in a file of the copy."""
        text = (self.folder / path).read_text()
        assert old in text, (path, old)
        (self.folder / path).write_text(text.replace(old, new, 1))

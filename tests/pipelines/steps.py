"""Runs the steps of a GitHub workflow or a Travis file in their order, without GitHub or Travis.

It is a runner of this project's tests. It refuses what it does not know. Real: each job has a clone of its own, each
command is a shell there, artifacts and workspaces are copies of the files that the paths name, a job whose predecessor
failed is skipped, and the steps of a failed job run as their conditions say. Not covered: the actions themselves
(checkout, Python, caches), the providers' machines, expressions other than those below, and their stores of secrets.
"""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

GIVEN_BY_PROVIDER = ("actions/checkout@v4", "actions/setup-python@v5")
PROTECTED_PUSH = "github.event_name == 'push' && github.ref_protected"
TRAVIS = {
    "type != cron": lambda event: True,
    "type = cron": lambda event: False,
    "(branch = main AND type = push OR tag IS present)": lambda event: event in ("push", "tag"),
    "(tag IS present)": lambda event: event == "tag",
}
"""Conditions of the stages, by what starts the pipeline: ``push`` to main, ``tag`` or ``request``."""


@dataclass
class Outcome:
    """What ran: the jobs by their result, and the output."""

    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    output: str = ""


@dataclass
class Machine:
    """A clone of the project for one job."""

    folder: Path
    variables: Mapping[str, str]
    output: str = ""

    @classmethod
    def fresh(cls, project: Path, folder: Path, variables: Mapping[str, str]) -> "Machine":
        subprocess.run(["git", "clone", "--quiet", str(project), str(folder)], check=True)
        return cls(folder, variables)

    def run(self, command: str, shell: str = "bash") -> bool:
        """Runs a command as the providers do; whether it succeeded."""
        ran = subprocess.run([shell, "-e", "-c", command], cwd=self.folder, env=dict(self.variables),
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)  # fmt: skip
        self.output += f"$ {command}\n{ran.stdout}"
        return ran.returncode == 0


def run_workflow(project: Path, scratch: Path, variables: Mapping[str, str], event: str = "push") -> Outcome:
    """Runs the jobs of ``.github/workflows/ci.yml``; ``event``: ``push`` to a protected branch, or ``request``."""
    jobs = yaml.safe_load((project / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    outcome, results = Outcome(), {}
    for name, job in jobs.items():  # in the order of the file, which is that of their needs
        needs = job.get("needs")
        runs = needs is None or results[needs] == "success"
        if "if" in job:
            assert job["if"] == PROTECTED_PUSH, job["if"]
            runs = runs and event == "push"
        results[name] = "skipped"
        if not runs:
            outcome.skipped.append(name)
            continue
        own = dict.fromkeys(job.get("env", {}), f"secret of {job.get('environment')}")
        machine = Machine.fresh(project, scratch / "jobs" / name, {**variables, **own})
        results[name] = "success" if _steps(machine, job["steps"], scratch / "artifacts") else "failure"
        (outcome.passed if results[name] == "success" else outcome.failed).append(name)
        outcome.output += machine.output
    return outcome


def _steps(machine: Machine, steps: list[dict[str, Any]], artifacts: Path) -> bool:
    good = True
    for step in steps:
        condition = step.get("if", "success()")
        if not {"success()": good, "failure()": not good, "always()": True}[condition]:
            continue
        if "run" in step:
            good = machine.run(step["run"]) and good
        elif step["uses"] == "actions/upload-artifact@v4":
            _upload(machine.folder, step["with"], artifacts)
        elif step["uses"] == "actions/download-artifact@v4":
            assert step["with"]["merge-multiple"]
            for one in sorted(artifacts.glob(step["with"]["pattern"])):
                shutil.copytree(one, machine.folder / step["with"]["path"], dirs_exist_ok=True)
        else:
            assert step["uses"] in GIVEN_BY_PROVIDER, step["uses"]
    return good


def _upload(folder: Path, given: Mapping[str, str], artifacts: Path) -> None:
    """Copies what the paths name, relative to the folder that all of them share, as the action does."""
    lines = given["path"].split()
    paths, excluded = [one for one in lines if one[0] != "!"], {one[1:] for one in lines if one[0] == "!"}
    parents = [PurePosixPath(one).parent for one in paths]
    shared = PurePosixPath(paths[0]) if len(paths) == 1 else parents[0]
    assert len({*parents}) == 1, paths
    target = artifacts / given["name"]
    assert not target.exists(), f"{given['name']}: the name of an artifact is free once in a run"
    target.mkdir(parents=True)
    for one in paths:
        for file in (folder / one).rglob("*"):
            name = file.relative_to(folder)
            if file.is_file() and name.as_posix() not in excluded:
                (target / name.relative_to(shared)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, target / name.relative_to(shared))


def run_travis(project: Path, scratch: Path, variables: Mapping[str, str], event: str = "tag") -> Outcome:
    """Runs the jobs of ``.travis.yml`` in the order of its stages."""
    given = yaml.safe_load((project / ".travis.yml").read_text())
    conditions = {stage["name"]: TRAVIS[stage["if"]](event) for stage in given["stages"]}
    outcome = Outcome()
    for job in given["jobs"]["include"]:
        name = job["stage"]
        if outcome.failed or not conditions[name]:
            outcome.skipped.append(name)
            continue
        own = dict(one.split("=", 1) for one in job.get("env", []))
        stage = {"TRAVIS_BUILD_STAGE_NAME": name.capitalize()}
        machine = Machine.fresh(project, scratch / "jobs" / name, {**variables, **own, **stage})
        spaces = job.get("workspaces", {})
        if "use" in spaces:
            shutil.copytree(scratch / "workspaces" / spaces["use"], machine.folder, dirs_exist_ok=True)
        results = [machine.run(command) for command in job["script"]]  # Travis runs all of them
        good = all(results)
        if good and "create" in spaces:
            for path in spaces["create"]["paths"]:
                shutil.copytree(machine.folder / path, scratch / "workspaces" / spaces["create"]["name"] / path)
        if not good:
            for command in given["after_failure"]:
                machine.run(command)
        (outcome.passed if good else outcome.failed).append(name)
        outcome.output += machine.output
    return outcome

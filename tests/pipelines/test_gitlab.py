"""The real .gitlab-ci.yml, run by gitlab-ci-local with the shell executor.

With the real stages, a model of 600 rows goes from the commit to production; ruff, mypy, the benchmarks and the image
are stand-ins (``project.py``). With stand-ins for all programs, each failure stops the pipeline at its stage.
"""

import json
import os
import re
import subprocess

import pytest

from resources.ledger import Ledger
from tests.pipelines.project import NAME, Project
from tests.pipelines.test_providers import FAILURES, NAMES
from tests.pipelines.tools import GITLAB, NO_GITLAB, NODE, has_gitlab
from tests.resources.conftest import POSTGRES

pytestmark = [
    pytest.mark.slow, pytest.mark.timeout(1_800), pytest.mark.skipif(not has_gitlab(), reason=NO_GITLAB)
]  # fmt: skip

needs_postgres = pytest.mark.skipif(POSTGRES is None, reason="needs the Debian package postgresql, for production")

PROTECTED = {"CI_COMMIT_REF_PROTECTED": "true"}
ALONE = "include: .gitlab-ci.yml\ndefault:\n  after_script: []\n"
"""The file without ``after_script``: before that script, gitlab-ci-local lays out an isolated job again."""


def run(project: Project, *arguments: str, variables: dict[str, str] = PROTECTED) -> subprocess.CompletedProcess[str]:
    given = {**project.own, **variables}
    command = [str(GITLAB), "--force-shell-executor", "--no-json-schema-validation", "--concurrency", "1",
               "--ignore-predefined-vars", ",".join(PROTECTED), *arguments]  # fmt: skip
    command += [part for name, value in given.items() for part in ("--variable", f"{name}={value}")]
    environment = {**project.variables, "PATH": f"{NODE}:{os.environ['PATH']}", "HOME": str(project.root)}
    return subprocess.run(
        command, cwd=project.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False,
    )  # fmt: skip


def stages_in(output: str) -> list[str]:
    """The jobs that started, by the names of their stages."""
    started = re.findall(r"^(?:\x1b\[[0-9;]*m)*([a-z-]+)(?:\x1b\[[0-9;]*m)*\s.*starting shell", output, re.MULTILINE)
    return ["image" if name == "container-image" else name for name in started]


# -- with stand-ins for the stages -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scripted(tmp_path_factory) -> Project:
    project = Project(tmp_path_factory.mktemp("gitlab"), "scripted")
    (project.folder / ".gitlab-alone.yml").write_text(ALONE)
    project.commit("the file without after_script")
    return project


@pytest.mark.parametrize("fault", [name for name in FAILURES if FAILURES[name][1]])
def test_a_failure_stops_the_pipeline_at_its_stage(scripted, fault):
    pattern, stage = FAILURES[fault]
    scripted.fails(pattern)
    scripted.calls()
    ran = run(scripted, "--manual", "promote")
    assert ran.returncode == 1, ran.stdout
    assert stages_in(ran.stdout) == NAMES[: NAMES.index(stage) + 1], ran.stdout
    told = [line.split("--stage ")[1] for line in scripted.calls() if "tell-failure" in line]
    assert told[-1] == f"{stage} --status failed"
    assert all(line.endswith("--status success") for line in told[:-1])


def test_each_job_gets_what_it_needs_from_the_jobs_before_it(scripted):
    scripted.fails()
    ran = run(scripted, "--file", ".gitlab-alone.yml", "--shell-isolation", "--manual", "promote")
    assert ran.returncode == 0, ran.stdout
    assert stages_in(ran.stdout) == NAMES, "a stage fails if the record or release that it reads did not come along"


def test_production_waits_for_a_person(scripted):
    scripted.fails()
    ran = run(scripted)
    assert stages_in(ran.stdout) == NAMES[:-1], ran.stdout


def test_an_unprotected_branch_goes_no_further_than_the_image(scripted):
    scripted.fails()
    ran = run(scripted, "--manual", "promote", variables={"CI_COMMIT_REF_PROTECTED": "false"})
    assert stages_in(ran.stdout) == NAMES[: NAMES.index("deploy")], ran.stdout


# -- with the real stages --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def delivered(tmp_path_factory, postgres) -> tuple[Project, subprocess.CompletedProcess[str], str]:
    """A project whose pipeline went all the way to production, its output, and the ledger of production."""
    project = Project(tmp_path_factory.mktemp("real"), "real")
    urls = [postgres(f"pipeline_{name}") for name in ("ledger", "mlflow", "dagster")]
    secrets = project.production(*urls)
    return project, run(project, "--variables-file", str(secrets), "--manual", "promote"), urls[0]


@needs_postgres
def test_a_commit_goes_all_the_way_to_production(delivered):
    project, ran, ledger = delivered
    assert ran.returncode == 0, ran.stdout
    assert stages_in(ran.stdout) == NAMES, ran.stdout
    build = project.folder / "build"
    assert {path.name for path in (build / "reports").iterdir()} >= {
        "unit.xml", "integration.xml", "coverage.xml", "evaluation.md", "comparison.md", NAME,
    }  # fmt: skip
    manifest = json.loads((build / "releases" / NAME / "manifest.json").read_text())
    assert manifest["commit"] == project.git("rev-parse", "HEAD").strip()
    assert not manifest["dirty"]
    entry = Ledger(database_url=ledger).champion(NAME)
    assert entry is not None
    assert entry.reason.startswith("release ")
    assert set(entry.verdicts) == {"gate", "staging"}
    assert not list(project.places.glob("**/staging/assetline.db")), "nothing was promoted in staging"


@needs_postgres
def test_a_gate_that_refuses_ends_its_job_with_the_reason(delivered):
    project, *_ = delivered
    path = f"assets/models/{NAME}/__init__.py"
    project.replace(path, "model = Model(", "model = Model(\n    gate=Gate(floor=0.999),")
    project.replace(path, "import Model", "import Gate, Model")
    ran = run(project, "gate")
    assert ran.returncode == 1, ran.stdout
    assert f"version 1 of {NAME} is refused by the gate: r2 " in ran.stdout
    assert not (project.folder / "build" / "releases" / NAME).exists()
    later = run(project, "deploy")
    assert later.returncode == 1
    assert "`make deploy ENV=staging` needs `make gate`, which has released nothing" in later.stdout
    project.git("checkout", "--", ".")
    assert run(project, "gate").returncode == 0, "the reason is gone"


@needs_postgres
def test_a_service_that_does_not_start_ends_the_smoke_test_with_its_last_words(delivered):
    project, *_ = delivered
    assert run(project, "deploy").returncode == 0
    project.replace(
        "serving/scoring/service.py", "\nimport argparse\n", "\nimport argparse\nraise SystemExit('no past')\n"
    )
    ran = run(project, "smoke")
    assert ran.returncode == 1, ran.stdout
    assert f"of {NAME} fails its smoke test in staging" in ran.stdout
    assert "no past" in ran.stdout
    project.git("checkout", "--", ".")

"""The Jenkinsfile, executed stage by stage by a harness in Groovy. It is not Jenkins: ``jenkins_harness.groovy``."""

import re
import shutil
import subprocess

import pytest

from resources.settings import project_root
from tests.pipelines.project import Project
from tests.pipelines.test_providers import FAILURES, NAMES
from tests.pipelines.tools import NO_GROOVY, java_home

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("groovy") is None, reason=NO_GROOVY)]

HARNESS = project_root() / "tests" / "pipelines" / "jenkins_harness.groovy"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return Project(tmp_path_factory.mktemp("jenkins"), "scripted")


def run(project: Project, branch: str = "main", answer: str = "yes", *fails: str) -> tuple[int, str, list[str]]:
    """Exit status, output, and the stages that ran."""
    shutil.rmtree(project.folder / "build", ignore_errors=True)
    project.fails(*fails)
    project.calls()
    command = ["groovy", str(HARNESS), str(project.folder / "Jenkinsfile"), branch, answer]
    ran = subprocess.run(command, env={**project.variables, **java_home()}, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True, check=False)  # fmt: skip
    return ran.returncode, ran.stdout, re.findall(r"^\[([a-z]+)\]$", ran.stdout, re.MULTILINE)


@pytest.mark.parametrize("fault", FAILURES)
def test_a_failure_stops_the_pipeline_at_its_stage(project, fault):
    pattern, stage = FAILURES[fault]
    status, output, ran = run(project, "main", "yes", *filter(None, [pattern]))
    told = [line for line in project.calls() if "tell-failure" in line]
    assert ran == (NAMES[: NAMES.index(stage) + 1] if stage else NAMES), output
    assert output.splitlines()[-1] == (f"FAILURE in {stage}" if stage else "SUCCESS")
    assert status == (1 if stage else 0)
    assert [line.split("--stage ")[1].strip() for line in told] == ([stage] if stage else [])
    assert "kept artifacts: build/reports/**" in output, "reports are kept in any case"


def test_a_person_may_say_no(project):
    status, output, ran = run(project, "main", "no")
    assert (status, ran) == (1, NAMES[:-1]), output
    assert not [line for line in project.calls() if "pipeline promote" in line]


def test_another_branch_goes_no_further_than_the_image(project):
    status, output, ran = run(project, "idea")
    assert (status, ran) == (0, NAMES[: NAMES.index("deploy")]), output

"""The files of the four providers: the same stages in the same order, each one make target, and nothing else."""

import re
from collections.abc import Callable

import pytest
import yaml

from pipeline.stages import STAGES
from resources.settings import project_root
from tests.pipelines.project import Project
from tests.pipelines.steps import run_travis, run_workflow

ROOT = project_root()
CALL = re.compile(r"make [a-z-]+( [A-Z]+=(\"?\$[A-Z_]+\"?|[a-z]+|\$\{\{ inputs\.[a-z]+ \}\}))*")
"""A make target with variables: words, or variables of the provider."""
NAMES = [stage.split()[1] for stage in STAGES]


def gitlab() -> list[str]:
    given = yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text())
    jobs = [job for name, job in given.items() if isinstance(job, dict) and "script" in job]
    return [line for job in sorted(jobs, key=lambda job: given["stages"].index(job["stage"])) for line in job["script"]]


def github() -> list[str]:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    order = [name for name, job in jobs.items() if "needs" not in job]
    while len(order) < len(jobs):
        order += [name for name, job in jobs.items() if job.get("needs") == order[-1]]
    return [step["run"] for name in order for step in jobs[name]["steps"] if "run" in step]


def jenkins() -> list[str]:
    return re.findall(r"\bsh '([^']*)'", (ROOT / "Jenkinsfile").read_text())


def travis() -> list[str]:
    given = yaml.safe_load((ROOT / ".travis.yml").read_text())
    order = [stage["name"] for stage in given["stages"]]
    jobs = sorted(given["jobs"]["include"], key=lambda job: order.index(job["stage"]))
    return [line for job in jobs for line in job["script"]]


PROVIDERS: dict[str, Callable[[], list[str]]] = {
    "gitlab": gitlab, "github": github, "jenkins": jenkins, "travis": travis
}  # fmt: skip


@pytest.mark.parametrize("provider", PROVIDERS)
def test_all_providers_have_the_same_stages_in_the_same_order(provider):
    calls = [line for line in PROVIDERS[provider]() if not line.startswith(("make tell-failure", "make newest"))]
    assert calls == list(STAGES)


def commands() -> list[str]:
    """Every command in any file of a provider."""
    found = [*gitlab(), *jenkins(), *travis()]
    found += yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text())["default"]["after_script"]
    found += yaml.safe_load((ROOT / ".travis.yml").read_text())["after_failure"]
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        jobs = yaml.safe_load(path.read_text())["jobs"].values()
        found += [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    return found


def test_every_command_is_one_make_target_that_there_is():
    found = commands()
    assert len(found) > 4 * len(STAGES)
    assert [line for line in found if not CALL.fullmatch(line)] == []
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    # `image` comes with deploy/images, which a fork may leave out.
    assert {line.split()[1] for line in found} - targets <= {"image"}


@pytest.mark.parametrize(
    "line", ["make lint || true", "pip install x", "make gate && make image", "make gate\nmake image", "if make gate"]
)
def test_anything_else_would_be_found(line):
    assert not CALL.fullmatch(line)


def test_the_jenkinsfile_decides_nothing():
    lines = (ROOT / "Jenkinsfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("//"))
    assert re.findall(r"\b(script|def|if|else|for|while|try|catch|sh\s*\()", text) == []
    assert len(re.findall(r"\bsh\b", text)) == len(jenkins()), "each sh is one literal"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_each_stage_tells_people_when_it_fails(provider):
    path = {"gitlab": ".gitlab-ci.yml", "github": ".github/workflows/ci.yml", "jenkins": "Jenkinsfile",
            "travis": ".travis.yml"}[provider]  # fmt: skip
    text = (ROOT / path).read_text()
    if provider in ("gitlab", "travis"):
        assert text.count("make tell-failure STAGE=") == 1, "once for all"
    else:
        told = set(re.findall(r"make tell-failure STAGE=([a-z]+)", text))
        assert told - {"newest"} == set(NAMES)


def test_production_needs_a_person_and_a_protected_branch_or_a_tag():
    job = yaml.safe_load((ROOT / ".gitlab-ci.yml").read_text())["promote"]
    assert [rule.get("when") for rule in job["rules"]] == ["never", "manual"]
    assert job["rules"][1]["if"] == '$CI_COMMIT_REF_PROTECTED == "true"'
    assert job["rules"][1]["allow_failure"] is False
    job = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]["promote"]
    assert job["environment"] == "production", "its reviewers are a setting of the environment"
    assert "github.ref_protected" in job["if"]
    stage = re.search(r"stage\('promote'\).*", (ROOT / "Jenkinsfile").read_text(), re.DOTALL)[0]
    assert "input { message" in stage
    assert "branch 'main'" in stage
    stages = yaml.safe_load((ROOT / ".travis.yml").read_text())["stages"]
    assert next(one for one in stages if one["name"] == "promote")["if"] == "(tag IS present)"


def test_secrets_come_from_the_store_of_the_provider():
    for path in (
        ROOT / ".gitlab-ci.yml",
        ROOT / "Jenkinsfile",
        ROOT / ".travis.yml",
        *ROOT.glob(".github/workflows/*"),
    ):
        for line in path.read_text().splitlines():
            if re.search(r"ASSETLINE_(DATABASE_URL|MLFLOW_STORE|DAGSTER_STORE|TOKEN)", line):
                assert re.search(r"\$\{\{ secrets\.|credentials\('|=\$PRODUCTION_", line), (path, line)


# -- runs with stand-ins for the stages ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    return Project(tmp_path_factory.mktemp("scripted"), "scripted")


RUNNERS = {"github": run_workflow, "travis": run_travis}
FAILURES = {
    "nothing": ("", ""),
    "a failing test": ("*pytest*'not slow'*", "unit"),
    "a gate that refuses": ("*'pipeline gate'*", "gate"),
    "a failing smoke test": ("*'pipeline smoke'*", "smoke"),
}
"""By what fails: the calls that fail, and the stage where the pipeline stops."""


@pytest.mark.parametrize("fault", FAILURES)
@pytest.mark.parametrize("provider", RUNNERS)
def test_a_failure_stops_the_pipeline_at_its_stage(project, tmp_path, provider, fault):
    """The steps of the file are run by the runner of ``steps.py``, not by the provider."""
    pattern, stage = FAILURES[fault]
    project.fails(*filter(None, [pattern]))
    project.calls()
    outcome = RUNNERS[provider](project.folder, tmp_path, project.variables)
    told = [line for line in project.calls() if "tell-failure" in line]
    until = NAMES.index(stage) if stage else len(NAMES)
    assert outcome.passed == NAMES[:until], outcome.output
    assert outcome.failed == NAMES[until : until + 1]
    assert set(NAMES[until + 1 :]) <= set(outcome.skipped)
    assert [line.split("--stage ")[1].strip().lower() for line in told] == ([stage] if stage else [])


@pytest.mark.parametrize("provider", RUNNERS)
def test_a_request_goes_no_further_than_the_image(project, tmp_path, provider):
    project.fails()
    outcome = RUNNERS[provider](project.folder, tmp_path, project.variables, "request")
    assert outcome.passed == NAMES[: NAMES.index("deploy")], outcome.output
    assert not outcome.failed

"""The commit and the branch, from git and from CI providers."""

import subprocess

import pytest

from resources.git import branch_of, branch_of_build, git_tags


@pytest.fixture
def repository(tmp_path):
    """A repository with one commit on the branch `work`, and a function that runs git in it."""
    folder = tmp_path / "repository"
    folder.mkdir()

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", *identity, "-C", str(folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q", "-b", "work")
    (folder / "a").write_text("1")
    git("add", "a")
    git("commit", "-q", "-m", "first")
    return folder, git


def test_the_commit_and_the_branch_are_recorded_and_whether_files_differ(repository):
    folder, git = repository
    commit = git("rev-parse", "HEAD")
    assert git_tags(folder, {}) == {
        "git_commit": commit, "git_dirty": "false", "git_branch": "work", "mlflow.source.git.commit": commit,
    }  # fmt: skip
    (folder / "a").write_text("2")
    assert git_tags(folder, {})["git_dirty"] == "true"


def test_a_detached_head_has_the_branch_of_the_build_or_none(repository):
    folder, git = repository
    build = {"CI_COMMIT_BRANCH": "main"}
    assert branch_of(folder, build) == "work", "the branch that is checked out counts more"
    git("checkout", "-q", "--detach")
    assert branch_of(folder, build) == "main"
    assert branch_of(folder, {}) == ""


def test_an_unknown_commit_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert "unknown (fatal: not a git repository" in git_tags(tmp_path, {})["git_commit"]
    monkeypatch.setenv("PATH", "")
    assert git_tags(tmp_path, {}) == {"git_commit": "unknown (git is not installed)"}


def test_without_a_repository_the_variables_of_an_image_count(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    env = {"GIT_COMMIT": "0123abc", "GIT_BRANCH": "main", "GIT_DIRTY": "false"}
    assert git_tags(tmp_path, env) == {"git_commit": "0123abc", "git_dirty": "false", "git_branch": "main"}
    assert git_tags(tmp_path, {"GIT_COMMIT": "0123abc"}) == {"git_commit": "0123abc"}


def test_in_a_repository_the_variables_of_an_image_do_not_count(repository):
    folder, git = repository
    assert git_tags(folder, {"GIT_COMMIT": "0123abc"})["git_commit"] == git("rev-parse", "HEAD")


@pytest.mark.parametrize(
    ("env", "branch"),
    [
        ({"GITHUB_REF_TYPE": "branch", "GITHUB_REF_NAME": "main"}, "main"),
        ({"GITHUB_REF_TYPE": "tag", "GITHUB_REF_NAME": "main"}, ""),
        ({"GITHUB_HEAD_REF": "main", "GITHUB_REF_TYPE": "branch", "GITHUB_REF_NAME": "7/merge"}, "pull-request/main"),
        ({"GITHUB_HEAD_REF": "", "GITHUB_REF_TYPE": "branch", "GITHUB_REF_NAME": "main"}, "main"),
        ({"CI_COMMIT_BRANCH": "main"}, "main"),
        ({"CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": "main"}, "pull-request/main"),
        ({"CI_COMMIT_TAG": "v1", "CI_COMMIT_REF_NAME": "v1"}, ""),
        ({"BRANCH_NAME": "main"}, "main"),
        ({"BRANCH_NAME": "PR-7", "CHANGE_BRANCH": "mine"}, "pull-request/mine"),
        ({"BRANCH_NAME": "v1", "TAG_NAME": "v1"}, ""),
        ({"TRAVIS_BRANCH": "main", "TRAVIS_PULL_REQUEST_BRANCH": ""}, "main"),
        ({"TRAVIS_BRANCH": "main", "TRAVIS_PULL_REQUEST_BRANCH": "mine"}, "pull-request/mine"),
        ({"TRAVIS_BRANCH": "v1", "TRAVIS_TAG": "v1"}, ""),
        ({}, ""),
    ],
)
def test_the_branch_of_a_build_is_that_of_its_provider(env, branch):
    assert branch_of_build(env) == branch


def test_the_runs_of_jobs_and_of_automation_carry_the_branch():
    from assets.lifecycle.jobs import model_jobs
    from resources.git import BRANCH_OF_RUN
    from resources.settings import project_root
    from sensors.automation import automation_sensor
    from tests.declarations.readings import plain

    branch = branch_of(project_root())
    wanted = {BRANCH_OF_RUN: branch} if branch else {}
    for job in model_jobs(plain()):
        assert {name: value for name, value in (job.tags or {}).items() if name == BRANCH_OF_RUN} == wanted
    # Runs of automation conditions are of no job of a model.
    assert automation_sensor(plain()).run_tags == wanted

"""The commit and the branch of this project's code, as runs and versions carry them.

Belongs here: reading git and the variables of CI providers. Does not belong here: what a branch may do
(``release_policy.py``), changing a repository (``scaffold/update.py``, ``metadata/reproduction.py``).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

COMMIT, DIRTY, BRANCH = "git_commit", "git_dirty", "git_branch"
"""Tags of MLflow runs and versions: the commit or why it is unknown, ``true`` or ``false``, the branch."""

BRANCH_OF_RUN = "assetline/branch"
"""Tag of Dagster runs with the branch."""

PULL_REQUEST = "pull-request/"
"""Begins the branch of a build of a pull request. Such a build never counts as one of the branch with the same name,
because a fork may call its branch as it likes."""

UNKNOWN = "unknown ("
"""Begins a commit that is unknown; the reason follows."""


def git_tags(root: Path, env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Tags with the commit at ``root``, whether files differ from it, and the branch; or why it is unknown.

    Without a repository (e.g. in an image) the variables ``GIT_COMMIT``, ``GIT_BRANCH`` and ``GIT_DIRTY`` count.

    Args:
        root: folder of the project.
        env: environment variables; default: those of this process.
    """
    env = os.environ if env is None else env
    try:
        head = run_git(root, "rev-parse", "HEAD")
        if head.returncode == 0:
            changed = run_git(root, "status", "--porcelain").stdout.strip()
            found = {COMMIT: head.stdout.strip(), DIRTY: str(bool(changed)).lower(), BRANCH: branch_of(root, env)}
            return {**found, "mlflow.source.git.commit": found[COMMIT]}
        reason = next(iter(head.stderr.splitlines()), f"git exited with status {head.returncode}")
    except FileNotFoundError:
        reason = "git is not installed"
    except subprocess.TimeoutExpired:
        reason = "git did not answer"
    if commit := env.get("GIT_COMMIT"):
        given = {COMMIT: commit, DIRTY: env.get("GIT_DIRTY", ""), BRANCH: env.get("GIT_BRANCH", "")}
        return {name: value for name, value in given.items() if value}
    return {COMMIT: f"{UNKNOWN}{reason})"}


def branch_of(root: Path, env: Mapping[str, str] | None = None) -> str:
    """The branch that is checked out at ``root``; for a detached HEAD the one that a CI provider names, else empty."""
    env = os.environ if env is None else env
    try:
        head = run_git(root, "symbolic-ref", "--short", "--quiet", "HEAD")
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return env.get("GIT_BRANCH", "")
    if head.returncode == 0:
        return head.stdout.strip()
    return branch_of_build(env)


def branch_of_build(env: Mapping[str, str]) -> str:
    """The branch of a build by GitHub Actions, GitLab, Jenkins or Travis; empty if none of them names one.

    A build of a pull request is ``pull-request/<source branch>``, and a build of a tag has no branch.
    """
    requests = (
        env.get("GITHUB_HEAD_REF"),
        env.get("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME"),
        env.get("CHANGE_BRANCH"),  # Jenkins; its BRANCH_NAME is PR-12 then
        env.get("TRAVIS_PULL_REQUEST_BRANCH"),  # TRAVIS_BRANCH is the target then
    )
    for source in requests:
        if source:
            return f"{PULL_REQUEST}{source}"
    if env.get("GITHUB_REF_TYPE") == "branch" and env.get("GITHUB_REF_NAME"):
        return env["GITHUB_REF_NAME"]
    if env.get("CI_COMMIT_BRANCH"):  # not set for tags
        return env["CI_COMMIT_BRANCH"]
    if env.get("BRANCH_NAME") and not env.get("TAG_NAME"):
        return env["BRANCH_NAME"]
    if env.get("TRAVIS_BRANCH") and not env.get("TRAVIS_TAG"):
        return env["TRAVIS_BRANCH"]
    return ""


def run_git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A finished git command at ``root``, whether it succeeded or failed.

    Raises :class:`FileNotFoundError` without git, and :class:`subprocess.TimeoutExpired` after ten seconds.
    """
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)

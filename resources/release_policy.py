"""Which versions may be promoted: in prod, those that were trained from a clean commit of the protected branch.

Belongs here: the rule and its sentences. Does not belong here: verdicts and approvals (``assets/lifecycle/release``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import dagster as dg
from pydantic import Field

from resources.git import BRANCH, COMMIT, DIRTY, UNKNOWN
from resources.settings import Settings


class ReleasePolicy(dg.ConfigurableResource):
    """The rule of the environment for promotions."""

    protected_branch: str = Field(
        default="",
        description="Only versions of this branch, trained from a clean commit, may be promoted. Empty: all may.",
    )

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The rule of the environment of ``settings``: only prod has one."""
        return cls(protected_branch=settings.protected_branch if settings.env == "prod" else "")

    def against(self, version: str, tags: Mapping[str, str]) -> list[str]:
        """Returns why a version may not be promoted, a sentence each; empty if it may.

        Args:
            version: number of the version.
            tags: its tags, or those of its run: ``git_commit``, ``git_dirty`` and ``git_branch``.
        """
        if not self.protected_branch:
            return []
        found = []
        branch, commit = tags.get(BRANCH, ""), tags.get(COMMIT, f"{UNKNOWN}it was not recorded)")
        if branch != self.protected_branch:
            found.append(
                f"branch: version {version} was trained on {f'the branch {branch}' if branch else 'no known branch'}, "
                f"and only versions of {self.protected_branch} go to production; merge it and train there"
            )
        if commit.startswith(UNKNOWN) or tags.get(DIRTY) not in ("true", "false"):
            found.append(f"commit: the code of version {version} is {commit}; train it in a git repository")
        elif tags[DIRTY] == "true":
            found.append(
                f"commit: version {version} was trained with changes that are not in commit {commit[:10]}; commit them "
                "and train again"
            )
        return found

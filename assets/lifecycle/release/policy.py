"""The rule of the environment on a version: what its branch and commit say against its promotion.

Belongs here: finding the facts of a version. Does not belong here: the rule (``resources/release_policy.py``).
"""

from __future__ import annotations

from typing import Any

from assets.declaration import Model


def policy_against(resources: Any, model: Model, version: str) -> list[str]:
    """Returns why the environment does not let a version be promoted, a sentence each; empty if it may be.

    Args:
        resources: with ``mlflow`` and ``release_policy``.
        model: the declaration.
        version: number of the version.
    """
    mlflow, policy = resources.mlflow, resources.release_policy
    if not policy.protected_branch:
        return []
    # Versions that were registered before they carried these tags have them on their run.
    tags, _ = mlflow.run_facts(mlflow.run_of_version(model.name, version))
    against: list[str] = policy.against(version, {**tags, **mlflow.version_tags(model.name, version)})
    return against

"""Verdicts on a model version, stored as its tags in MLflow and read by promotion.

Belongs here: writing and reading verdicts. Does not belong here: deciding them (``gate.py``, ``release``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from assets.declaration import Model
from resources.mlflow import MlflowTracking

VERDICTS = ("gate", "staging")
"""Verdicts that a version needs before promotion, stored as its MLflow tags ``verdict.<name>``."""


def record_verdict(
    mlflow: MlflowTracking, model: Model, version: str, name: str, passed: bool, reasons: list[str]
) -> None:
    """Writes a verdict on a version, with its reasons, to the MLflow tag that promotion reads."""
    mlflow.set_version_tag(model.name, version, f"verdict.{name}", json.dumps({"passed": passed, "reasons": reasons}))


def verdicts_on(mlflow: MlflowTracking, model: Model, version: str) -> dict[str, dict[str, Any]]:
    """Returns the verdicts on a version by name; a missing verdict is ``{"passed": False}`` with that reason."""
    tags = mlflow.version_tags(model.name, version)
    never = {"passed": False, "reasons": ["no verdict yet"]}
    return {name: json.loads(tags[f"verdict.{name}"]) if f"verdict.{name}" in tags else never for name in VERDICTS}


def failures(verdicts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns a sentence for each verdict that speaks against a version."""
    return [f"{name}: {'; '.join(v['reasons'])}" for name, v in verdicts.items() if not v["passed"]]

"""What was said of a version, kept as tags of it in MLflow: promotion looks them up.

Belongs here: writing and reading verdicts. Does not belong here: how they are reached (``gate.py``, ``release``).
"""

from __future__ import annotations

import json
from typing import Any

from assets.declaration import Model

VERDICTS = ("gate", "staging")
"""What must have been said of a version, as tags ``verdict.<name>`` of it in MLflow, before it may be promoted."""


def say_verdict(mlflow: Any, model: Model, version: str, name: str, passed: bool, reasons: list[str]) -> None:
    """Writes a verdict on a version where promotion will look it up."""
    mlflow.set_version_tag(model.name, version, f"verdict.{name}", json.dumps({"passed": passed, "reasons": reasons}))


def verdicts_on(mlflow: Any, model: Model, version: str) -> dict[str, dict[str, Any]]:
    """By name, the verdicts on a version; one that was never given is ``{"passed": False}`` with that reason."""
    tags = mlflow.version_tags(model.name, version)
    never = {"passed": False, "reasons": ["was never given"]}
    return {name: json.loads(tags[f"verdict.{name}"]) if f"verdict.{name}" in tags else never for name in VERDICTS}

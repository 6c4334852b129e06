"""Sixth stage: the candidate in a real throw-away process, then promotion, which enforces what the checks explain.

Belongs here: staging, the refusal of a version whose verdicts are not there, the ledger's entry. Does not belong here:
the rules of the gate (``gate.py``), how a process is started (``resources/deployment.py``).
"""

from __future__ import annotations

import json
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.bundle import loaded
from assets.lifecycle.stage import Check, Made, Reads, eager, table_asset
from assets.lifecycle.training import matrix, test_rows
from resources.dagster_internals import Finding

SMOKE = Check(
    name="smoke", description="The service starts with the candidate, is healthy and answers for its version."
)
PARITY = Check(
    name="parity", description="Scores over HTTP equal the offline ones within 1e-5 (of their spread, if measured)."
)

PARITY_ROWS = 500
PARITY_TOLERANCE = 1e-5

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


def deployment_assets(model: Model) -> list[dg.AssetsDefinition]:
    """``staged`` and ``deployment``."""
    return [_staged(model), _deployment(model)]


def _staged(model: Model) -> dg.AssetsDefinition:
    def staged(context: dg.AssetExecutionContext, trained_model: pd.DataFrame, training_set: pd.DataFrame) -> Made:
        import httpx

        version = str(trained_model["version"].iloc[0])
        directory = context.resources.mlflow.download(model.name, version)
        rows = np.flatnonzero(test_rows(training_set, model))[:PARITY_ROWS]
        X = matrix(training_set.iloc[rows], model)
        offline = loaded(directory).predict(X)
        with (
            context.resources.target.stage(directory) as url,
            httpx.Client(base_url=url, timeout=30, trust_env=False) as service,
        ):
            health = service.get("/health").json()
            answer = service.post(f"/models/{model.name}/score", json={"features": _json_rows(X)})
            answer.raise_for_status()
            online = np.asarray(answer.json()["scores"])
        # A measured value's difference counts against how far the values lie apart; probabilities as they are.
        spread = max(float(np.std(offline)), 1e-12) if model.task.kind == "regression" else 1.0
        apart = float(np.abs(online - offline).max()) / spread
        equal = bool(apart <= PARITY_TOLERANCE)
        reasons = [f"{len(rows)} rows over HTTP differ from offline by at most {apart:.1e}"]
        say_verdict(context.resources.mlflow, model, version, "staging", equal, reasons)
        findings = [
            Finding(check=SMOKE.name, passed=True, description=f"healthy: {health['status']}"),
            Finding(
                check=PARITY.name,
                passed=equal,
                description=reasons[0]
                if equal
                else f"{reasons[0]}, more than {PARITY_TOLERANCE}; the exported network "
                "is not the trained one: do not promote it",
                metadata={"largest_difference": apart, "rows": len(rows)},
            ),
        ]
        return Made(pd.DataFrame({"version": [version], "largest_difference": [apart]}), findings, {"version": version})

    return table_asset(
        model,
        "staged",
        staged,
        description="The candidate in a process of its own, answering over HTTP as it does offline.",
        stage="release",
        kinds={"fastapi"},
        reads={
            "trained_model": Reads(model.key("trained_model")),
            "training_set": Reads(model.key("training_set")),
        },
        deps=[model.key("evaluation")],
        checks=[SMOKE, PARITY],
        automation=eager(None),
        resources={"mlflow", "target"},
        by_day=False,
    )


def _deployment(model: Model) -> dg.AssetsDefinition:
    def deployment(context: dg.AssetExecutionContext, trained_model: pd.DataFrame) -> Made:
        mlflow, ledger = context.resources.mlflow, context.resources.ledger
        version = str(trained_model["version"].iloc[0])
        verdicts = verdicts_on(mlflow, model, version)
        against = [f"{name}: {'; '.join(v['reasons'])}" for name, v in verdicts.items() if not v["passed"]]
        who = context.run.tags.get("user", "dagster")
        said = {"verdicts": verdicts, "dagster_run": context.run.run_id, "who": who}
        if against:
            ledger.refuse(model.name, version, reason=" | ".join(against), **said)
            raise dg.Failure(
                description=f"version {version} of {model.name} is not promoted: {' | '.join(against)}. Materialise "
                "evaluation and staged for it; if the gate refuses it, train a better one",
                allow_retries=False,
            )
        before = ledger.champion(model.name)
        reason = "; ".join(verdicts["gate"]["reasons"])
        entry = ledger.promote(model.name, version, reason=reason, **said)
        context.resources.target.promote(model.name, version)
        frame = pd.DataFrame({"version": [version], "previous": [entry.previous or ""], "ledger_entry": [entry.id]})
        return Made(frame, [], {"version": version, "before": before.version if before else "none", "reason": reason})

    return table_asset(
        model,
        "deployment",
        deployment,
        description="The promotion: looks up the verdicts on this very version, writes the ledger, moves the alias "
        "`champion`. Materialising it alone past a failed gate is refused.",
        stage="release",
        kinds={"mlflow"},
        reads={"trained_model": Reads(model.key("trained_model"))},
        deps=[model.key("staged"), model.key("evaluation")],
        automation=eager(None),
        resources={"mlflow", "ledger", "target"},
        by_day=False,
    )


def _json_rows(X: np.ndarray) -> list[list[float | None]]:
    """Rows as JSON has them: a missing feature is ``null``."""
    return [[None if np.isnan(value) else float(value) for value in row] for row in X]

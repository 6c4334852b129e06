"""Sixth stage: tests the candidate in a temporary process, then promotes it; promotion enforces the checks' verdicts.

Belongs here: staging, the refusal of a version with missing or failed verdicts, the ledger entry. Does not belong here:
the rules of the gate (``gate.py``), starting a process (``resources/deployment.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.model.bundle import loaded
from assets.lifecycle.model.training import matrix, test_rows
from assets.lifecycle.model.verdicts import say_verdict, verdicts_on
from assets.lifecycle.stage import Check, Made, Reads, eager, table_asset
from resources.dagster_internals import Finding
from resources.deployment import STAGED, DeploymentError, DeploymentTarget

SMOKE = Check(
    name="smoke",
    description="The service starts with the candidate, is healthy and answers for it, with finite scores in range.",
)
PARITY = Check(
    name="parity", description="Scores over HTTP equal the offline ones within 1e-5 (of their spread, if measured)."
)

PARITY_ROWS = 500
PARITY_TOLERANCE = 1e-5
ANSWER_TIMEOUT_S = 30.0


def deployment_assets(model: Model) -> list[dg.AssetsDefinition]:
    """The assets ``staged`` and ``deployment`` of a model."""
    return [_staged(model), _deployment(model)]


@dataclass(frozen=True)
class Answer:
    """The response of a staged candidate: scores ``[n]`` or ``[n, classes]``, or the fault if there are none."""

    scores: np.ndarray | None
    fault: str = ""


def ask(target: DeploymentTarget, directory: Path, model: Model, version: str, X: np.ndarray) -> Answer:
    """Stages a bundle and requests scores of ``X``, float32 ``[n, n_features]``; a fault is returned, not raised."""
    import httpx

    try:
        with (
            target.stage(directory) as url,
            httpx.Client(base_url=url, timeout=ANSWER_TIMEOUT_S, trust_env=False) as service,
        ):
            health = service.get("/health").raise_for_status().json()
            answer = service.post(f"/models/{model.name}/score", json={"features": _json_rows(X)})
            answer = answer.raise_for_status().json()
    except DeploymentError as error:
        return Answer(None, _in_one_line(str(error)))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return Answer(None, f"the service does not answer as it should: {_in_one_line(str(error) or repr(error))}")
    return read_answer(model, version, len(X), health, answer)


def read_answer(model: Model, version: str, rows: int, health: Any, answer: Any) -> Answer:
    """Validates the response of the service.

    Args:
        model: model of the candidate.
        version: version of the candidate.
        rows: number of rows in the request.
        health: JSON of ``/health``.
        answer: JSON of the scores.

    Returns:
        The scores, or the fault if the response is invalid.
    """
    try:
        endpoint = health["models"][model.name]
        status, serves = endpoint["status"], {str(endpoint["version"]), str(answer["version"])}
        scores = np.asarray(answer["scores"], dtype=float)
    except (KeyError, TypeError, ValueError) as error:
        return Answer(None, f"the answer of the service cannot be read ({error!r})")
    if status != "ok":
        return Answer(None, f"the service is {status}: {endpoint.get('problem')}")
    if others := serves - {version, STAGED}:
        return Answer(None, f"the service answers for version {', '.join(sorted(others))}, not {version}")
    fault = next(_faults_of_scores(model, rows, scores), "")
    return Answer(None if fault else scores, fault)


def _faults_of_scores(model: Model, rows: int, scores: np.ndarray) -> Iterator[str]:
    kind = model.task.kind
    shape = (rows, len(model.task.classes)) if kind == "multiclass" else (rows,)
    if scores.shape != shape:
        yield f"scores of the shape {scores.shape} came for {rows} rows, {shape} is right"
    elif wrong := int((~np.isfinite(scores)).sum()):
        yield f"{wrong} of {scores.size} scores are no finite numbers"
    elif kind != "regression" and (wrong := int(((scores < 0) | (scores > 1)).sum())):
        yield f"{wrong} of {scores.size} scores are no probabilities"


def largest_difference(model: Model, offline: np.ndarray, online: np.ndarray) -> float:
    """The largest absolute difference of two sets of scores, of the same shape ``[n]`` or ``[n, classes]``.

    For regression, it is a share of the standard deviation of ``offline``.
    """
    spread = max(float(np.std(offline)), 1e-12) if model.task.kind == "regression" else 1.0
    return float(np.abs(online - offline).max()) / spread


def _staged(model: Model) -> dg.AssetsDefinition:
    def staged(context: dg.AssetExecutionContext, trained_model: pd.DataFrame, training_set: pd.DataFrame) -> Made:
        mlflow, target = context.resources.mlflow, context.resources.target
        version = str(trained_model["version"].iloc[0])
        directory = mlflow.download(model.name, version)
        X = matrix(training_set[test_rows(training_set, model)].head(PARITY_ROWS), model)
        answer = ask(target, directory, model, version, X)
        said = answer.fault or f"healthy, and it scored {len(X)} rows"
        findings = [Finding(check=SMOKE.name, passed=answer.scores is not None, description=said)]
        if answer.scores is None:
            say_verdict(mlflow, model, version, "staging", False, [said])
            return Made(pd.DataFrame(), findings)
        apart = largest_difference(model, loaded(directory).predict(X), answer.scores)
        equal = bool(apart <= PARITY_TOLERANCE)  # NaN is not equal
        said = f"{len(X)} rows over HTTP differ from offline by at most {apart:.1e}"
        say_verdict(mlflow, model, version, "staging", equal, [said])
        if not equal:
            said += f", more than {PARITY_TOLERANCE}; the exported network is not the trained one: do not promote it"
        shown = {"largest_difference": apart, "rows": len(X)}
        findings.append(Finding(check=PARITY.name, passed=equal, description=said, metadata=shown))
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
    """Rows for JSON; a missing feature is ``null``."""
    return [[None if np.isnan(value) else float(value) for value in row] for row in X]


def _in_one_line(words: str) -> str:
    """The first and last line of a message: the failure, and the last output of the process."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return lines[0] if len(lines) < 2 else f"{lines[0]} {lines[-1]}"

"""The asset ``staged``: the candidate in a temporary process, compared with its offline scores.

Belongs here: requests to the staged candidate, and the checks ``smoke`` and ``parity``. Does not belong here: starting
the service (``resources/targets``), promotion (``deployment.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import dagster as dg
import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.model.training_set import matrix, test_rows
from assets.lifecycle.model.version.bundle import loaded
from assets.lifecycle.model.version.verdicts import record_verdict
from assets.lifecycle.prediction_format import format_of
from assets.lifecycle.release.promotion import targets_of
from assets.lifecycle.stage import Check, StageOutput, TableInput, eager, table_asset
from assets.task import Task
from resources.dagster_internals import CheckResult
from resources.targets.base import STAGED, DeploymentError, DeploymentTarget, resource_key

SMOKE = Check(
    name="smoke",
    description="The service starts with the candidate, is healthy and returns finite scores in range for it.",
)


PARITY = Check(
    name="parity",
    description="Scores over HTTP equal the offline scores within 1e-5 (of their spread for a measured target).",
)


PARITY_ROWS = 500


PARITY_TOLERANCE = 1e-5


RESPONSE_TIMEOUT_S = 30.0


class Scored(Protocol):
    """What a response is checked with: a declaration or a bundle."""

    @property
    def name(self) -> str:
        """Name of the model."""

    @property
    def task(self) -> Task:
        """Kind of target."""


@dataclass(frozen=True)
class StagedResponse:
    """The response of a staged candidate: scores ``[n]`` or ``[n, classes]``, or the fault if there are none."""

    scores: np.ndarray | None
    fault: str = ""


def request_scores(
    target: DeploymentTarget, directory: Path, model: Scored, version: str, X: np.ndarray
) -> StagedResponse:
    """Stages a bundle and requests scores of ``X``, float32 ``[n, n_features]``; a fault is returned, not raised."""
    import httpx

    try:
        with (
            target.stage(directory) as service_of,
            httpx.Client(
                base_url=service_of.url, headers=service_of.headers, timeout=RESPONSE_TIMEOUT_S, trust_env=False
            ) as service,
        ):
            health = target.smoke_test(service_of, model.name)
            response = service.post(f"/models/{model.name}/score", json={"features": _json_rows(X)})
            response = response.raise_for_status().json()
    except DeploymentError as error:
        return StagedResponse(None, _in_one_line(str(error)))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        return StagedResponse(
            None, f"the service does not answer as it should: {_in_one_line(str(error) or repr(error))}"
        )
    return parse_response(model, version, len(X), health, response)


def request_scores_of_all(
    targets: Mapping[str, DeploymentTarget], directory: Path, model: Scored, version: str, X: np.ndarray
) -> StagedResponse:
    """Stages a bundle on each target and requests scores of ``X`` there.

    Returns the first fault, with the name of its target if there are several. Otherwise returns the scores that are
    furthest from the offline ones.
    """
    offline: np.ndarray | None = None
    furthest, largest = StagedResponse(None, "no target is declared"), -1.0
    for name, target in targets.items():
        response = request_scores(target, directory, model, version, X)
        if response.scores is None:
            return StagedResponse(None, response.fault if len(targets) == 1 else f"{name}: {response.fault}")
        if len(targets) == 1:
            return response
        offline = loaded(directory).predict(X) if offline is None else offline
        difference = largest_difference(model, offline, response.scores)
        if difference > largest:
            furthest, largest = response, difference
    return furthest


def parse_response(model: Scored, version: str, rows: int, health: Any, response: Any) -> StagedResponse:
    """Validates the response of the service.

    Args:
        model: the declaration or the bundle of the candidate.
        version: version of the candidate.
        rows: number of rows in the request.
        health: JSON of ``/health``.
        response: JSON of the scores.

    Returns:
        The scores, or the fault if the response is invalid.
    """
    try:
        endpoint = health["models"][model.name]
        status, serves = endpoint["status"], {str(endpoint["version"]), str(response["version"])}
        scores = np.asarray(response["scores"], dtype=float)
    except (KeyError, TypeError, ValueError) as error:
        return StagedResponse(None, f"the response of the service cannot be read ({error!r})")
    if status != "ok":
        return StagedResponse(None, f"the service is {status}: {endpoint.get('problem')}")
    if others := serves - {version, STAGED}:
        return StagedResponse(None, f"the service serves version {', '.join(sorted(others))}, not {version}")
    fault = next(_faults_of_scores(model, rows, scores), "")
    return StagedResponse(None if fault else scores, fault)


def _faults_of_scores(model: Scored, rows: int, scores: np.ndarray) -> Iterator[str]:
    form = format_of(model.task)
    shape = form.shape(rows)
    if scores.shape != shape:
        yield f"the scores of {rows} rows have shape {scores.shape}, expected {shape}"
    elif wrong := int((~np.isfinite(scores)).sum()):
        yield f"{wrong} of {scores.size} scores are not finite"
    elif wrong := int((~form.valid(scores)).sum()):
        yield f"{wrong} of {scores.size} scores are not probabilities"


def largest_difference(model: Scored, offline: np.ndarray, online: np.ndarray) -> float:
    """The largest absolute difference of two sets of scores, of the same shape ``[n]`` or ``[n, classes]``.

    For regression, it is a share of the standard deviation of ``offline``.
    """
    spread = max(float(np.std(offline)), 1e-12) if model.task.kind == "regression" else 1.0
    return float(np.abs(online - offline).max()) / spread


def probe_rows(n_features: int) -> np.ndarray:
    """Returns rows to compare a service with a version's files, float32 ``[3, n_features]``; one lacks values."""
    return np.stack([np.zeros(n_features), np.ones(n_features), np.full(n_features, np.nan)]).astype(np.float32)


def staged_asset(model: Model) -> dg.AssetsDefinition:
    """Returns the asset ``staged``."""

    def staged(
        context: dg.AssetExecutionContext, trained_model: pd.DataFrame, training_set: pd.DataFrame
    ) -> StageOutput:
        mlflow = context.resources.mlflow
        version = str(trained_model["version"].iloc[0])
        directory = mlflow.download(model.name, version)
        X = (
            matrix(training_set[test_rows(training_set, model)].head(PARITY_ROWS), model)
            if model.ranking is None
            else probe_rows(len(loaded(directory).facts.feature_names))
        )
        targets = targets_of(context.resources, model)
        response = request_scores_of_all(targets, directory, model, version, X)
        message = response.fault or f"healthy, and it scored {len(X)} rows"
        check_results = [CheckResult(check=SMOKE.name, passed=response.scores is not None, description=message)]
        if response.scores is None:
            record_verdict(mlflow, model, version, "staging", False, [message])
            return StageOutput(pd.DataFrame(), check_results)
        difference = largest_difference(model, loaded(directory).predict(X), response.scores)
        equal = bool(difference <= PARITY_TOLERANCE)  # NaN is not equal
        message = f"the scores of {len(X)} rows over HTTP differ from the offline scores by at most {difference:.1e}"
        record_verdict(mlflow, model, version, "staging", equal, [message])
        if not equal:
            message += (
                f", more than {PARITY_TOLERANCE}; the exported network differs from the trained one, so do not "
                "promote it"
            )
        metadata = {"largest_difference": difference, "rows": len(X)}
        check_results.append(CheckResult(check=PARITY.name, passed=equal, description=message, metadata=metadata))
        return StageOutput(
            pd.DataFrame({"version": [version], "largest_difference": [difference]}),
            check_results,
            {"version": version},
        )

    return table_asset(
        model,
        "staged",
        staged,
        description="The candidate in a service of its own, on each declared target; its scores over HTTP equal its "
        "offline scores.",
        stage="release",
        kinds={"fastapi"},
        inputs={
            "trained_model": TableInput(model.key("trained_model")),
            "training_set": TableInput(model.key("training_set")),
        },
        deps=[model.key("evaluation")],
        checks=[SMOKE, PARITY],
        automation=eager(None),
        resources={"mlflow", *map(resource_key, model.targets)},
        by_day=False,
    )


def _json_rows(X: np.ndarray) -> list[list[float | None]]:
    """Rows for JSON; a missing feature is ``null``."""
    return [[None if np.isnan(value) else float(value) for value in row] for row in X]


def _in_one_line(message: str) -> str:
    """The first and last line of a message: the failure, and the last output of the process."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    return lines[0] if len(lines) < 2 else f"{lines[0]} {lines[-1]}"

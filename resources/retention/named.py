"""What the ledger names, so that no rule removes it."""

from __future__ import annotations

from dataclasses import dataclass

from resources.ledger import Ledger
from resources.mlflow import MlflowTracking, TrackingError


@dataclass(frozen=True)
class Named:
    """Versions by model and version, runs of Dagster, and runs of MLflow."""

    versions: frozenset[tuple[str, str]]
    dagster_runs: frozenset[str]
    mlflow_runs: frozenset[str]


def named(ledger: Ledger, mlflow: MlflowTracking) -> Named:
    """Reads the ledger. A run that trained a named version is named, too."""
    entries = ledger.history()
    versions = {(entry.model, entry.version) for entry in entries}
    dagster_runs, mlflow_runs = {entry.dagster_run for entry in entries}, set()
    for model, version in versions:
        try:
            mlflow_runs.add(mlflow.run_of_version(model, version))
        except TrackingError:
            continue  # MLflow lost it; `Ledger.reconcile` reports that of a champion
        dagster_runs.add(mlflow.version_tags(model, version).get("dagster_run_id", ""))
    return Named(frozenset(versions), frozenset(dagster_runs), frozenset(mlflow_runs))

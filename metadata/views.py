"""The views: one typed row for each kind of fact, with the meaning of each column.

Belongs here: names, types and meanings of columns, and the ids that join them. Does not belong here: reading the facts
(``facts.py``), SQL (``query.py``).

``model`` and ``version`` join all views about versions. ``dagster_run_id`` joins runs with versions, deployments,
checks and alerts, ``mlflow_run_id`` joins versions with parameters and metrics. Times are text in UTC, e.g.
``2026-11-27 01:25:49``, so they sort and compare as text. Truth values are 1 and 0.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

Model = Annotated[str, "name of the model"]
Version = Annotated[int, "number of the version in MLflow"]
MaybeVersion = Annotated[int | None, "number of the version; empty if the run registered none"]
DagsterRun = Annotated[str, "id of the Dagster run"]
MlflowRun = Annotated[str, "id of the MLflow run"]


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """The models that are declared, or that have a version or a ledger entry."""

    model: Model
    declared: Annotated[bool, "whether a model folder declares it today"]
    table_name: Annotated[str, "its input table; empty if it is not declared"]
    target: Annotated[str, "the target column; empty if it is not declared"]
    kind: Annotated[str, "kind of target: binary, multiclass or regression; empty if it is not declared"]
    owner: Annotated[str, "owner; empty if it is not declared"]
    versions: Annotated[int, "number of versions"]
    latest: Annotated[int | None, "number of the latest version"]
    production: Annotated[int | None, "number of the version in production"]
    production_since: Annotated[str | None, "time of its promotion"]
    open_alerts: Annotated[int, "number of alerts that are not resolved"]


@dataclass(frozen=True, kw_only=True)
class VersionRow:
    """One row per registered version."""

    model: Model
    version: Version
    status: Annotated[str, "production, retired (was in production), refused, or candidate (neither yet)"]
    created_at: Annotated[str, "time of registration"]
    data_version: Annotated[str, "hash of its training rows"]
    rows: Annotated[int | None, "number of training rows: fit, folds and test"]
    fit_rows: Annotated[int | None, "number of rows of the final fit; empty for a version without a record of its rows"]
    fit_positives: Annotated[int | None, "positives among them; binary targets only"]
    test_rows: Annotated[int | None, "number of test rows"]
    test_positives: Annotated[int | None, "positives among them; binary targets only"]
    fit_days: Annotated[str | None, "first and last day of the final fit; empty for a table without days"]
    test_days: Annotated[str | None, "first and last day of the test rows; empty for a table without days"]
    code: Annotated[str, "hash of the model folder's modules"]
    git_commit: Annotated[str, "commit of the project, or the reason why it is unknown"]
    git_dirty: Annotated[bool | None, "whether files differed from the commit; empty if unknown"]
    git_branch: Annotated[str, "branch of the project; empty if unknown"]
    lock: Annotated[str, "hash of packages, Python, processor and threads; empty for a version without this record"]
    gate: Annotated[bool | None, "verdict of the gate; empty without one"]
    staging: Annotated[bool | None, "verdict of staging; empty without one"]
    mlflow_run_id: MlflowRun
    dagster_run_id: Annotated[str, "id of the Dagster run that trained it"]


@dataclass(frozen=True, kw_only=True)
class RunRow:
    """One row per Dagster run, oldest first."""

    dagster_run_id: DagsterRun
    model: Annotated[str | None, "name of the model; empty for a run of several models or of none"]
    job: Annotated[str, "name of the job"]
    status: Annotated[str, "Dagster's status, e.g. SUCCESS or FAILURE"]
    reason: Annotated[str, "why it was started, if it was said"]
    git_branch: Annotated[str, "branch of the project; empty if unknown"]
    created_at: Annotated[str, "time at which it was requested"]
    started_at: Annotated[str | None, "time at which it started"]
    ended_at: Annotated[str | None, "time at which it ended"]
    seconds: Annotated[float | None, "duration in seconds"]
    version: MaybeVersion
    mlflow_run_id: Annotated[str | None, "id of the latest MLflow run that it opened; empty if it trained nothing"]


@dataclass(frozen=True, kw_only=True)
class ParamRow:
    """The recipe: one row per parameter of a training run, with the defaults filled in."""

    model: Model
    version: MaybeVersion
    mlflow_run_id: MlflowRun
    param: Annotated[str, "name of the parameter"]
    value: Annotated[str, "its value as text"]


@dataclass(frozen=True, kw_only=True)
class MetricRow:
    """One row per metric of a version: on its test rows by score and slice, and from its training."""

    model: Model
    version: MaybeVersion
    mlflow_run_id: MlflowRun
    measured_on: Annotated[str, "test (the report on the test rows) or training (the last value that it logged)"]
    score: Annotated[str, "whose score: torch (the candidate), champion, xgboost, linear or ceiling"]
    slice: Annotated[str, "name of the slice; empty for all rows"]
    metric: Annotated[str, "name of the metric"]
    value: Annotated[float, "its value"]
    low: Annotated[float | None, "lower end of the 95 % interval; empty without one"]
    high: Annotated[float | None, "upper end of the 95 % interval; empty without one"]
    rows: Annotated[int | None, "number of rows it was measured on; empty for training"]


@dataclass(frozen=True, kw_only=True)
class DataVersionRow:
    """One row per day of each table that a version's training rows come from."""

    model: Model
    version: Version
    table_name: Annotated[str, "table, e.g. fraud/labels"]
    day: Annotated[str, "ISO day, or all for a table without days"]
    data_version: Annotated[str, "hash of the day's rows at training time"]
    now: Annotated[str | None, "hash of the day's rows now; empty if the file is gone"]
    changed: Annotated[bool, "whether the two differ"]


@dataclass(frozen=True, kw_only=True)
class VerdictRow:
    """One row per rule of the gate, and one per reason of any other verdict."""

    model: Model
    version: Version
    verdict: Annotated[str, "gate or staging"]
    rule: Annotated[
        str,
        "rule of the gate: floor, baseline, champion, slices, calibration, latency or fairness; empty for other "
        "verdicts",
    ]
    passed: Annotated[bool, "whether it passed"]
    metric: Annotated[str | None, "metric or other figure of the rule"]
    value: Annotated[float | None, "the candidate's figure, or its gain over the other score or the champion's slice"]
    required: Annotated[float | None, "worst value that passes"]
    reason: Annotated[str, "the result as a sentence"]


@dataclass(frozen=True, kw_only=True)
class DeploymentRow:
    """One row per entry of the ledger, oldest first."""

    model: Model
    number: Annotated[int, "number of the entry, counted per model"]
    action: Annotated[
        str,
        "promote, refuse, request, approve, reject, deploy (what the targets answered), withdraw, "
        "shadow, canary or abort",
    ]
    version: Version
    previous: Annotated[int | None, "version in production before it"]
    reason: Annotated[str, "why"]
    who: Annotated[str, "by whom"]
    at: Annotated[str, "time of the entry"]
    until: Annotated[str | None, "end of its time in production; empty for other entries and for the current version"]
    dagster_run_id: Annotated[str, "id of the Dagster run; empty for a rollback by command"]


@dataclass(frozen=True, kw_only=True)
class CheckRow:
    """One row per result of an asset check, oldest first."""

    model: Model
    asset: Annotated[str, "name of the asset within the model, e.g. features"]
    check_name: Annotated[str, "name of the check"]
    day: Annotated[str | None, "ISO day of the data; empty for an asset without days"]
    passed: Annotated[bool, "whether it passed"]
    severity: Annotated[str, "WARN or ERROR, if it fails"]
    description: Annotated[str, "the result as a sentence"]
    at: Annotated[str, "time of the result"]
    dagster_run_id: DagsterRun


@dataclass(frozen=True, kw_only=True)
class AlertRow:
    """One row per alert, oldest first."""

    alert_id: Annotated[int, "number of the alert, as in `assetline alerts`"]
    model: Model
    cause: Annotated[str, "cause, e.g. drift/drift (asset/check)"]
    column_name: Annotated[str, "column that it concerns; empty if none"]
    severity: Annotated[str, "warn or page"]
    state: Annotated[str, "open, acknowledged or resolved"]
    owner: Annotated[str, "owner"]
    summary: Annotated[str, "what is wrong"]
    seen: Annotated[int, "number of times the cause was reported"]
    first_day: Annotated[str | None, "first day of data with the cause"]
    last_day: Annotated[str | None, "latest day of data with the cause"]
    opened_at: Annotated[str, "time of opening"]
    resolved_at: Annotated[str | None, "time of resolution"]
    resolution: Annotated[str | None, "why it was resolved"]
    dagster_run_id: Annotated[str | None, "id of the latest Dagster run that reported it; empty if none did"]


@dataclass(frozen=True, kw_only=True)
class PredictionRow:
    """One row per day and version that scored rows of it."""

    model: Model
    version: Version
    day: Annotated[str, "ISO day, or all for a table without days"]
    rows: Annotated[int, "number of rows that the version scored"]


VIEWS: Mapping[str, type[Any]] = {
    "models": ModelRow,
    "versions": VersionRow,
    "runs": RunRow,
    "params": ParamRow,
    "metrics": MetricRow,
    "data_versions": DataVersionRow,
    "verdicts": VerdictRow,
    "deployments": DeploymentRow,
    "checks": CheckRow,
    "alerts": AlertRow,
    "predictions": PredictionRow,
}
"""Type of the rows by name of the view."""

_SQL_TYPES: Mapping[type, str] = {str: "TEXT", int: "INTEGER", bool: "INTEGER", float: "REAL"}


@dataclass(frozen=True)
class Column:
    """A column of a view; ``type`` is SQLite's: TEXT, INTEGER or REAL."""

    name: str
    type: str
    meaning: str


def columns_of(view: str) -> list[Column]:
    """Returns the columns of a view, in their order."""
    row = VIEWS[view]
    hints = get_type_hints(row, include_extras=True)
    return [_column(field.name, *get_args(hints[field.name])) for field in fields(row)]


def meaning_of(view: str) -> str:
    """Returns what a row of a view is, as a sentence."""
    return str(VIEWS[view].__doc__)


def _column(name: str, value: Any, meaning: str) -> Column:
    plain = value if get_origin(value) not in (Union, types.UnionType) else get_args(value)[0]
    return Column(name, _SQL_TYPES[plain], meaning)

"""Reads the facts of the views where they are written: MLflow, the ledger, the alerts, Dagster, the tables' stamps.

Belongs here: one method per view, and the sentences about unknown names. Does not belong here: the columns
(``views.py``), SQL (``query.py``), text output (``cli/metadata.py``).
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import dagster as dg
import sqlalchemy as sa

from assets.declaration import Model
from assets.lifecycle.jobs import KINDS_OF_WORK
from assets.lifecycle.model.evaluation import REPORT_FILE
from assets.lifecycle.model.version.bundle import FACTS
from assets.lifecycle.model.version.training_rows import ROWS
from assets.lifecycle.model.version.verdicts import VERDICTS
from metadata.views import (
    VIEWS,
    AlertRow,
    CheckRow,
    DataVersionRow,
    DeploymentRow,
    MetricRow,
    ModelRow,
    ParamRow,
    PredictionRow,
    RunRow,
    VerdictRow,
    VersionRow,
)
from resources.access import Access
from resources.alerts import Alert, AlertStore
from resources.dagster_internals import Evaluation, check_evaluations
from resources.git import BRANCH, BRANCH_OF_RUN, PULL_REQUEST
from resources.ledger import Entry, Ledger
from resources.mlflow import MODEL_FOLDER, ArtifactLocked, MlflowTracking, ModelVersion, TrackedRun, TrackingError
from resources.runtime import LOCK, RUNTIME
from resources.settings import Settings
from resources.tables import ParquetTables, TableError

EVALUATIONS_AT_ONCE = 5_000
_RUN_LINK = "/runs/"


class MetadataError(Exception):
    """A question cannot be answered. The message is one sentence with the reason."""


class UnknownError(MetadataError):
    """A view, a model or a version does not exist. The message is one sentence with those that do."""


class Metadata:
    """The facts of one state folder, as rows of the views.

    Each object reads each store at most once, when it is first needed, so use a new object for each question. Nothing
    is written, and a store that does not exist yet is not created.

    Args:
        settings: settings with the state folder and the database.
        models: the declared models.
        instance: Dagster instance; ``None`` if there is none yet.
    """

    def __init__(self, settings: Settings, models: Sequence[Model], instance: dg.DagsterInstance | None) -> None:
        self.settings, self.declared = settings, {model.name: model for model in models}
        self.tables = ParquetTables(root=settings.tables)
        self.mlflow = MlflowTracking.from_settings(settings).process_config_and_initialize()
        self._instance = instance
        self._access: Access | None = None
        self._files: dict[tuple[str, str], dict[str, Any]] = {}

    # -- names -------------------------------------------------------------------------------------------------------

    @cached_property
    def model_names(self) -> list[str]:
        """Names of the declared models, and of those with a version or a ledger entry, sorted."""
        with_versions = {version.model for version in self._versions}
        return sorted({*self.declared, *with_versions, *(entry.model for entry in self._entries)})

    def known_model(self, name: str) -> str:
        """Returns the name. Raises :class:`UnknownError` if there is no such model."""
        if name not in self.model_names:
            raise UnknownError(f"there is no model '{name}'; the models are: {', '.join(self.model_names) or 'none'}")
        return name

    def only_model(self, name: str | None) -> str:
        """Returns the name, or that of the only model if none is given.

        Raises:
            UnknownError: there is no such model, or none is given and there is not exactly one.
        """
        if name is not None:
            return self.known_model(name)
        if not self.model_names:
            raise UnknownError("there is no model yet; `make new-model` writes one")
        if len(self.model_names) > 1:
            raise UnknownError(f"there are several models: {', '.join(self.model_names)}; choose one with --model")
        return self.model_names[0]

    def version(self, model: str, number: str) -> VersionRow:
        """One version of a model. Raises :class:`UnknownError` if there is no such model or version."""
        self.known_model(model)
        found = [row for row in self.versions() if row.model == model]
        for row in found:
            if str(row.version) == str(number):
                return row
        known = ", ".join(str(row.version) for row in found) or "none"
        raise UnknownError(f"{model} has no version '{number}'; its versions are: {known}")

    def version_or_latest(self, model: str, name: str) -> VersionRow:
        """A version by its number, or the latest version of a branch by its name.

        The name of a branch without versions also stands for the builds of its pull request.

        Raises:
            UnknownError: there is no such model, version or branch.
        """
        if name.isdigit():
            return self.version(model, name)
        self.known_model(model)
        found = [row for row in self.versions() if row.model == model]
        for branch in (name, f"{PULL_REQUEST}{name}"):
            if of_branch := [row for row in found if row.git_branch == branch]:
                return max(of_branch, key=lambda row: row.version)
        branches = ", ".join(sorted({row.git_branch for row in found if row.git_branch})) or "none"
        versions = ", ".join(str(row.version) for row in found) or "none"
        raise UnknownError(
            f"{model} has no version of a branch '{name}'; its branches are: {branches}; its versions are: {versions}"
        )

    def rows(self, view: str, model: str | None = None) -> list[Any]:
        """The rows of a view, of one model or of all. Raises :class:`UnknownError` for an unknown view or model."""
        if view not in VIEWS:
            raise UnknownError(f"there is no view '{view}'; the views are: {', '.join(VIEWS)}")
        if model is not None:
            self.known_model(model)
        found: list[Any] = getattr(self, view)()
        return [row for row in found if model in (None, row.model) and self._shows(row)]

    def of_person(self, access: Access | None) -> Self:
        """These facts without those about tables that are kept from a person; ``None``: all of them."""
        self._access = access
        return self

    def require_rows(self, table: str, columns: Iterable[str]) -> None:
        """Raises :class:`~resources.access.AccessDenied` if these columns of a table are kept from the person."""
        if self._access is not None:
            self._access.require_rows(table, columns)

    def hidden_among(self, table: str, columns: Iterable[str]) -> list[str]:
        """The columns of a table that are kept from the person."""
        return self._access.hidden_among(table, columns) if self._access is not None else []

    def tables_of(self, model: str) -> list[str]:
        """Names of a model's tables with files, and of those that it shares, without those kept from the person.

        Raises:
            TableError: the tables cannot be read.
        """
        declared = self.declared.get(model)
        shared = {"/".join(declared.key(asset).path) for asset in declared.table.assets} if declared else set()
        mine = [name for name in self.tables.names() if name.startswith(f"{model}/") or name in shared]
        return [name for name in mine if self._access is None or self._access.sees(name)]

    def has_database(self) -> bool:
        """Whether the project's database is there; a question does not make it."""
        url = sa.make_url(self.settings.database_url)
        return url.get_backend_name() != "sqlite" or Path(url.database or "").exists()

    def _shows(self, row: Any) -> bool:
        if self._access is None:
            return True
        if isinstance(row, DataVersionRow):
            return self._access.sees(row.table_name)
        return not isinstance(row, PredictionRow) or self._access.sees(f"{row.model}/predictions")

    # -- views -------------------------------------------------------------------------------------------------------

    def models(self) -> list[ModelRow]:
        """The rows of the view ``models``."""
        numbers: dict[str, list[int]] = {}
        for version in self._versions:
            numbers.setdefault(version.model, []).append(int(version.version))
        alerts = Counter(alert.model for alert in self._alerts if alert.state != "resolved")
        rows = []
        for name in self.model_names:
            declared, champion = self.declared.get(name), self._champions.get(name)
            rows.append(
                ModelRow(
                    model=name, declared=declared is not None, table_name=declared.table.name if declared else "",
                    target=declared.target if declared else "", kind=declared.task.kind if declared else "",
                    owner=declared.owner if declared else "", versions=len(numbers.get(name, [])),
                    latest=max(numbers.get(name, []), default=None),
                    production=int(champion.version) if champion else None,
                    production_since=_text(champion.at) if champion else None, open_alerts=alerts[name],
                )
            )  # fmt: skip
        return rows

    def versions(self) -> list[VersionRow]:
        """The rows of the view ``versions``."""
        rows = []
        for version in self._versions:
            run = self._runs_by_id.get(version.run_id)
            fitted = self._json(version, f"{MODEL_FOLDER}/{FACTS}").get("fitted", {})
            counts, tags = self._record(version).get("counts", {}), {**(run.tags if run else {}), **version.tags}
            logged = run.params.get("rows") if run else None
            verdicts = {name: _verdict(version, name) for name in VERDICTS}
            rows.append(
                VersionRow(
                    model=version.model, version=int(version.version), status=self._status(version),
                    created_at=_text(version.created_at), data_version=version.tags.get("data_version", ""),
                    rows=int(logged) if logged else None, fit_rows=counts.get("fit_rows"),
                    fit_positives=counts.get("fit_positives"), test_rows=counts.get("test_rows"),
                    test_positives=counts.get("test_positives"), fit_days=fitted.get("fit"),
                    test_days=fitted.get("test"), code=version.tags.get("code", ""),
                    git_commit=tags.get("git_commit", ""),
                    git_dirty=tags["git_dirty"] == "true" if "git_dirty" in tags else None,
                    git_branch=tags.get(BRANCH, ""), lock=version.tags.get(LOCK, ""),
                    gate=verdicts["gate"]["passed"] if verdicts["gate"] else None,
                    staging=verdicts["staging"]["passed"] if verdicts["staging"] else None,
                    mlflow_run_id=version.run_id, dagster_run_id=version.tags.get("dagster_run_id", ""),
                )
            )  # fmt: skip
        return rows

    def runs(self) -> list[RunRow]:
        """The rows of the view ``runs``."""
        if self._instance is None:
            return []
        versions = {version.tags.get("dagster_run_id"): int(version.version) for version in self._versions}
        tracked = {run.tags.get("dagster_run_id"): run for run in self._runs}  # the latest one wins
        rows = []
        for record in reversed(self._instance.get_run_records()):
            run = record.dagster_run
            began, ended = record.start_time, record.end_time
            of_run = tracked.get(run.run_id)
            rows.append(
                RunRow(
                    dagster_run_id=run.run_id, model=self._model_of(run), job=run.job_name, status=run.status.value,
                    reason=run.tags.get("assetline/why", ""),
                    # Dagster's button Materialize gives no tags, but a training records the branch by itself.
                    git_branch=run.tags.get(BRANCH_OF_RUN) or (of_run.tags.get(BRANCH, "") if of_run else ""),
                    created_at=_text(record.create_timestamp),
                    started_at=_text_of_seconds(began), ended_at=_text_of_seconds(ended),
                    seconds=round(ended - began, 3) if began and ended else None,
                    version=versions.get(run.run_id), mlflow_run_id=of_run.run_id if of_run else None,
                )
            )  # fmt: skip
        return rows

    def params(self) -> list[ParamRow]:
        """The rows of the view ``params``."""
        return [
            ParamRow(model=run.experiment, version=self._number_of_run.get(run.run_id), mlflow_run_id=run.run_id,
                     param=param, value=value)
            for run in self._runs
            for param, value in sorted(run.params.items())
        ]  # fmt: skip

    def metrics(self) -> list[MetricRow]:
        """The rows of the view ``metrics``."""
        rows = []
        for run in self._runs:
            of_run: dict[str, Any] = {
                "model": run.experiment, "version": self._number_of_run.get(run.run_id), "mlflow_run_id": run.run_id,
            }  # fmt: skip
            for name, value in sorted(run.metrics.items()):
                if not name.startswith("test."):  # the report has them, with their intervals
                    rows.append(MetricRow(**of_run, measured_on="training", score="torch", slice="", metric=name,
                                          value=value, low=None, high=None, rows=None))  # fmt: skip
        for version in self._versions:
            report = self.evaluation_of(version.model, int(version.version)).get("report", {})
            of_version: dict[str, Any] = {
                "model": version.model, "version": int(version.version), "mlflow_run_id": version.run_id,
                "measured_on": "test",
            }  # fmt: skip
            for score, figures in report.get("models", {}).items():
                rows += _metrics(figures, **of_version, score=score, slice="", rows=report["rows"])
            for name, part in report.get("slices", {}).items():
                rows += _metrics(part["figures"], **of_version, score="torch", slice=name, rows=part["rows"])
        return rows

    def data_versions(self) -> list[DataVersionRow]:
        """The rows of the view ``data_versions``."""
        rows = []
        for version in self._versions:
            inputs = self._record(version).get("stamp", {}).get("inputs", {})
            for table, days in sorted(inputs.items()):
                for day, then in sorted(days.items()):
                    now = self._data_version_now(table, day)
                    rows.append(
                        DataVersionRow(model=version.model, version=int(version.version), table_name=table, day=day,
                                       data_version=then, now=now, changed=now != then)
                    )  # fmt: skip
        return rows

    def verdicts(self) -> list[VerdictRow]:
        """The rows of the view ``verdicts``."""
        rows = []
        for version in self._versions:
            of_version: dict[str, Any] = {"model": version.model, "version": int(version.version)}
            reasons = self.evaluation_of(version.model, int(version.version)).get("verdict", {}).get("reasons", [])
            rows += [
                VerdictRow(**of_version, verdict="gate", rule=reason["rule"], passed=reason["passed"],
                           # Evaluations of release 0.1.0 call it "metric".
                           metric=reason.get("figure", reason.get("metric")), value=reason["value"],
                           required=reason["limit"], reason=reason["message"])
                for reason in reasons
            ]  # fmt: skip
            for name in VERDICTS:
                verdict = _verdict(version, name)
                if verdict is None or (name == "gate" and reasons):
                    continue
                rows += [
                    VerdictRow(**of_version, verdict=name, rule="", passed=verdict["passed"], metric=None, value=None,
                               required=None, reason=reason)
                    for reason in verdict["reasons"]
                ]  # fmt: skip
        return rows

    def deployments(self) -> list[DeploymentRow]:
        """The rows of the view ``deployments``."""
        rows, until = [], dict[str, str]()
        for entry in reversed(self._entries):
            promoted = entry.action == "promote"
            decides = promoted or entry.action == "withdraw"
            rows.append(
                DeploymentRow(
                    model=entry.model, number=entry.number, action=entry.action, version=int(entry.version),
                    previous=int(entry.previous) if entry.previous else None, reason=entry.reason, who=entry.who,
                    at=_text(entry.at), until=until.get(entry.model) if promoted else None,
                    dagster_run_id=entry.dagster_run,
                )
            )  # fmt: skip
            if decides:
                until[entry.model] = _text(entry.at)
        return rows[::-1]

    def checks(self) -> list[CheckRow]:
        """The rows of the view ``checks``."""
        return [
            CheckRow(model=one.asset_key.path[0], asset="/".join(one.asset_key.path[1:]), check_name=one.check,
                     day=one.day, passed=one.passed, severity=one.severity.value, description=one.description,
                     at=_text(dt.datetime.fromtimestamp(one.timestamp, dt.UTC)), dagster_run_id=one.run_id)
            for one in self._evaluations()
        ]  # fmt: skip

    def alerts(self) -> list[AlertRow]:
        """The rows of the view ``alerts``."""
        return [
            AlertRow(
                alert_id=alert.id, model=alert.model, cause=alert.cause, column_name=alert.column,
                severity=alert.severity, state=alert.state, owner=alert.owner, summary=alert.summary,
                seen=alert.count, first_day=alert.since_day, last_day=alert.last_day,
                opened_at=_text(alert.opened_at), resolved_at=_text(alert.resolved_at) if alert.resolved_at else None,
                resolution=alert.resolution, dagster_run_id=_run_in(alert.links.get("run", "")),
            )
            for alert in self._alerts
        ]  # fmt: skip

    def predictions(self) -> list[PredictionRow]:
        """The rows of the view ``predictions``."""
        rows = []
        for model in self.model_names:
            key = dg.AssetKey([model, "predictions"])
            for day in self.tables.days(key):
                counts = Counter(self.tables.read(key, [day], ["version"])["version"].tolist())
                rows += [
                    PredictionRow(model=model, version=int(version), day=day, rows=n)
                    for version, n in sorted(counts.items(), key=lambda one: int(one[0]))
                ]
        return rows

    # -- one version -------------------------------------------------------------------------------------------------

    def folder(self, version: VersionRow) -> Path:
        """Folder with the files of a version. Raises :class:`MetadataError` if they cannot be read."""
        try:
            return self.mlflow.download(version.model, str(version.version))
        except ArtifactLocked as error:
            raise MetadataError(f"version {version.version} of {version.model}: {error}") from error
        except (TrackingError, OSError) as error:
            raise MetadataError(
                f"the files of version {version.version} of {version.model} cannot be read "
                f"({str(error).splitlines()[0]}); restore MLflow's artifacts"
            ) from error

    def evaluation_of(self, model: str, version: int) -> dict[str, Any]:
        """The evaluation's ``report`` and ``verdict`` of a version as JSON values; empty before its evaluation."""
        found = next(one for one in self._versions if (one.model, int(one.version)) == (model, version))
        return self._json(found, REPORT_FILE)

    def runtime_of(self, version: VersionRow) -> dict[str, Any]:
        """Packages, Python and processor of a version's training as JSON values; empty without a record."""
        found = next(one for one in self._versions if one.run_id == version.mlflow_run_id)
        return self._json(found, f"{MODEL_FOLDER}/{RUNTIME}")

    # -- below -------------------------------------------------------------------------------------------------------

    @cached_property
    def _versions(self) -> list[ModelVersion]:
        return self.mlflow.versions()

    @cached_property
    def _runs(self) -> list[TrackedRun]:
        return self.mlflow.runs()

    @cached_property
    def _runs_by_id(self) -> dict[str, TrackedRun]:
        return {run.run_id: run for run in self._runs}

    @cached_property
    def _number_of_run(self) -> dict[str, int]:
        return {version.run_id: int(version.version) for version in self._versions}

    @cached_property
    def _entries(self) -> list[Entry]:
        if not self.has_database():
            return []
        return Ledger(database_url=self.settings.database_url).history()

    @cached_property
    def _champions(self) -> dict[str, Entry]:
        deciding = {entry.model: entry for entry in self._entries if entry.action in ("promote", "withdraw")}
        return {name: entry for name, entry in deciding.items() if entry.action == "promote"}  # the last one wins

    @cached_property
    def _alerts(self) -> list[Alert]:
        return AlertStore(self.settings.database_url).alerts() if self.has_database() else []

    def _status(self, version: ModelVersion) -> str:
        entries = [entry for entry in self._entries if (entry.model, entry.version) == (version.model, version.version)]
        champion = self._champions.get(version.model)
        if champion is not None and champion.version == version.version:
            return "production"
        if any(entry.action == "promote" for entry in entries):
            return "retired"
        return "refused" if entries else "candidate"

    def _record(self, version: ModelVersion) -> dict[str, Any]:
        return self._json(version, f"{MODEL_FOLDER}/{ROWS}")

    def _json(self, version: ModelVersion, artifact: str) -> dict[str, Any]:
        """A JSON file of a version's run; empty if the run does not have it."""
        if (version.run_id, artifact) not in self._files:
            try:
                text = self.mlflow.read_text(version.run_id, artifact)
            except ArtifactLocked as error:
                raise MetadataError(f"version {version.version} of {version.model}: {error}") from error
            try:
                self._files[version.run_id, artifact] = json.loads(text) if text is not None else {}
            except ValueError as error:
                raise MetadataError(
                    f"{artifact} of MLflow run {version.run_id} is damaged ({error}); restore MLflow's artifacts"
                ) from error
        return self._files[version.run_id, artifact]

    def _data_version_now(self, table: str, day: str) -> str | None:
        try:
            stamp = self.tables.stamp(dg.AssetKey.from_user_string(table), day)
        except TableError:  # a damaged file has other rows than before, too
            return None
        return stamp.data_version if stamp else None

    def _model_of(self, run: dg.DagsterRun) -> str | None:
        if run.job_name in self._jobs:
            return self._jobs[run.job_name]
        models = {key.path[0] for key in run.asset_selection or ()} & set(self.model_names)
        return models.pop() if len(models) == 1 else None

    @cached_property
    def _jobs(self) -> dict[str, str]:
        """Model by name of the job, also of models that are not declared any more."""
        return {f"{name}_{work}": name for name in self.model_names for work in KINDS_OF_WORK}

    def _evaluations(self) -> Iterator[Evaluation]:
        after = 0
        while self._instance is not None:
            found = check_evaluations(self._instance, after=after, limit=EVALUATIONS_AT_ONCE)
            yield from found
            if len(found) < EVALUATIONS_AT_ONCE:
                return
            after = found[-1].storage_id


def _metrics(figures: Mapping[str, Mapping[str, Any]], **of_version: Any) -> list[MetricRow]:
    return [
        MetricRow(**of_version, metric=metric, value=figure["value"], low=figure["low"], high=figure["high"])
        for metric, figure in figures.items()
    ]


def _verdict(version: ModelVersion, name: str) -> dict[str, Any] | None:
    tag = version.tags.get(f"verdict.{name}")
    return json.loads(tag) if tag is not None else None


def _run_in(link: str) -> str | None:
    _, found, run = link.rpartition(_RUN_LINK)
    return run if found else None


def _text(at: dt.datetime) -> str:
    return f"{at.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S}"


def _text_of_seconds(at: float | None) -> str | None:
    return None if at is None else _text(dt.datetime.fromtimestamp(at, dt.UTC))

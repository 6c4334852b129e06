"""MLflow: runs that always end and link to their Dagster run, and the model registry.

Belongs here: all access to MLflow; the only MLflow type that other modules see is the open run. Runs are opened with
``dagster_mlflow.resources.MlFlow``, which is not public; a test checks its contract. Does not belong here: the contents
of a bundle, the choice of the champion (``ledger.py``).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import logging
import os
import shutil
import socket
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

import dagster as dg
from pydantic import Field

from resources.git import BRANCH, COMMIT, DIRTY, git_tags
from resources.processes import still_runs
from resources.settings import Settings, hidden_user, project_root
from resources.sqlite import synchronous_off

if TYPE_CHECKING:
    import matplotlib.figure
    from dagster_mlflow.resources import MlFlow
    from mlflow import MlflowClient

# A progress bar for each file would be mixed with the output of a command.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

MODEL_FOLDER = "model"
"""Artifact folder of a run with the files of its model version."""

_PROCESS_TAG = "assetline.process"
_SQLITE = "sqlite:///"
_LOCK_TIMEOUT_S = 300


class TrackingError(Exception):
    """An MLflow operation is not possible. The message gives the object and the fix."""


class ArtifactLocked(TrackingError):
    """An artifact is encrypted, and its key is missing, or it was altered. The message names the file and the key."""


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """A registered version of a model, with its tags."""

    model: str
    version: str
    run_id: str
    created_at: dt.datetime
    tags: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """An MLflow run: its parameters as text, the last value of each metric, and its tags."""

    run_id: str
    experiment: str
    status: str
    started_at: dt.datetime
    ended_at: dt.datetime | None
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


class RunLog:
    """Writes to an MLflow run by id, without changing the run's status or MLflow's global state."""

    def __init__(self, client: MlflowClient, run_id: str):
        self.run_id = run_id
        self._client = client

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Logs metrics by name, at position ``step`` of their curves."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self.run_id, metrics=[Metric(k, float(v), now, step) for k, v in metrics.items()])

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Logs parameters by name. MLflow refuses a different value for a name that is already logged."""
        from mlflow.entities import Param

        self._client.log_batch(self.run_id, params=[Param(k, str(v)) for k, v in params.items()])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags; existing tags with the same name are replaced."""
        from mlflow.entities import RunTag

        self._client.log_batch(self.run_id, tags=[RunTag(k, str(v)) for k, v in tags.items()])

    def log_artifact(self, local_path: str | Path, artifact_path: str | None = None) -> None:
        """Copies a file to the run's artifacts, into the folder ``artifact_path``."""
        self._client.log_artifact(self.run_id, str(local_path), artifact_path)

    def log_artifacts(self, local_dir: str | Path, artifact_path: str | None = None) -> None:
        """Copies the contents of a folder to the run's artifacts, into the folder ``artifact_path``."""
        self._client.log_artifacts(self.run_id, str(local_dir), artifact_path)

    def log_text(self, text: str, artifact_file: str) -> None:
        """Writes text to the artifact ``artifact_file``."""
        self._client.log_text(self.run_id, text, artifact_file)

    def log_dict(self, dictionary: Mapping[str, Any], artifact_file: str) -> None:
        """Writes a mapping as JSON or YAML, depending on the file's suffix."""
        self._client.log_dict(self.run_id, dict(dictionary), artifact_file)

    def log_figure(self, figure: matplotlib.figure.Figure, artifact_file: str) -> None:
        """Writes a figure to the artifact ``artifact_file``."""
        self._client.log_figure(self.run_id, figure, artifact_file)


class MlflowTracking(dg.ConfigurableResource):
    """MLflow's tracking store and model registry."""

    tracking_uri: str = Field(
        description="Store of runs and model versions: sqlite:///<absolute path>, or the address of a tracking server."
    )
    artifact_location: str | None = Field(
        default=None,
        description="Absolute folder or URI for files. Default: next to the SQLite file, or the server's own.",
    )
    experiment: str = Field(default="assetline", description="Experiment of runs that do not name one.")
    ui_url: str = Field(default="http://127.0.0.1:5000", description="Address of the MLflow UI, for links to runs.")
    dagster_url: str = Field(default="http://127.0.0.1:3000", description="Address of the Dagster UI, for links to it.")

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The resource on the store of ``settings``; a URL with a password is hidden from the UI."""
        has_password = ":" in settings.tracking_uri.partition("://")[2].rpartition("@")[0]
        return cls(
            tracking_uri=dg.EnvVar("ASSETLINE_MLFLOW_STORE") if has_password else settings.tracking_uri,
            artifact_location=str(settings.artifacts),
            ui_url=settings.mlflow_url,
            dagster_url=settings.ui_link,
        )

    # -- runs --------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def run(
        self, context: dg.AssetExecutionContext, *, experiment: str | None = None, tags: Mapping[str, str] | None = None
    ) -> Iterator[MlFlow]:
        """Opens a new MLflow run and yields it: all functions of ``mlflow``, and ``mlflow_run_id``.

        The run ends with the block, as FAILED if the block raises. Each block is a separate run, also in a retried
        step.

        Raises:
            TrackingError: another MLflow run is still open in this process.
        """
        client, experiment = self.client(), experiment or self.experiment
        dagster_run = context.op_execution_context.run_id  # unlike context.run, it exists when a test calls the asset
        keys = sorted(key.to_user_string() for key in context.selected_asset_keys)
        links = [f"[run]({self.dagster_url}/runs/{dagster_run})"]
        links += [f"[{key}]({self.dagster_url}/assets/{key})" for key in keys]
        tags = {
            "dagster_run_id": dagster_run,
            "dagster_asset": ", ".join(keys),
            "mlflow.note.content": f"Made by Dagster: {', '.join(links)}",
            _PROCESS_TAG: f"{socket.gethostname()} {os.getpid()} {time.time():.0f}",
            **git_tags(project_root()),
            **(tags or {}),
        }
        with _global_state_restored() as mlflow:
            if (left := mlflow.active_run()) is not None:
                raise TrackingError(
                    f"MLflow run {left.info.run_id} is still open in this process; exit its block before the next run"
                )
            mlflow.set_tracking_uri(self.tracking_uri)
            status = "FAILED"
            try:
                # The run is created with its tags, so that reap() finds it after a kill at any time.
                experiment_id = self._experiment_id(client, experiment)
                run = mlflow.start_run(experiment_id=experiment_id, run_name=", ".join(keys), tags=tags)
                tracked = _dagster_mlflow(context, self.tracking_uri, experiment, run.info.run_id)
                context.log.info(f"MLflow run: {self.run_url(tracked.mlflow_run_id)}")
                yield tracked
                status = "FINISHED"
            finally:
                while mlflow.active_run() is not None:
                    mlflow.end_run(status)

    @contextlib.contextmanager
    def child_run(self, parent_id: str, name: str) -> Iterator[RunLog]:
        """Opens a run below an open one, with the tags of its parent; MLflow's global state is unchanged.

        The run ends with the block, as FAILED if the block raises.

        Raises:
            TrackingError: there is no such parent.
        """
        client, parent = self.client(), self._get_run(parent_id)
        # With the parent's tags, reap() also finds a child after a kill.
        tags = {**parent.data.tags, "mlflow.parentRunId": parent_id, "mlflow.runName": name}
        run_id = client.create_run(parent.info.experiment_id, tags=tags, run_name=name).info.run_id
        status = "FAILED"
        try:
            yield RunLog(client, run_id)
            status = "FINISHED"
        finally:
            client.set_terminated(run_id, status)

    @contextlib.contextmanager
    def reopen(self, run_id: str) -> Iterator[RunLog]:
        """Opens a finished run for additions (an evaluation writes to its candidate's run). Its status is unchanged.

        Raises :class:`TrackingError` if there is no such run.
        """
        self._get_run(run_id)
        yield RunLog(self.client(), run_id)

    def run_facts(self, run_id: str) -> tuple[dict[str, str], dict[str, str]]:
        """Tags and parameters of a run. Raises :class:`TrackingError` if there is no such run."""
        data = self._get_run(run_id).data
        return dict(data.tags), dict(data.params)

    def read_json(self, run_id: str, artifact_file: str) -> Any:
        """The contents of a JSON artifact of a run; ``None`` if the run has no such artifact.

        Raises :class:`TrackingError` if there is no such run.
        """
        self._get_run(run_id)
        folder = artifact_file.rpartition("/")[0]
        if artifact_file not in {found.path for found in self.client().list_artifacts(run_id, folder or None)}:
            return None
        path = self._downloaded(f"{self._get_run(run_id).info.artifact_uri}/{artifact_file}")
        return json.loads(path.read_text(encoding="utf-8"))

    def run_url(self, run_id: str) -> str:
        """URL of the run's page in the MLflow UI, for ``dg.MetadataValue.url``."""
        return f"{self.ui_url}/#/experiments/{self._get_run(run_id).info.experiment_id}/runs/{run_id}"

    def reap(self, instance: dg.DagsterInstance) -> list[str]:
        """Marks as FAILED the RUNNING runs whose Dagster run has finished or whose process is gone.

        Affects only runs that :meth:`run` opened. A process on another machine is assumed to be alive.

        Returns:
            The ids of the runs that it ended.
        """
        client, ended = self.client(), []
        experiments = [found.experiment_id for found in client.search_experiments()]
        for run in client.search_runs(experiments, "attributes.status = 'RUNNING'"):
            tags = run.data.tags
            if _PROCESS_TAG not in tags:
                continue
            host, pid, opened = tags[_PROCESS_TAG].rsplit(" ", 2)
            dagster_run = instance.get_run_by_id(tags["dagster_run_id"])
            gone = host == socket.gethostname() and not still_runs(int(pid), float(opened))
            if gone or (dagster_run is not None and dagster_run.is_finished):
                client.set_tag(run.info.run_id, "assetline.reaped", f"process {pid} on {host} did not end it")
                client.set_terminated(run.info.run_id, "FAILED")
                ended.append(run.info.run_id)
        return ended

    # -- registry ----------------------------------------------------------------------------------------------------

    def register(
        self,
        name: str,
        run_id: str,
        directory: Path,
        *,
        tags: Mapping[str, str] | None = None,
        loader_module: str | None = None,
    ) -> str:
        """Copies ``directory`` to the run's artifacts and registers it as a version of the model ``name``.

        Idempotent: each run has one version of a model, and a second call returns it. The version carries the run's
        commit and branch as tags. With ``loader_module`` (a module with ``_load_pyfunc(path)``),
        ``mlflow.pyfunc.load_model("models:/<name>/<version>")`` can load the version.

        Returns:
            The version.

        Raises:
            TrackingError: ``directory`` or the run does not exist.
        """
        client, run = self.client(), self._get_run(run_id)
        if not directory.is_dir():
            raise TrackingError(f"{directory}: no such folder; save the bundle before registering {name}")
        if found := client.search_model_versions(f"name = '{name}' and run_id = '{run_id}'"):
            return str(found[0].version)
        client.log_artifacts(run_id, str(directory), MODEL_FOLDER)
        if loader_module:
            client.log_text(run_id, _mlmodel(run_id, loader_module), f"{MODEL_FOLDER}/MLmodel")
        with _allowing("RESOURCE_ALREADY_EXISTS"):
            client.create_registered_model(name)
        source = f"{run.info.artifact_uri}/{MODEL_FOLDER}"
        carried = {name: run.data.tags[name] for name in (COMMIT, DIRTY, BRANCH) if name in run.data.tags}
        given = {"dagster_run_id": run.data.tags.get("dagster_run_id", ""), **carried, **(tags or {})}
        return str(client.create_model_version(name, source, run_id, tags=given).version)

    def adopt(
        self,
        name: str,
        bundle: Path,
        evidence: Path,
        *,
        run_tags: Mapping[str, str],
        params: Mapping[str, str],
        tags: Mapping[str, str],
        loader_module: str,
    ) -> str:
        """Registers a version that was trained in another store: in a run of its own, with its evidence as artifacts.

        The run is finished last. A kill before leaves a version that :meth:`version_of` deletes.

        Args:
            name: name of the model and of the experiment.
            bundle: folder with the files of the version.
            evidence: folder with further artifacts of the run.
            run_tags, params: tags and parameters of the run that trained it.
            tags: tags of the version.
            loader_module: see :meth:`register`.

        Returns:
            The version.
        """
        client = self.client()
        process = f"{socket.gethostname()} {os.getpid()} {time.time():.0f}"
        given = {"dagster_run_id": "", **run_tags, _PROCESS_TAG: process}
        run = client.create_run(self._experiment_id(client, name), tags=given, run_name=f"{name} release")
        run_id = run.info.run_id
        status = "FAILED"
        try:
            RunLog(client, run_id).log_params(params)
            client.log_artifacts(run_id, str(evidence))
            version = self.register(name, run_id, bundle, tags=tags, loader_module=loader_module)
            status = "FINISHED"
        finally:
            client.set_terminated(run_id, status)
        return version

    def version_of(self, name: str, tags: Mapping[str, str]) -> str | None:
        """The latest version that has all of ``tags`` and whose run finished; ``None`` if there is none.

        Later versions with these tags whose run did not finish are deleted, because nothing refers to them.
        """
        client = self.client()
        found = [v for v in client.search_model_versions(f"name = '{name}'") if tags.items() <= v.tags.items()]
        for version in sorted(found, key=lambda v: int(v.version), reverse=True):
            if self._get_run(str(version.run_id)).info.status == "FINISHED":
                return str(version.version)
            client.delete_model_version(name, version.version)
        return None

    def download(self, name: str, version: str) -> Path:
        """Folder with the files of a model version. A local store returns its own folder, which must not be changed.

        Files that are encrypted are returned as a copy in the clear, which is removed when this process ends.

        Raises:
            TrackingError: there is no such version.
            ArtifactLocked: a file is encrypted, and its key is missing.
        """
        self._get_version(name, version)
        return self._downloaded(self.client().get_model_version_download_uri(name, version))

    def run_of_version(self, name: str, version: str) -> str:
        """Id of the MLflow run of a model version. Raises :class:`TrackingError` if there is no such version."""
        return str(self._get_version(name, version).run_id)

    def version_of_alias(self, name: str, alias: str) -> str | None:
        """Version that the alias points to; ``None`` if the alias or the model does not exist."""
        with _allowing("RESOURCE_DOES_NOT_EXIST"):
            version = self.client().get_registered_model(name).aliases.get(alias)
            return None if version is None else str(version)
        return None

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Points the alias to a version. Raises :class:`TrackingError` if there is no such version."""
        self._get_version(name, version)
        self.client().set_registered_model_alias(name, alias, version)

    def delete_alias(self, name: str, alias: str) -> None:
        """Removes the alias; nothing happens if the alias or the model does not exist."""
        if self.version_of_alias(name, alias) is not None:
            self.client().delete_registered_model_alias(name, alias)

    def set_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        """Sets a tag of a model version. Raises :class:`TrackingError` if there is no such version."""
        self._get_version(name, version)
        self.client().set_model_version_tag(name, version, key, value)

    def version_tags(self, name: str, version: str) -> dict[str, str]:
        """All tags of a model version. Raises :class:`TrackingError` if there is no such version."""
        return dict(self._get_version(name, version).tags)

    # -- reading -----------------------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """The store for messages, without user and password."""
        return hidden_user(self.tracking_uri)

    def exists(self) -> bool:
        """Whether there is a store. The first run creates a SQLite store; reading does not need to."""
        return not self.tracking_uri.startswith(_SQLITE) or Path(self.tracking_uri.removeprefix(_SQLITE)).exists()

    def versions(self) -> list[ModelVersion]:
        """All registered versions of all models, by model and number; empty if there is no store."""
        if not self.exists():
            return []
        client = self.client()
        names = [found.name for found in _all_pages(lambda token: client.search_registered_models(page_token=token))]
        versions = [
            ModelVersion(model=name, version=str(found.version), run_id=str(found.run_id),
                         created_at=_moment(found.creation_timestamp), tags=dict(found.tags))
            for name in names
            for found in _all_pages(lambda token, name=name: client.search_model_versions(  # type: ignore[misc]
                f"name = '{name}'", page_token=token))
        ]  # fmt: skip
        return sorted(versions, key=lambda one: (one.model, int(one.version)))

    def runs(self) -> list[TrackedRun]:
        """All runs of all experiments, oldest first; empty if there is no store."""
        if not self.exists():
            return []
        client = self.client()
        experiments = {
            found.experiment_id: found.name
            for found in _all_pages(lambda token: client.search_experiments(page_token=token))
        }
        if not experiments:
            return []
        runs = _all_pages(lambda token: client.search_runs(list(experiments), max_results=1_000, page_token=token))
        found = [
            TrackedRun(
                run_id=run.info.run_id, experiment=experiments[run.info.experiment_id], status=run.info.status,
                started_at=_moment(run.info.start_time),
                ended_at=_moment(run.info.end_time) if run.info.end_time else None,
                params=dict(run.data.params), metrics=dict(run.data.metrics), tags=dict(run.data.tags),
            )
            for run in runs
        ]  # fmt: skip
        return sorted(found, key=lambda one: (one.started_at, one.run_id))

    def read_text(self, run_id: str, artifact: str) -> str | None:
        """The text of a run's artifact; ``None`` if the run has none of that name."""
        client, (folder, _, _) = self.client(), artifact.rpartition("/")
        if artifact not in {file.path for file in client.list_artifacts(run_id, folder or None)}:
            return None
        path = self._downloaded(f"{client.get_run(run_id).info.artifact_uri}/{artifact}")
        return path.read_text(encoding="utf-8")

    # -- below -------------------------------------------------------------------------------------------------------

    def client(self) -> MlflowClient:
        """MLflow's client for this store; creates a SQLite store first if it does not exist."""
        from mlflow import MlflowClient

        from resources.encryption import artifacts

        artifacts.register()
        if self.tracking_uri.startswith(_SQLITE):
            create_store(Path(self.tracking_uri.removeprefix(_SQLITE)), Path(self._artifacts() or ""))
        return MlflowClient(self.tracking_uri)

    def _downloaded(self, uri: str) -> Path:
        """Path of an artifact in the clear. Raises :class:`ArtifactLocked` if it is encrypted and cannot be read."""
        import mlflow.artifacts

        from resources.keys import KeyProblem

        try:
            return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, tracking_uri=self.tracking_uri))
        except KeyProblem as error:
            raise ArtifactLocked(str(error)) from error

    def _artifacts(self) -> str | None:
        if self.artifact_location is None and self.tracking_uri.startswith(_SQLITE):
            return str(Path(self.tracking_uri.removeprefix(_SQLITE)).with_name("artifacts"))
        return self.artifact_location

    def _experiment_id(self, client: MlflowClient, name: str) -> str:
        found: Any = client.get_experiment_by_name(name)
        if found is None:
            # By default MLflow would put a SQLite store's files into ./mlruns of the current folder.
            root = self._artifacts()
            with _allowing("RESOURCE_ALREADY_EXISTS"):
                return str(client.create_experiment(name, artifact_location=root and f"{root}/{name}"))
            found = client.get_experiment_by_name(name)  # another process was first
        return str(found.experiment_id)

    def _get_run(self, run_id: str) -> Any:
        with _allowing("RESOURCE_DOES_NOT_EXIST"):
            return self.client().get_run(run_id)
        raise TrackingError(f"{self.address} has no run {run_id}; train again, or point tracking_uri at its store")

    def _get_version(self, name: str, version: str) -> Any:
        with _allowing("RESOURCE_DOES_NOT_EXIST"):
            return self.client().get_model_version(name, version)
        raise TrackingError(f"{self.address} has no version {version} of the model {name}; train and register it")


def create_store(database: Path, artifacts: Path) -> None:
    """Creates MLflow's SQLite file if it does not exist. Safe for concurrent calls and kills.

    If two processes let MLflow migrate a new file at the same time, they corrupt it. So the file is created in a
    temporary folder under a lock, and moved into place when it is complete (about 2 s, once).
    """
    if database.exists():
        return
    from filelock import FileLock
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_name(f".{database.name}.lock"), timeout=_LOCK_TIMEOUT_S):
        if database.exists():
            return
        for left in database.parent.glob(".new-*"):  # left by a killed process
            shutil.rmtree(left)
        logging.getLogger("mlflow.store.db").setLevel(logging.WARNING)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=database.parent) as aside:
            made = Path(aside) / database.name
            with synchronous_off(made.parent):
                SqlAlchemyStore(f"{_SQLITE}{made}", str(artifacts)).engine.dispose()
            os.replace(made, database)


def create_store_in(url: str, artifacts: Path) -> None:
    """Creates MLflow's tables in the database of ``url`` if they do not exist. The caller holds a lock."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    logging.getLogger("mlflow.store.db").setLevel(logging.WARNING)
    SqlAlchemyStore(url, str(artifacts)).engine.dispose()


def _dagster_mlflow(context: dg.AssetExecutionContext, tracking_uri: str, experiment: str, run_id: str) -> MlFlow:
    """The ``dagster_mlflow`` object for the open run of this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # expected; a test checks the contract
        from dagster_mlflow.resources import MlFlow

        config = {"mlflow_tracking_uri": tracking_uri, "experiment_name": experiment, "mlflow_run_id": run_id}
        return MlFlow(
            SimpleNamespace(
                log=context.log,
                run_id=context.op_execution_context.run_id,
                dagster_run=SimpleNamespace(job_name=experiment),
                resource_config=config,
            )
        )


@contextlib.contextmanager
def _global_state_restored() -> Iterator[Any]:
    """Restores MLflow's tracking URI and experiment, which MLflow keeps in global state and the environment."""
    import mlflow

    uri: Any = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    before = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID")}
    try:
        yield mlflow
    finally:
        mlflow.set_tracking_uri(uri)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _all_pages(search: Callable[[str | None], Any]) -> list[Any]:
    """All results of one of MLflow's searches, which return pages."""
    found: list[Any] = []
    token: str | None = None
    while True:
        page = search(token)
        found += page
        token = page.token
        if not token:
            return found


def _moment(milliseconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)


@contextlib.contextmanager
def _allowing(code: str) -> Iterator[None]:
    """Suppresses MLflow's error ``code``, which ends the block early; other errors propagate."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != code:
            raise


def _mlmodel(run_id: str, loader_module: str) -> str:
    from mlflow.models import Model

    model = Model(run_id=run_id, artifact_path=MODEL_FOLDER)
    return str(model.add_flavor("python_function", loader_module=loader_module).to_yaml())

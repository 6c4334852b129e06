"""Old versions and runs of MLflow that the ledger does not name.

Belongs here: which versions, runs and artifacts go. Does not belong here: access to MLflow for the lifecycle
(``mlflow.py``).

A version goes with its files, and its run is marked as deleted. The run's parameters and metrics stay in MLflow until
``mlflow gc`` removes all deleted runs.
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.ledger import Ledger
from resources.mlflow import MlflowTracking
from resources.retention.named import Named
from resources.retention.periods import Retention
from resources.retention.plan import Removal
from resources.retention.runs import folder_size
from resources.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient


def versions(
    mlflow: MlflowTracking, ledger: Ledger, settings: Settings, retention: Retention, kept: Named, now: dt.datetime
) -> Iterator[Removal]:
    """Removals of versions, and of runs without a version, that are older than ``version_days``."""
    client = mlflow.client()
    before = (now - dt.timedelta(days=retention.version_days)).timestamp() * 1000
    runs_of_versions: set[str] = set()
    for model in _all(client.search_registered_models):
        found = _all(partial(client.search_model_versions, f"name = '{model.name}'"))
        found.sort(key=lambda version: int(version.version), reverse=True)
        runs_of_versions |= {str(version.run_id) for version in found}
        aliased = {str(version) for version in model.aliases.values()}
        for number, version in enumerate(found):
            is_named = (model.name, str(version.version)) in kept.versions or str(version.version) in aliased
            if is_named or number < retention.latest_versions or version.creation_timestamp >= before:
                continue
            files = _files_of(client, str(version.run_id), settings) if version.run_id not in kept.mlflow_runs else None
            yield Removal(
                "versions",
                f"version {version.version} of {model.name} ({_day(version.creation_timestamp)})",
                folder_size(files) if files else 0,
                partial(_remove_version, client, ledger, model.name, str(version.version), str(version.run_id), files),
            )
    by_experiment: dict[str, list[Any]] = defaultdict(list)
    experiments = [experiment.experiment_id for experiment in _all(client.search_experiments)]
    for run in _all(partial(client.search_runs, experiments, order_by=["attributes.start_time DESC"])):
        by_experiment[run.info.experiment_id].append(run)
    for found in by_experiment.values():
        for run in found[retention.latest_versions :]:
            run_id, ended = run.info.run_id, run.info.end_time
            if run_id in runs_of_versions | kept.mlflow_runs or ended is None or ended >= before:
                continue  # a run without an end is still running; MlflowTracking.reap ends those of dead processes
            files = _files_of(client, run_id, settings)
            what = f"MLflow run {run_id[:8]} ({run.info.run_name}, {_day(ended)})"
            yield Removal(
                "versions", what, folder_size(files) if files else 0, partial(_remove_run, client, run_id, files)
            )


def _all(search: Any) -> list[Any]:
    """All pages of a search."""
    page = search()
    found = list(page)
    while page.token:
        page = search(page_token=page.token)
        found += page
    return found


def _files_of(client: MlflowClient, run_id: str, settings: Settings) -> Path | None:
    """Folder of a run's files; ``None`` unless it is in the state folder."""
    folder = Path(str(client.get_run(run_id).info.artifact_uri).removeprefix("file://"))
    return folder if folder.is_relative_to(settings.artifacts) and folder != settings.artifacts else None


def _remove_version(
    client: MlflowClient, ledger: Ledger, model: str, version: str, run_id: str, files: Path | None
) -> None:
    """Removes a version, unless an entry names it by now.

    The version goes first: killed halfway, this leaves a run without a version, which the next prune removes.
    """
    if any(entry.version == version for entry in ledger.history(model)):
        return
    client.delete_model_version(model, version)
    if files is not None:
        _remove_run(client, run_id, files)


def _remove_run(client: MlflowClient, run_id: str, files: Path | None) -> None:
    if files is not None:
        shutil.rmtree(files, ignore_errors=True)
    client.delete_run(run_id)


def _day(at: int) -> str:
    return f"{dt.datetime.fromtimestamp(at / 1000, dt.UTC):%Y-%m-%d}"

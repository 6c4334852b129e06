"""The state folder (``var/``, or ``ASSETLINE_HOME``): created completely and only once, by any process.

Belongs here: the layout of the folder, its Dagster instance, and cleaning up after killed processes. Does not belong
here: the contents of a store (``mlflow.py``, ``tables.py``, ``ledger.py``).
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import tempfile
from pathlib import Path

import dagster as dg

from resources.processes import still_runs
from resources.settings import Settings, hidden_user, project_root, quiet_telemetry
from resources.sqlite import synchronous_off

_LOCK_TIMEOUT_S = 300
_STORE_VARIABLE = "DAGSTER_STORE_URL"
"""Variable through which Dagster's processes receive the URL of their PostgreSQL store."""
EVENTS_AT_ONCE = "500"
"""Maximum number of events that Dagster stores in one transaction; a step over many days emits many events."""


def prepare(settings: Settings) -> None:
    """Prepares the state folder for this process and, through ``DAGSTER_HOME``, for its child processes.

    Idempotent, and safe for concurrent calls and kills: each store is created in a temporary folder under a lock, and
    moved into place in one step. If everything exists, the call takes a few milliseconds.
    """
    quiet_telemetry()
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
    if settings.dagster_store:
        os.environ[_STORE_VARIABLE] = _for_dagster(settings.dagster_store)
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", EVENTS_AT_ONCE)
    config = dagster_yaml(settings)
    seal, sealed = settings.home / ".prepared", _seal(config, settings)
    if (
        settings.dagster_home.exists()
        and (settings.mlflow_store or settings.mlflow_database.exists())
        and seal.exists()
        and seal.read_text() == sealed
    ):
        return
    from filelock import FileLock

    from resources.mlflow import create_store, create_store_in

    settings.home.mkdir(parents=True, exist_ok=True)
    with FileLock(settings.home / ".lock", timeout=_LOCK_TIMEOUT_S):
        if not settings.dagster_home.exists():
            _create_dagster(settings, config)
        _replace(settings.dagster_home / "dagster.yaml", config)
        if settings.mlflow_store:
            create_store_in(settings.mlflow_store, settings.artifacts)
        else:
            create_store(settings.mlflow_database, settings.artifacts)
        _replace(seal, sealed.encode())


def dagster_yaml(settings: Settings) -> bytes:
    """The contents of Dagster's ``dagster.yaml``: that of the project, with PostgreSQL as its store if one is set."""
    template = (project_root() / "deploy" / "dagster.yaml").read_bytes()
    if not settings.dagster_store:
        return template
    import yaml

    config = yaml.safe_load(template)
    for store in ("event_log_storage", "run_storage", "schedule_storage"):
        del config[store]
    # The file names the variable and not the URL, which may hold a password.
    config["storage"] = {"postgres": {"postgres_url": {"env": _STORE_VARIABLE}}}
    config["concurrency"]["runs"]["max_concurrent_runs"] = settings.runs_at_once
    if settings.runs_at_once > 1:
        # Forks begin so soon that two runs of one model overlapped; Dagster's own launcher has not shown this.
        config.pop("run_launcher", None)
        # Each model is a pool, and so is training, which uses the whole machine. A run needs a slot of all its pools.
        config["concurrency"]["pools"] = {"default_limit": 1, "granularity": "run"}
        # Without threads, the queue starts a run only when the process of the one before has imported everything.
        config["run_coordinator"] = {
            "module": "dagster._core.run_coordinator", "class": "QueuedRunCoordinator",
            "config": {"dequeue_use_threads": True},
        }  # fmt: skip
    return yaml.safe_dump(config, sort_keys=False).encode()


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Marks Dagster runs whose process is gone as failed, and returns their ids.

    Otherwise a killed run stays STARTED and keeps the only slot of the queue. Processes are identified by the pids in
    the event logs, so call this on the machine (or in the container) where the runs execute.
    """
    ended = []
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING])):
        processes = []
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
            pid = entry.get_dagster_event().engine_event_data.metadata.get("pid")
            if pid is not None:
                processes.append((int(str(pid.value)), entry.timestamp))
        if processes and not any(still_runs(pid, at) for pid, at in processes):
            instance.report_run_failed(run, "The process of this run no longer exists (killed?); materialise again.")
            ended.append(run.run_id)
    return ended


def _for_dagster(url: str) -> str:
    """The URL with the driver psycopg2, because Dagster's statements do not run with another one."""
    return re.sub(r"^postgresql(\+\w+)?:", "postgresql+psycopg2:", url)


def _seal(config: bytes, settings: Settings) -> str:
    versions = [f"{package} {importlib.metadata.version(package)}" for package in ("dagster", "mlflow")]
    store = hidden_user(settings.mlflow_store)  # another database needs its tables
    return "\n".join([*versions, hashlib.sha256(config).hexdigest(), store])


def _create_dagster(settings: Settings, config: bytes) -> None:
    """Creates Dagster's databases in a temporary folder first, because a kill could leave tables without a version."""
    for left in settings.home.glob(".dagster-*"):  # left by a killed process
        shutil.rmtree(left)
    aside = Path(tempfile.mkdtemp(prefix=".dagster-", dir=settings.home))
    try:
        (aside / "dagster.yaml").write_bytes(config)
        os.environ["DAGSTER_HOME"] = str(aside)  # dagster.yaml reads the folder from this variable
        with synchronous_off(aside), dg.DagsterInstance.from_config(str(aside)) as instance:
            instance.get_runs(limit=1)
        os.replace(aside, settings.dagster_home)
    finally:
        os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
        shutil.rmtree(aside, ignore_errors=True)


def _replace(path: Path, content: bytes) -> None:
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_bytes(content)
    os.replace(scratch, path)

"""Launches runs on this machine as forks of one process that has imported the project (``run_server.py``).

By default Dagster starts a new Python for each run, which imports the libraries and loads the code location: most of
the processor time of a small run.

Belongs here: starting, stopping and watching these processes. Does not belong here: runs on other machines (Dagster's
own launchers), what a run does. ``RunLauncher`` is Dagster's interface for launchers; ``deploy/dagster.yaml`` names it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

import dagster as dg
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from resources.processes import still_runs
from resources.settings import project_root

WORKER = ".assetline/worker"
"""Tag of a run with its process: ``{"pid": 1, "at": seconds since 1970}``."""

NOT_CODE = frozenset(("var", "build", "tests", "docs", "node_modules"))
"""Folders whose Python files a run does not import."""


class ForkingRunLauncher(RunLauncher, ConfigurableClass):
    """A run launcher whose runs are forks of a process that stays ready."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        self._server: subprocess.Popen[str] | None = None
        self._started_with: tuple[tuple[str, ...], float] | None = None
        self._lock = threading.Lock()
        super().__init__()

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """See Dagster's ``ConfigurableClass``."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """See Dagster's ``ConfigurableClass``."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """See Dagster's ``ConfigurableClass``."""
        return cls(inst_data=inst_data)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Starts the run; its process id becomes a tag."""
        run, origin = context.dagster_run, context.job_code_origin
        assert origin is not None
        command = ExecuteRunArgs(
            job_origin=origin, run_id=run.run_id, instance_ref=self._instance.get_ref()
        ).get_command_args()
        pointer: Any = origin.repository_origin.code_pointer
        if origin.repository_origin.executable_path in (None, sys.executable):
            pid = self._forked(command[1:], tuple(filter(None, [getattr(pointer, "module", None)])))
        else:  # a code location with a Python of its own
            pid = subprocess.Popen([origin.repository_origin.executable_path, "-m", *command]).pid
        self._instance.add_run_tags(run.run_id, {WORKER: json.dumps({"pid": pid, "at": time.time()})})

    def _forked(self, command: Sequence[str], modules: tuple[str, ...]) -> int:
        """The process id of a fork that runs ``command``; a server that has ended is started again."""
        with self._lock:
            for last in (False, True):
                server = self._ready(modules)
                assert server.stdin is not None
                assert server.stdout is not None
                try:
                    server.stdin.write(json.dumps({"command": list(command)}) + "\n")
                    server.stdin.flush()
                    if answer := server.stdout.readline():
                        return int(answer)
                except BrokenPipeError:
                    pass
                self._end()
                if last:
                    raise dg.DagsterError("the process that starts runs ends by itself; its output has the reason")
            raise AssertionError

    def _ready(self, modules: tuple[str, ...]) -> subprocess.Popen[str]:
        """The server; a new one if it has ended, or if code has changed since it was started."""
        wanted = (modules, newest_code())
        if self._server is None or self._server.poll() is not None or self._started_with != wanted:
            self._end()
            self._server = subprocess.Popen(
                [sys.executable, "-m", "resources.run_server", *modules],
                cwd=project_root(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            self._started_with = wanted
        return self._server

    def _end(self) -> None:
        """Ends the server once it has answered; its runs go on."""
        if self._server is not None:
            for pipe in (self._server.stdin, self._server.stdout):
                with contextlib.suppress(BrokenPipeError):  # it ended before it had read a request
                    if pipe is not None:
                        pipe.close()
            self._server.wait()
        self._server = None

    def dispose(self) -> None:
        """Ends the server; its runs go on."""
        with self._lock:
            self._end()

    def terminate(self, run_id: str) -> bool:
        """Interrupts a run, which then ends as cancelled; whether its process was there."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        process = _process_of(run)
        if process is None or not still_runs(*process):
            return False
        os.kill(process[0], signal.SIGINT)
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether Dagster's monitor can ask about a run's process."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the process of a run is there."""
        process = _process_of(run)
        if process is None:
            return CheckRunHealthResult(WorkerStatus.UNKNOWN, "the run has no process of this launcher")
        if still_runs(*process):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"its process {process[0]} no longer exists (killed?)")


def _process_of(run: dg.DagsterRun) -> tuple[int, float] | None:
    """The process id of a run and when it was started, in seconds since 1970."""
    found = json.loads(run.tags.get(WORKER, "null"))
    return (int(found["pid"]), float(found["at"])) if found else None


def newest_code() -> float:
    """When the project's code was changed last: the newest modification time of its Python files."""
    newest = 0.0
    for folder, folders, files in os.walk(project_root()):
        folders[:] = [name for name in folders if not name.startswith((".", "__")) and name not in NOT_CODE]
        for name in files:
            if name.endswith(".py"):
                newest = max(newest, os.stat(os.path.join(folder, name)).st_mtime)
    return newest

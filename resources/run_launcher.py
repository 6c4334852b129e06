"""Launches runs on this machine as forks of one process that has imported the project (``run_server.py``).

By default Dagster starts a new Python for each run, which imports the libraries and loads the code location: most of
the processor time of a small run.

Belongs here: starting, stopping and watching these processes. Does not belong here: runs of a code server that somebody
else has started, e.g. in another container (Dagster's own launcher still starts these), what a run does.
``deploy/dagster.yaml`` names the launcher.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import dagster as dg
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClassData

from resources.processes import still_runs
from resources.settings import project_root

WORKER = ".assetline/worker"
"""Tag of a run with its process: ``{"pid": 1, "host": its machine, "at": seconds since 1970}``."""

NOT_CODE = frozenset(("var", "build", "tests", "docs", "node_modules"))
"""Folders whose Python files a run does not import."""


class ForkingRunLauncher(DefaultRunLauncher):
    """A run launcher whose runs are forks of a process that stays ready."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(inst_data)
        self._server: subprocess.Popen[str] | None = None
        self._started_with: tuple[tuple[str, ...], float] | None = None
        self._lock = threading.Lock()

    def launch_run(self, context: LaunchRunContext) -> None:
        """Starts the run; its process writes itself into a tag."""
        run, origin = context.dagster_run, context.job_code_origin
        remote = run.remote_job_origin
        elsewhere = remote and isinstance(remote.repository_origin.code_location_origin, GrpcServerCodeLocationOrigin)
        if origin is None or elsewhere or origin.repository_origin.executable_path not in (None, sys.executable):
            super().launch_run(context)
            return
        arguments = ExecuteRunArgs(job_origin=origin, run_id=run.run_id, instance_ref=self._instance.get_ref())
        module = getattr(origin.repository_origin.code_pointer, "module", None)
        self._forked(arguments.get_command_args()[1:], (module,) if module else (), run.run_id)

    def _forked(self, command: Sequence[str], modules: tuple[str, ...], run_id: str = "") -> int:
        """The process id of a fork that runs ``command``; a server that has ended is started again."""
        with self._lock:
            for last in (False, True):
                server = self._ready(modules)
                assert server.stdin is not None
                assert server.stdout is not None
                try:
                    server.stdin.write(json.dumps({"command": list(command), "run": run_id}) + "\n")
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
        if run is None or WORKER not in run.tags:
            return bool(super().terminate(run_id))
        if run.is_finished:
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
        """Whether the process of a run is there; a process that cannot be seen from here counts as there."""
        process = _process_of(run)
        if process is None or still_runs(*process):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"its process {process[0]} no longer exists (killed?)")


def write_process(instance: dg.DagsterInstance, run_id: str) -> None:
    """Writes this process into the tags of its run. Only the run itself may, because Dagster rewrites the whole record.

    Args:
        instance: Dagster's instance.
        run_id: the run, which has not begun yet.
    """
    process = {"pid": os.getpid(), "host": socket.gethostname(), "at": time.time()}
    instance.add_run_tags(run_id, {WORKER: json.dumps(process)})


def _process_of(run: dg.DagsterRun) -> tuple[int, float] | None:
    """The process id of a run and when it was started, in seconds since 1970; ``None`` if it is not of this machine."""
    found: Any = json.loads(run.tags.get(WORKER, "null"))
    if found is None or found["host"] != socket.gethostname():
        return None
    return int(found["pid"]), float(found["at"])


def newest_code() -> float:
    """When the project was changed last: the newest modification time of its Python files and its configuration."""
    newest = 0.0
    for folder, folders, files in os.walk(project_root()):
        folders[:] = [name for name in folders if not name.startswith((".", "__")) and name not in NOT_CODE]
        for name in files:
            if name.endswith((".py", ".toml", ".yaml")):
                newest = max(newest, os.stat(os.path.join(folder, name)).st_mtime)
    return newest

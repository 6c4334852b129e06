"""Starts each run of Dagster as a fork of a process that has imported the project, so that a run begins at once.

Belongs here: this process, which ``run_launcher.py`` starts and asks. Does not belong here: what a run does.

The process has one thread and opens no file or connection, so a fork of it shares nothing but memory. It reads one JSON
line per run, ``{"command": [arguments of `dagster`], "run": "its id"}``, and answers with the process id. It ends when
its input ends, or after :data:`IDLE_S` without a run.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import sys
import traceback

IDLE_S = 900.0
"""Seconds without a run after which the process ends and gives its memory back."""

HEAVY = ("dagster._cli", "torch", "sklearn.linear_model", "scipy.stats", "pyarrow.parquet")
"""What most runs of a day import. MLflow is not one of them: it imports polars, which starts a thread, and a
fork has no thread but its own."""


def serve(modules: list[str]) -> None:
    """Imports ``modules``, then starts runs until the input ends."""
    for module in (*modules, *HEAVY):
        # The run itself reports what cannot be imported, as it does in a process of its own.
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    for module in modules:
        with contextlib.suppress(Exception):
            _load(sys.modules[module])
    gc.collect()
    gc.freeze()  # forks share these objects; a look at each of them would copy their pages
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system forgets a run that is over
    requests = os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    while select.select([requests], [], [], IDLE_S)[0]:
        line = requests.readline()
        if not line:
            return
        process = os.fork()
        if process == 0:
            requests.close()
            request = json.loads(line)
            os._exit(_run(request["command"], request["run"]))
        sys.stdout.write(f"{process}\n")
        sys.stdout.flush()


def _load(module: object) -> None:
    """Resolves the definitions of a module once, for all forks."""
    import dagster as dg

    for value in list(vars(module).values()):
        if isinstance(value, dg.Definitions):
            value.get_repository_def()


def _run(command: list[str], run_id: str) -> int:
    """Runs Dagster's command in this fork; the exit status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    try:
        import dagster as dg
        from dagster._cli import cli

        from resources.run_launcher import write_process

        with dg.DagsterInstance.get() as instance:
            write_process(instance, run_id)
        cli.main(args=command, prog_name="dagster", standalone_mode=False)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    serve(sys.argv[1:])

"""`make dev`: starts and stops Dagster's UI and daemon, MLflow's UI, the scoring service and the watch together.

Belongs here: the list of processes, their readiness checks, and stopping all of them together. Does not belong here:
what they do; keeping a service up in production (a container's restart policy, systemd).

When one process exits by itself, the supervisor stops the others and exits with status 1. It does not restart
processes, because endless restarts at a developer's terminal hide the first error under thousands of copies. honcho
starts each process in its own session, merges their output and forwards the stop signal. The supervisor sends the page
about the exit itself, because the watch is stopped with the others. honcho does not notice a process that dies while
its children live on (they hold its output open), so each session is killed when its leader exits.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import os
import shlex
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
from honcho.printer import Message, Printer

from resources import local_postgres
from resources.home import end_dead_runs, prepare
from resources.migrations import MigrationError, migrate
from resources.processes import heed_signals
from resources.settings import LOOPBACK, PREFIX, Settings, address_of, project_root
from serving import login_proxy
from serving.honcho_internals import SessionManager, SignalReceived, Started, Stopped, event_in

START_TIMEOUT_S = 120.0
END_GRACE_S = 30.0
"""Seconds that processes have to exit after SIGTERM. Dagster's daemon stops the threads of the run monitor and the
sensors one after the other; on a busy machine that takes longer than honcho's default of five seconds."""
LAST_LINES = 20
PAGE_TIMEOUT_S = 15.0
"""Seconds that the channels have to accept the page about a process that exited."""


class SupervisorError(Exception):
    """Nothing was started. The message gives the reason and the fix."""


@dataclass(frozen=True)
class Program:
    """One supervised process.

    Attributes:
        name: prefix of its output lines.
        command: argument vector.
        port: TCP port that it listens on, if any.
        host: address that it listens on.
        setting: name of the setting for the port.
        label: label of its address in the list of addresses; if empty, the address is not listed.
        ready: returns ``False`` or raises until the process answers.
        address: the listed address, if it is not that of ``host`` and ``port``.
    """

    name: str
    command: Sequence[str]
    ready: Callable[[], bool]
    port: int | None = None
    setting: str = ""
    label: str = ""
    host: str = LOOPBACK
    address: str = ""


def programs(settings: Settings) -> list[Program]:
    """The processes of `make dev`, each on the address and port of its settings."""
    scripts = Path(sys.executable).parent
    workspace = ["-w", str(project_root() / "workspace.yaml")]
    ports = (settings.ui_port, settings.mlflow_port, settings.service_port, settings.watch_port)
    ui, mlflow, service, watch = map(str, ports)
    began = time.time()
    return [
        *_database(settings),
        Program(
            "ui",
            [
                str(scripts / "dagster-webserver"),
                *_listen(settings.ui_host),
                ui,
                *workspace,
                "--code-server-log-level",
                "warning",
            ],
            lambda: bool(_get(f"{settings.ui_url}/server_info")),
            settings.ui_port,
            "ui_port",
            "Dagster",
            settings.ui_host,
        ),
        Program(
            "daemon",
            [str(scripts / "dagster-daemon"), "run", *workspace, "--code-server-log-level", "warning"],
            lambda: _daemons_beat(settings.ui_url, since=began),
        ),
        Program(
            "mlflow",
            [
                *(sys.executable, "-m", "mlflow", "server", *_listen(LOOPBACK), mlflow, "--workers", "1"),
                *("--default-artifact-root", str(settings.artifacts), "--uvicorn-opts", "--log-level warning"),
            ],
            lambda: bool(_get(f"{settings.mlflow_url}/health")),
            settings.mlflow_port,
            "mlflow_port",
            "MLflow",
        ),
        Program(
            "service",
            [sys.executable, "-m", "serving.scoring.service", *_listen(settings.service_host), service],
            lambda: bool(_get(f"{settings.service_url}/health")),
            settings.service_port,
            "service_port",
            "Scoring service",
            settings.service_host,
        ),
        Program(
            "watch",
            [sys.executable, "-m", "serving.watch.app", *_listen(settings.watch_host), watch],
            lambda: bool(_get(f"{settings.watch_url}/health")),
            settings.watch_port,
            "watch_port",
            "Alerts",
            settings.watch_host,
        ),
    ]


def _database(settings: Settings) -> list[Program]:
    """The process that ends when the state folder's PostgreSQL does, so that the others are stopped then, too."""
    if settings.stack != "postgres":
        return []
    command = [sys.executable, "-m", "resources.local_postgres", str(settings.home)]
    return [Program("postgres", command, lambda: local_postgres.is_running(settings.home))]


def _listen(host: str) -> list[str]:
    return ["--host", host, "--port"]


def supervise(settings: Settings, started: Sequence[Program] | None = None) -> int:
    """Runs the processes until SIGINT, SIGTERM or SIGHUP (status 0), or until one exits or is not ready (status 1).

    Args:
        settings: the state folder and the ports.
        started: processes to run; default: :func:`programs`.

    Returns:
        The exit status.

    Raises:
        SupervisorError: a port is taken.
        MigrationError: a newer release has upgraded the database.
        LocalPostgresError: the state folder's PostgreSQL does not start.
    """
    inside = None
    if started is None and settings.secure:
        settings, started, inside = _secured(settings)
    started = programs(settings) if started is None else started
    refuse_taken_ports(started)
    with local_postgres.in_use(settings.home) if settings.stack == "postgres" else contextlib.nullcontext():
        return _supervise(settings, started, login_proxy.variables(inside) if inside else {})


def _secured(settings: Settings) -> tuple[Settings, list[Program], login_proxy.Inside]:
    """The settings and the processes behind a login proxy, and the proxy.

    Raises:
        SupervisorError: something that the proxy needs is missing, or one of its ports is taken.
    """
    try:
        inside = login_proxy.inside_of(settings)
    except login_proxy.LoginProxyError as error:
        raise SupervisorError(f"{error}; nothing was started") from error
    hosts = {"ui": settings.ui_host, "mlflow": settings.ui_host, "service": settings.service_host,
             "watch": settings.watch_host}  # fmt: skip
    scheme = "https" if settings.tls_certificate else "http"
    within: list[Program] = []
    outside: list[Program] = []
    for program in programs(inside.settings):
        if program.name not in hosts:
            within.append(program)
            continue
        port = getattr(settings, program.setting)
        outside.append(replace(program, port=port, host=hosts[program.name]))
        command = [*program.command, "--app-name", "basic-auth"] if program.name == "mlflow" else program.command
        ready = functools.partial(login_proxy.provisioned, inside) if program.name == "mlflow" else program.ready
        address = f"{scheme}://{address_of(hosts[program.name])}:{port}"
        within.append(replace(program, command=command, ready=ready, address=address))
        if program.name == "ui":
            read_only = [
                str(inside.read_only_port) if word == str(inside.settings.ui_port) else word for word in command
            ]
            within.append(
                replace(
                    program, name=login_proxy.READ_ONLY_UI, command=[*read_only, "--read-only"],
                    ready=lambda: bool(_get(f"http://{LOOPBACK}:{inside.read_only_port}/server_info")),
                    port=inside.read_only_port, label="",
                )
            )  # fmt: skip
    refuse_taken_ports(outside)
    proxy = Program(
        "login", login_proxy.command_of(settings, inside), functools.partial(login_proxy.answers, settings),
        settings.watch_port, "watch_port", host=settings.watch_host,
    )  # fmt: skip
    return inside.settings, [*within, proxy], inside


def _supervise(settings: Settings, started: Sequence[Program], variables: Mapping[str, str]) -> int:
    migrate(sa.create_engine(settings.database_url, poolclass=sa.NullPool))
    prepare(settings)
    with dg.DagsterInstance.get() as instance:
        end_dead_runs(instance)
    log = _Log(started)
    manager = SessionManager(log, END_GRACE_S)
    for program in started:
        # `exec` replaces the shell that honcho starts, so that signals reach the program.
        manager.add_process(
            program.name,
            f"exec {shlex.join(program.command)}",
            env={**environment(settings), **variables},
            cwd=str(project_root()),
        )
    # A closed terminal (SIGHUP) stops everything like SIGTERM.
    signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    manager.loop()
    status = log.verdict()
    if status:
        _page_of_the_end(settings, log.ended)
    return status


def _page_of_the_end(settings: Settings, ended: str) -> None:
    """Opens and delivers the alert for a process that exited by itself; the watchdog of the next start resolves it."""
    from resources.alerts import Alerts, ChannelsError, deliver_all
    from resources.alerts.causes import PROCESS
    from resources.alerts.runbooks import runbook_of

    alerts = Alerts.from_settings(settings).process_config_and_initialize()
    cause = f"{PROCESS}{ended}"
    try:
        changed = alerts.store.report(
            "assetline", cause, severity="page",
            summary=f"the process '{ended}' exited by itself, so all processes were stopped", runbook=runbook_of(cause),
        )  # fmt: skip
    except sa.exc.OperationalError as error:  # the database may be what ended
        print(
            f"no alert was opened, because its database does not answer ({str(error.orig).splitlines()[0]})",
            file=sys.stderr,
        )
        return
    alerts.tell(changed)
    try:
        messengers = alerts.messengers()
    except ChannelsError as error:
        print(f"only the console received the alert: {error}", file=sys.stderr)
        return
    time.sleep(max((messenger.channel.group_seconds for messenger in messengers), default=0.0))
    deliver_all(messengers, PAGE_TIMEOUT_S)


def refuse_taken_ports(started: Sequence[Program]) -> None:
    """Raises :class:`SupervisorError` if ports are in use; the message lists all of them."""
    taken = []
    for program in started:
        if program.port is None:
            continue
        with socket.socket(socket.AF_INET6 if ":" in program.host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((program.host, program.port))
            except OSError as error:
                problem = f"port {program.port} of {program.label or program.name} cannot be used ({error.strerror})"
                taken.append(
                    f"{problem}; stop the process that listens there, or set {PREFIX}{program.setting.upper()}"
                )
    if taken:
        raise SupervisorError("\n".join([*taken, "nothing was started"]))


def environment(settings: Settings) -> dict[str, str]:
    """The environment of the processes: the current one, with this project on the path and no proxy for localhost.

    The URL of MLflow's store is a variable, because others can see arguments, and it may hold a password.
    """
    no_proxy = ",".join(filter(None, [os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), "127.0.0.1,localhost"]))
    path = os.pathsep.join(filter(None, [str(project_root()), os.environ.get("PYTHONPATH")]))
    return {
        **os.environ,
        "PYTHONPATH": path,
        "PYTHONUNBUFFERED": "1",
        "MLFLOW_BACKEND_STORE_URI": settings.tracking_uri,
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        # MLflow's job queue evaluates language models. It starts four more processes, which nothing here uses.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


class _Log(Printer):
    """Prints the merged output, keeps the last lines of each process, and prints the addresses once all are ready."""

    def __init__(self, started: Sequence[Program]) -> None:
        super().__init__(sys.stdout)
        self._programs = started
        self._last = {program.name: collections.deque[str](maxlen=LAST_LINES) for program in started}
        self._running: set[str] = set()
        self._first: tuple[str, int] | None = None
        self._asked_to_end = False
        self._not_ready = ""

    def write(self, message: Message) -> None:
        """Handles one line of a process or of honcho."""
        super().write(message)
        if message.name in self._last:
            text = message.data.decode(errors="replace") if isinstance(message.data, bytes) else message.data
            self._last[message.name].extend(text.splitlines())
            return
        event = event_in(message)
        if isinstance(event, Started):
            self._running.add(event.name)
            if len(self._running) == len(self._programs):
                # All processes are forked, so starting a thread is safe from here on.
                threading.Thread(target=self._wait_until_ready, daemon=True).start()
        elif isinstance(event, Stopped):
            self._first = self._first or (event.name, event.code)
        elif isinstance(event, SignalReceived):
            self._asked_to_end = self._first is None

    @property
    def ended(self) -> str:
        """Name of the process that exited first; ``unknown`` if none did."""
        return self._first[0] if self._first else "unknown"

    def say(self, text: str) -> None:
        """Prints the supervisor's own lines."""
        print(text, file=self.output, flush=True)

    def verdict(self) -> int:
        """Returns the exit status. If a process failed, prints its name and, if it exited, its last lines."""
        if self._not_ready:
            self.say(f"\n{self._not_ready}; all processes were stopped")
            return 1
        if self._asked_to_end or self._first is None:
            return 0
        name, code = self._first
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        last = "\n".join(f"  {line}" for line in self._last[name]) or "  (no output)"
        self.say(f"\n'{name}' exited by itself ({how}), so all processes were stopped. Its last lines:\n{last}")
        return 1

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        for program in self._programs:
            last_error = "it does not answer"
            while True:
                try:
                    if program.ready():
                        break
                except (OSError, ValueError) as error:
                    last_error = str(error)
                if time.monotonic() > deadline:
                    self._not_ready = f"'{program.name}' was not ready after {START_TIMEOUT_S:g} s ({last_error})"
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
                time.sleep(0.2)
        listed = [program for program in self._programs if program.label]
        width = max((len(program.label) for program in listed), default=0)
        lines = [
            f"  {program.label:{width}}  {program.address or f'http://{address_of(program.host)}:{program.port}'}"
            for program in listed
        ]
        self.say("\n".join(["", *lines, "", "Ctrl-C stops all processes.", ""]))


def _daemons_beat(ui_url: str, since: float) -> bool:
    """Whether every daemon that the instance requires has sent a heartbeat since the Unix time ``since``."""
    query = "{instance{daemonHealth{allDaemonStatuses{required lastHeartbeatTime}}}}"
    statuses = _get(f"{ui_url}/graphql", {"query": query})["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
    return all((status["lastHeartbeatTime"] or 0) >= since for status in statuses if status["required"])


def _get(url: str, body: Mapping[str, Any] | None = None) -> Any:
    """The response body, parsed if it is JSON. Raises :class:`OSError` if the request fails."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as response:
        text = response.read()
        return json.loads(text) if "json" in response.headers.get("Content-Type", "") else text


def main() -> None:
    """Entry point of `python -m serving.supervisor`."""
    heed_signals()
    try:
        sys.exit(supervise(Settings.from_env()))
    except (SupervisorError, MigrationError, local_postgres.LocalPostgresError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

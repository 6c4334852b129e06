"""What the tests on real database servers share: a proxy that cuts connections, a MariaDB, and a stage that lands."""

import contextlib
import datetime as dt
import os
import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resources.processes import free_port
from resources.sources import SqlByDay, sql_values
from tests.declarations.readings import labelled_stream
from tests.stages import Outcome, Stages

MARIADB = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")


class CuttingProxy:
    """Forwards connections to a server on the loopback interface, and cuts them after so many bytes of its answers.

    ``budgets``: the number of bytes for each connection to come, ``None`` for one that is not cut; those beyond the
    list are not cut. A budget of 0 refuses the connection. ``silent``: whether a connection that is cut stays open and
    says nothing any more. ``passed``: bytes of all answers. ``cut``: number of connections that were cut.
    """

    def __init__(self, port: int) -> None:
        self._server, self.silent = port, False
        self.budgets: list[int | None] = []
        self.passed = self.cut = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                budget = self.budgets.pop(0) if self.budgets else None
                if budget == 0:
                    self.cut += 1
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._server))
                threading.Thread(target=self._forward, args=(client, server, None), daemon=True).start()
                threading.Thread(target=self._forward, args=(server, client, budget), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, budget: int | None) -> None:
        left = budget
        with contextlib.suppress(OSError):
            while data := source.recv(65_536 if left is None else min(left, 65_536)):
                target.sendall(data)
                if source.getpeername()[1] == self._server:
                    self.passed += len(data)
                if left is not None and not (left := left - len(data)):
                    self.cut += 1
                    if self.silent:
                        return
                    break
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextlib.contextmanager
def mariadb() -> Iterator[Callable[[str], str]]:
    """Runs a server of its own on the loopback interface; yields a function that makes a database and gives its URL.

    ``stop()`` and ``start()`` of that function end the server and start it again.
    """
    folder = Path(tempfile.mkdtemp(prefix="assetline-mariadb-"))
    port, running = free_port(), []
    user = ["--user=mysql"] if os.getuid() == 0 else []
    if user:
        shutil.chown(folder, "mysql")
    install = ["mariadb-install-db", "--no-defaults", f"--datadir={folder}/data", "--skip-test-db", *user,
               "--auth-root-authentication-method=normal"]  # fmt: skip
    made = subprocess.run(install, check=False, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr

    def root(statement: str) -> None:
        import pymysql

        with contextlib.closing(pymysql.connect(unix_socket=f"{folder}/socket", user="root")) as connection:
            connection.cursor().execute(statement)

    def start() -> None:
        options = {"datadir": "data", "socket": "socket", "pid-file": "pid", "log-error": "log"}
        places = [f"--{option}={folder}/{name}" for option, name in options.items()]
        command = [MARIADB, "--no-defaults", *places, f"--port={port}", "--bind-address=127.0.0.1", *user]
        running.append(subprocess.Popen(command))
        for _ in range(600):
            with contextlib.suppress(Exception):
                return root("SELECT 1")
            time.sleep(0.1)
        raise AssertionError(Path(f"{folder}/log").read_text()[-2_000:])

    def stop() -> None:
        process = running.pop()
        process.kill()
        process.wait()

    def database(name: str) -> str:
        root(f"CREATE DATABASE {name}")
        root("CREATE USER IF NOT EXISTS 'reader'@'127.0.0.1' IDENTIFIED BY 'c4nary'")
        root(f"GRANT ALL ON {name}.* TO 'reader'@'127.0.0.1'")
        return f"mysql://reader:c4nary@127.0.0.1:{port}/{name}"

    database.root, database.start, database.stop, database.port = root, start, stop, port
    start()
    try:
        yield database
    finally:
        if running:
            stop()
        shutil.rmtree(folder)


def lander(folder: Path, source: SqlByDay) -> Stages:
    """The landing of a source, as the assets of a model have it."""
    model = labelled_stream()
    return Stages(replace(model, table=replace(model.table, source=source, quiet_days=True)), folder)


def landed_ids(stages: Stages, *days: str) -> list[int]:
    """Ids of the landed rows, of all days if none is given; empty where nothing has landed."""
    key = stages.model.key("raw_readings")
    there = [day for day in stages.tables.days(key) if not days or day in days]
    return stages.tables.read(key, there)["id"].astype(int).tolist() if there else []


def land(stages: Stages, day: str) -> Outcome:
    """Lands a day."""
    return stages.make("raw_readings", day)


@contextlib.contextmanager
def at_chunk(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], Any]) -> Iterator[list[int]]:
    """Does something once, when the chunk ``number`` (from 1) has been read; yields what was seen of chunks."""
    seen: list[int] = []
    add = sql_values.TextColumns.add

    def counted(self: Any, rows: Any) -> None:
        seen.append(len(rows))
        if len(seen) == number:
            act()
        add(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(sql_values.TextColumns, "add", counted)
        yield seen


def cuts_of(proxy: CuttingProxy, source: SqlByDay, day: str) -> Callable[[random.Random], list[int | None]]:
    """Budgets for the tries of a landing, each of which is cut: while it asks for the clock, or while it reads."""
    proxy.passed = 0
    source.landed_until()
    clock, proxy.passed = proxy.passed, 0
    source.land(dt.date.fromisoformat(day))
    rows = proxy.passed

    def budgets(chance: random.Random) -> list[int | None]:
        tries: list[list[int | None]] = [
            [chance.randrange(clock * 9 // 10)] if chance.random() < 0.2 else [None, chance.randrange(rows * 9 // 10)]
            for _ in range(chance.randint(1, 4))
        ]
        return [budget for budgets in tries for budget in budgets]

    return budgets

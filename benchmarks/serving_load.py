"""The scoring service under load: 8 clients against 1, 2 and 4 processes behind one port, beside a bare application.

All variants answer in the same run, in turn and several times over, from processes of their own, over connections that
stay open. The bare FastAPI + torch application has as many processes, by uvicorn's ``--workers``, and gets features
that are ready. The service gets raw payments, each a new row. Each variant of it has a state folder of its own, because
services on one folder share their history.

Seconds depend on what else the machine does, so the figures that count are processor seconds: what a request takes, and
how many requests a processor second answers. If a request takes as much with four processes as with one, throughput
grows with the cores. What a server takes while nobody asks, such as for a look at the alias every two seconds, is
measured before and left out: on a crowded machine it would be shared by few requests.

Belongs here: throughput. Does not belong here: latency of one client (``service.py``), memory over time (``soak.py``).

    python -m benchmarks.serving_load
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import selectors
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.service import Process, prepare
from resources.processes import free_port
from resources.settings import Settings, one_thread_each

PROCESSES = (1, 2, 4)
CLIENTS = 8
ROUNDS = 3
SECONDS = 4.0
MOST_TIMES_ALONE = 1.25
"""Processor seconds of a request with the most processes, as a multiple of those with one."""
BARE = """
import os
import torch
torch.set_num_threads(1)
from fastapi import FastAPI
from pydantic import BaseModel

network = torch.export.load(os.environ["BARE_NETWORK"]).module()


class Rows(BaseModel):
    features: list[list[float | None]]


app = FastAPI()


@app.post("/score")
async def score(rows: Rows):
    x = torch.tensor([[float("nan") if v is None else v for v in row] for row in rows.features])
    with torch.inference_mode():
        return {"scores": torch.sigmoid(network(x)).tolist()}


@app.get("/health")
async def health():
    return {"status": "ok"}
"""


class Client:
    """One connection that stays open. It does as little as a client can, because it shares the machine."""

    def __init__(self, port: int, path: str, token: str = "") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        self._head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{authorization}Content-Type: application/json\r\n"
        self.began, self._read = 0.0, b""

    def send(self, body: bytes) -> None:
        """Sends a request."""
        self.began, self._read = time.perf_counter(), b""
        self.socket.sendall(f"{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def receive(self) -> tuple[int, bytes] | None:
        """Reads what is there; the status and the body once the answer is complete. Raises :class:`OSError`."""
        part = self.socket.recv(1 << 20)
        if not part:
            raise ConnectionResetError("the connection was closed")
        self._read += part
        head, found, body = self._read.partition(b"\r\n\r\n")
        if not found:
            return None
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        return (int(head[9:12]), body) if len(body) >= length else None

    def ask(self, body: bytes) -> tuple[int, bytes]:
        """Sends a request and waits for its answer."""
        self.send(body)
        while (answer := self.receive()) is None:
            pass
        return answer

    def close(self) -> None:
        """Closes the connection."""
        self.socket.close()


def payments(n: int, first: int) -> list[bytes]:
    """Payments of this moment, numbered from ``first``, of some customers at some terminals."""
    now = f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M:%S}"
    return [
        json.dumps(
            {"transaction_id": 10**15 + number, "paid_at": now, "customer_id": number * 7919 % 100,
             "terminal_id": number * 104_729 % 200, "amount": 12.5 + number % 90}
        ).encode()
        for number in range(first, first + n)
    ]  # fmt: skip


def children_of(pid: int) -> list[int]:
    """Ids of the processes that a process has started, oldest first."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def processor_seconds(pids: Sequence[int]) -> float:
    """Processor seconds that processes have taken so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@dataclass
class Variant:
    """One server, and what it was measured at: in each round requests a second, processor seconds, milliseconds."""

    name: str
    processes: int
    server: Process
    path: str
    token: str
    rates: list[float]
    milliseconds: list[float]
    answered: int = 0
    seconds: float = 0.0
    idle: float = 0.0

    def measure_idle(self, seconds: float) -> None:
        """Measures the processor seconds that it takes in a second in which nobody asks."""
        pids = [self.server.child.pid, *children_of(self.server.child.pid)]
        before, began = processor_seconds(pids), time.perf_counter()
        time.sleep(seconds)
        self.idle = (processor_seconds(pids) - before) / (time.perf_counter() - began)

    def measure(self, seconds: float, bodies: Iterator[bytes], *, counts: bool = True) -> None:
        """Asks for some seconds with all clients at once. Raises :class:`SystemExit` for a request that fails."""
        pids = [self.server.child.pid, *children_of(self.server.child.pid)]
        clients = [Client(self.server.port, self.path, self.token) for _ in range(CLIENTS)]
        taken: list[float] = []
        with selectors.DefaultSelector() as selector:
            before, began = processor_seconds(pids), time.perf_counter()
            for client in clients:
                selector.register(client.socket, selectors.EVENT_READ, client)
                client.send(next(bodies))
            waits = len(clients)
            while waits:
                for key, _ in selector.select():
                    if (answer := key.data.receive()) is None:
                        continue
                    now = time.perf_counter()
                    taken.append(1e3 * (now - key.data.began))
                    if answer[0] != 200:
                        raise SystemExit(f"{self.name}: {answer[1].decode()[:300]}")
                    if now - began < seconds:
                        key.data.send(next(bodies))
                    else:
                        waits -= 1
            took, used = time.perf_counter() - began, processor_seconds(pids) - before
        for client in clients:
            client.close()
        if counts:
            self.rates.append(len(taken) / took)
            self.milliseconds += taken
            self.answered, self.seconds = self.answered + len(taken), self.seconds + used - self.idle * took

    @property
    def of_request(self) -> float:
        """Processor milliseconds of a request."""
        return 1e3 * self.seconds / self.answered


def main(arguments: Sequence[str] = ()) -> bool:
    """Prints the figures; whether the claim holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving_load")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="seconds of each variant in each round")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--processes", type=int, nargs="+", default=[*PROCESSES])
    parser.add_argument("--alone", action="store_true", help="leave out the bare application")
    given = parser.parse_args(arguments)
    one_thread_each()
    variants: list[Variant] = []
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        home = Path(scratch) / "home"
        folder = prepare(home)
        width = len(json.loads((folder / "bundle.json").read_text())["feature_names"])
        ready = json.dumps({"features": np.random.default_rng(0).normal(50, 20, (1, width)).tolist()}).encode()
        (Path(scratch) / "bare.py").write_text(BARE)
        os.environ["BARE_NETWORK"] = str(folder / "network.pt2")
        for processes in given.processes:
            for start in (_service,) if given.alone else (_bare, _service):
                variants.append(start(Path(scratch), processes, home))
                stack.callback(variants[-1].server.end)
        for variant in variants:
            variant.server.wait("/health")
            if variant.path != "/score":
                its = Settings.from_env({"ASSETLINE_HOME": str(variant.server.log.parent)})
                variant.token = its.first_service_token.read_text().strip()
        for variant in variants:
            variant.measure_idle(2 * given.seconds)
        numbers = iter(range(10**12))
        for number in range(given.rounds + 1):  # the first one warms up
            for variant in variants:
                new = (payments(1, first=next(numbers))[0] for _ in iter(int, 1))
                variant.measure(
                    given.seconds, (ready for _ in iter(int, 1)) if variant.path == "/score" else new, counts=number > 0
                )
            print(f"round {number} of {given.rounds}, load {os.getloadavg()[0]:.1f}", flush=True)
    return say(variants)


def _bare(scratch: Path, processes: int, home: Path) -> Variant:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "bare:app", "--app-dir", str(scratch), "--port", str(port),
               "--workers", str(processes), "--log-level", "warning", "--no-access-log"]  # fmt: skip
    return Variant("the bare application, features", processes, Process(command, port, home), "/score", "", [], [])


def _service(scratch: Path, processes: int, home: Path) -> Variant:
    own, port = scratch / f"home-{processes}", free_port()
    shutil.copytree(home, own)
    command = [sys.executable, "-m", "serving.scoring.service", "--model", "fraud", "--port", str(port),
               "--processes", str(processes)]  # fmt: skip
    return Variant("the service, raw payments", processes, Process(command, port, own), "/models/fraud/predict", "",
                   [], [])  # fmt: skip


def say(variants: Sequence[Variant]) -> bool:
    """Prints the table; whether a request takes about as much with the most processes as with one."""
    print(
        f"| {CLIENTS} clients | processes | requests/s | processor ms of a request | requests per processor second | "
        "p50 | p99 |\n|---|---|---|---|---|---|---|"
    )
    for one in sorted(variants, key=lambda one: (one.name, one.processes)):
        p50, p99 = np.quantile(one.milliseconds, [0.5, 0.99])
        print(
            f"| {one.name} | {one.processes} | {statistics.median(one.rates):,.0f} | {one.of_request:.2f} | "
            f"{1e3 / one.of_request:,.0f} | {p50:.1f} ms | {p99:.1f} ms |"
        )
    service = {one.processes: one.of_request for one in variants if one.path != "/score"}
    times = service[max(service)] / service[min(service)]
    print(f"\nwith {max(service)} processes, a request takes {times:.2f} times the processor of one with "
          f"{min(service)} (at most {MOST_TIMES_ALONE})")  # fmt: skip
    return times <= MOST_TIMES_ALONE


if __name__ == "__main__":
    raise SystemExit(0 if main(sys.argv[1:]) else 1)

"""A soak of the scoring service: steady load, a promotion every minute, and the memory of each of its processes.

Two versions are promoted in turn, through the ledger and the target ``local``, as the asset ``deployment`` does.
Clients on connections that stay open send payments at a steady pace. The payments are a fixed set that is sent again
and again, because the history grows by every new one until its day's table has it; that growth is measured at the end.

Claims: no request fails; each promotion reaches every process; after the first five minutes, the memory of each process
stays within 2 % of what it then is. A process holds two versions while it changes to another one, so a minute counts by
its median.

Belongs here: the load, the promotions and the figures. Does not belong here: throughput (``serving_load.py``).

    python -m benchmarks.soak --minutes 30
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.service import Process, prepare
from benchmarks.serving_load import Client, children_of, payments
from resources.processes import free_port
from resources.settings import Settings, one_thread_each

SETTLED_MINUTES = 5
"""Minutes after which memory has to stay where it is."""
MOST_DRIFT = 0.02
SAMPLE_S = 2.0
KNOWN_PAYMENTS = 1_000
NEW_ROWS = 5_000


@dataclass
class Load:
    """Clients that send payments at a steady pace, and what became of them."""

    port: int
    token: str
    clients: int
    per_second: float
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    versions: dict[int, tuple[str, float]] = field(default_factory=dict)
    milliseconds: list[float] = field(default_factory=list)
    ends: threading.Event = field(default_factory=threading.Event)

    def run(self, client: int) -> None:
        """One client: it sends a payment of the fixed set, then waits for its next turn."""
        bodies = payments(KNOWN_PAYMENTS, first=0)
        connection = Client(self.port, "/models/fraud/predict", self.token)
        due = time.monotonic()
        number = client * 7
        while not self.ends.is_set():
            began = time.perf_counter()
            try:
                status, content = connection.ask(bodies[number % KNOWN_PAYMENTS])
            except OSError as error:
                status, content = 0, repr(error).encode()
                connection = Client(self.port, "/models/fraud/predict", self.token)
            if status == 200:
                self.answered += 1
                self.milliseconds.append(1e3 * (time.perf_counter() - began))
                self.versions[client] = (json.loads(content)["version"], time.monotonic())
            else:
                self.failed.append(content.decode(errors="replace")[:300])
            number += 1
            due += self.clients / self.per_second
            self.ends.wait(max(0.0, due - time.monotonic()))
        connection.close()


def resident_mb(pid: int) -> float:
    """Resident memory of a process in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def versions_in_turn(home: Path) -> tuple[Callable[[str], None], list[str]]:
    """What promotes a version, and the two versions."""
    from assets.lifecycle.release.promotion import promote_on_all
    from assets.models.fraud import model
    from resources.ledger import Ledger
    from resources.mlflow import MlflowTracking
    from resources.targets.local_service import LocalService

    settings = Settings.from_env({"ASSETLINE_HOME": str(home)})
    mlflow, ledger = MlflowTracking.from_settings(settings), Ledger.from_settings(settings)
    client = mlflow.client()
    experiment = client.create_experiment("soak", artifact_location=f"{mlflow.artifact_location}/soak")
    run = client.create_run(experiment).info.run_id
    bundle = home / "bundle"
    facts = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps({**facts, "threshold": 0.25}))
    second = mlflow.register(model.name, run, bundle, loader_module="assets.lifecycle.model.version.bundle")
    targets = {"local": LocalService(mlflow=mlflow)}

    def promote(version: str) -> None:
        promote_on_all(
            targets, ledger, model.name, version, reason="its turn", verdicts={}, dagster_run="", who="benchmark"
        )

    first = mlflow.version_of_alias(model.name, "champion")
    assert first is not None
    promote(first)
    return promote, [first, second]


def main(arguments: Sequence[str] = ()) -> bool:
    """Prints the figures; whether the claims hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--per-second", type=float, default=40.0, help="requests a second of all clients together")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two promotions")
    given = parser.parse_args(arguments)
    one_thread_each()
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        home = Path(scratch)
        prepare(home)
        promote, versions = versions_in_turn(home)
        port = free_port()
        command = [sys.executable, "-m", "serving.scoring.service", "--model", "fraud", "--port", str(port)]
        server = Process([*command, "--processes", str(given.processes)], port, home)
        stack.callback(server.end)
        server.wait("/health")
        token = Settings.from_env({"ASSETLINE_HOME": str(home)}).first_service_token.read_text().strip()
        pids = [server.child.pid, *children_of(server.child.pid)]
        load = Load(port, token, given.clients, given.per_second)
        threads = [threading.Thread(target=load.run, args=(n,)) for n in range(given.clients)]
        for thread in threads:
            thread.start()
        samples, lags = watch(load, pids, given.minutes * 60, given.every, promote, versions)
        load.ends.set()
        for thread in threads:
            thread.join()
        grown = growth(port, token, pids)
        ended = [pid for pid in pids if not Path(f"/proc/{pid}").exists()]
    return say(load, samples, lags, grown, ended)


def watch(
    load: Load, pids: list[int], seconds: float, every: float, promote: Callable[[str], None], versions: list[str]
) -> tuple[dict[int, list[tuple[float, float]]], list[float]]:
    """Samples memory and promotes in turn until the end; returns samples by process, and seconds of each promotion."""
    began = time.monotonic()
    samples: dict[int, list[tuple[float, float]]] = {pid: [] for pid in pids}
    lags: list[float] = []
    turn, next_promotion = 0, began + every
    while (now := time.monotonic()) < began + seconds:
        for pid in pids:
            with contextlib.suppress(OSError):
                samples[pid].append((now - began, resident_mb(pid)))
        if now >= next_promotion:
            turn += 1
            promote(versions[turn % 2])
            promoted = time.monotonic()
            while not all(version == versions[turn % 2] for version, _ in [*load.versions.values()]):
                if time.monotonic() > promoted + every:
                    break
                time.sleep(0.05)
            lags.append(time.monotonic() - promoted)
            next_promotion += every
        time.sleep(SAMPLE_S)
        if int(now - began) // 60 != int(now - began - SAMPLE_S) // 60:
            sizes = ", ".join(f"{samples[pid][-1][1]:.0f}" for pid in pids if samples[pid])
            answers = f"{load.answered:,} answered, {len(load.failed)} failed"
            print(f"minute {(now - began) / 60:.0f}: {sizes} MB, {answers}, load {os.getloadavg()[0]:.1f}", flush=True)
    return samples, lags


def growth(port: int, token: str, pids: list[int]) -> float:
    """Bytes of memory that a new row takes in each process that serves."""
    connection = Client(port, "/models/fraud/predict", token)
    before = sum(resident_mb(pid) for pid in pids[1:]) or resident_mb(pids[0])
    rows = [json.loads(body) for body in payments(NEW_ROWS, first=10**6)]
    for start in range(0, NEW_ROWS, 50):
        status, content = connection.ask(json.dumps(rows[start : start + 50]).encode())
        if status != 200:
            raise SystemExit(f"new rows were refused: {content.decode()[:300]}")
    connection.close()
    time.sleep(3)
    after = sum(resident_mb(pid) for pid in pids[1:]) or resident_mb(pids[0])
    return 1e6 * (after - before) / NEW_ROWS / max(1, len(pids) - 1)


def say(load: Load, samples: dict[int, list[tuple[float, float]]], lags: list[float], grown: float,
        ended: list[int]) -> bool:  # fmt: skip
    """Prints the table; whether the claims hold."""
    print("| process | minute 1 | minute 6 | last minute | drift after minute 5 |\n|---|---|---|---|---|")
    drifts = []
    for n, of_process in enumerate(samples.values()):
        times, sizes = np.array(of_process).T
        minutes = [sizes[times // 60 == minute] for minute in range(int(times[-1] // 60) + 1)]
        medians = [float(np.median(one)) for one in minutes if len(one) > 60 / SAMPLE_S / 4]
        settled = medians[min(SETTLED_MINUTES, len(medians) - 1) :]
        drifts.append(max(abs(one / settled[0] - 1) for one in settled))
        name = "the one that accepts" if n == 0 and len(samples) > 1 else f"worker {n - 1}"
        print(f"| {name} | {medians[0]:.0f} MB | {settled[0]:.0f} MB | {settled[-1]:.0f} MB | {drifts[-1]:.1%} |")
    p50, p99 = np.quantile(load.milliseconds, [0.5, 0.99])
    print(
        f"\n{load.answered:,} requests answered, {len(load.failed)} failed; p50 {p50:.1f} ms, p99 {p99:.1f} ms\n"
        f"{len(lags)} promotions; the last process had followed after {np.median(lags) if lags else 0:.1f} s (median), "
        f"{max(lags, default=0):.1f} s (most)\n"
        f"a new row takes {grown:,.0f} bytes in each process until its day's table has it"
    )
    if load.failed:
        print(f"the first that failed: {load.failed[0]}")
    if ended:
        print(f"ended before the end: {ended}")
    return not load.failed and not ended and max(drifts) <= MOST_DRIFT


if __name__ == "__main__":
    raise SystemExit(0 if main(sys.argv[1:]) else 1)

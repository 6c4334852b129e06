"""What the log of requests costs: the same scores without a log, with files, and with PostgreSQL, in turn in one run.

Each variant has the version and a history of its own. All answer a raw payment before the next ones come, so they share
whatever else the machine does. Where the history is shared, another process answers a payment between any two of this
one, which therefore reads one row of it each time.

Belongs here: the figures. Does not belong here: the whole service over HTTP (``service.py``), correctness (its tests).

    python -m benchmarks.requests [--url postgresql+psycopg://…]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.service import payment, prepare
from resources.settings import Settings, one_thread_each

MOST_TIMES = 1.25
"""Median time to score and log a payment in files, as a multiple of that without a log."""
REQUESTS, WARM_UP = 3_000, 300


def main(arguments: Sequence[str] = ()) -> bool:
    """Prints the figures; whether the claim holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.requests")
    parser.add_argument("--url", default=Settings.from_env().history_url, help="an empty PostgreSQL (default: none)")
    url = parser.parse_args(arguments).url
    one_thread_each()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        return say(measured(home, prepare(home), url))


def measured(home: Path, folder: Path, url: str) -> dict[str, list[float]]:
    """Milliseconds of each request by variant."""
    import torch

    from resources.request_log import RequestLog
    from resources.tables import ParquetTables
    from serving.scoring.recording import Call
    from serving.scoring.service import Served

    torch.set_num_threads(1)
    tables = ParquetTables(root=str(home / "tables"))

    def process(log: RequestLog | None) -> Callable[[list[Any]], float]:
        served = Served.prepare("1", folder, tables, log)

        def ask(raw: list[Any]) -> float:
            began = time.perf_counter()
            served.score(raw, Call())
            return 1e3 * (time.perf_counter() - began)

        return ask

    variants = {"no log": process(None), "files": process(RequestLog(folder=str(home / "alone")))}
    logs = {"files, shared": {"folder": str(home / "shared")}}
    if url:
        logs["PostgreSQL, shared"] = {"folder": str(home / "none"), "url": url}
    others: dict[str, Callable[[list[Any]], float]] = {}
    for name, where in logs.items():
        variants[name], others[name] = (process(RequestLog(**where)) for _ in range(2))
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(REQUESTS + WARM_UP):
        for name, ask in variants.items():
            if name in others:
                others[name]([json.loads(payment(2 * number))])
            took = ask([json.loads(payment(2 * number + 1))])
            if number >= WARM_UP:
                taken[name].append(took)
    return taken


def say(taken: dict[str, list[float]]) -> bool:
    """Prints the table; whether the log in files holds its multiple."""
    without = float(np.median(taken["no log"]))
    print("| score and log a payment | p50 | p99 | p50 to no log |\n|---|---|---|---|")
    for name, values in taken.items():
        p50, p99 = np.median(values), np.quantile(values, 0.99)
        print(f"| {name} | {p50:.2f} ms | {p99:.2f} ms | {p50 / without:.2f} |")
    times = float(np.median(taken["files"])) / without
    print(f"\nwith the log in files, a payment takes {times:.2f} times what it takes without (at most {MOST_TIMES})")
    return times <= MOST_TIMES


if __name__ == "__main__":
    raise SystemExit(0 if main(sys.argv[1:]) else 1)

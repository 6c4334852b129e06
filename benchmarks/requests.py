"""What the log of requests costs: the same scores with a log that keeps nothing, with files, and with PostgreSQL.

Each variant has the version and a history of its own. All answer a raw payment before the next ones come, so they share
whatever else the machine does. Where the history is shared, another process answers a payment between any two of this
one, which therefore reads one row of it each time. The processor's time is that of the scoring process alone; the time
on the clock also has its waits, for the disk, for PostgreSQL, and for other work on the machine.

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
from resources.request_log import Appended, RequestLog
from resources.settings import Settings, one_thread_each

MOST_TIMES = 1.25
"""Median processor time to score and log a payment in files, as a multiple of that with a log that keeps nothing."""
REQUESTS, WARM_UP = 1_000, 100

Times = tuple[float, float]
"""Milliseconds of a request: of the processor, and on the clock."""


class Nowhere:
    """A store that keeps nothing: the rest of a request is as with any other."""

    def write(self, model: str, day: str, writer: str, first: int, lines: Sequence[str]) -> Appended:
        """Forgets the lines."""
        return Appended(day, writer, 0, 0)

    def follow(self, model: str, since: str) -> Nowhere:
        """A follower that never finds anything."""
        return self

    def fetch(self) -> list[dict[str, Any]]:
        """Nothing."""
        return []

    def passed(self, appended: Sequence[Appended]) -> None:
        """Nothing to leave out."""


def main(arguments: Sequence[str] = ()) -> bool:
    """Prints the figures; whether the claim holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.requests")
    parser.add_argument("--url", default=Settings.from_env().history_url, help="an empty PostgreSQL (default: none)")
    url = parser.parse_args(arguments).url
    one_thread_each()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        return say(measured(home, prepare(home), url))


def measured(home: Path, folder: Path, url: str) -> dict[str, list[Times]]:
    """The times of each request by variant."""
    import torch

    from resources.tables import ParquetTables
    from serving.scoring.recording import Call
    from serving.scoring.service import Served

    torch.set_num_threads(1)
    tables = ParquetTables(root=str(home / "tables"))

    def process(log: RequestLog) -> Callable[[list[Any]], Times]:
        served = Served.prepare("1", folder, tables, log)

        def ask(raw: list[Any]) -> Times:
            began, of_processor = time.perf_counter(), time.process_time()
            served.score(raw, Call())
            return 1e3 * (time.process_time() - of_processor), 1e3 * (time.perf_counter() - began)

        return ask

    keeps_nothing = RequestLog(folder=str(home / "none"))
    keeps_nothing._store = Nowhere()  # type: ignore[assignment]
    variants = {"a log that keeps nothing": process(keeps_nothing)}
    variants["files"] = process(RequestLog(folder=str(home / "alone")))
    logs = {"files, shared": {"folder": str(home / "shared")}}
    if url:
        logs["PostgreSQL, shared"] = {"folder": str(home / "none"), "url": url}
    others: dict[str, Callable[[list[Any]], Times]] = {}
    for name, where in logs.items():
        variants[name], others[name] = (process(RequestLog(**where)) for _ in range(2))
    taken: dict[str, list[Times]] = {name: [] for name in variants}
    rng = np.random.default_rng(0)
    for number in range(REQUESTS + WARM_UP):
        # In a fixed order, one variant would always come after a wait for PostgreSQL, with the processor to itself.
        for name in rng.permutation([*variants]).tolist():
            if name in others:
                others[name]([json.loads(payment(2 * number))])
            took = variants[name]([json.loads(payment(2 * number + 1))])
            if number >= WARM_UP:
                taken[name].append(took)
    return taken


def say(taken: dict[str, list[Times]]) -> bool:
    """Prints the table; whether the log in files holds its multiple."""
    of_processor, on_clock = ({name: np.array(values)[:, i] for name, values in taken.items()} for i in (0, 1))
    medians = {name: float(np.median(values)) for name, values in of_processor.items()}
    without = medians["a log that keeps nothing"]
    print("| score and log a payment | processor, p50 | times | clock, p50 | p99 |\n|---|---|---|---|---|")
    for name, median in medians.items():
        p50, p99 = np.quantile(on_clock[name], [0.5, 0.99])
        print(f"| {name} | {median:.2f} ms | {median / without:.2f} | {p50:.2f} ms | {p99:.2f} ms |")
    times = medians["files"] / without
    print(f"\nwith the log in files, a payment takes {times:.2f} times the processor's time (at most {MOST_TIMES})")
    return times <= MOST_TIMES


if __name__ == "__main__":
    raise SystemExit(0 if main(sys.argv[1:]) else 1)

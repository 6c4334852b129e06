"""Compute: the same fits in this process and on a Ray of this machine, and from which size on Ray pays.

Processor seconds are those of this process and of all processes that it started, Ray's own among them. They hardly
depend on what else the machine does; seconds by the clock do, so read them as a ratio of the same run only.

Belongs here: what Ray costs, and the model of it. Does not belong here: how good a model gets.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import psutil

from assets.declaration import Training
from resources.compute import HERE, Compute, Pool
from resources.compute.resource import Computing

MOST_CPU = 1.35
"""Processor seconds of the fits on Ray, once its workers have begun, may be at most so many times those here."""
SIZES = (1_000, 10_000)
"""Rows of the fits."""


def fit_one(shared: tuple[np.ndarray, np.ndarray, int], seed: int, _: Any) -> np.ndarray:
    """Fits the default network with one seed, and returns its outputs for the first hundred rows."""
    from assets.lifecycle.model.fitting import fit, outputs_of

    X, y, epochs = shared
    return outputs_of(fit(X, y, recipe=Training(seed=seed), epochs=epochs), X[:100])


def nothing(_shared: Any, item: int, _: Any) -> int:
    """A piece of work without any work."""
    return item


def processor_seconds() -> float:
    """Processor seconds of this process, of those that it started, and of those that have ended."""
    total = 0.0
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        try:
            used = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += used.user + used.system + used.children_user + used.children_system
    return total


def measured(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, processor seconds, and seconds by the clock."""
    cpu, begun = processor_seconds(), time.perf_counter()
    result = work()
    return result, processor_seconds() - cpu, time.perf_counter() - begun


def rows_of(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows with fifteen features and a target of two classes, float32 ``[count, 15]`` and ``[count]``."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(count, 15)).astype(np.float32)
    return X, (X[:, 0] + X[:, 1] * X[:, 2] + rng.normal(size=count) > 0).astype(float)


def pays_from(fixed: float, per_piece: float, pieces: int, workers: int) -> float:
    """Seconds of work in one process from which on workers with a processor each are faster.

    Args:
        fixed: seconds until the workers work.
        per_piece: seconds that a piece costs beyond its work.
        pieces: number of pieces.
        workers: number of workers.
    """
    rounds = -(-pieces // workers)  # the last round may be a partial one
    # work > fixed + rounds * (work / pieces + per_piece)
    share = 1 - rounds / pieces
    return (fixed + rounds * per_piece) / share if share > 0 else float("inf")


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the comparison; ends with an error where the results differ or Ray costs too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fits", type=int, default=8, help="number of fits of each size")
    parser.add_argument("--epochs", type=int, default=2, help="epochs of a fit")
    parser.add_argument("--workers", type=int, default=2, help="workers, with a processor each")
    given = parser.parse_args(arguments)
    if importlib.util.find_spec("ray") is None:
        print("skipped: the package ray is not installed; pip install '.[ray]'")
        return

    sizes = {count: (*rows_of(count), given.epochs) for count in SIZES}

    def fits(pool: Pool, count: int) -> list[np.ndarray]:
        return pool.map(fit_one, range(given.fits), shared=sizes[count])

    first = (*rows_of(200), 1)
    HERE.map(fit_one, range(1), shared=first)
    here = {count: measured(functools.partial(fits, HERE, count)) for count in SIZES}
    begun = processor_seconds(), time.perf_counter()
    with Computing(address="local").open(Compute(workers=given.workers), print) as pool:
        started = processor_seconds() - begun[0], time.perf_counter() - begun[1]
        _, warm_cpu, warm_s = measured(lambda: pool.map(fit_one, range(2 * given.workers), shared=first))
        per_piece = pieces(pool)
        there = {count: measured(functools.partial(fits, pool, count)) for count in SIZES}

    print(f"{'':36}{'CPU s':>9}{'clock s':>9}")
    print(f"{'a Ray on this machine starts':36}{started[0]:>9.1f}{started[1]:>9.1f}")
    print(f"{'workers start, import and fit once':36}{warm_cpu:>9.1f}{warm_s:>9.1f}")
    print(f"{'a piece without work':36}{per_piece[0]:>9.4f}{per_piece[1]:>9.4f}")
    worst, equal = 0.0, True
    for count in SIZES:
        (mine, cpu, clock), (theirs, ray_cpu, ray_clock) = here[count], there[count]
        equal &= all(np.array_equal(one, two) for one, two in zip(mine, theirs, strict=True))
        worst = max(worst, ray_cpu / cpu) if count == SIZES[-1] else worst
        print(f"{f'{given.fits} fits of {count:,} rows, here':36}{cpu:>9.1f}{clock:>9.1f}")
        print(f"{'  on Ray':36}{ray_cpu:>9.1f}{ray_clock:>9.1f}  {ray_cpu / cpu:.2f} times the CPU, "
              f"{ray_clock / clock:.2f} times the clock")  # fmt: skip
    print("work in one process from which on a cluster that runs already is faster, if each worker has a processor:")
    fixed = warm_cpu / given.workers  # each worker starts on a processor of its own
    for workers in (2, 4, 16):
        print(f"  {workers:>2} workers, {4 * workers} pieces: "
              f"{pays_from(fixed, per_piece[0], 4 * workers, workers):.0f} s")  # fmt: skip
    if not equal or worst > MOST_CPU:
        raise SystemExit(f"compute: results differ, or Ray needs {worst:.2f} times the CPU (at most {MOST_CPU})")


def pieces(pool: Pool, count: int = 200) -> tuple[float, float]:
    """Processor seconds and seconds by the clock of a piece without work."""
    _, cpu, clock = measured(lambda: pool.map(nothing, range(count)))
    return cpu / count, clock / count


if __name__ == "__main__":
    main()

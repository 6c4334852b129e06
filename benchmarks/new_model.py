"""From a table that nobody has seen to its first predictions: `new-model`, then `materialize`, as a user types them.

The project is copied, because `new-model` writes into it. Machines differ, so each time is also given in units of a
plain Python loop that is timed in the same run: ten million `s += i * i`.

Belongs here: those times. Does not belong here: how good the models are (``tables.py``).

    python -m benchmarks.new_model          all three tables
    python -m benchmarks.new_model small    one of them
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from resources.settings import project_root

TARGET = "bought"


def mixed(rows: int, numbers: int, categories: int, seed: int = 0) -> pd.DataFrame:
    """Two classes, about a quarter yes, from numbers and categories of which some matter; a few values are missing."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, numbers)).round(3)
    codes = rng.integers(0, 8, size=(rows, categories))
    effect = rng.normal(size=8)
    score = values[:, 0] - values[:, 1] * (values[:, 2] > 0) + effect[codes[:, :3]].sum(axis=1)
    yes = rng.random(rows) < 1 / (1 + np.exp(-(score - np.quantile(score, 0.8))))
    frame = pd.DataFrame(values, columns=[f"number_{i}" for i in range(numbers)])
    for i in range(categories):
        frame[f"category_{i}"] = np.array(list("abcdefgh"))[codes[:, i]]
    frame = frame.mask(rng.random(frame.shape) < 0.01)
    return frame.assign(**{TARGET: np.where(yes, "yes", "no")})


TABLES: dict[str, tuple[Callable[[], pd.DataFrame], float]] = {
    "small": (lambda: mixed(600, 6, 4), 20 / 1.3),
    "long": (lambda: mixed(48_842, 6, 8), 120 / 1.3),
    "wide": (lambda: mixed(400, 290, 10), 40 / 1.3),
}
"""By name, the table and the most loops that it may take."""


def loop_seconds() -> float:
    """CPU seconds of ten million `s += i * i`, the best of three."""
    program = (
        "import time\nt = time.process_time()\ns = 0\nfor i in range(10_000_000):\n    s += i * i\n"
        "print(time.process_time() - t)"
    )
    return min(
        float(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout) for _ in range(3)
    )


def copy_of_the_project(folder: Path) -> None:
    """The files that git knows of, or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=project_root(), check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (source := project_root() / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(source.read_bytes())


def timed(frame: pd.DataFrame) -> tuple[float, float, str]:
    """Wall seconds, CPU seconds and the last line of both commands.

    Raises:
        RuntimeError: a command failed, with what it said.
    """
    with tempfile.TemporaryDirectory() as scratch:
        project, table = Path(scratch) / "project", Path(scratch) / "table.csv"
        copy_of_the_project(project)
        frame.to_csv(table, index=False)
        env = {**os.environ, "ASSETLINE_HOME": str(Path(scratch) / "home"), "PYTHONPATH": str(project)}
        began, before = time.monotonic(), os.times()
        for command in (
            ["new-model", "--name", "trial", "--table", str(table), "--target", TARGET],
            ["materialize", "--model", "trial"],
        ):
            done = subprocess.run(
                [sys.executable, "-m", "cli", *command],
                cwd=project,
                env=env,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(f"{command[0]}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        return time.monotonic() - began, used, done.stdout.strip().splitlines()[-1].strip()


def main(names: Sequence[str] = ()) -> bool:
    """Prints a line for each table; whether all are within their limit."""
    loop = loop_seconds()
    print(f"the loop: {loop:.2f} CPU s")
    held = True
    for name in names or TABLES:
        make, most = TABLES[name]
        frame = make()
        seconds, used, words = timed(frame)
        print(f"{name}: {len(frame):,} rows × {frame.shape[1] - 1} columns: {seconds:.1f} s, {used:.1f} CPU s, "
              f"{seconds / loop:.1f} loops (at most {most:.1f}); {words}", flush=True)  # fmt: skip
        held = held and seconds / loop <= most
    return held


if __name__ == "__main__":
    raise SystemExit(0 if main(sys.argv[1:]) else 1)

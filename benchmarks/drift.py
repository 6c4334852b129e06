"""How often the drift check cries wolf and how often it sees one, beside Evidently's defaults; and what it costs.

    python -m benchmarks.drift              all, 500 trials each: about 15 minutes on two cores
    python -m benchmarks.drift --trials 50  quicker, and less sure

Two windows in a row are played against a fresh reference of 20,000 rows. 20 columns: 10 normal, 5 log-normal, 5 with
six categories. Then the fraud model's own days, where rows of one customer hang together and weekdays differ. Claims:
of the windows without drift at most 5 % warn and at most 1 % page; a shift of .2 standard deviations in 1,000 rows is
paged within two windows at least 95 times in 100; at most 1 % of the windows of a version that was made soon after a
shift page; 10 million rows within 20 s and 1 GB.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from assets.declaration import Drift
from assets.lifecycle.monitoring.drift_rule import EarlierWindow, Level, compare, count
from assets.lifecycle.monitoring.quality import faults, level_of_faults
from assets.lifecycle.profile.reference import ReferenceProfile

RULE = Drift()
SIZES = (300, 1_000, 3_000, 10_000)
REFERENCE_ROWS = 20_000
KINDS = [0.40, 0.25, 0.15, 0.10, 0.06, 0.04]
CATEGORIES = [f"k{i}" for i in range(5)]
CHANGES = ("none", "shift .1 sd", "shift .2 sd", "shift .3 sd", "category swap", "missing column", "volume drop")
WORST: dict[Level, int] = {"ok": 0, "warn": 1, "page": 2}


def rows(rng: np.random.Generator, n: int, change: str = "none") -> pd.DataFrame:
    """Made rows; ``change`` is in one column of each kind at most."""
    made = {f"n{i}": rng.normal(size=n) for i in range(10)}
    made |= {f"l{i}": rng.lognormal(size=n) for i in range(5)}
    made |= {name: rng.choice(6, size=n, p=KINDS).astype(float) for name in CATEGORIES}
    if change.startswith("shift"):
        made["n0"] = made["n0"] + float(change.split()[1])
    elif change == "category swap":  # the first and third kinds change places
        made["k0"] = np.select([made["k0"] == 0, made["k0"] == 2], [2.0, 0.0], made["k0"])
    elif change == "missing column":
        made["n0"] = np.full(n, np.nan)
    return pd.DataFrame(made).astype(np.float32)


def play(rng: np.random.Generator, n: int, change: str) -> list[Level]:
    """The levels of two windows in a row: the worse of drift and quality."""
    reference = ReferenceProfile.build(rows(rng, REFERENCE_ROWS), {})
    before: list[EarlierWindow] = []
    wrong: list[dict[str, str]] = []
    levels: list[Level] = []
    for number in range(2):
        of_day = n // 3 if change == "volume drop" else n
        window = count(reference, [rows(rng, of_day, change)])
        result = compare(reference, window, RULE, day=str(number), before=before)
        found = faults(reference, window, RULE, rows_of_day=of_day, usual_rows=n)
        quality = level_of_faults(found, wrong, RULE.page_after)
        levels.append(max((result.level, quality), key=WORST.__getitem__))
        columns = {column.column: column for column in result.columns}
        before.append(EarlierWindow(str(number), window, result.judged, columns))
        wrong.append(found)
    return levels


def evidently_default(before: pd.DataFrame, now: pd.DataFrame, kinds: Sequence[str] = ()) -> bool:
    """Whether Evidently, with the methods it chooses by itself, calls any column of one window drifted."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    sides, kinds = [before, now], list(kinds)
    numbers = [str(c) for c in sides[0] if c not in kinds and sides[1][c].notna().any()]  # it raises on an empty one
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=kinds)
    datasets = [Dataset.from_pandas(s[numbers + kinds].astype(dict.fromkeys(kinds, str)), definition) for s in sides]
    report = Report([ValueDrift(column=c) for c in numbers + kinds], include_tests=True)
    done = report.run(current_data=datasets[1], reference_data=datasets[0])
    return any(test["status"] == "FAIL" for test in done.dict()["tests"])


def error_rates(trials: int) -> list[str]:
    """Prints the table of made rows; what does not hold."""
    warnings.filterwarnings("ignore")
    broken = []
    few = max(trials // 25, 4)
    print(f"{'change':15} {'rows':>7} {'windows':>8} {'warned':>8} {'paged in two':>13}   Evidently's defaults")
    for change in CHANGES:
        for n in SIZES:
            rng = np.random.default_rng([CHANGES.index(change), n])
            of_change = trials if change == "none" else max(trials // 5, 10)
            played = [play(rng, n, change) for _ in range(of_change)]
            warned = float(np.mean([level != "ok" for levels in played for level in levels]))
            paged = float(np.mean(["page" in levels for levels in played]))
            sides = [(rows(rng, REFERENCE_ROWS), rows(rng, n, change)) for _ in range(few)]
            theirs = float(np.mean([evidently_default(*two, kinds=CATEGORIES) for two in sides]))
            line = f"{change:15} {n:7,} {2 * of_change:8,} {warned:8.1%} {paged:13.1%}   {theirs:.0%} of {few}"
            print(line, flush=True)
            if change == "none":
                broken += [f"no drift, {n} rows: {warned:.1%} warned"] if warned > 0.05 else []
                broken += [f"no drift, {n} rows: {paged:.1%} paged"] if paged > 0.01 else []
            elif change == "shift .2 sd" and n == 1_000 and paged < 0.95:
                broken.append(f".2 sd at 1,000 rows: {paged:.1%} paged")
    return broken


WORLDS = (5_000, 1_200, 300)
"""Customers of a world; the example has the first number."""
OWN_CHANGES = tuple(change for change in CHANGES if change != "category swap")  # there is no category in it


def fraud_days(trials: int) -> list[str]:
    """Prints the table of the fraud model's own days; what does not hold."""
    if not find_spec("benchmarks.fraud_days"):  # it goes with the example
        return []
    lives: Any = import_module("benchmarks.fraud_days").lives
    seeds = max(trials // 50, 1)
    broken = []
    print(f"{'change':15} {'rows a day':>10} {'windows':>8} {'warned':>8} {'paged in two':>13}   Evidently's defaults")
    for customers in WORLDS:
        played: dict[str, list[list[Level]]] = {change: [] for change in OWN_CHANGES}
        theirs: dict[str, list[bool]] = {change: [] for change in OWN_CHANGES}
        rows_a_day = []
        for seed in range(seeds):
            for number, life in enumerate(lives(seed, customers)):
                first = next(iter(life.days.values()))
                rows_a_day.append(len(first))
                for change in OWN_CHANGES:
                    lived = life.levels(change) if change == "none" else life.levels(change, most_days=2)
                    played[change] += [lived[at : at + 2] for at in range(0, len(lived), 2)]
                    if number == 0:
                        compared = life.reference.columns
                        sides = life.rows[compared], life.changed(first, change)[compared]
                        theirs[change].append(evidently_default(*sides))
        for change, pairs in played.items():
            warned = float(np.mean([level != "ok" for levels in pairs for level in levels]))
            paged = float(np.mean(["page" in levels for levels in pairs]))
            alarmed = f"{np.mean(theirs[change]):.0%} of {len(theirs[change])}"
            line = (
                f"{change:15} {np.mean(rows_a_day):10,.0f} {2 * len(pairs):8,} {warned:8.1%} {paged:13.1%}   {alarmed}"
            )
            print(line, flush=True)
            if change == "none" and customers == WORLDS[0] and (warned > 0.05 or paged > 0.01):
                broken.append(f"fraud's days: {warned:.1%} warned, {paged:.1%} paged")
            if change == "shift .2 sd" and customers == WORLDS[0] and paged < 0.95:
                broken.append(f"fraud's days, .2 sd: {paged:.1%} paged")
    return broken


def settling(trials: int) -> list[str]:
    """Prints how often versions that were made soon after a shift warn and page, though it has been learnt.

    Beside it the same windows without the counts of what is not watched, where the score counts whatever moves it.
    """
    if not find_spec("benchmarks.fraud_days"):
        return []
    lives: Any = import_module("benchmarks.fraud_days").lives_after_a_shift
    levels: dict[tuple[int, str], list[Level]] = {}
    for seed in range(max(trials // 50, 1)):
        for made_after, life in lives(seed, customers=1_500):
            levels.setdefault((made_after, "the rule"), []).extend(life.levels(most_days=len(life.days)))
            blind = replace(life, reference=replace(life.reference, unwatched={}))
            levels.setdefault((made_after, "the score counts"), []).extend(blind.levels(most_days=len(life.days)))
    print(f"{'made after the shift':>20} {'windows':>8} {'warned':>8} {'paged':>8}")
    broken = []
    for (made_after, how), found in levels.items():
        warned, paged = (float(np.mean([level == which for level in found])) for which in ("warn", "page"))
        print(f"{made_after:15} days {len(found):8,} {warned:8.1%} {paged:8.1%}   {how}", flush=True)
        if how == "the rule" and paged > 0.01:
            broken.append(f"made {made_after} days after a shift: {paged:.1%} paged")
    return broken


MANY = 10_000_000


def cost(folder: Path) -> list[str]:
    """Prints seconds and memory of a day of 10 million rows, and of a tenth of it; what does not hold."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    ReferenceProfile.build(rows(rng, REFERENCE_ROWS), {}).save(folder / "reference")
    part = pa.Table.from_pandas(rows(rng, 500_000), preserve_index=False)
    broken = []
    for n in (MANY // 10, MANY):
        with pq.ParquetWriter(folder / f"{n}.parquet", part.schema, compression="zstd") as writer:
            for _ in range(n // 500_000):
                writer.write_table(part)
        done = subprocess.run([sys.executable, "-m", "benchmarks.drift", "--one-day", str(folder / f"{n}.parquet")],
                              check=True, capture_output=True, text=True)  # fmt: skip
        result = json.loads(done.stdout.splitlines()[-1])
        print(f"{n:12,} rows: {result['seconds']:.1f} s, at most {result['peak_gb']:.2f} GB, Evidently's run included")
        if n == MANY and (result["seconds"] > 20 or result["peak_gb"] > 1):
            broken.append(f"10 M rows: {result['seconds']:.1f} s, {result['peak_gb']:.2f} GB")
    return broken


def one_day(path: Path) -> None:
    """Counts, judges and draws one day, as the asset does, and prints what it took as JSON."""
    import dagster as dg

    from assets.lifecycle.monitoring.drift import sampling
    from assets.lifecycle.monitoring.drift_report import draw
    from resources.tables import ParquetTables

    warnings.filterwarnings("ignore")
    import evidently  # noqa: F401 - its import is no cost of a row

    reference = ReferenceProfile.load(path.parent / "reference")
    tables = ParquetTables(root=str(path.parent.parent))
    sampled: list[pd.DataFrame] = []
    began = time.perf_counter()
    n = int(path.stem)
    batches = tables.batches(dg.AssetKey([path.parent.name]), path.stem)
    window = count(reference, sampling(batches, RULE.max_rows / n, sampled))
    compare(reference, window, RULE)
    draw(reference, pd.concat(sampled, ignore_index=True).iloc[: RULE.max_rows], RULE)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(json.dumps({"seconds": seconds, "peak_gb": peak, "rows": window.rows}))


def main() -> None:
    """Prints it all; ends with 1 where a claim does not hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--one-day", type=Path)
    given = parser.parse_args()
    if given.one_day:
        one_day(given.one_day)
        return
    with tempfile.TemporaryDirectory() as folder:
        broken = cost(Path(folder))
    broken += fraud_days(given.trials)
    broken += settling(given.trials)
    broken += error_rates(given.trials)
    for words in broken:
        print(f"does not hold: {words}")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()

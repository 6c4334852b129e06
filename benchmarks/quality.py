"""Model quality at the published size: the ``backtest`` asset on the published calendar, in worlds of several seeds.

Each world gives four test weeks. The claim: the candidate has on average at least :data:`OF_CEILING` of the ceiling's
average precision on the same rows, and the 95 % interval, over weeks and worlds, of its paired difference to XGBoost
does not reach below :data:`LEAST`.

python -m benchmarks.quality [--seeds 0 1 2] [--weeks 4]

Belongs here: landing the published half year into a folder of its own, and holding the backtest to the claims. Does not
belong here: how the weeks are cut or scored.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

FIRST, AS_OF = dt.date(2018, 4, 1), dt.date(2018, 8, 21)
"""The published data begin on the first; the four published test weeks end on the second."""
OF_CEILING, LEAST = 0.990, -0.002
"""Average precision is at least this share of the ceiling's; less XGBoost's, its interval is at least the second."""
METRICS = ["roc_auc", "average_precision", "cp_at_k", "brier"]


def backtest(seed: int, weeks: int, home: Path) -> pd.DataFrame:
    """Returns the backtest's table of the latest published test weeks in the world of a seed.

    Args:
        seed: of the simulator.
        weeks: number of test weeks.
        home: empty folder for the state.
    """
    import dagster as dg

    from assets.models.fraud import model as declared
    from assets.models.fraud.simulator import PaymentSimulator
    from resources.home import prepare
    from resources.settings import Settings
    from runner import Runner

    settings = Settings.from_env({"ASSETLINE_HOME": str(home)})
    os.environ["ASSETLINE_HOME"] = str(home)
    prepare(settings)
    source = PaymentSimulator(seed=seed, compromised_from=FIRST.isoformat())
    model = replace(declared, table=replace(declared.table, start=FIRST, source=source))
    with dg.DagsterInstance.get() as instance:
        runner = Runner(model, settings, instance)
        days = [str(FIRST + dt.timedelta(days=n)) for n in range((AS_OF - FIRST).days + 8)]
        for work, until in (("land", 8), ("clean", 8), ("label", 1), ("features", 1)):
            runner.make(work, days[: (AS_OF - FIRST).days + until])
        config = {"ops": {"fraud__backtest": {"config": {"as_of": AS_OF.isoformat(), "weeks": weeks}}}}
        runner.run("backtest", config=config)
        return runner.tables.read(model.key("backtest"))


def judged(found: pd.DataFrame) -> bool:
    """Prints each week's and the mean figures; whether the claims hold.

    Args:
        found: tables of :func:`backtest`, with a column ``seed``.
    """
    precision = found.pivot_table(index=["seed", "round"], columns="score", values="average_precision")
    print(precision.round(4).to_string())
    mean = found.groupby("score", sort=False)[METRICS].mean()
    rows = int(found["rows"].sum() / len(mean))
    print(f"\nmean of {len(precision)} test weeks in worlds of {found['seed'].nunique()} seeds, {rows:,} rows")
    print(mean.round(4).to_string())
    share = float(precision["torch"].mean() / precision["ceiling"].mean())
    xgboost = float(precision["xgboost"].mean() / precision["ceiling"].mean())
    low, difference, high = interval((precision["torch"] - precision["xgboost"]).to_numpy())
    print(f"torch / ceiling {share:.4f} (at least {OF_CEILING}); XGBoost / ceiling {xgboost:.4f}")
    print(f"torch − XGBoost {difference:+.4f}, 95 % interval {low:+.4f} to {high:+.4f} (at least {LEAST})")
    return share >= OF_CEILING and low >= LEAST


def interval(differences: np.ndarray) -> tuple[float, float, float]:
    """Returns the lower end, the mean and the upper end of the 95 % t interval of paired differences, ``[n]``.

    With fewer than two differences, the ends are NaN, and no claim holds.
    """
    from scipy import stats

    mean, n = float(differences.mean()), len(differences)
    half = float(stats.t.ppf(0.975, n - 1) * differences.std(ddof=1) / n**0.5) if n > 1 else float("nan")
    return mean - half, mean, mean + half


def main(arguments: Sequence[str] | None = None) -> bool:
    """Prints the figures; whether the claims hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the simulated worlds")
    parser.add_argument("--weeks", type=int, default=4, help="test weeks of each world")
    parser.add_argument("--table", type=Path, help="write the backtest's table of the only seed to this file, no more")
    asked = parser.parse_args(arguments)
    if asked.table is not None:
        with tempfile.TemporaryDirectory() as home:
            backtest(asked.seeds[0], asked.weeks, Path(home)).to_parquet(asked.table)
        return True
    tables = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in asked.seeds:
            # A process of its own for each world, because a process belongs to one state folder.
            table = Path(scratch) / f"{seed}.parquet"
            command = [sys.executable, "-m", "benchmarks.quality", "--seeds", str(seed), "--weeks", str(asked.weeks)]
            subprocess.run([*command, "--table", str(table)], check=True)
            tables.append(pd.read_parquet(table).assign(seed=seed))
    return judged(pd.concat(tables, ignore_index=True))


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)

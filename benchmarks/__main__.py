"""`make bench`: every benchmark in turn; fails when a claim does not hold.

python -m benchmarks                  all of them
python -m benchmarks features         one of them
python -m benchmarks quality --seeds 3 4 5   one of them with its options; ``--help`` lists these
python -m benchmarks --quick          a part that takes about a minute, for the stage `performance` of a pipeline
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from importlib.util import find_spec

from resources.settings import one_thread_each

BENCHMARKS = {
    "load": "load: the code location, against `import dagster` alone",
    "many_models": "many_models: loading 1, 20 and 100 models, against `import dagster` alone",
    "features": "features: ours against pandas groupby-rolling, Polars and DuckDB, on the same rows",
    "cleaning": "cleaning: ours against pandas, Polars and DuckDB, on the same landed rows",
    "memory": "memory: the stages at 1 and 10 times the published size, peak memory and CPU seconds a million rows",
    "new_model": "new_model: from a table to its first predictions, in units of a plain Python loop",
    "tables": "tables: the default network on plain tables, against XGBoost, LightGBM and a linear model, 5 seeds each",
    "peers": "peers: the default network on the same tables, beside RealMLP-TD and TabM as published, 5 seeds each",
    "language": "language: a fine-tuned language model on two tables of texts, beside TF-IDF and the model as it is",
    "forecast": "forecast: forecasts by the hour, beside the seasonal naive one, XGBoost and LightGBM; coverage",
    "tuning": "tuning: the tuned recipe against the default one on untouched rows, 5 seeds each, paired",
    "drift": "drift: error rates of the drift check, beside Evidently's defaults, and its cost in rows",
    "surge": "surge: false pages of the surge check on quiet days, and doublings that it finds",
    "text_drift": "text_drift: error rates of the drift check on texts, beside two other tests",
    "stories": "stories: `make run` towards 28 last days, in 22 worlds",
    "service": "service: latency of one row, beside a bare FastAPI + torch application and `mlflow models serve`",
    "serving_load": "serving_load: 8 clients against 1, 2 and 4 processes, beside a bare application of as many",
    "soak": "soak: 30 minutes of load with a promotion every minute; memory of each process, no failed request",
    "requests": "requests: what the log of requests costs, in files and, with ASSETLINE_HISTORY_URL, in PostgreSQL",
    "compute": "compute: fits on a Ray of this machine against this process, and from which size on Ray pays",
    "gate": "gate: how often the gate refuses an equal challenger, and promotes a worse one",
    "rollout": "rollout: how often a rollout withdraws a good version, and how soon a bad one",
    "shift": "shift: the fraud model before and after a change of the world, against XGBoost on the same rows",
    "quality": "quality: the backtest on the published weeks in three worlds, against XGBoost and the ceiling",
}

QUICK = {
    "features": ["--customers", "1000", "--days", "90"],
    "gate": ["--trials", "100", "--sizes", "500", "--correlation", "0.98"],
}
"""Benchmarks whose claims also hold on a small part, with its arguments. They are ratios and shares, not seconds."""


def main(arguments: list[str]) -> int:
    """Runs the named benchmarks, or all, each in a process of its own so that none warms another's caches.

    Returns:
        the number of benchmarks whose claim does not hold.
    """
    one_thread_each()
    there = [name for name in BENCHMARKS if find_spec(f"benchmarks.{name}")]  # the example's go with the example
    failed = []
    for name, options in _chosen(arguments, there):
        print(f"\n== {BENCHMARKS[name]}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"\nnot as claimed: {', '.join(failed)}")
    return len(failed)


def _chosen(arguments: list[str], there: list[str]) -> list[tuple[str, list[str]]]:
    """Returns the benchmarks to run, each with its options."""
    if arguments == ["--quick"]:
        return [(name, options) for name, options in QUICK.items() if name in there]
    names = list(itertools.takewhile(lambda one: not one.startswith("-"), arguments))
    options = arguments[len(names) :]
    if options and len(names) != 1:
        raise SystemExit(f"{' '.join(options)}: options belong to one benchmark; name it before them")
    for name in names:
        if name not in there:
            raise SystemExit(f"there is no benchmark '{name}'; there are {', '.join(there)}")
    return [(name, options) for name in names or there]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

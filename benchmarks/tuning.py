"""The tuned recipe against the default one, on rows that no trial has seen: paired by seed, on telco and on housing.

Each seed is another split (a fifth held out). The search has the default space and the declared number of trials; what
it chose (the default recipe, if no trial was clearly better) and the default recipe are fitted on the same rows and
scored on the same held-out rows. The best trial is fitted, too, whether or not it was confirmed: the difference shows
what the confirmation is for. The claim: the tuned recipe is not worse, that is, the 95 % interval of the mean
difference is not below 0.

python -m benchmarks.tuning [telco housing] [--seeds 5] [--trials 30] [--rows 4000] [--studies FOLDER]

Belongs here: the comparison. Does not belong here: the search (``assets/lifecycle/model/search.py``).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.dry_run import dry_run
from assets.lifecycle.model.candidate import fit_candidate
from assets.lifecycle.model.metrics import headline
from assets.lifecycle.model.search import search
from assets.lifecycle.model.training_set import matrix, test_rows
from benchmarks.tables import REAL
from resources.settings import project_root
from resources.studies import Studies
from scaffold.new_model import drafted

METRICS = {"binary": ("roc_auc", "average_precision"), "regression": ("r2",)}
WHO = ("default", "tuned", "best trial")


def main(arguments: list[str]) -> bool:
    """Prints a line for each seed and the mean differences of each table; whether the claim holds on all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tables", nargs="*", default=list(REAL))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--rows", type=int, help="Rows of each table, drawn at random; default: all.")
    parser.add_argument("--studies", type=Path, help="Folder that keeps the trials, to continue after a kill.")
    asked = parser.parse_args(arguments)
    if (folder := os.environ.get("ASSETLINE_TEST_DATA")) is None:
        print("left out; set ASSETLINE_TEST_DATA to the folder that holds the tables")
        return True
    held = [_table(name, Path(folder), asked) for name in asked.tables]
    return all(held)


def _table(name: str, folder: Path, asked: argparse.Namespace) -> bool:
    table, target = REAL[name]
    with drafted(project_root(), f"bench_tuning_{name}", folder / table, target) as draft:
        frozen = dry_run(draft.model, draft.raw.rows).frozen()
        if asked.rows is not None and asked.rows < len(frozen):
            frozen = frozen.sample(asked.rows, random_state=0).reset_index(drop=True)
        print(f"{name}: {len(frozen):,} rows, {asked.trials} trials for each of {asked.seeds} seeds", flush=True)
        rounds = []
        for seed in range(asked.seeds):
            model = replace(draft.model, training=replace(draft.model.training, seed=seed))
            with tempfile.TemporaryDirectory() as scratch:
                file = (asked.studies or Path(scratch)).resolve() / f"{name}-{len(frozen)}-{seed}.db"
                rounds.append(_round(frozen, model, asked.trials, Studies(database_url=f"sqlite:///{file}")))
        metrics = METRICS[draft.model.task.kind]
    held = [_differences(name, metric, rounds) for metric in metrics]
    return all(held)


def _round(frozen: pd.DataFrame, model: Model, trials: int, studies: Studies) -> dict[str, dict[str, float]]:
    """The held-out figures of each recipe, on one split."""
    began = time.perf_counter()
    found = search(studies, model.name, frozen, model, trials=trials, minutes=60 * 24)
    seconds = time.perf_counter() - began
    test = test_rows(frozen, model)
    X, truth = matrix(frozen[test], model), frozen.loc[test, model.target].to_numpy(dtype=float)

    def figures(stored: dict[str, Any]) -> dict[str, float]:
        values = {name: model.search_space[name].value(value) for name, value in stored.items()}
        recipe = model.training.with_values(values)
        candidate = fit_candidate(frozen, replace(model, training=recipe), lambda _: None)
        return headline(model.task, truth, candidate.predict(X))

    assert found.best is not None
    default = figures({})
    best = default if found.best.declared else figures(found.best.values)
    states = pd.Series([trial.state for trial in found.trials]).value_counts().to_dict()
    print(f"  seed {model.training.seed}: folds {found.best.score:.4f} (trial {found.best.number}), confirmed gain "
          f"{found.gain:+.4f} ± {found.error:.4f}: {'tuned' if found.clear else 'default'}; {states}; search "
          f"{seconds:.0f} s; default {_short(default)}; best trial {_short(best)}; {found.chosen}",
          flush=True)  # fmt: skip
    return {"default": default, "tuned": best if found.clear else default, "best trial": best}


def _short(figures: dict[str, float]) -> str:
    names = [name for names in METRICS.values() for name in names if name in figures]
    return ", ".join(f"{name} {figures[name]:.4f}" for name in names)


def _differences(name: str, metric: str, rounds: list[dict[str, dict[str, float]]]) -> bool:
    """Prints the paired differences of a metric; whether the tuned recipe is not worse."""
    holds = True
    of_default = np.array([one["default"][metric] for one in rounds])
    for who in WHO[1:]:
        ahead = np.array([one[who][metric] for one in rounds]) - of_default
        half = _half_width(ahead)
        low, high = ahead.mean() - half, ahead.mean() + half
        print(f"{name:<8} {metric:<18} {who} − default: {ahead.mean():+.4f} (95 % interval {low:+.4f} … {high:+.4f}); "
              f"by seed {'  '.join(f'{d:+.4f}' for d in ahead)}", flush=True)  # fmt: skip
        if who == "tuned":
            holds = bool(ahead.mean() + half >= 0)
    return holds


def _half_width(values: np.ndarray) -> float:
    """Half the width of the 95 % interval of a mean, by Student's t."""
    from scipy.stats import t

    n = len(values)
    return float(t.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5) if n > 1 else float("nan")


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1:]) else 1)

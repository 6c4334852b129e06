"""The default network on plain tables, with no tuning, beside XGBoost, LightGBM and a linear model: 5 seeds each.

Each model folder is the one that `new-model` writes, each seed another split (a fifth held out), and all four learn
from the same rows and features. The claim: the network's mean is at least the best of the others', less one standard
error of the seeds.

Belongs here: the comparison. Does not belong here: any model of ours (``assets/lifecycle``).
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.features import features_of
from assets.lifecycle.dry_run import dry_run
from assets.lifecycle.model.baselines import linear, xgboost
from assets.lifecycle.model.candidate import fit_candidate
from assets.lifecycle.model.learners.trees import columns_of, frequent_words
from assets.lifecycle.model.metrics import headline
from assets.lifecycle.model.training_set import fit_rows, matrix, test_rows
from assets.metrics import lower_is_better
from benchmarks.made import energy, machines, spending, tickets
from resources.settings import project_root
from scaffold.new_model import drafted

SEEDS = 5
REAL = {"telco": ("telco_churn.csv", "Churn"), "housing": ("california_housing.csv", "median_house_value")}
MADE = {"machines": (machines, "Failure"), "tickets": (tickets, "left"), "energy": (energy, "use"),
        "spending": (spending, "spent")}  # fmt: skip
METRIC = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "r2"}


def main(names: list[str]) -> bool:
    """Prints a line for each table and model; whether the claim holds on all."""
    print("table      metric    model     mean ± standard error   of 5 seeds                          s a seed")
    held = [_one(name, path, target) for name, path, target in tables_of(names)]
    return all(held)


def tables_of(names: list[str]) -> Iterator[tuple[str, Path, str]]:
    """Name, file and target of each named table, or of all; a made one's file is there until the next one is asked."""
    folder = os.environ.get("ASSETLINE_TEST_DATA")
    for name, (file, target) in REAL.items():
        if names and name not in names:
            continue
        if folder is None:
            print(f"{name}: left out; set ASSETLINE_TEST_DATA to the folder that holds {file}")
            continue
        yield name, Path(folder) / file, target
    for name, (make, target) in MADE.items():
        if names and name not in names:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / f"{name}.csv"
            make().to_csv(path, index=False)
            yield name, path, target


def _one(name: str, path: Path, target: str) -> bool:
    with drafted(project_root(), f"bench_{name}", path, target) as draft:
        frozen = dry_run(draft.model, draft.raw.rows).frozen()
        rounds = [_round(frozen, replace(draft.model, training=replace(draft.model.training, seed=seed)))
                  for seed in range(SEEDS)]  # fmt: skip
        metric = METRIC[draft.model.task.kind]
    sign = -1 if lower_is_better(metric) else 1
    figures = {who: np.array([one[who][0][metric] for one in rounds]) for who in rounds[0]}
    seconds = {who: np.mean([one[who][1] for one in rounds]) for who in rounds[0]}
    error = {who: values.std(ddof=1) / SEEDS**0.5 for who, values in figures.items()}
    for who, values in figures.items():
        print(f"{name:<10} {metric:<9} {who:<9} {values.mean():.4f} ± {error[who]:.4f}         "
              f"{'  '.join(f'{v:.4f}' for v in values)}      {seconds[who]:5.1f}", flush=True)  # fmt: skip
    best = max((who for who in figures if who != "torch"), key=lambda who: sign * figures[who].mean())
    ahead = sign * (figures["torch"] - figures[best])
    paired = ahead.std(ddof=1) / SEEDS**0.5
    holds = bool(ahead.mean() >= -max(error["torch"], error[best]))
    print(f"{name:<10} torch − {best}: {ahead.mean():+.4f} (paired standard error {paired:.4f}); within one standard "
          f"error {max(error['torch'], error[best]):.4f}: {'yes' if holds else 'NO'}", flush=True)  # fmt: skip
    return holds


def _round(frozen: pd.DataFrame, model: Model) -> dict[str, tuple[dict[str, float], float]]:
    """Figures and seconds of each model on one split."""
    fit, test = fit_rows(frozen, model), test_rows(frozen, model)
    X, y = matrix(frozen[fit], model), frozen.loc[fit, model.target].to_numpy(dtype=float)
    X_test, truth = matrix(frozen[test], model), frozen.loc[test, model.target].to_numpy(dtype=float)
    how: dict[str, Any] = {"task": model.task, "tokens": features_of(model).word_positions}
    seed = model.training.seed
    models = {
        "torch": lambda: fit_candidate(frozen, model, lambda _: None).predict(X_test),
        "XGBoost": lambda: xgboost(X, y, X_test, seed=seed, **how),
        "LightGBM": lambda: _lightgbm(X, y, X_test, model, seed),
        "linear": lambda: linear(X, y, X_test, **how),
    }
    found = {}
    for who, score in models.items():
        began = time.perf_counter()
        scores = score()
        found[who] = (headline(model.task, truth, scores), time.perf_counter() - began)
    return found


def _lightgbm(X: np.ndarray, y: np.ndarray, X_test: np.ndarray, model: Model, seed: int) -> np.ndarray:
    """As many trees as a held-back sixth asks for, then fitted again on all rows."""
    import lightgbm

    tokens = features_of(model).word_positions
    words = frequent_words(X, tokens)
    X, X_test = columns_of(X, tokens, words), columns_of(X_test, tokens, words)
    kind: Any = lightgbm.LGBMRegressor if model.task.kind == "regression" else lightgbm.LGBMClassifier
    settings = {"n_estimators": 2000, "learning_rate": 0.05, "num_leaves": 31, "min_child_samples": 20,
                "subsample": 0.8, "subsample_freq": 1, "colsample_bytree": 0.8, "n_jobs": 2, "random_state": seed,
                "verbose": -1}  # fmt: skip
    order = np.random.default_rng(seed + 100).permutation(len(y))
    held, rest = order[: len(y) // 6], order[len(y) // 6 :]
    first = kind(**settings).fit(X[rest], y[rest], eval_set=[(X[held], y[held])],
                                 callbacks=[lightgbm.early_stopping(50, verbose=False)])  # fmt: skip
    fitted = kind(**{**settings, "n_estimators": int(1.1 * first.best_iteration_) + 1}).fit(X, y)
    if model.task.kind == "regression":
        return fitted.predict(X_test)
    probability = fitted.predict_proba(X_test)
    return probability[:, 1] if model.task.kind == "binary" else probability


if __name__ == "__main__":
    raise SystemExit(0 if main(sys.argv[1:]) else 1)

"""The default network beside RealMLP-TD and TabM as published by pytabkit, on the tables of ``benchmarks/tables.py``.

All learn from the same rows and columns and are tuned to no table. The peers keep the defaults of their authors, with a
validation split of their own; as RealMLP takes no missing values, medians of the training rows replace them. The claim:
in the mean of the tables, the network's error is at most a peer's, or within one standard error of it. Errors are
1 − ROC AUC, 1 − R² or the log loss, and are compared as ratios.

python -m benchmarks.peers [telco energy …] [--seeds 0 1 2 3 4] [--results FILE]

With ``--results``, each figure is added to a file of JSON lines, and figures that it holds are not measured again.

Belongs here: the peers and the comparison. Does not belong here: the tables (``tables.py``, ``made.py``).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.features import features_of
from assets.lifecycle.dry_run import dry_run
from assets.lifecycle.model.candidate import fit_candidate
from assets.lifecycle.model.learners.trees import columns_of, frequent_words
from assets.lifecycle.model.metrics import headline
from assets.lifecycle.model.training_set import fit_rows, matrix, test_rows
from benchmarks.tables import METRIC, tables_of
from resources.settings import project_root
from scaffold.new_model import drafted

OURS, PEERS = "torch", ("RealMLP", "TabM")
LOWER = ("log_loss",)
"""Metrics that are errors already; the others have a best value of 1."""


@dataclass(frozen=True)
class Figure:
    """One model's metric on one split of a table, and the CPU seconds of its fit and scores."""

    table: str
    seed: int
    who: str
    metric: str
    value: float
    seconds: float

    @property
    def error(self) -> float:
        """The metric as an error: lower is better, 0 is perfect."""
        return self.value if self.metric in LOWER else 1 - self.value


def measured(names: list[str], seeds: Sequence[int], there: Sequence[Figure]) -> Iterator[Figure]:
    """Measures what is not there yet, one table after another, and of each table one seed after another."""
    done = {(one.table, one.seed, one.who) for one in there}
    for name, path, target in tables_of(names):
        missing = [(seed, who) for seed in seeds for who in (OURS, *PEERS) if (name, seed, who) not in done]
        if not missing:
            continue
        with drafted(project_root(), f"bench_{name}", path, target) as draft:
            frozen = dry_run(draft.model, draft.raw.rows).frozen()
            for seed, who in missing:
                model = replace(draft.model, training=replace(draft.model.training, seed=seed))
                scored, truth = _scorer(frozen, model, who)
                began = time.process_time()
                scores = scored()
                seconds = time.process_time() - began
                metric = METRIC[model.task.kind]
                yield Figure(name, seed, who, metric, float(headline(model.task, truth, scores)[metric]), seconds)


def _scorer(frozen: pd.DataFrame, model: Model, who: str) -> tuple[Callable[[], np.ndarray], np.ndarray]:
    """What fits a model and returns its scores of the test rows, and their true values."""
    fit, test = fit_rows(frozen, model), test_rows(frozen, model)
    X, y = matrix(frozen[fit], model), frozen.loc[fit, model.target].to_numpy(dtype=float)
    X_test, truth = matrix(frozen[test], model), frozen.loc[test, model.target].to_numpy(dtype=float)
    if who == OURS:
        return lambda: fit_candidate(frozen, model, lambda _: None).predict(X_test), truth
    tokens = features_of(model).word_positions
    words = frequent_words(X, tokens)
    X, X_test = columns_of(X, tokens, words), columns_of(X_test, tokens, words)
    medians = np.nan_to_num(np.nanmedian(X, axis=0))
    X, X_test = (np.where(np.isnan(rows), medians, rows).astype(np.float32) for rows in (X, X_test))
    return lambda: _peer(who, model, X, y, X_test), truth


def _peer(who: str, model: Model, X: np.ndarray, y: np.ndarray, X_test: np.ndarray) -> np.ndarray:
    """Scores of a peer with its authors' defaults, ``[m]`` or ``[m, classes]``."""
    import pytabkit

    kind = "Regressor" if model.task.kind == "regression" else "Classifier"
    names = {"RealMLP": f"RealMLP_TD_{kind}", "TabM": f"TabM_D_{kind}"}
    # One thread, as our own networks are fitted: CPU seconds are compared, and threads that wait would count.
    peer: Any = getattr(pytabkit, names[who])(device="cpu", random_state=model.training.seed, n_threads=1, verbosity=0)
    if model.task.kind == "regression":
        return np.asarray(peer.fit(X, y.astype(np.float32)).predict(X_test), dtype=float)
    probability = np.asarray(peer.fit(X, y.astype(int)).predict_proba(X_test), dtype=float)
    return probability[:, 1] if model.task.kind == "binary" else probability


def compared(figures: Sequence[Figure]) -> bool:
    """Prints each table's means and the mean ratio of errors; whether the claim holds.

    Raises:
        SystemExit: there is no split on which all models were measured.
    """
    frame = pd.DataFrame([asdict(one) | {"error": one.error} for one in figures])
    keys = ["table", "seed"]
    value = frame.pivot(index=keys, columns="who", values="error").reindex(columns=[OURS, *PEERS]).dropna()
    if value.empty:
        raise SystemExit("no split has figures of all models yet; run the missing ones")
    frame = frame.set_index(keys).loc[value.index].reset_index()
    print("\n| table | seeds | metric | " + " | ".join(value.columns) + " |\n|" + "---|" * (3 + len(value.columns)))
    for (table, metric), rows in frame.groupby(["table", "metric"], sort=False):
        values, took = (rows.groupby("who")[column].mean() for column in ("value", "seconds"))
        cells = (f"{values[who]:.4f} ({took[who]:.0f} s)" for who in value.columns)
        print(f"| {table!s} | {rows['seed'].nunique()} | {metric!s} | " + " | ".join(cells) + " |")
    held = True
    seconds = frame.groupby("who")["seconds"].mean()
    for who in PEERS:
        ratio = (value[OURS] / value[who]).map(np.log)
        of_tables = ratio.groupby("table").mean().to_numpy(dtype=float)
        mean, n = float(of_tables.mean()), len(of_tables)
        error = float(of_tables.std(ddof=1)) / n**0.5 if n > 1 else 0.0
        holds = bool(mean <= error)
        print(f"error of {OURS} / {who}: {np.exp(mean):.3f} in the mean of {n} tables, standard error {error:.3f}; "
              f"CPU time × {seconds[OURS] / seconds[who]:.2f}: {'at least a tie' if holds else 'behind'}")  # fmt: skip
        held &= holds
    return held


def main(arguments: Sequence[str] | None = None) -> bool:
    """Prints each figure as it is measured, then the comparison; whether the claim holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", help="default: all of them")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="each is another split")
    parser.add_argument("--results", type=Path, help="file of JSON lines to read figures from and to add them to")
    asked = parser.parse_args(arguments)
    there: list[Figure] = []
    if asked.results is not None and asked.results.exists():
        there = [Figure(**json.loads(line)) for line in asked.results.read_text().splitlines()]
    found = [one for one in there if one.seed in asked.seeds and (not asked.tables or one.table in asked.tables)]
    for one in measured(asked.tables, asked.seeds, found):
        print(f"{one.table:<10} seed {one.seed} {one.who:<8} {one.metric} {one.value:.4f}, {one.seconds:.0f} CPU s",
              flush=True)  # fmt: skip
        found.append(one)
        if asked.results is not None:
            with asked.results.open("a") as file:
                file.write(json.dumps(asdict(one)) + "\n")
    return compared(found)


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)

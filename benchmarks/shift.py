"""The fraud model in the weeks after a change of the world: its candidate against XGBoost on the same rows.

From day 153 of each simulated world on, payments are larger and later, and thieves test cards with small amounts. A
candidate as of day 173 has seven new days of its 28, and its folds hold nothing that was fitted on the new world; as
of day 180 it has 14. As of day 152 nothing has changed yet. The baseline is XGBoost with the settings of the report,
on the same rows, all of one weight. The claim: the 95 % interval, over the worlds, of the mean difference in average
precision is not below -.005, before the change and after it.

python -m benchmarks.shift [--customers 1500 5000] [--seeds 8] [--as-of 152 173 180]

Belongs here: making worlds in memory, and the comparison. Does not belong here: how a candidate is fitted
(``assets/lifecycle``), what the worlds are (the simulator).
"""

from __future__ import annotations

import argparse
import datetime as dt
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.features import compute_features
from assets.lifecycle.model.baselines import linear, xgboost
from assets.lifecycle.model.candidate import fit_candidate
from assets.lifecycle.model.evaluation import known_entities
from assets.lifecycle.model.metrics import average_precision
from assets.lifecycle.model.training_set import feature_column, fit_rows, matrix, test_rows
from assets.lifecycle.model.windows import windows_of
from assets.models.fraud import model as declared
from assets.models.fraud.ceiling import CUSTOMER_LOOKBACK, TERMINAL_LOOKBACK, ceiling
from assets.models.fraud.simulator import PaymentSimulator
from benchmarks.features import events_of

FIRST = dt.date(2026, 1, 5)
SHIFT, BEFORE = 153, 152
"""Days of the world, from 0: its first shifted one, and one as of which nothing has changed yet."""
LEAST = -0.005
"""Average precision less XGBoost's, and the lower end of its interval, at least."""


def day(number: int) -> dt.date:
    """Day of a world as a date."""
    return FIRST + dt.timedelta(days=number)


def frozen_as_of(source: PaymentSimulator, model: Model, as_of: int) -> tuple[pd.DataFrame, np.ndarray]:
    """A training set as the lifecycle freezes it, of payments as they happened; and the ceiling of its test rows."""
    assert model.features is not None
    split = windows_of(day(as_of), model.training, model.label_delay_days)
    first = split.first - dt.timedelta(days=model.features.lookback_days)
    first = min(first, split.test[0] - dt.timedelta(days=max(TERMINAL_LOOKBACK, CUSTOMER_LOOKBACK) + 1))
    payments = source.payments(first, split.test[1])
    wanted = np.flatnonzero(payments["paid_at"] >= pd.Timestamp(split.first))
    values = compute_features(model.features, events_of(payments), wanted)
    names = [feature_column(name) for name in model.features.names]
    rows = payments.iloc[wanted].reset_index(drop=True)
    frozen = pd.concat([rows, pd.DataFrame(values, columns=names)], axis=1)
    return frozen, ceiling(source, payments, wanted[test_rows(frozen, model)])


def compared(source: PaymentSimulator, model: Model, as_of: int) -> dict[str, float]:
    """Average precision of each score on the test rows as of a day of the world; shares and CPU seconds beside it."""
    frozen, best = frozen_as_of(source, model, as_of)
    fit, test = fit_rows(frozen, model), test_rows(frozen, model)
    known = known_entities(frozen, test, model)
    assert known is not None
    X, y = matrix(frozen[fit], model), frozen.loc[fit, model.target].to_numpy(dtype=float)
    X_test, truth = matrix(frozen[test], model)[~known], frozen.loc[test, model.target].to_numpy(dtype=float)[~known]
    began = time.process_time()
    candidate = fit_candidate(frozen, model, lambda _: None)
    seconds = time.process_time() - began
    scores = {
        "candidate": candidate.predict(X_test),
        "XGBoost": xgboost(X, y, X_test, seed=model.training.seed),
        "linear": linear(X, y, X_test),
        "ceiling": best[~known],
    }
    figures = {name: average_precision(truth, score) for name, score in scores.items()}
    shares = {f"share of {part}": share for part, share in candidate.selection.shares.items()}
    return figures | shares | {"epochs": float(candidate.selection.epochs), "CPU s": seconds}


def main(arguments: Sequence[str] | None = None) -> bool:
    """Prints a line for each world and day, and the paired differences; whether the claim holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, nargs="+", default=[1_500, 5_000], help="terminals are twice as many")
    parser.add_argument("--seeds", type=int, default=8, help="worlds of each size")
    parser.add_argument("--first-seed", type=int, default=0, help="of the first world")
    parser.add_argument("--as-of", type=int, nargs="+", default=[BEFORE, 173, 180], help="days of the world")
    parser.add_argument("--half-life", type=float, help="of the rows' weight, in days; 0: none; default: as declared")
    asked = parser.parse_args(arguments)
    model = declared
    if asked.half_life is not None:
        model = replace(model, training=replace(model.training, half_life_days=asked.half_life or None))
    held = True
    for customers in asked.customers:
        found: dict[int, list[dict[str, float]]] = {as_of: [] for as_of in asked.as_of}
        for seed in range(asked.first_seed, asked.first_seed + asked.seeds):
            source = PaymentSimulator(
                seed=seed, customers=customers, terminals=2 * customers, shift_from=day(SHIFT).isoformat()
            )
            for as_of in asked.as_of:
                one = compared(source, model, as_of)
                found[as_of].append(one)
                print(f"{customers:,} customers, seed {seed}, as of day {as_of}: "
                      + ", ".join(f"{name} {value:.4g}" for name, value in one.items()), flush=True)  # fmt: skip
        for as_of, rounds in found.items():
            held &= _summary(customers, as_of, rounds)
    return held


def _summary(customers: int, as_of: int, rounds: Sequence[dict[str, float]]) -> bool:
    """Prints the mean of the worlds as of a day; whether the claim holds there."""
    mean = {name: float(np.mean([one[name] for one in rounds])) for name in rounds[0]}
    ahead = np.array([one["candidate"] - one["XGBoost"] for one in rounds])
    half = 1.96 * float(ahead.std(ddof=1)) / len(ahead) ** 0.5 if len(ahead) > 1 else float("nan")
    holds = bool(ahead.mean() - half >= LEAST)
    print(f"{customers:,} customers as of day {as_of}, mean of {len(rounds)} worlds: "
          + ", ".join(f"{name} {value:.4g}" for name, value in mean.items()))  # fmt: skip
    print(f"    candidate − XGBoost {ahead.mean():+.4f}, 95 % interval {ahead.mean() - half:+.4f} to "
          f"{ahead.mean() + half:+.4f} (at least {LEAST}): {'yes' if holds else 'NO'}", flush=True)  # fmt: skip
    return holds


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)

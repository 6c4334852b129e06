"""Forecasts by the hour, beside the seasonal naive forecast, XGBoost and LightGBM on the same features.

Each world has three series with a day, a week, holidays that nobody declares, and noise that lasts for hours. The split
is that of the lifecycle: rolling weeks for selection, the latest two weeks for the report, the horizon between. The
claims: the candidate's mean absolute error is below that of the seasonal naive forecast at each horizon, and its
intervals contain 86 to 94 % of the true values where 90 % are declared.

python -m benchmarks.forecast [--hours 6 24 168] [--seeds 0 1 2]

Belongs here: the comparison. Does not belong here: the features (``assets/lifecycle/data/forecasting.py``), the
intervals (``assets/lifecycle/model/conformal.py``).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from assets.declaration import Model, Training
from assets.forecast import Forecast
from assets.lifecycle.data.forecasting import SPREAD
from assets.lifecycle.dry_run import dry_run
from assets.lifecycle.model.candidate import fit_candidate
from assets.lifecycle.model.conformal import Coverage
from assets.lifecycle.model.evaluation import NAIVE, baseline_scores
from assets.lifecycle.model.trained_model import intervals_of
from assets.lifecycle.model.training_set import feature_column, fit_rows, matrix
from assets.lifecycle.model.training_set import test_rows as rows_of_test
from tests.declarations.loads import START, STATIONS, loads_model

DAYS = 130


def world(seed: int) -> pd.DataFrame:
    """The loads of a world, as text; the noise of an hour is eight tenths of that of the hour before."""
    rng = np.random.default_rng(seed)
    hours = pd.date_range(START, periods=24 * DAYS, freq="h")
    day, hour = np.arange(len(hours)) // 24, hours.hour.to_numpy()
    holiday = rng.random(DAYS)[day] < 0.03
    week = np.where(holiday | (hours.dayofweek == 6), 0.7, np.where(hours.dayofweek == 5, 0.85, 1.0))
    parts = []
    for station, level in STATIONS.items():
        noise = np.zeros(len(hours))
        drawn = rng.normal(0, 0.05, len(hours))
        for n in range(1, len(hours)):
            noise[n] = 0.8 * noise[n - 1] + drawn[n]
        shape = 1 + rng.uniform(0.2, 0.5) * np.sin((hour - rng.integers(6, 11)) * np.pi / 12)
        parts.append(
            pd.DataFrame({
                "load_id": [f"{station} {n}" for n in range(len(hours))], "hour": hours, "station": station,
                "megawatts": level * week * shape * np.exp(noise), "temperature": 0.0, "holiday": False,
            })
        )  # fmt: skip
    return pd.concat(parts, ignore_index=True).astype("string[pyarrow]")


def measured(model: Model, rows: pd.DataFrame) -> tuple[dict[str, float], Coverage, float]:
    """Mean absolute error of each model on the test rows, the coverage, and the CPU seconds of the candidate's fit."""
    frozen = dry_run(model, rows).frozen()
    fit, test = frozen[fit_rows(frozen, model)], frozen[rows_of_test(frozen, model)]
    truth, X_test = test[model.target].to_numpy(dtype=float), matrix(test, model)
    before = time.process_time()
    candidate = fit_candidate(frozen, model, lambda _: None)
    used = time.process_time() - before
    y = fit[model.target].to_numpy(dtype=float)
    scores = {"torch": candidate.predict(X_test)}
    scores |= baseline_scores(matrix(fit, model), y, X_test, model, candidate.trees)
    scores["lightgbm"] = _lightgbm(matrix(fit, model), y, X_test)
    spread = test[feature_column(SPREAD)].to_numpy(dtype=float)
    low, high = intervals_of(candidate, frozen, model).ends(scores["torch"], spread)
    coverage = Coverage.of(truth, low, high, test["hour"].dt.date.astype(str).to_numpy(), 0.9)
    return {name: float(np.abs(one - truth).mean()) for name, one in scores.items()}, coverage, used


def _lightgbm(X: np.ndarray, y: np.ndarray, X_test: np.ndarray) -> np.ndarray:
    """LightGBM with its defaults and 300 trees."""
    from lightgbm import LGBMRegressor

    found: Any = LGBMRegressor(n_estimators=300, learning_rate=0.05, random_state=0, n_jobs=1, verbose=-1).fit(X, y)
    return np.asarray(found.predict(X_test))


def main(hours: list[int], seeds: list[int]) -> bool:
    """Prints a line for each horizon; whether the claims hold."""
    print("forecasts of three series by the hour, mean absolute error relative to the seasonal naive forecast\n")
    names = ("torch", "xgboost", "lightgbm", "linear")
    print(f"{'horizon':>8}" + "".join(f"{name:>10}" for name in names) + f"{'coverage':>10}{'CPU s':>8}")
    held = True
    for horizon in hours:
        ratios: dict[str, list[float]] = {name: [] for name in names}
        shares, used = [], []
        for seed in seeds:
            training = Training(window_days=70, test_days=14, folds=2)
            model = loads_model(forecast=Forecast(series="station", horizon_hours=horizon), training=training)
            errors, coverage, seconds = measured(replace(model, training=replace(training, seed=seed)), world(seed))
            for name in names:
                ratios[name].append(errors[name] / errors[NAIVE])
            shares.append(coverage.share)
            used.append(seconds)
        print(f"{horizon:>6} h" + "".join(f"{np.mean(ratios[name]):10.3f}" for name in names)
              + f"{np.mean(shares):10.1%}{np.mean(used):8.0f}", flush=True)  # fmt: skip
        held &= bool(np.mean(ratios["torch"]) < 1) and 0.86 <= float(np.mean(shares)) <= 0.94
    print("\nas claimed" if held else "\nNOT as claimed")
    return held


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=int, nargs="+", default=[6, 24, 168])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    raise SystemExit(0 if main(given.hours, given.seeds) else 1)

"""A forecast against the seasonal naive one, and the check of its intervals."""

import datetime as dt
import json

import numpy as np
import pandas as pd
import pytest
import torch

from assets.lifecycle.data.features import features_of
from assets.lifecycle.dry_run import dry_run
from assets.lifecycle.model.conformal import Intervals
from assets.lifecycle.model.evaluation import seasonal_naive
from assets.lifecycle.model.objectives import ScoreTransform
from assets.lifecycle.model.training_set import fit_rows, matrix
from assets.lifecycle.model.training_set import test_rows as rows_of_test
from assets.lifecycle.model.version.bundle import Bundle
from assets.lifecycle.model.windows import windows_of
from tests.declarations.loads import START, loads, model
from tests.stages import Stages

DAYS = 90


class Season(torch.nn.Module):
    """Forecasts the mean of the same time in earlier weeks."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nan_to_num(x[:, features_of(model).names.index("same_time_of_week")])


@pytest.fixture(scope="module")
def frozen() -> pd.DataFrame:
    """The training set of ninety days."""
    raw = pd.concat([loads(START + dt.timedelta(days=n)) for n in range(DAYS)], ignore_index=True)
    return dry_run(model, raw.astype("string[pyarrow]")).frozen()


@pytest.fixture
def evaluated(tmp_path, frozen):
    """Evaluates a candidate whose intervals reach so many recent spreads from the forecast."""

    def evaluate(reach: float):
        stages = Stages(model, tmp_path / "stages")
        bundle = tmp_path / "bundle"
        intervals = Intervals(coverage=0.9, low=-reach, high=reach, floor=0.1, typical=5.0, rows=100)
        Bundle.save(bundle, module=Season(), model=model, feature_names=features_of(model).names,
                    head=ScoreTransform("regression"), threshold=0.5, fitted={"intervals": intervals.to_dict()},
                    background=matrix(frozen.iloc[-50:], model))  # fmt: skip
        stages.mlflow.folders["1"] = bundle
        stages.put("training_set", frozen)
        stages.put("trained_model", pd.DataFrame({
            "version": ["1"], "run_id": ["run-1"], "data_version": ["d"], "code": ["c"], "curves": ["{}"],
        }))  # fmt: skip
        return stages, stages.make("evaluation")

    return evaluate


def test_intervals_that_are_wide_enough_pass_and_the_gate_compares_with_the_naive_forecast(evaluated):
    stages, made = evaluated(2.0)
    check = made.check("intervals")
    assert check.passed
    assert "of the true values lie within their intervals, 90% are wanted" in check.description
    row = stages.row("evaluation")
    report, verdict = json.loads(row["report"]), json.loads(row["verdict"])
    assert set(report["models"]) == {"torch", "xgboost", "linear", "naive"}
    baseline = next(reason for reason in verdict["reasons"] if reason["rule"] == "baseline")
    gain = report["models"]["torch"]["r2"]["value"] - report["models"]["naive"]["r2"]["value"]
    assert baseline["value"] == pytest.approx(gain)
    assert gain > 0


@pytest.mark.closes("evaluation", "intervals")
def test_intervals_that_are_too_narrow_are_warned_of_and_stop_nothing(evaluated):
    _, made = evaluated(0.05)
    check = made.check("intervals")
    assert not check.passed
    assert check.severity.value == "WARN"
    assert "the series changed after the validation weeks" in check.description
    assert made.check("gate").passed
    assert made.success, made.why


def test_the_naive_forecast_takes_the_season_that_was_closer(frozen):
    """A day before is wrong on Sundays and Mondays, a week before is not."""
    fit, test = frozen[fit_rows(frozen, model)], frozen[rows_of_test(frozen, model)]
    y = fit[model.target].to_numpy(dtype=float)
    found = seasonal_naive(matrix(fit, model), y, matrix(test, model), model)
    assert found == pytest.approx(test["x_lag_7d"].to_numpy(dtype=float))
    blank = matrix(test, model)
    blank[0] = np.nan
    assert seasonal_naive(matrix(fit, model), y, blank, model)[0] == pytest.approx(y.mean())


def test_the_rows_of_a_fit_end_the_horizon_before_its_test():
    split = windows_of(dt.date(2026, 6, 30), model.training, model.gap_days)
    assert split.test[0] - split.fit[1] == dt.timedelta(days=2)
    assert all(valid[0] - fit[1] == dt.timedelta(days=2) for fit, valid in split.folds)

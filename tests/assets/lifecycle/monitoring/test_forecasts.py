"""The table of forecasts: which moments it has, from what, and when it is refused."""

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from assets.forecast import Forecast
from assets.lifecycle.data.features import features_of
from assets.lifecycle.model.conformal import Intervals
from assets.lifecycle.model.objectives import ScoreTransform
from assets.lifecycle.model.version.bundle import Bundle
from assets.lifecycle.model.windows import iso_days
from assets.lifecycle.monitoring.forecasts import moments_ahead
from tests.declarations.loads import START, loads, model
from tests.stages import Stages, copied_bundle

LAST = START + dt.timedelta(days=29)
INTERVALS = Intervals(coverage=0.9, low=-1.0, high=2.0, floor=0.1, typical=5.0, rows=100)


class WeekBefore(torch.nn.Module):
    """Forecasts the value of a week before."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nan_to_num(x[:, features_of(model).names.index("lag_7d")])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("loads") / "bundle"
    Bundle.save(folder, module=WeekBefore(), model=model, feature_names=features_of(model).names,
                head=ScoreTransform("regression"), threshold=0.5,
                fitted={"intervals": INTERVALS.to_dict()})  # fmt: skip
    return folder


@pytest.fixture
def stages(tmp_path, bundle) -> Stages:
    """Thirty days of loads, and the version in production."""
    stages = Stages(model, tmp_path / "stages")
    stages.mlflow.folders["1"] = bundle
    stages.ledger.promote("loads", "1", reason="r", verdicts={}, dagster_run="r", who="ada")
    for day in iso_days((START, LAST)):
        rows = loads(dt.date.fromisoformat(day))
        rows["station"] = rows["station"].astype("string[pyarrow]")
        stages.put("loads_by_hour", rows, day)
        stages.put("labels", rows[["load_id", "hour", "megawatts"]], day)
    return stages


def test_each_series_has_the_next_day_by_the_hour_with_its_interval(stages):
    made = stages.make("forecasts", str(LAST))
    assert made.success, made.why
    assert made.check("complete", str(LAST)).description == "72 forecasts of 3 series"
    said = stages.tables.read(model.key("forecasts"), [str(LAST)])
    assert list(said) == ["day", "station", "hour", "prediction", "low", "high", "version"]
    tomorrow = pd.Timestamp(LAST) + pd.Timedelta(days=1)
    for _, own in said.groupby("station"):
        assert own["hour"].tolist() == list(pd.date_range(tomorrow, periods=24, freq="h"))
    week_before = loads((tomorrow - pd.Timedelta(days=7)).date()).set_index(["station", "hour"])["megawatts"]
    expected = [
        week_before[station, hour - pd.Timedelta(days=7)]
        for station, hour in zip(said["station"], said["hour"], strict=True)
    ]
    assert said["prediction"].to_numpy() == pytest.approx(np.array(expected), rel=1e-6)
    assert (said["prediction"] - said["low"] > 0).all()
    assert (said["high"] - said["prediction"]).to_numpy() == pytest.approx(
        2 * (said["prediction"] - said["low"]).to_numpy(), rel=1e-6
    )


def test_a_day_is_forecast_from_what_was_known_then(stages):
    """Days that landed later change nothing, so that a day made again has the same rows."""
    early = START + dt.timedelta(days=20)
    assert stages.make("forecasts", str(early)).success
    alone = stages.tables.read(model.key("forecasts"), [str(early)])
    assert stages.make("forecasts", *iso_days((early, LAST))).success
    pd.testing.assert_frame_equal(stages.tables.read(model.key("forecasts"), [str(early)]), alone)


@pytest.mark.closes("forecasts", "complete")
def test_forecasts_that_are_no_numbers_are_not_published(stages, bundle, tmp_path):
    stages.mlflow.folders["1"] = copied_bundle(bundle, tmp_path / "broken", head={"offset": float("nan")})
    made = stages.make("forecasts", str(LAST))
    assert not made.check("complete", str(LAST)).passed
    assert "72 forecasts are missing or infinite" in made.why
    assert "roll back to the previous version" in made.why
    assert not stages.has("forecasts", str(LAST))


@pytest.mark.closes("forecasts", "complete")
def test_a_day_without_any_forecast_is_refused(stages):
    silent = LAST + dt.timedelta(days=20)
    for day in iso_days((LAST + dt.timedelta(days=1), silent)):
        rows = loads(LAST).iloc[:0]
        stages.put("loads_by_hour", rows.astype({"station": "string[pyarrow]"}), day)
        stages.put("labels", rows[["load_id", "hour", "megawatts"]], day)
    made = stages.make("forecasts", str(silent))
    assert "no forecast of any series" in made.why


def times(*series: tuple[str, str, str, int]) -> pd.DataFrame:
    """Rows of series: name, first time, step and number."""
    parts = [
        pd.DataFrame({"station": name, "hour": pd.date_range(first, periods=n, freq=step)})
        for name, first, step, n in series
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize(
    ("step", "horizon", "count"), [("15min", 6, 24), ("h", 24, 24), ("D", 168, 7), ("7h", 24, 3), ("2D", 24, 0)]
)
def test_the_step_of_a_series_is_that_of_its_values(step, horizon, count):
    past = times(("north", "2026-03-01", step, 10))
    last = past["hour"].max()
    ahead = moments_ahead(past, "station", "hour", dt.timedelta(hours=horizon), str(last.date()))
    assert len(ahead) == count
    assert (ahead["hour"] > last).all()
    assert (ahead["hour"] <= last + pd.Timedelta(hours=horizon)).all()
    assert ahead["hour"].dtype == past["hour"].dtype


def test_a_series_that_ended_or_has_one_value_is_left_out():
    past = times(("old", "2026-03-01", "h", 24), ("one", "2026-03-20", "h", 1), ("north", "2026-03-19", "h", 24))
    ahead = moments_ahead(past, "station", "hour", dt.timedelta(hours=24), "2026-03-20")
    assert set(ahead["station"]) == {"north"}


def test_one_gap_does_not_change_the_step():
    past = times(("north", "2026-03-19", "h", 24)).drop(index=[3, 4, 5, 6])
    ahead = moments_ahead(past, "station", "hour", dt.timedelta(hours=24), "2026-03-19")
    assert ahead["hour"].diff().dropna().unique().tolist() == [pd.Timedelta(hours=1)]


def test_with_columns_that_are_known_ahead_the_service_forecasts_alone():
    from assets.lifecycle.jobs import DAILY, assets_of_jobs
    from assets.lifecycle.monitoring.forecasts import forecasts_asset
    from tests.declarations.loads import loads_model

    known = loads_model(forecast=Forecast(series="station", known=("holiday",)))
    assert forecasts_asset(known) is None
    assert "forecasts" not in assets_of_jobs(known)[DAILY]
    assert "forecasts" in assets_of_jobs(model)[DAILY]

"""The asset ``forecasts``: the champion's forecasts of the time after each day, for every series.

``predictions`` has the forecast of each row that landed, as it would have been made the horizon before; monitoring
reads it. ``forecasts`` has what is not measured yet; people read it.

Belongs here: the moments that are forecast, and the table. Does not belong here: the features
(``data/forecasting.py``), the intervals (``model/conformal.py``).
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.features import compute_features, events_of, features_of
from assets.lifecycle.data.forecasting import STALE
from assets.lifecycle.model.version.champion import Champion, the_champion
from assets.lifecycle.monitoring.predictions import unless_deployed
from assets.lifecycle.stage import Check, StageOutput, TableInput, daily_freshness, days_in_run, eager, table_asset
from resources.dagster_internals import CheckResult

COMPLETE = Check(
    name="complete",
    description="Each series with values in the last week has forecasts, and none is missing or infinite.",
)
STEPS = 200
"""Number of latest values of a series whose median distance is its step."""


def has_forecasts(model: Model) -> bool:
    """Whether the model has the asset: columns that are known ahead have no values for it, only for the service."""
    return model.forecast is not None and not model.forecast.known


def forecasts_asset(model: Model) -> dg.AssetsDefinition | None:
    """Returns the asset ``forecasts``; ``None`` if the model has none."""
    if not has_forecasts(model):
        return None
    table, look = model.table, features_of(model).lookback_days

    def forecasts(
        context: dg.AssetExecutionContext, cleaned: pd.DataFrame, labels: pd.DataFrame | None = None
    ) -> StageOutput:
        champion = the_champion(context.resources, model)
        parts: list[pd.DataFrame] = []
        check_results: list[CheckResult] = []
        for day in days_in_run(context):
            end = pd.Timestamp(day) + pd.Timedelta(days=1)
            past = cleaned[(cleaned[table.time] < end) & (cleaned[table.time] >= end - pd.Timedelta(days=look + 1))]
            made = forecasts_of_day(model, champion, past, labels, day)
            parts.append(made)
            check_results.append(_complete(model, past, made, day))
        frame = pd.concat(parts, ignore_index=True)
        return StageOutput(frame, check_results, {"dagster/row_count": len(frame), "version": champion.version})

    return table_asset(
        model,
        "forecasts",
        forecasts,
        description=f"Forecasts of the {_span(model)} after each day with their intervals, for every series.",
        stage="monitoring",
        kinds={"torch"},
        inputs={
            "cleaned": TableInput(model.key(table.name), (-look, 0)),
            "labels": TableInput(model.key("labels"), (-look, 0), optional=True),
        },
        deps=[model.key("deployment")],
        checks=[COMPLETE],
        day_column="day",
        automation=unless_deployed(eager(table.late_days + 1), model),
        resources={"mlflow", "ledger"},
        freshness=daily_freshness(model),
    )


def forecasts_of_day(
    model: Model, champion: Champion, past: pd.DataFrame, labels: pd.DataFrame | None, day: str
) -> pd.DataFrame:
    """Forecasts the steps of each series after its latest value, up to the horizon.

    Args:
        model: a model with ``forecast``.
        champion: the version that forecasts.
        past: cleaned rows up to the end of the day, lookback included.
        labels: their labels.
        day: ISO day.

    Returns:
        One row per series and step: ``day``, the series, the time, ``prediction``, ``low``, ``high``, ``version``.
    """
    assert model.forecast is not None
    series, time = model.forecast.series, str(model.table.time)
    ahead = moments_ahead(past, series, time, dt.timedelta(hours=model.forecast.horizon_hours), day)
    both = pd.concat([past, ahead.assign(**{model.table.key: _no_key(past, model, len(ahead))})], ignore_index=True)
    own = champion.bundle.model
    events = events_of(both.reindex(columns=[c for c in model.table.columns if c != model.target]), labels, own)
    X = compute_features(features_of(own), events, np.arange(len(past), len(both)))
    predicted = champion.bundle.predict(X)
    ends = champion.bundle.ends(X, predicted)
    return ahead.assign(
        day=pd.Timestamp(day),
        prediction=predicted,
        low=ends["low"],
        high=ends["high"],
        version=pd.array([champion.version] * len(ahead), dtype="string[pyarrow]"),
    )[["day", series, time, "prediction", "low", "high", "version"]]


def moments_ahead(past: pd.DataFrame, series: str, time: str, horizon: dt.timedelta, day: str) -> pd.DataFrame:
    """Returns series and moments to forecast: from the step after the latest value to the horizon beyond it.

    A step is the median distance of a series' latest values. A series without values in the last week is left out.
    """
    ends = pd.Timestamp(day) + pd.Timedelta(days=1)
    parts = [past.iloc[:0][[series, time]]]
    for name, times in past.sort_values(time).groupby(series, sort=True)[time]:
        last = times.iloc[-1]
        if len(times) < 2 or ends - last > pd.Timedelta(STALE):
            continue
        step = max(pd.Timedelta(np.median(np.diff(times.iloc[-STEPS:].to_numpy()))), pd.Timedelta(minutes=1))
        moments = last + np.arange(1, horizon // step + 1) * step
        own = pd.DataFrame({series: [name] * len(moments), time: moments})
        parts.append(own.astype({series: past[series].dtype, time: past[time].dtype}))
    return pd.concat(parts, ignore_index=True)


def _no_key(past: pd.DataFrame, model: Model, rows: int) -> Any:
    """Keys of rows that have not happened: none of a text, and numbers below all others."""
    kind = past[model.table.key].dtype
    if pd.api.types.is_numeric_dtype(kind):
        return pd.Series(-1 - np.arange(rows)).astype(kind).array
    return pd.Series([f"ahead {n}" for n in range(rows)]).astype(kind).array


def _complete(model: Model, past: pd.DataFrame, made: pd.DataFrame, day: str) -> CheckResult:
    assert model.forecast is not None
    series, time = model.forecast.series, str(model.table.time)
    week = past[past[time] >= pd.Timestamp(day) + pd.Timedelta(days=1) - pd.Timedelta(STALE)]
    counts = week[series].value_counts()
    lacking = sorted(set(counts[counts > 1].index.astype(str)) - set(made[series].astype(str)))
    wrong = int((~np.isfinite(made[["prediction", "low", "high"]].to_numpy(dtype=float))).any(axis=1).sum())
    passed = not lacking and not wrong and (len(made) > 0 or model.table.quiet_days)
    return CheckResult(
        check=COMPLETE.name,
        day=day,
        passed=passed,
        description=f"{len(made):,} forecasts of {made[series].nunique()} series"
        if passed
        else f"{day}: no forecast of {', '.join(lacking[:5]) or 'any series'}, and {wrong} forecasts are missing or "
        "infinite; see the features of their rows, or roll back to the previous version",
        metadata={"rows": len(made), "series": int(made[series].nunique())},
    )


def _span(model: Model) -> str:
    assert model.forecast is not None
    hours = model.forecast.horizon_hours
    return f"{hours // 24} days" if hours % 24 == 0 and hours > 24 else f"{hours} hours"

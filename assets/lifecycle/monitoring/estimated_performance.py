"""The asset ``estimated_performance``: the gate's metric as estimated from predictions, before labels are known.

Belongs here: the day's estimate and its check. Does not belong here: the estimator (``estimate.py``).
"""

from __future__ import annotations

import functools
import json
import math
import operator
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.model.version.bundle import REFERENCE
from assets.lifecycle.monitoring.estimate import PerformanceEstimate, Tally, estimate, is_estimated, recalibrated
from assets.lifecycle.monitoring.trailing import TRAILING_DAYS, is_worse_than_floor, row_of_day
from assets.lifecycle.prediction_format import format_of
from assets.lifecycle.profile.reference import ReferenceProfile
from assets.lifecycle.stage import Check, StageOutput, TableInput, days_in_run, eager, table_asset
from assets.metrics import lower_is_better
from resources.dagster_internals import CheckResult
from resources.mlflow import MlflowTracking
from resources.tables import InBatches, days_of_window

ESTIMATED_FLOOR = Check(
    name="estimated_floor",
    description="The gate's metric, estimated over the trailing week, is not worse than the floor. The first day that "
    "fails warns, the next consecutive day pages.",
    blocking=False,
)


def estimated_performance_asset(model: Model) -> dg.AssetsDefinition | None:
    """Returns the asset ``estimated_performance``; ``None`` if the gate's metric cannot be estimated without labels."""
    if not is_estimated(model):
        return None

    def estimated_performance(context: dg.AssetExecutionContext, predictions: InBatches) -> StageOutput:
        tables, key = context.resources.tables, model.key("estimated_performance")
        rows: dict[str, dict[str, Any]] = {}
        check_results = []
        for day in days_in_run(context):
            of_day = _tally_of(context.resources.mlflow, model, predictions, day)
            # Earlier days are read directly and not as an input, because the first day has none and must not wait.
            week = {d: rows.get(d) or row_of_day(tables, key, d) for d in days_of_window(day, (1 - TRAILING_DAYS, -1))}
            tallies = [Tally.from_json(json.loads(row["tally"])) for row in week.values() if row and row["rows"]]
            trailing = functools.reduce(operator.add, [*tallies, *([of_day] if of_day else [])], _empty_tally(model))
            rows[day], check_result = _estimate_of_day(
                model, day, of_day, trailing, len(tallies) + 1, (list(week.values())[-1] or {}).get("beyond", False)
            )
            check_results.append(check_result)
        last = rows[day]
        metadata = {name: last[name] for name in ("estimated", "low", "high") if not math.isnan(last[name])}
        return StageOutput(pd.DataFrame(list(rows.values())), check_results, metadata)

    return table_asset(
        model,
        "estimated_performance",
        estimated_performance,
        description=f"The gate's metric over the trailing {TRAILING_DAYS} days, estimated from the champion's "
        "probabilities before labels are known. `performance` shows the error of the estimate later.",
        stage="monitoring",
        kinds={"numpy"},
        inputs={"predictions": TableInput(model.key("predictions"), in_batches=True)},
        checks=[ESTIMATED_FLOOR],
        code=[estimate, recalibrated, is_worse_than_floor],
        day_column="day",
        automation=eager(model.table.late_days + 1),
        resources={"mlflow"},
    )


def _tally_of(mlflow: MlflowTracking, model: Model, predictions: InBatches, day: str) -> Tally | None:
    """Counts of a day's probabilities, calibrated by the version that scored each row; ``None`` if there are none."""
    profiles: dict[str, ReferenceProfile] = {}
    form = format_of(model.task)
    tallies = []
    for batch in predictions.batches(day, ["version", *form.score_columns]):
        for version, rows in batch.groupby("version", sort=False):
            name = str(version)
            if name not in profiles:
                profiles[name] = ReferenceProfile.load(mlflow.download(model.name, name) / REFERENCE)
            scores = form.scores_in(rows)
            tallies.append(Tally.of(scores, profiles[name].calibration, profiles[name].label_effect))
    return functools.reduce(operator.add, tallies) if tallies else None


def _empty_tally(model: Model) -> Tally:
    return Tally.of(np.empty(format_of(model.task).shape(0)))


def _estimate_of_day(
    model: Model, day: str, of_day: Tally | None, trailing: Tally, days: int, before: bool
) -> tuple[dict[str, Any], CheckResult]:
    metric, floor = model.gate.metric, model.gate.floor
    found = estimate(model.task, metric, trailing) or PerformanceEstimate(math.nan, math.nan, math.nan)
    # The better end of the interval is used, because only a loss beyond chance counts.
    best = found.low if lower_is_better(metric) else found.high
    beyond = days >= TRAILING_DAYS and is_worse_than_floor(model, best)
    message = (
        f"{metric} {found.value:.3f} ({found.low:.3f} to {found.high:.3f}) is expected over the {days} days to {day}, "
        f"floor {floor}"
    )
    row: dict[str, Any] = {
        "day": pd.Timestamp(day),
        "rows": of_day.rows if of_day else 0,
        "trailing_days": days,
        "metric": metric,
        "estimated": found.value,
        "low": found.low,
        "high": found.high,
        "beyond": beyond,
        "tally": json.dumps((of_day or _empty_tally(model)).to_json(), separators=(",", ":")),
    }
    return row, CheckResult(
        check=ESTIMATED_FLOOR.name,
        day=day,
        passed=not beyond,
        severity=dg.AssetCheckSeverity.ERROR if before else dg.AssetCheckSeverity.WARN,
        description=message
        if days >= TRAILING_DAYS
        else f"{message}: not judged before {TRAILING_DAYS} days are scored",
        metadata={name: row[name] for name in ("estimated", "low", "high") if not math.isnan(row[name])},
    )

"""The asset ``performance``: metrics of the predictions once their labels are known.

Belongs here: the day's metrics, the error of the estimate, and the checks of both. Does not belong here: metrics
(``model/metrics``), notification (``sensors/alerts.py``).
"""

from __future__ import annotations

import math
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.event_days import rows_by_day
from assets.lifecycle.model.metrics import headline
from assets.lifecycle.monitoring.estimate import is_estimated
from assets.lifecycle.monitoring.trailing import TRAILING_DAYS, is_worse_than_floor
from assets.lifecycle.prediction_format import format_of
from assets.lifecycle.stage import Check, StageOutput, TableInput, days_in_run, eager, table_asset
from resources.dagster_internals import CheckResult
from resources.tables import ParquetTables, days_of_window

FLOOR = Check(
    name="floor", description="The gate's metric over the trailing week is above the gate's floor.", blocking=False
)


CALIBRATED = Check(
    name="calibrated",
    description="The trailing week has as many positives as the probabilities predict, up to chance and a third.",
    blocking=False,
)


MISCALIBRATED = 1 / 3


def performance_asset(model: Model) -> dg.AssetsDefinition | None:
    """Returns the asset ``performance``; ``None`` for a table without days."""
    if not model.is_stream:
        return None

    def performance(
        context: dg.AssetExecutionContext,
        predictions: pd.DataFrame,
        labels: pd.DataFrame,
        estimated: pd.DataFrame | None = None,
    ) -> StageOutput:
        tables = context.resources.tables
        scored = predictions.merge(labels[[model.table.key, model.target]], on=model.table.key)
        estimates = _estimates_by_day(estimated)
        rows, check_results = [], []
        for day, of_day in rows_by_day(scored, model, days_in_run(context)).items():
            # Earlier days are read directly and not as an input, because the first day has none and must not wait.
            week = [
                d for d in days_of_window(day, (1 - TRAILING_DAYS, -1)) if _is_scored_and_labelled(tables, model, d)
            ]
            earlier = [_labelled_predictions(tables, model, d) for d in week]
            trailing = pd.concat([*earlier, of_day], ignore_index=True)
            row, found = _metrics_of_day(model, day, of_day, trailing)
            rows.append(row | _estimate_error(model, row, estimates.get(day)))
            check_results += found
        frame = pd.DataFrame(rows)
        numbers = {k: v for k, v in rows[-1].items() if isinstance(v, (int, float)) and not math.isnan(v)}
        return StageOutput(frame, check_results, numbers)

    inputs = {"predictions": TableInput(model.key("predictions")), "labels": TableInput(model.key("labels"))}
    automation: Any = eager(model.label_delay_days + model.table.late_days + 1)
    if is_estimated(model):
        key = model.key("estimated_performance")
        inputs["estimated"] = TableInput(key, optional=True, columns=("day", "estimated"))
        # The estimate is shown beside the true value. A missing or failed estimate must not hold the true value back.
        automation = automation.ignore(dg.AssetSelection.assets(key))
    return table_asset(
        model,
        "performance",
        performance,
        description="Metrics of each day's predictions once their labels are known; the floor applies to the "
        f"trailing {TRAILING_DAYS} days.",
        stage="monitoring",
        kinds={"pandas"},
        inputs=inputs,
        checks=[FLOOR, *([CALIBRATED] if model.task.kind == "binary" else [])],
        day_column="day",
        code=[is_worse_than_floor],
        automation=automation,
    )


def _estimates_by_day(estimated: pd.DataFrame | None) -> dict[str, float]:
    if estimated is None or estimated.empty:
        return {}
    return {str(day.date()): float(value) for day, value in zip(estimated["day"], estimated["estimated"], strict=True)}


def _is_scored_and_labelled(tables: ParquetTables, model: Model, day: str) -> bool:
    return bool(tables.stamp(model.key("predictions"), day) and tables.stamp(model.key("labels"), day))


def _labelled_predictions(tables: ParquetTables, model: Model, day: str) -> pd.DataFrame:
    labels = tables.read(model.key("labels"), [day], [model.table.key, model.target])
    return tables.read(model.key("predictions"), [day]).merge(labels, on=model.table.key)


def _counts(model: Model, of_day: pd.DataFrame) -> dict[str, int]:
    """For a binary target, the numbers of positives, of alerts, and of positives with an alert; else empty."""
    if model.task.kind != "binary":
        return {}
    positive = of_day[model.target] == 1
    caught = int((of_day["alert"] & positive).sum())
    return {"positives": int(positive.sum()), "alerts": int(of_day["alert"].sum()), "caught": caught}


def _estimate_error(model: Model, row: dict[str, Any], estimated: float | None) -> dict[str, float]:
    """The estimate for the same days, and its error: estimate minus the value on labels; NaN without an estimate."""
    estimate = math.nan if estimated is None else estimated
    return {
        "estimated": estimate,
        "estimate_error": estimate - float(row.get(f"trailing_{model.gate.metric}", math.nan)),
    }


def _metrics_of_day(
    model: Model, day: str, of_day: pd.DataFrame, trailing: pd.DataFrame
) -> tuple[dict[str, Any], list[CheckResult]]:
    scores = format_of(model.task).scores_in(trailing)
    figures = headline(model.task, trailing[model.target].to_numpy(dtype=float), scores)
    live = {f"trailing_{name}": value for name, value in figures.items()}
    row: dict[str, Any] = {
        "day": pd.Timestamp(day),
        "rows": len(of_day),
        **_counts(model, of_day),
        "trailing_days": int(trailing[model.table.time].dt.floor("D").nunique()),
        **live,
    }
    metric, floor = model.gate.metric, model.gate.floor
    value = live.get(f"trailing_{metric}", float("nan"))
    full = row["trailing_days"] >= TRAILING_DAYS
    value_text = (
        f"{metric} {value:.3f}" if f"trailing_{metric}" in live else f"{metric}, which live rows do not provide,"
    )
    message = f"{value_text} over the {row['trailing_days']} days to {day}, floor {floor}"
    if not full:
        message += f": fewer than {TRAILING_DAYS} days are labelled, so it is not judged yet"
    floor_result = CheckResult(
        check=FLOOR.name,
        day=day,
        passed=not (full and is_worse_than_floor(model, value)),
        severity=dg.AssetCheckSeverity.ERROR,
        description=message,
        metadata={name: value for name, value in live.items() if not math.isnan(value)},
    )
    if model.task.kind != "binary":
        return row, [floor_result]
    expected, check_result = _calibrated(model, day, trailing)
    return row | {"trailing_positives": int(trailing[model.target].sum()), "trailing_expected": expected}, [
        floor_result,
        check_result,
    ]


def _calibrated(model: Model, day: str, trailing: pd.DataFrame) -> tuple[float, CheckResult]:
    """Compares expected and actual positives of a week, to detect label drift; returns the expected number as well."""
    p = trailing["probability"].to_numpy(dtype=float)
    expected, came = float(p.sum()), int(trailing[model.target].sum())
    chance = 4 * float(np.sqrt((p * (1 - p)).sum()))
    off = abs(came - expected)
    return expected, CheckResult(
        check=CALIBRATED.name,
        day=day,
        passed=not (off > chance and off > MISCALIBRATED * max(expected, 1.0)),
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{came:,} positives in the week to {day}, {expected:,.0f} were expected",
        metadata={"came": came, "expected": expected},
    )

"""Last stage: the champion's predictions of each day, its estimated performance, and its performance on labels.

Belongs here: the assets ``predictions``, ``estimated_performance`` and ``performance``. Does not belong here: the drift
check (``drift_days.py``), metrics (``metrics``), the estimate (``estimate.py``), notification (``sensors/alerts.py``).
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
from assets.lifecycle.answers import answer_columns, score_columns, scores_in
from assets.lifecycle.data.cleaning import event_day
from assets.lifecycle.data.features import features_of
from assets.lifecycle.model.bundle import REFERENCE
from assets.lifecycle.model.champion import Champion, the_champion
from assets.lifecycle.model.metrics import headline
from assets.lifecycle.model.scoring import features_by
from assets.lifecycle.monitoring.estimate import ESTIMATED, Estimate, Tally, estimate, recalibrated
from assets.lifecycle.profile.reference import ReferenceProfile
from assets.lifecycle.stage import Check, Made, Reads, daily_freshness, days_in_run, eager, table_asset
from assets.task import LOWER_IS_BETTER
from resources.dagster_internals import Finding
from resources.tables import WHOLE, InBatches, days_of_window

SCORED = Check(name="scored", description="Each row with features has one score of the kind that the target asks for.")
FLOOR = Check(
    name="floor", description="The gate's metric over the trailing week is above the gate's floor.", blocking=False
)
ESTIMATED_FLOOR = Check(
    name="estimated_floor",
    description="The gate's metric that the probabilities promise over the trailing week is not beyond the floor: a "
    "first day that is warns, the next in a row pages.",
    blocking=False,
)
CALIBRATED = Check(
    name="calibrated",
    description="As many positives came in the trailing week as the probabilities expected, up to chance and a third.",
    blocking=False,
)
MISCALIBRATED = 1 / 3
TRAILING_DAYS = 7


def monitoring_assets(model: Model) -> list[dg.AssetsDefinition]:
    """``predictions``; for a stream also ``performance``, and ``estimated_performance`` if the metric allows it."""
    estimable = model.is_stream and model.gate.metric in ESTIMATED[model.task.kind]
    return [
        _predictions(model),
        *([_estimated_performance(model)] if estimable else []),
        *([_performance(model)] if model.is_stream else []),
    ]


# -- predictions -----------------------------------------------------------------------------------------------------


def _predictions(model: Model) -> dg.AssetsDefinition:
    table = model.table
    carried = [c for c in (table.key, table.time) if c]

    def predictions(context: dg.AssetExecutionContext, features: pd.DataFrame) -> Made:
        champion = the_champion(context.resources, model)
        days = days_in_run(context)
        said = [
            _said(context.resources.tables, model, day, rows, champion, carried)
            for day, rows in _by_day(features, model, days).items()
        ]
        frame = pd.concat(said, ignore_index=True)
        findings = [
            _scored(model, rows, None if day == WHOLE else day) for day, rows in _by_day(frame, model, days).items()
        ]
        metadata = {
            "dagster/row_count": len(frame),
            "version": champion.version,
            **_said_in_short(model, frame),
        }
        return Made(frame, findings, metadata)

    return table_asset(
        model,
        "predictions",
        predictions,
        description="What the champion said of each row, with the version that said it. A row that was scored keeps "
        "its score when its day is made again; rows that came late are added.",
        stage="monitoring",
        kinds={"torch"},
        reads={"features": Reads(model.key("features"))},
        deps=[model.key("deployment")],
        checks=[SCORED],
        day_column=table.time,
        automation=_unless_deployed(eager(table.late_days + 1 if model.is_stream else None), model),
        resources={"mlflow", "ledger"},
        freshness=daily_freshness(model),
    )


def _unless_deployed(condition: dg.AutomationCondition, model: Model) -> dg.AutomationCondition:
    """Ignores promotions, so that one alone does not rescore past days, and waits for the first deployment."""
    deployment = dg.AssetSelection.assets(model.key("deployment"))
    missing: Any = dg.AutomationCondition.any_deps_missing()
    return condition.ignore(deployment) & ~missing.allow(deployment)  # type: ignore[attr-defined]


def _said(
    tables: Any, model: Model, day: str, rows: pd.DataFrame, champion: Champion, carried: list[str]
) -> pd.DataFrame:
    key = model.key("predictions")
    before = tables.read(key, [day]) if model.is_stream and tables.stamp(key, day) else None
    if before is not None:
        before = before[before[model.table.key].isin(rows[model.table.key])]
        rows = rows[~rows[model.table.key].isin(before[model.table.key])]
    today = rows[list(features_of(model).names)].to_numpy(dtype=np.float32)
    X = features_by(champion.bundle, tables, model, rows, today)
    scores = champion.bundle.predict(X)
    alerts = champion.bundle.alerts(scores, _amounts(tables, model, day, rows)) if model.task.kind == "binary" else None
    new = rows[carried].assign(
        **answer_columns(model.task, scores, alerts),
        version=pd.array([champion.version] * len(rows), dtype="string[pyarrow]"),
    )
    if before is None or before.empty:
        return new
    order = [c for c in (model.table.time, model.table.key) if c]
    return pd.concat([before, new], ignore_index=True).sort_values(order, kind="stable") if len(new) else before


def _amounts(tables: Any, model: Model, day: str, rows: pd.DataFrame) -> np.ndarray | None:
    column = model.evaluation.amount
    if column is None:
        return None
    cleaned = tables.read(model.key(model.table.name), [day], [model.table.key, column])
    return rows[[model.table.key]].merge(cleaned, how="left", on=model.table.key)[column].to_numpy(dtype=float)


def _said_in_short(model: Model, rows: pd.DataFrame) -> dict[str, Any]:
    """A summary of the predictions, for metadata."""
    if rows.empty:
        return {}
    if model.task.kind == "binary":
        return {"alerts": int(rows["alert"].sum()), "mean_probability": float(rows["probability"].mean())}
    if model.task.kind == "regression":
        return {"mean_prediction": float(rows["prediction"].mean())}
    return {"predicted": {str(name): int(n) for name, n in rows["prediction"].value_counts().items()}}


def _scored(model: Model, rows: pd.DataFrame, day: str | None) -> Finding:
    scores = scores_in(model.task, rows)
    sound = np.isfinite(scores)
    if model.task.kind != "regression":
        sound &= (scores >= 0) & (scores <= 1)
    wrong = int((~sound.reshape(len(rows), -1).all(axis=1)).sum()) if len(rows) else 0
    what = "finite prediction" if model.task.kind == "regression" else "probability between 0 and 1"
    shown = {"rows": len(rows), **_said_in_short(model, rows)}
    return Finding(
        check=SCORED.name,
        day=day,
        passed=(len(rows) > 0 or model.table.quiet_days) and wrong == 0,
        description=f"{len(rows):,} rows, each with a {what}"
        if (len(rows) or model.table.quiet_days) and not wrong
        else f"{wrong} of {len(rows)} rows have no {what}; the champion's export is damaged or its features are: "
        "roll back to the version before",
        metadata=shown,
    )


# -- estimated performance --------------------------------------------------------------------------------------------


def _estimated_performance(model: Model) -> dg.AssetsDefinition:
    def estimated_performance(context: dg.AssetExecutionContext, predictions: InBatches) -> Made:
        tables, key = context.resources.tables, model.key("estimated_performance")
        rows: dict[str, dict[str, Any]] = {}
        findings = []
        for day in days_in_run(context):
            of_day = _tally_of(context.resources.mlflow, model, predictions, day)
            # Earlier days are read directly and not as an input, because the first day has none and must not wait.
            week = {d: rows.get(d) or _row(tables, key, d) for d in days_of_window(day, (1 - TRAILING_DAYS, -1))}
            tallies = [Tally.from_json(json.loads(row["tally"])) for row in week.values() if row and row["rows"]]
            trailing = functools.reduce(operator.add, [*tallies, *([of_day] if of_day else [])], _nothing(model))
            rows[day], finding = _estimated(
                model, day, of_day, trailing, len(tallies) + 1, (list(week.values())[-1] or {}).get("beyond", False)
            )
            findings.append(finding)
        last = rows[day]
        shown = {name: last[name] for name in ("estimated", "low", "high") if not math.isnan(last[name])}
        return Made(pd.DataFrame(list(rows.values())), findings, shown)

    return table_asset(
        model,
        "estimated_performance",
        estimated_performance,
        description=f"What the gate's metric will be over the trailing {TRAILING_DAYS} days if the champion's "
        "probabilities are as right as they were in training: known at once, where labels come later. `performance` "
        "says how far it was off.",
        stage="monitoring",
        kinds={"numpy"},
        reads={"predictions": Reads(model.key("predictions"), in_batches=True)},
        checks=[ESTIMATED_FLOOR],
        code=[estimate, recalibrated],
        day_column="day",
        automation=eager(model.table.late_days + 1),
        resources={"mlflow"},
    )


def _tally_of(mlflow: Any, model: Model, predictions: InBatches, day: str) -> Tally | None:
    """Counts of a day's probabilities, calibrated by the version that scored each row; ``None`` if there are none."""
    profiles: dict[str, ReferenceProfile] = {}
    tallies = []
    for batch in predictions.of(day, ["version", *score_columns(model.task)]):
        for version, rows in batch.groupby("version", sort=False):
            name = str(version)
            if name not in profiles:
                profiles[name] = ReferenceProfile.load(mlflow.download(model.name, name) / REFERENCE)
            scores = scores_in(model.task, rows)
            tallies.append(Tally.of(scores, profiles[name].calibration, profiles[name].label_effect))
    return functools.reduce(operator.add, tallies) if tallies else None


def _nothing(model: Model) -> Tally:
    return Tally.of(np.empty((0, len(model.task.classes) if model.task.kind == "multiclass" else 1)))


def _row(tables: Any, key: dg.AssetKey, day: str) -> dict[str, Any] | None:
    return tables.read(key, [day]).iloc[0].to_dict() if tables.stamp(key, day) else None


def _beyond(model: Model, value: float) -> bool:
    """Whether a value of the gate's metric is worse than the floor."""
    floor = model.gate.floor
    return value > floor if model.gate.metric in LOWER_IS_BETTER else value < floor


def _estimated(
    model: Model, day: str, of_day: Tally | None, trailing: Tally, days: int, before: bool
) -> tuple[dict[str, Any], Finding]:
    metric, floor = model.gate.metric, model.gate.floor
    found = estimate(model.task, metric, trailing) or Estimate(math.nan, math.nan, math.nan)
    # The better end of the interval is used, because only a loss beyond chance counts.
    best = found.low if metric in LOWER_IS_BETTER else found.high
    beyond = days >= TRAILING_DAYS and _beyond(model, best)
    words = (
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
        "tally": json.dumps((of_day or _nothing(model)).to_json(), separators=(",", ":")),
    }
    return row, Finding(
        check=ESTIMATED_FLOOR.name,
        day=day,
        passed=not beyond,
        severity=dg.AssetCheckSeverity.ERROR if before else dg.AssetCheckSeverity.WARN,
        description=words if days >= TRAILING_DAYS else f"{words}: not judged before {TRAILING_DAYS} days are scored",
        metadata={name: row[name] for name in ("estimated", "low", "high") if not math.isnan(row[name])},
    )


# -- performance -----------------------------------------------------------------------------------------------------


def _performance(model: Model) -> dg.AssetsDefinition:
    def performance(context: dg.AssetExecutionContext, predictions: pd.DataFrame, labels: pd.DataFrame) -> Made:
        tables = context.resources.tables
        scored = predictions.merge(labels[[model.table.key, model.target]], on=model.table.key)
        rows, findings = [], []
        for day, of_day in _by_day(scored, model, days_in_run(context)).items():
            # Earlier days are read directly and not as an input, because the first day has none and must not wait.
            week = [d for d in days_of_window(day, (1 - TRAILING_DAYS, -1)) if _both(tables, model, d)]
            earlier = [_truth(tables, model, d) for d in week]
            trailing = pd.concat([*earlier, of_day], ignore_index=True)
            row, found = _live(model, day, of_day, trailing)
            rows.append(row | _how_far_off(model, row, _row(tables, model.key("estimated_performance"), day)))
            findings += found
        frame = pd.DataFrame(rows)
        numbers = {k: v for k, v in rows[-1].items() if isinstance(v, (int, float)) and not math.isnan(v)}
        return Made(frame, findings, numbers)

    return table_asset(
        model,
        "performance",
        performance,
        description="How the predictions of each day did, once their labels were known; the floor is held over the "
        f"trailing {TRAILING_DAYS} days.",
        stage="monitoring",
        kinds={"pandas"},
        reads={"predictions": Reads(model.key("predictions")), "labels": Reads(model.key("labels"))},
        checks=[FLOOR, *([CALIBRATED] if model.task.kind == "binary" else [])],
        day_column="day",
        automation=eager(model.label_delay_days + model.table.late_days + 1),
    )


def _both(tables: Any, model: Model, day: str) -> bool:
    return bool(tables.stamp(model.key("predictions"), day) and tables.stamp(model.key("labels"), day))


def _truth(tables: Any, model: Model, day: str) -> pd.DataFrame:
    labels = tables.read(model.key("labels"), [day], [model.table.key, model.target])
    return tables.read(model.key("predictions"), [day]).merge(labels, on=model.table.key)


def _counted(model: Model, of_day: pd.DataFrame) -> dict[str, int]:
    """For a binary target, the numbers of positives, of alerts, and of positives with an alert; else empty."""
    if model.task.kind != "binary":
        return {}
    positive = of_day[model.target] == 1
    caught = int((of_day["alert"] & positive).sum())
    return {"positives": int(positive.sum()), "alerts": int(of_day["alert"].sum()), "caught": caught}


def _how_far_off(model: Model, row: dict[str, Any], estimated: dict[str, Any] | None) -> dict[str, float]:
    """The estimate for the same days, and its error (estimate minus the value on labels)."""
    said = float(estimated["estimated"]) if estimated else math.nan
    return {"estimated": said, "estimate_error": said - float(row.get(f"trailing_{model.gate.metric}", math.nan))}


def _live(model: Model, day: str, of_day: pd.DataFrame, trailing: pd.DataFrame) -> tuple[dict[str, Any], list[Finding]]:
    figures = headline(model.task, trailing[model.target].to_numpy(dtype=float), scores_in(model.task, trailing))
    live = {f"trailing_{name}": value for name, value in figures.items()}
    row: dict[str, Any] = {
        "day": pd.Timestamp(day),
        "rows": len(of_day),
        **_counted(model, of_day),
        "trailing_days": int(trailing[model.table.time].dt.floor("D").nunique()),
        **live,
    }
    metric, floor = model.gate.metric, model.gate.floor
    value = live.get(f"trailing_{metric}", float("nan"))
    full = row["trailing_days"] >= TRAILING_DAYS
    words = f"{metric} {value:.3f} over the {row['trailing_days']} days to {day}, floor {floor}"
    if not full:
        words += f": fewer than {TRAILING_DAYS} days are labelled, not judged yet"
    held = Finding(
        check=FLOOR.name,
        day=day,
        passed=not (full and _beyond(model, value)),
        severity=dg.AssetCheckSeverity.ERROR,
        description=words,
        metadata={name: value for name, value in live.items() if not math.isnan(value)},
    )
    if model.task.kind != "binary":
        return row, [held]
    expected, finding = _calibrated(model, day, trailing)
    return row | {"trailing_positives": int(trailing[model.target].sum()), "trailing_expected": expected}, [
        held,
        finding,
    ]


def _calibrated(model: Model, day: str, trailing: pd.DataFrame) -> tuple[float, Finding]:
    """Compares expected and actual positives of a week, to detect label drift; returns the expected number as well."""
    p = trailing["probability"].to_numpy(dtype=float)
    expected, came = float(p.sum()), int(trailing[model.target].sum())
    chance = 4 * float(np.sqrt((p * (1 - p)).sum()))
    off = abs(came - expected)
    return expected, Finding(
        check=CALIBRATED.name,
        day=day,
        passed=not (off > chance and off > MISCALIBRATED * max(expected, 1.0)),
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{came:,} positives in the week to {day}, {expected:,.0f} were expected",
        metadata={"came": came, "expected": expected},
    )


def _by_day(frame: pd.DataFrame, model: Model, days: list[str]) -> dict[str, pd.DataFrame]:
    """The rows of each of ``days``, in that order."""
    if not model.is_stream:
        return {WHOLE: frame}
    day = event_day(frame, model.table)
    return {d: frame[(day == d).to_numpy()] for d in days}

"""Last stage: what the champion said each day, how it did once the truth was known, and whether its world still holds.

Belongs here: the assets ``predictions``, ``performance`` and ``drift``. Does not belong here: the rule of the drift
check (``drift.py``), metrics (``metrics``), who is told (``sensors/alerts.py``).
"""

from __future__ import annotations

import math
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.answers import answer_columns, compared_scores, scores_in
from assets.lifecycle.bundle import REFERENCE
from assets.lifecycle.champion import Champion, the_champion
from assets.lifecycle.cleaning import event_day
from assets.lifecycle.drift import DriftResult, Level, compare, severity
from assets.lifecycle.features import features_of
from assets.lifecycle.metrics import headline
from assets.lifecycle.reference import ReferenceProfile
from assets.lifecycle.scoring import features_by
from assets.lifecycle.stage import Check, Made, Reads, daily_freshness, days_in_run, eager, table_asset
from assets.task import LOWER_IS_BETTER
from resources.dagster_internals import Finding
from resources.tables import WHOLE, days_of_window

SCORED = Check(name="scored", description="Each row with features has one score of the kind that the target asks for.")
FLOOR = Check(
    name="floor", description="The gate's metric over the trailing week is above the gate's floor.", blocking=False
)
DRIFT = Check(
    name="drift",
    description="The day's features and scores are those of the champion's reference: a first window that is not "
    "warns, the next in a row pages.",
    blocking=False,
)
TRAILING_DAYS = 7
MOST_WINDOWS = 31
"""How far back the first day of a drift is looked for."""


def monitoring_assets(model: Model) -> list[dg.AssetsDefinition]:
    """``predictions`` and ``drift``; ``performance`` where there are days to come due."""
    return [_predictions(model), _drift(model), *([_performance(model)] if model.is_stream else [])]


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
    """A promotion alone does not score the past again; and before the first one there is nobody to score."""
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
    """What a person wants to see of predictions at a glance."""
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


# -- performance -----------------------------------------------------------------------------------------------------


def _performance(model: Model) -> dg.AssetsDefinition:
    def performance(context: dg.AssetExecutionContext, predictions: pd.DataFrame, labels: pd.DataFrame) -> Made:
        tables = context.resources.tables
        scored = predictions.merge(labels[[model.table.key, model.target]], on=model.table.key)
        rows, findings = [], []
        for day, of_day in _by_day(scored, model, days_in_run(context)).items():
            # The week before is read as it stands, not as an input: the first day has none, and is not held back.
            week = [d for d in days_of_window(day, (1 - TRAILING_DAYS, -1)) if _both(tables, model, d)]
            earlier = [_truth(tables, model, d) for d in week]
            trailing = pd.concat([*earlier, of_day], ignore_index=True)
            row, finding = _live(model, day, of_day, trailing)
            rows.append(row)
            findings.append(finding)
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
        checks=[FLOOR],
        day_column="day",
        automation=eager(model.label_delay_days + model.table.late_days + 1),
    )


def _both(tables: Any, model: Model, day: str) -> bool:
    return bool(tables.stamp(model.key("predictions"), day) and tables.stamp(model.key("labels"), day))


def _truth(tables: Any, model: Model, day: str) -> pd.DataFrame:
    labels = tables.read(model.key("labels"), [day], [model.table.key, model.target])
    return tables.read(model.key("predictions"), [day]).merge(labels, on=model.table.key)


def _counted(model: Model, of_day: pd.DataFrame) -> dict[str, int]:
    """Of a binary target: how many positives there were, how many alerts, and how many positives were alerted."""
    if model.task.kind != "binary":
        return {}
    positive = of_day[model.target] == 1
    caught = int((of_day["alert"] & positive).sum())
    return {"positives": int(positive.sum()), "alerts": int(of_day["alert"].sum()), "caught": caught}


def _live(model: Model, day: str, of_day: pd.DataFrame, trailing: pd.DataFrame) -> tuple[dict[str, Any], Finding]:
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
    below = value > floor if metric in LOWER_IS_BETTER else value < floor
    words = f"{metric} {value:.3f} over the {row['trailing_days']} days to {day}, floor {floor}"
    if not full:
        words += f": fewer than {TRAILING_DAYS} days are labelled, not judged yet"
    return row, Finding(
        check=FLOOR.name,
        day=day,
        passed=not (full and below),
        severity=dg.AssetCheckSeverity.ERROR,
        description=words,
        metadata={name: value for name, value in live.items() if not math.isnan(value)},
    )


# -- drift -----------------------------------------------------------------------------------------------------------


def _drift(model: Model) -> dg.AssetsDefinition:
    features = features_of(model)
    columns = [name for name in features.names if name not in features.words]

    def drift(context: dg.AssetExecutionContext, features: pd.DataFrame, predictions: pd.DataFrame) -> Made:
        mlflow, tables = context.resources.mlflow, context.resources.tables
        said = pd.DataFrame(compared_scores(model.task, scores_in(model.task, predictions)))
        said.index = pd.Index(predictions[model.table.key])
        scored = features.join(said, on=model.table.key)
        versions = {
            day: rows["version"].mode() for day, rows in _by_day(predictions, model, days_in_run(context)).items()
        }
        rows: list[dict[str, Any]] = []
        findings = []
        for day, window in _by_day(scored, model, days_in_run(context)).items():
            if versions[day].empty and model.table.quiet_days:
                rows.append(_drift_row(day, "", DriftResult(0, judged=False), "ok", []))
                findings.append(_drift_finding(day, rows[-1], DriftResult(0, judged=False), None))
                continue
            if versions[day].empty:
                raise dg.Failure(description=f"{model.name}: nothing was scored on {day}; materialise its predictions")
            # The reference is that of the version which scored the day: after a rollback, the right one again.
            version = str(versions[day].iloc[0])
            reference = ReferenceProfile.load(mlflow.download(model.name, version) / REFERENCE)
            result = compare(reference, window[[*columns, *said]], model.drift)
            before = _windows_before(tables, model, day, version, rows)
            level = severity([drifted for _, drifted in before], result.drifted, model.drift.page_after)
            rows.append(_drift_row(day, version, result, level, before))
            report = _keep_report(tables.root, model, day, result, html=level != "ok")
            findings.append(_drift_finding(None if day == WHOLE else day, rows[-1], result, report))
        last = {"version": version, "level": level, "drifted": ", ".join(result.drifted_columns) or "nothing"}
        return Made(pd.DataFrame(rows), findings, last)

    return table_asset(
        model,
        "drift",
        drift,
        description="The day's features and scores against the champion's reference profile, by Evidently.",
        stage="monitoring",
        kinds={"evidently"},
        reads={"features": Reads(model.key("features")), "predictions": Reads(model.key("predictions"))},
        checks=[DRIFT],
        day_column="day" if model.is_stream else None,
        automation=eager(model.table.late_days + 1 if model.is_stream else None),
        resources={"mlflow"},
    )


def _windows_before(
    tables: Any, model: Model, day: str, version: str, in_run: list[dict[str, Any]]
) -> list[tuple[str, bool | None]]:
    """The windows before ``day`` scored by the same version, oldest first: day, and whether it drifted (``None``: not
    judged). They are read as they stand, not as an input: the first day has none, and is not held back."""
    if day == WHOLE:
        return []
    known = {str(row["day"].date()): row for row in in_run}
    history: list[tuple[str, bool | None]] = []
    for earlier in days_of_window(day, (-MOST_WINDOWS, -1)):
        row = known.get(earlier)
        if row is None and tables.stamp(model.key("drift"), earlier):
            row = tables.read(model.key("drift"), [earlier]).iloc[0].to_dict()
        if row is not None and str(row["version"]) == version:
            history.append((earlier, bool(row["drifted"]) if row["judged"] else None))
    return history


def _drift_row(
    day: str, version: str, result: DriftResult, level: Level, before: list[tuple[str, bool | None]]
) -> dict[str, Any]:
    """One line of the ``drift`` table: the verdict on a window."""
    since = day
    for earlier, drifted in reversed([window for window in before if window[1] is not None]):
        if not drifted:
            break
        since = earlier
    return {
        **({} if day == WHOLE else {"day": pd.Timestamp(day)}),
        "version": version,
        "rows": result.rows,
        "judged": result.judged,
        "drifted": result.drifted,
        "level": level,
        "since": since if result.drifted else "",
        "columns": ", ".join(result.drifted_columns),
        "verdicts": result.to_json(),
    }


def _keep_report(root: str, model: Model, day: str, result: DriftResult, *, html: bool) -> str | None:
    """Writes Evidently's page of an alarm beside the tables; its path, or ``None`` where there was none to keep."""
    import fsspec

    if not html:
        return None
    path = f"{root}/{model.name}/drift/reports/{day}.html"
    fs, where = fsspec.core.url_to_fs(path)
    fs.makedirs(where.rsplit("/", 1)[0], exist_ok=True)
    fs.pipe_file(where, result.html().encode())
    return path


def _drift_finding(day: str | None, row: dict[str, Any], result: DriftResult, report: str | None) -> Finding:
    level = row["level"]
    if not result.judged:
        words = f"{result.rows} rows are too few to judge"
    elif level == "ok":
        words = f"{result.rows:,} rows look like the reference of version {row['version']}"
    else:
        words = (
            f"{len(result.drifted_columns)} of {len(result.columns)} columns drifted against the reference of version "
            f"{row['version']}: {', '.join(result.drifted_columns[:5])}"
            + (f"; since {row['since']}" if level == "page" else "; a first window, watch the next")
        )
    metadata: dict[str, Any] = {"level": level, "version": row["version"], "rows": result.rows}
    if level != "ok":
        metadata |= {
            "since": row["since"],
            "effects": {c.column: round(c.effect, 4) for c in result.columns if c.drifted},
            "report": dg.MetadataValue.path(report or ""),
        }
    return Finding(
        check=DRIFT.name,
        day=day,
        passed=level == "ok",
        severity=dg.AssetCheckSeverity.ERROR if level == "page" else dg.AssetCheckSeverity.WARN,
        description=words,
        metadata=metadata,
    )


def _by_day(frame: pd.DataFrame, model: Model, days: list[str]) -> dict[str, pd.DataFrame]:
    """The rows of each day of the run, in its order."""
    if not model.is_stream:
        return {WHOLE: frame}
    day = event_day(frame, model.table)
    return {d: frame[(day == d).to_numpy()] for d in days}

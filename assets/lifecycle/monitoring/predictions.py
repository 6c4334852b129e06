"""The asset ``predictions``: the champion's scores of each day's rows.

Belongs here: scoring rows, keeping the scores of rows that were scored before, and the check of the scores. Does not
belong here: the format of the columns (``prediction_format.py``), the champion (``version/champion.py``).
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.event_days import rows_by_day
from assets.lifecycle.data.features import features_of
from assets.lifecycle.model.version.bundle import Bundle
from assets.lifecycle.model.version.champion import Champion, the_champion
from assets.lifecycle.model.version.features_by_version import features_by
from assets.lifecycle.prediction_format import format_of
from assets.lifecycle.stage import Check, StageOutput, TableInput, daily_freshness, days_in_run, eager, table_asset
from resources.compute import Tell
from resources.dagster_internals import CheckResult
from resources.tables import WHOLE, ParquetTables

SCORED = Check(name="scored", description="Each row with features has one score of the kind that the target needs.")


def predictions_asset(model: Model) -> dg.AssetsDefinition:
    """Returns the asset ``predictions``."""
    table = model.table
    carried = [c for c in (table.key, table.time) if c]

    def predictions(context: dg.AssetExecutionContext, features: pd.DataFrame) -> StageOutput:
        champion = the_champion(context.resources, model)
        days = days_in_run(context)
        tables = context.resources.tables
        to_score = {
            day: _unscored(tables, model, day, rows) for day, rows in rows_by_day(features, model, days).items()
        }
        with context.resources.compute.open(model.compute, context.log.info) as pool:
            inputs = (_inputs(tables, model, unscored.rows, champion) for unscored in to_score.values())
            # Rows are written below, all days of the run at once, so a day that was scored twice is written once.
            scores = pool.map(_scores, inputs, shared=_Files.of(champion.bundle) if pool.elsewhere else champion.bundle)
        parts = [
            _predictions_of_day(tables, model, day, unscored, scored, ends, champion, carried)
            for (day, unscored), (scored, ends) in zip(to_score.items(), scores, strict=True)
        ]
        frame = pd.concat(parts, ignore_index=True)
        check_results = [
            _scored_check_result(model, rows, None if day == WHOLE else day)
            for day, rows in rows_by_day(frame, model, days).items()
        ]
        metadata = {
            "dagster/row_count": len(frame),
            "version": champion.version,
            **(format_of(model.task).summary(frame) if len(frame) else {}),
        }
        return StageOutput(frame, check_results, metadata)

    return table_asset(
        model,
        "predictions",
        predictions,
        description="The champion's score of each row, with its version. A row that has a score keeps it when its day "
        "is materialised again; late rows are added.",
        stage="monitoring",
        kinds={"torch"},
        inputs={"features": TableInput(model.key("features"))},
        deps=[model.key("deployment")],
        checks=[SCORED],
        day_column=table.time,
        automation=unless_deployed(eager(table.late_days + 1 if model.is_stream else None), model),
        resources={"mlflow", "ledger", "compute"},
        freshness=daily_freshness(model),
    )


def unless_deployed(condition: dg.AutomationCondition, model: Model) -> dg.AutomationCondition:
    """Ignores promotions, so that one alone does not rescore past days, and waits for the first deployment."""
    deployment = dg.AssetSelection.assets(model.key("deployment"))
    missing: Any = dg.AutomationCondition.any_deps_missing()
    return condition.ignore(deployment) & ~missing.allow(deployment)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class _Unscored:
    """A day's rows without a score, and its rows that keep theirs (``None``: the day was never scored)."""

    rows: pd.DataFrame
    before: pd.DataFrame | None


def _unscored(tables: ParquetTables, model: Model, day: str, rows: pd.DataFrame) -> _Unscored:
    key = model.key("predictions")
    before = tables.read(key, [day]) if model.is_stream and tables.stamp(key, day) else None
    if before is not None:
        before = before[before[model.table.key].isin(rows[model.table.key])]
        rows = rows[~rows[model.table.key].isin(before[model.table.key])]
    return _Unscored(rows, before)


def _inputs(tables: ParquetTables, model: Model, rows: pd.DataFrame, champion: Champion) -> np.ndarray:
    """The champion's features of the rows, float32 ``[n, n_features]``."""
    today = rows[list(features_of(model).names)].to_numpy(dtype=np.float32)
    return features_by(champion.bundle, tables, model, rows, today)


@dataclass(frozen=True)
class _Files:
    """What a worker needs to load a bundle: its files, without the code and the reference profile."""

    digest: str
    files: Mapping[str, bytes]

    @classmethod
    def of(cls, bundle: Bundle) -> _Files:
        files = {path.name: path.read_bytes() for path in sorted(bundle.directory.iterdir()) if path.is_file()}
        digest = hashlib.blake2b(digest_size=16)
        for name, content in files.items():
            digest.update(name.encode() + content)
        return cls(digest.hexdigest(), files)

    def load(self) -> Bundle:
        """The bundle; the latest one stays in the worker's process."""
        if self.digest not in _loaded:
            _loaded.clear()
            with tempfile.TemporaryDirectory() as folder:
                for name, content in self.files.items():
                    (Path(folder) / name).write_bytes(content)
                _loaded[self.digest] = Bundle.load(Path(folder))
        return _loaded[self.digest]


_loaded: dict[str, Bundle] = {}


def _scores(bundle: Bundle | _Files, X: np.ndarray, _: Tell) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Scores ``[n]`` or ``[n, classes]`` of the rows of a day, and the ends of their intervals."""
    bundle = bundle.load() if isinstance(bundle, _Files) else bundle
    scores = bundle.predict(X)
    return scores, bundle.ends(X, scores)


def _predictions_of_day(
    tables: ParquetTables,
    model: Model,
    day: str,
    unscored: _Unscored,
    scores: np.ndarray,
    ends: Mapping[str, np.ndarray],
    champion: Champion,
    carried: list[str],
) -> pd.DataFrame:
    rows, before = unscored.rows, unscored.before
    form = format_of(model.task)
    alerts = champion.bundle.alerts(scores, _amounts(tables, model, day, rows)) if form.has_alerts else None
    new = rows[carried].assign(
        **form.columns(scores, alerts),
        **ends,
        version=pd.array([champion.version] * len(rows), dtype="string[pyarrow]"),
    )
    if before is None or before.empty:
        return new
    order = [c for c in (model.table.time, model.table.key) if c]
    return pd.concat([before, new], ignore_index=True).sort_values(order, kind="stable") if len(new) else before


def _amounts(tables: ParquetTables, model: Model, day: str, rows: pd.DataFrame) -> np.ndarray | None:
    column = model.evaluation.amount
    if column is None:
        return None
    cleaned = tables.read(model.key(model.table.name), [day], [model.table.key, column])
    return rows[[model.table.key]].merge(cleaned, how="left", on=model.table.key)[column].to_numpy(dtype=float)


def _scored_check_result(model: Model, rows: pd.DataFrame, day: str | None) -> CheckResult:
    form = format_of(model.task)
    valid = form.valid(form.scores_in(rows))
    wrong = int((~valid.reshape(len(rows), -1).all(axis=1)).sum()) if len(rows) else 0
    metadata = {"rows": len(rows), **(form.summary(rows) if len(rows) else {})}
    return CheckResult(
        check=SCORED.name,
        day=day,
        passed=(len(rows) > 0 or model.table.quiet_days) and wrong == 0,
        description=f"{len(rows):,} rows, each with a {form.noun}"
        if (len(rows) or model.table.quiet_days) and not wrong
        else f"{wrong} of {len(rows)} rows have no {form.noun}; the champion's export or its features are damaged; "
        "roll back to the previous version",
        metadata=metadata,
    )

"""The asset ``labels``: the true value of the target of each clean row.

Belongs here: the asset and its check. Does not belong here: how labels land (``landing.py``).
"""

from __future__ import annotations

import dagster as dg
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.event_days import event_day
from assets.lifecycle.data.landing import LANDING_DAY, ROW_ID
from assets.lifecycle.prediction_format import format_of
from assets.lifecycle.stage import Check, StageOutput, TableInput, days_in_run, eager, table_asset
from assets.task import NUMBERS
from resources.dagster_internals import CheckResult

COVERAGE = Check(name="coverage", description="Every clean row has exactly one label once labels are due.")


def labels_asset(model: Model) -> dg.AssetsDefinition:
    """Returns the asset ``labels``."""
    table = model.table
    late = model.label_delay_days > 0
    declared = table.contract.to_schema().columns.get(model.target)
    may_lack = not late and declared is not None and declared.nullable  # unlabelled rows are only scored

    def labels(context: dg.AssetExecutionContext, cleaned: pd.DataFrame, **landed: pd.DataFrame) -> StageOutput:
        carried = [c for c in (table.key, table.time) if c]
        if late:
            known = landed["raw_labels"].drop(columns=[ROW_ID, LANDING_DAY])
            truth = _of_classes(known, model) if declared is not None else known.apply(pd.to_numeric, errors="coerce")
            rows = cleaned[carried].merge(truth.drop_duplicates(table.key), on=table.key, how="left")
        else:
            rows = cleaned[carried].assign(**{model.target: model.task.codes(cleaned[model.target])})
        missing = rows[model.target].isna()
        unlabelled = int(missing.sum())
        if may_lack:
            rows, missing = rows[~missing], missing[~missing]
        if table.time is None:
            check_results = [_coverage(missing, None)]
        else:
            day = event_day(rows, table)
            check_results = [_coverage(missing[day == d], d) for d in days_in_run(context)]
        rows = rows[~missing].astype({model.target: model.task.dtype}).reset_index(drop=True)
        summary = format_of(model.task).label_summary(rows[model.target]) if len(rows) else {}
        metadata = {"dagster/row_count": len(rows), "unlabelled": unlabelled, **summary}
        return StageOutput(rows, check_results, metadata)

    inputs = {"cleaned": TableInput(model.key(table.name))}
    if late:
        inputs["raw_labels"] = TableInput(model.key("raw_labels"), (model.label_delay_days, model.label_delay_days))
    return table_asset(
        model,
        "labels",
        labels,
        description=f"The label ({model.target}) of each clean row"
        + (f", known {model.label_delay_days} days after the event." if late else "."),
        stage="data",
        kinds={"pandas"},
        inputs=inputs,
        checks=[COVERAGE],
        day_column=table.time,
        automation=eager(model.label_delay_days + table.late_days + 1 if model.is_stream else None),
    )


def _of_classes(landed: pd.DataFrame, model: Model) -> pd.DataFrame:
    """Labels that landed as the names of classes, as codes; the contract has the target's classes."""
    key = pd.to_numeric(landed[model.table.key], errors="coerce")
    kind = str(model.table.contract.to_schema().columns[model.table.key].dtype)
    is_number = kind.startswith(NUMBERS)
    names = dict(zip(model.task.names, model.task.classes, strict=True))
    said = landed[model.target].astype("string").str.strip()
    values = said.map(names) if model.task.kind != "regression" else said
    return pd.DataFrame(
        {model.table.key: key if is_number else landed[model.table.key], model.target: model.task.codes(values)}
    )


def _coverage(missing: pd.Series, day: str | None) -> CheckResult:
    return CheckResult(
        check=COVERAGE.name,
        day=day,
        passed=not missing.any(),
        description=f"{len(missing):,} clean rows, all labelled"
        if not missing.any()
        else f"{int(missing.sum())} of {len(missing):,} clean rows{f' of {day}' if day else ''} have no label; land "
        "the missing labels and materialise `labels` again",
        metadata={"rows": len(missing), "unlabelled": int(missing.sum())},
    )

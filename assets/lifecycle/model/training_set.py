"""The asset ``training_set``: the frozen rows of one training run, and their split.

Belongs here: the selection of rows, the split into fit, test and fold rows, the checks of the rows. Does not belong
here: the days of the split (``windows.py``), the leakage rules (``leakage.py``), fitting (``candidate.py``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import Field

from assets.declaration import Model
from assets.lifecycle.data.features import features_of
from assets.lifecycle.model.drawing import REPRESENTS, Counts, Draw, draw_of, places
from assets.lifecycle.model.leakage import LEAK_MEND, leaks
from assets.lifecycle.model.windows import (
    Windows,
    history_days,
    holdout_rows,
    iso_days,
    rows_of,
    windows_of,
)
from assets.lifecycle.stage import Check, StageOutput, table_asset
from assets.task import MEASURED
from resources.dagster_internals import CheckResult
from resources.tables import WHOLE, Inputs, ParquetTables, frame_of

ENOUGH = Check(name="enough", description="There are enough labelled rows of both classes for fitting and for testing.")


LEAKAGE = Check(
    name="leakage",
    description="No column reveals the target, none is later than its row, and no row is on both sides of the split.",
)


MIN_OF_EACH_CLASS = 10


class TrainingSetConfig(dg.Config):
    """Run configuration of a training run."""

    as_of: str = Field(default="", description="Latest labelled day to use, e.g. 2026-10-01. Empty: the latest one.")


def windows_in(training_set: pd.DataFrame, model: Model) -> Windows:
    """Returns the split of a frozen training set; only for a table with a time column."""
    assert model.table.time is not None
    return windows_of(training_set[model.table.time].max().date(), model.training, model.gap_days)


def test_rows(training_set: pd.DataFrame, model: Model) -> np.ndarray:
    """Returns bool ``[n]``: the test rows of a frozen training set, used for reporting and never for selection."""
    if model.table.time is None:
        return _held_out(training_set, model)
    return rows_of(training_set[model.table.time], windows_in(training_set, model).test)


def fit_rows(training_set: pd.DataFrame, model: Model) -> np.ndarray:
    """Returns bool ``[n]``: the rows of a frozen training set that the final fit uses."""
    if model.table.time is None:
        return ~_held_out(training_set, model)
    return rows_of(training_set[model.table.time], windows_in(training_set, model).fit)


def _held_out(training_set: pd.DataFrame, model: Model) -> np.ndarray:
    """The test rows of a plain table; all rows of an entity are on the same side."""
    entity = model.evaluation.entity
    return holdout_rows(len(training_set), model.training, training_set[entity].to_numpy() if entity else None)


def fold_rows(training_set: pd.DataFrame, model: Model, *, another: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns folds as pairs of positions (training rows, validation rows); no fold contains a test row.

    Classes without a training row are left out of a fold's validation rows.

    Args:
        training_set: the frozen training set.
        model: the model that the rows belong to.
        another: without `time`, each number gives another division of the same rows; the folds of a stream are weeks.
    """
    if model.table.time is not None:
        times = training_set[model.table.time]
        days = windows_in(training_set, model).folds
        folds = [(np.flatnonzero(rows_of(times, fit)), np.flatnonzero(rows_of(times, valid))) for fit, valid in days]
        if model.task.kind != "multiclass":
            return folds
        # A class that is younger than the rows for fitting says nothing about the fit, and would spoil its calibration.
        y = training_set[model.target].to_numpy()
        return [(fit, valid[np.isin(y[valid], y[fit])]) for fit, valid in folds]
    from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold

    positions = np.flatnonzero(fit_rows(training_set, model))
    target = training_set[model.target].to_numpy()[positions]
    entity = model.evaluation.entity
    parts = max(model.training.folds, 2)
    groups = training_set[entity].to_numpy()[positions] if entity else None
    kind = GroupKFold if entity else KFold if model.task.kind == "regression" else StratifiedKFold
    splitter = kind(parts, shuffle=True, random_state=model.training.seed + another)
    return [(positions[fit], positions[valid]) for fit, valid in splitter.split(positions, target, groups)]


def freeze(tables: ParquetTables, model: Model, as_of: dt.date | None = None) -> pd.DataFrame:
    """Joins the table's columns, labels and features of the days that one training run needs.

    Args:
        tables: the :class:`~resources.tables.ParquetTables`.
        model: the model that the rows belong to.
        as_of: latest labelled day to use; default: the latest available.

    Returns:
        One row per labelled row of the table; the features are columns ``x_<name>``.

    Raises:
        dagster.Failure: a labelled day that the run needs is missing.
    """
    return joined(tables, model, days_of_training(tables, model, as_of))


def days_of_training(tables: ParquetTables, model: Model, as_of: dt.date | None = None) -> list[str]:
    """Returns the ISO days whose rows one training run needs; ``[WHOLE]`` for a table without days.

    Args:
        tables: the :class:`~resources.tables.ParquetTables`.
        model: the model that is trained.
        as_of: latest labelled day to use; default: the latest available.

    Raises:
        dagster.Failure: a labelled day that the run needs is missing.
    """
    if not model.is_stream:
        return [WHOLE]
    labelled = tables.days(model.key("labels"))
    needed = history_days(model)
    if as_of is None and not labelled:
        raise dg.Failure(description=f"{model.name}: no day is labelled yet; materialise labels first")
    as_of = as_of or dt.date.fromisoformat(labelled[-1])
    split = windows_of(as_of, model.training, model.gap_days)
    days = iso_days((split.first, split.test[1]))
    if missing := sorted(set(days) - set(labelled)):
        raise dg.Failure(
            description=f"{model.name}: a training run as of {as_of} needs {needed} labelled days, but "
            f"{len(missing)} are missing, the first is {missing[0]}; materialise labels and features of those days",
            allow_retries=False,
        )
    return days


def joined(tables: ParquetTables, model: Model, days: Sequence[str]) -> pd.DataFrame:
    """Joins the table's columns, labels and features of ``days``; see :func:`freeze`."""
    return drawn(tables, model, days)[0]


def drawn(tables: ParquetTables, model: Model, days: Sequence[str]) -> tuple[pd.DataFrame, Draw, Counts]:
    """Joins the rows of ``days``, one day after the other, and keeps those that are drawn.

    Returns:
        The rows as of :func:`freeze`, the shares that were drawn, and the numbers of rows before. If not all rows were
        drawn, the rows have the column :data:`~assets.lifecycle.model.drawing.REPRESENTS`.

    Raises:
        pandas.errors.MergeError: a key is not unique within a day.
    """
    test_days = _test_days(model, days)
    counts = _counts(tables, model, days, test_days)
    draw = draw_of(counts, model)
    return frame_of([_joined_day(tables, model, day, draw, day in test_days) for day in days]), draw, counts


def _test_days(model: Model, days: Sequence[str]) -> set[str]:
    """The days of the test rows; all days of a table without days, whose rows are drawn before they are split."""
    if not model.is_stream:
        return set(days)
    split = windows_of(dt.date.fromisoformat(days[-1]), model.training, model.gap_days)
    return set(iso_days(split.test))


def _counts(tables: ParquetTables, model: Model, days: Sequence[str], test_days: set[str]) -> Counts:
    """The numbers of labelled rows; classes are counted only if rows have to be drawn."""
    rows = {day: stamp.rows for day, stamp in tables.stamps(model.key("labels"), days).items()}
    test = sum(n for day, n in rows.items() if day in test_days)
    others = sum(rows.values()) - test
    positives = 0
    if model.task.kind == "binary" and (model.training.negatives or sum(rows.values()) > model.training.max_rows):
        of_others = (
            tables.arrow(model.key("labels"), [day], [model.target])[0] for day in days if day not in test_days
        )
        positives = sum(int((labels[model.target].to_numpy() == 1).sum()) for labels in of_others)
    return Counts(test, positives, others - positives)


def _joined_day(tables: ParquetTables, model: Model, day: str, draw: Draw, is_test: bool) -> pa.Table:
    """The drawn rows of one day: the table's columns, labels and features."""
    key, names = model.table.key, list(features_of(model).names)
    labels = tables.arrow(model.key("labels"), [day])[0]
    columns = [c for c in model.table.columns if c != model.target]
    cleaned = tables.arrow(model.key(model.table.name), [day], columns)[0]
    features = tables.arrow(model.key("features"), [day], [key, *names])[0]
    of_label, of_features = (places_of(cleaned[key], other, day) for other in (labels[key], features[key]))
    kept = (of_label >= 0) & (of_features >= 0)
    represents = None
    if not draw.is_all:
        positive = np.append(labels[model.target].to_numpy() == 1, False)[of_label]  # −1, without a label, is the last
        share = np.full(len(cleaned), draw.test) if is_test else np.where(positive, draw.positives, draw.negatives)
        unit = model.evaluation.entity if is_test and model.is_stream else None
        kept &= places(cleaned[unit or key].to_numpy(), model.training.seed) < share
        represents = 1 / share[kept]
    explained = [c for c in labels.column_names if c not in cleaned.column_names]
    # A feature may have the name of a column (e.g. an amount used as a feature), so feature columns get a prefix.
    values = features.select(names).rename_columns([feature_column(name) for name in names])
    rows = _taken(cleaned, np.flatnonzero(kept))
    for part in (_taken(labels.select(explained), of_label[kept]), _taken(values, of_features[kept])):
        for name in part.column_names:
            rows = rows.append_column(name, part[name])
    return rows if represents is None else rows.append_column(REPRESENTS, pa.array(represents))


def places_of(keys: pa.ChunkedArray, others: pa.ChunkedArray, day: str) -> np.ndarray:
    """Returns the place of each key among others, int64 ``[n]``; −1 for a key that is not among them.

    Raises:
        pandas.errors.MergeError: a key occurs twice on either side.
    """
    index = pd.Index(others.to_numpy())
    if not index.is_unique:
        raise pd.errors.MergeError(f"{day}: {index[index.duplicated()][0]!r} is the key of several rows")
    if keys.equals(others):  # nearly always
        return np.arange(len(keys))
    wanted = pd.Index(keys.to_numpy())
    if not wanted.is_unique:
        raise pd.errors.MergeError(f"{day}: {wanted[wanted.duplicated()][0]!r} is the key of several rows")
    return index.get_indexer(wanted)


def _taken(rows: pa.Table, places_: np.ndarray) -> pa.Table:
    everything = len(places_) == len(rows) and bool((places_ == np.arange(len(rows))).all())
    return rows if everything else rows.take(pa.array(places_))


def inputs_of_training(tables: ParquetTables, model: Model, days: Sequence[str]) -> Inputs:
    """Returns the data versions of the files that :func:`joined` reads."""
    keys = [model.key(name) for name in (model.table.name, "labels", "features")]
    return {key.to_user_string(): tables.versions(key, days) for key in keys}


def feature_column(name: str) -> str:
    """Returns the name of a feature's column in the training set."""
    return f"x_{name}"


def matrix(training_set: pd.DataFrame, model: Model) -> np.ndarray:
    """Returns the features as float32 ``[n, n_features]``, in the declared order."""
    return training_set[[feature_column(n) for n in features_of(model).names]].to_numpy(dtype=np.float32)


def counts_of(training_set: pd.DataFrame, model: Model) -> dict[str, int]:
    """Returns the numbers of fit and test rows of a frozen training set; for binary targets also of positives."""
    parts = _parts(training_set, model)
    counts = {f"{part}_rows": len(y) for part, y in parts.items()}
    if model.task.kind == "binary":
        counts |= {f"{part}_positives": int(y.sum()) for part, y in parts.items()}
    return counts


def _parts(training_set: pd.DataFrame, model: Model) -> dict[str, pd.Series]:
    target = training_set[model.target]
    return {"fit": target[fit_rows(training_set, model)], "test": target[test_rows(training_set, model)]}


def training_set_asset(model: Model) -> dg.AssetsDefinition:
    """Returns the asset ``training_set``."""

    def training_set(context: dg.AssetExecutionContext) -> StageOutput:
        as_of = TrainingSetConfig(**context.op_execution_context.op_config).as_of
        tables = context.resources.tables
        days = days_of_training(tables, model, dt.date.fromisoformat(as_of) if as_of else None)
        # The versions of the days go into the table's stamp, so that the rows of a version can be found again.
        tables.record_inputs(context.op_execution_context.op_def.name, inputs_of_training(tables, model, days))
        frozen, draw, found = drawn(tables, model, days)
        parts, counts = _parts(frozen, model), counts_of(frozen, model)
        short = [problem for part, y in parts.items() if (problem := _too_few(part, y, model))]
        message = (
            f"{'; '.join(short)}; land more labelled rows, or declare smaller windows (Training.min_rows)"
            if short
            else f"{counts['fit_rows']:,} rows for fitting, {counts['test_rows']:,} for testing"
        )
        metadata: dict[str, Any] = {"dagster/row_count": len(frozen), **counts}
        if not draw.is_all:
            message += f"; {draw.told(found)}"
            context.log.info(f"{len(frozen):,} of {found.rows:,} labelled rows; {draw.told(found)}")
            metadata |= {"labelled_rows": found.rows, "drawn": draw.told(found)}
        if model.is_stream:
            split = windows_in(frozen, model)
            metadata |= {"fit": format_days(split.fit), "test": format_days(split.test),
                         "folds": [f"{format_days(a)} → {format_days(b)}" for a, b in split.folds]}  # fmt: skip
        check_results = [CheckResult(check=ENOUGH.name, passed=not short, description=message, metadata=counts)]
        if not short:
            check_results.append(_leakage(frozen, model))
        return StageOutput(frozen, check_results, metadata)

    return table_asset(
        model,
        "training_set",
        training_set,
        description="The frozen rows of one training run; its data version is the hash of these rows.",
        stage="model",
        kinds={"pandas"},
        checks=[ENOUGH, LEAKAGE],
        config=TrainingSetConfig,
        deps=[model.key("features"), model.key("labels"), model.key(model.table.name)],
        by_day=False,
    )


def _too_few(part: str, y: pd.Series, model: Model) -> str:
    """Describes missing rows or classes of a part (``fit`` or ``test``); empty if there are enough."""
    least = min(model.training.min_rows, 50) if part == "test" else model.training.min_rows
    if len(y) < least:
        return f"{part}: needs {least} rows, found {len(y)}"
    if model.task.kind in MEASURED:
        return f"{part}: all values of {model.target} are the same" if y.nunique() < 2 else ""
    of_each = y.value_counts().reindex(range(len(model.task.classes)), fill_value=0)
    least = MIN_OF_EACH_CLASS if model.task.kind == "binary" or part == "fit" else 1
    counted = zip(model.task.names, of_each, strict=True)
    rare = [f"{name} {n}" for name, n in counted if n < least and name not in model.training.awaited]
    return f"{part}: needs {least} rows of each class, found for {model.target}: {', '.join(rare)}" if rare else ""


def _leakage(frozen: pd.DataFrame, model: Model) -> CheckResult:
    if model.ranking is not None:
        # What is predicted is the item of a later event, so no column of the event itself is an input.
        message = "lists of a test day read only the events of earlier days"
        return CheckResult(check=LEAKAGE.name, passed=True, description=message, metadata={"found": [], "accepted": {}})
    found = leaks(frozen, model, fit=fit_rows(frozen, model), test=test_rows(frozen, model))
    refused = [leak for leak in found if not set(leak.columns) & set(model.accepted_leaks)]
    accepted = {c: model.accepted_leaks[c] for leak in found for c in leak.columns if c in model.accepted_leaks}
    message = "no column reveals the target, and no row is on both sides of the split"
    if refused:
        message = "; ".join(leak.message for leak in refused) + LEAK_MEND
    elif accepted:
        message = "accepted: " + "; ".join(f"{column} ({reason})" for column, reason in accepted.items())
    return CheckResult(
        check=LEAKAGE.name,
        passed=not refused,
        description=message,
        metadata={"found": [leak.message for leak in found], "accepted": accepted},
    )


def format_days(days: tuple[dt.date, dt.date]) -> str:
    """Returns the first and last day as text."""
    return f"{days[0]} … {days[1]}"

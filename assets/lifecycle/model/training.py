"""Fourth stage: freezes a training set, fits a candidate on it and registers the candidate as a version in MLflow.

Belongs here: the selection of rows, and the steps that select, fit, bundle and register a candidate. Does not belong
here: the network and the optimiser (``networks.py``, ``fitting.py``), test metrics of the candidate
(``evaluation.py``).
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
from pydantic import Field

from assets.declaration import Model
from assets.lifecycle.answers import compared_scores
from assets.lifecycle.data.cleaning import event_day
from assets.lifecycle.data.features import features_of
from assets.lifecycle.model.bundle import REFERENCE, TREES_FILE, Bundle, Facts, model_code
from assets.lifecycle.model.fitting import (
    FOLD_METRIC,
    LINEAR,
    NETWORK,
    TREES,
    Choice,
    Head,
    as_target,
    boosted_trees,
    choose,
    fit,
    linear_model,
    mixture,
    outputs_of,
)
from assets.lifecycle.model.leakage import LEAK_MEND, leaks
from assets.lifecycle.model.learners.networks import tabular
from assets.lifecycle.model.learners.trees import Trees, as_module
from assets.lifecycle.model.windows import (
    Windows,
    days_ending,
    history_days,
    holdout_rows,
    iso_days,
    rows_of,
    windows_of,
)
from assets.lifecycle.profile.design_effect import of_residuals
from assets.lifecycle.profile.reference import ReferenceProfile, calibration_of
from assets.lifecycle.stage import Check, Made, Reads, table_asset
from resources.dagster_internals import Finding

ENOUGH = Check(name="enough", description="There are enough labelled rows of both classes to fit on and to report on.")
CONVERGED = Check(
    name="converged", description="The loss is finite, and out of fold the candidate beats the base rate."
)

LEAKAGE = Check(
    name="leakage",
    description="No column gives the target away, none is younger than its row, no row is on both sides of the split.",
)

MIN_OF_EACH_CLASS = 10
IMPORTANCE_ROWS = 2_000
REFERENCE_ROWS = 20_000
"""Target number of rows for the reference profile, which uses whole weeks so that all weekdays have equal shares."""


class TrainingSetConfig(dg.Config):
    """Run configuration of a training run."""

    as_of: str = Field(
        default="", description="Latest labelled day to use, e.g. 2026-10-01. Empty: the latest there is."
    )


def training_assets(model: Model) -> list[dg.AssetsDefinition]:
    """Returns the assets ``training_set`` and ``trained_model``."""
    return [_training_set(model), _trained_model(model)]


def windows_in(training_set: pd.DataFrame, model: Model) -> Windows:
    """Returns the split of a frozen training set; only for a table with a time column."""
    assert model.table.time is not None
    return windows_of(training_set[model.table.time].max().date(), model.training, model.label_delay_days)


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


def fold_rows(training_set: pd.DataFrame, model: Model) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns folds as pairs of positions (training rows, validation rows); no fold contains a test row."""
    if model.table.time is not None:
        times = training_set[model.table.time]
        folds = windows_in(training_set, model).folds
        return [(np.flatnonzero(rows_of(times, fit)), np.flatnonzero(rows_of(times, valid))) for fit, valid in folds]
    from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold

    positions = np.flatnonzero(fit_rows(training_set, model))
    target = training_set[model.target].to_numpy()[positions]
    entity = model.evaluation.entity
    parts = max(model.training.folds, 2)
    groups = training_set[entity].to_numpy()[positions] if entity else None
    kind = GroupKFold if entity else KFold if model.task.kind == "regression" else StratifiedKFold
    splitter = kind(parts, shuffle=True, random_state=model.training.seed)
    return [(positions[fit], positions[valid]) for fit, valid in splitter.split(positions, target, groups)]


def freeze(tables: Any, model: Model, as_of: dt.date | None = None) -> pd.DataFrame:
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
    days = None
    if model.is_stream:
        labelled = tables.days(model.key("labels"))
        needed = history_days(model)
        if as_of is None and not labelled:
            raise dg.Failure(description=f"{model.name}: no day is labelled yet; materialise labels first")
        as_of = as_of or dt.date.fromisoformat(labelled[-1])
        split = windows_of(as_of, model.training, model.label_delay_days)
        days = iso_days((split.first, split.test[1]))
        if missing := sorted(set(days) - set(labelled)):
            raise dg.Failure(
                description=f"{model.name}: a training run as of {as_of} needs {needed} labelled days; {len(missing)} "
                f"of them are missing, the first is {missing[0]}; materialise labels and features of those days",
                allow_retries=False,
            )
    key = model.table.key
    features = tables.read(model.key("features"), days)
    labels = tables.read(model.key("labels"), days)
    names = list(features_of(model).names)
    cleaned = tables.read(model.key(model.table.name), days, [c for c in model.table.columns if c != model.target])
    explained = [c for c in labels.columns if c not in cleaned.columns]
    frozen = cleaned.merge(labels[[key, *explained]], on=key, validate="one_to_one")
    # A feature may have the name of a column (e.g. an amount used as a feature), so feature columns get a prefix.
    values = features[[key, *names]].rename(columns={name: feature_column(name) for name in names})
    return frozen.merge(values, on=key, validate="one_to_one")


def feature_column(name: str) -> str:
    """Returns the name of a feature's column in the training set."""
    return f"x_{name}"


def matrix(training_set: pd.DataFrame, model: Model) -> np.ndarray:
    """Returns the features as float32 ``[n, n_features]``, in the declared order."""
    return training_set[[feature_column(n) for n in features_of(model).names]].to_numpy(dtype=np.float32)


def _training_set(model: Model) -> dg.AssetsDefinition:
    def training_set(context: dg.AssetExecutionContext) -> Made:
        as_of = context.op_execution_context.op_config["as_of"]
        frozen = freeze(context.resources.tables, model, dt.date.fromisoformat(as_of) if as_of else None)
        target = frozen[model.target]
        parts = {"fit": target[fit_rows(frozen, model)], "test": target[test_rows(frozen, model)]}
        counts = {f"{part}_rows": len(y) for part, y in parts.items()}
        if model.task.kind == "binary":
            counts |= {f"{part}_positives": int(y.sum()) for part, y in parts.items()}
        short = [said for part, y in parts.items() if (said := _too_few(part, y, model))]
        words = (
            f"{'; '.join(short)}; land more labelled rows, or declare smaller windows (Training.min_rows)"
            if short
            else f"{counts['fit_rows']:,} rows to fit on, {counts['test_rows']:,} to report on"
        )
        metadata: dict[str, Any] = {"dagster/row_count": len(frozen), **counts}
        if model.is_stream:
            split = windows_in(frozen, model)
            metadata |= {"fit": _words(split.fit), "test": _words(split.test),
                         "folds": [f"{_words(a)} → {_words(b)}" for a, b in split.folds]}  # fmt: skip
        findings = [Finding(check=ENOUGH.name, passed=not short, description=words, metadata=counts)]
        if not short:
            findings.append(_leakage(frozen, model))
        return Made(frozen, findings, metadata)

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
    if model.task.kind == "regression":
        return f"{part}: all values of {model.target} are the same" if y.nunique() < 2 else ""
    of_each = y.value_counts().reindex(range(len(model.task.classes)), fill_value=0)
    least = MIN_OF_EACH_CLASS if model.task.kind == "binary" or part == "fit" else 1
    rare = [f"{name} {n}" for name, n in zip(model.task.names, of_each, strict=True) if n < least]
    return f"{part}: needs {least} rows of each class, of {model.target} found {', '.join(rare)}" if rare else ""


def _leakage(frozen: pd.DataFrame, model: Model) -> Finding:
    found = leaks(frozen, model, fit=fit_rows(frozen, model), test=test_rows(frozen, model))
    refused = [leak for leak in found if not set(leak.columns) & set(model.accepted_leaks)]
    accepted = {c: model.accepted_leaks[c] for leak in found for c in leak.columns if c in model.accepted_leaks}
    words = "no column gives the target away, no row is on both sides of the split"
    if refused:
        words = "; ".join(leak.words for leak in refused) + LEAK_MEND
    elif accepted:
        words = "accepted: " + "; ".join(f"{column} ({reason})" for column, reason in accepted.items())
    return Finding(
        check=LEAKAGE.name,
        passed=not refused,
        description=words,
        metadata={"found": [leak.words for leak in found], "accepted": accepted},
    )


# -- the candidate ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """A fitted ensemble and its selected settings.

    Args:
        network: module of the ensemble; maps raw features to outputs.
        choice: settings selected on the folds.
        head: maps outputs to scores.
        trees: trees of the ensemble, if it has any and rows are not weighted; the report reuses them as its XGBoost
            baseline.
    """

    network: Any
    choice: Choice
    head: Head
    trees: Trees | None = None

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Returns float64 scores ``[n]`` or ``[n, classes]`` of raw features ``[n, n_features]``."""
        return self.head(outputs_of(self.network, X))


def fit_candidate(frozen: pd.DataFrame, model: Model, log: Any) -> Candidate:
    """Fits the declared recipe on a frozen training set: selects settings on the folds, then refits on the fit rows.

    Raises:
        FloatingPointError: the loss of a network is not finite.
    """
    X, y = matrix(frozen, model), frozen[model.target].to_numpy(dtype=float)
    rows = fit_rows(frozen, model)
    recipe = model.training.sized_for(int(rows.sum()))
    weight = row_weights(frozen, model)
    how: dict[str, Any] = {"task": model.task, "tokens": features_of(model).word_positions}
    choice = choose(X, y, fold_rows(frozen, model), recipe=recipe, network=model.network, weight=weight, log=log, **how)
    log(f"chosen: {choice.epochs} epochs, {FOLD_METRIC[model.task.kind]} {choice.score:.4f} on the folds")
    log("shares: " + ", ".join(f"{part} {share:.0%}" for part, share in choice.shares.items()))
    how["weight"] = None if weight is None else weight[rows] / weight[rows].mean()
    parts: dict[str, Any] = {}
    trees = None
    if choice.shares[NETWORK]:
        parts[NETWORK] = fit(
            X[rows], y[rows], recipe=recipe, epochs=choice.epochs, network=model.network, log=log, **how
        )
    if choice.shares.get(LINEAR):
        parts[LINEAR] = linear_model(X[rows], y[rows], **how)
    if choice.shares.get(TREES):
        trees = boosted_trees(X[rows], y[rows], seed=recipe.seed, rounds=choice.rounds, **how)
        parts[TREES] = as_module(trees, model.task, how["tokens"])
    # Settings from the folds are kept, but the scale of a measured target comes from the rows of the final fit.
    head = as_target(y[rows], model.task)[1] if model.task.kind == "regression" else choice.head
    return Candidate(mixture(parts, choice.shares), choice, head, trees if weight is None else None)


def row_weights(frozen: pd.DataFrame, model: Model) -> np.ndarray | None:
    """Returns row weights by age, ``[n]``, 1 for the latest row; ``None`` if all rows have equal weights."""
    half_life = model.training.half_life_days
    if half_life is None:
        return None
    assert model.table.time is not None
    age = (frozen[model.table.time].max() - frozen[model.table.time]) / pd.Timedelta(days=1)
    return np.asarray(0.5 ** (age.to_numpy(dtype=float) / half_life))


def _trained_model(model: Model) -> dg.AssetsDefinition:
    features = features_of(model)
    compared = model.drift.columns or features.compared

    def trained_model(context: dg.AssetExecutionContext, training_set: pd.DataFrame) -> Made:
        mlflow, tables = context.resources.mlflow, context.resources.tables
        data_version = tables.stamp(model.key("training_set")).data_version
        of = {"data_version": data_version, "code": model_code(model), "recipe": recipe_version}
        # Training is deterministic: a version of the same rows, code and recipe is reused, so a retry is idempotent.
        version = mlflow.version_of(model.name, of)
        if version is None:
            version = _train(context, training_set, model, of, compared)
        else:
            context.log.info(f"version {version} is this code on these rows already; nothing is trained again")
        run_id = mlflow.run_of_version(model.name, version)
        facts = Facts.read(mlflow.download(model.name, version))
        fitted = facts.fitted
        score, chance, metric = fitted["folds_score"], fitted["chance"], FOLD_METRIC[model.task.kind]
        better = score > chance
        finding = Finding(
            check=CONVERGED.name,
            passed=better,
            description=f"{metric} {score:.4f} on the folds, by chance {chance:.4f}"
            + ("" if better else "; the candidate learnt nothing: look at the learning curves and the features"),
        )
        frame = pd.DataFrame(
            {
                "version": [version],
                "run_id": [run_id],
                "data_version": [data_version],
                "code": [facts.code],
                "curves": [json.dumps(fitted["curves"])],
            }
        )
        shown = {
            "version": version,
            "mlflow": dg.MetadataValue.url(mlflow.run_url(run_id)),
            "data_version": data_version,
            "epochs": fitted["epochs"],
            "threshold": facts.threshold,
            f"folds_{metric}": score,
        }
        return Made(frame, [finding], shown)

    asset = table_asset(
        model,
        "trained_model",
        trained_model,
        description="The candidate as a version in MLflow: weights, curves, git commit, data version, features code, "
        "contract and reference profile.",
        stage="model",
        kinds={"torch", "mlflow"},
        reads={"training_set": Reads(model.key("training_set"))},
        checks=[CONVERGED],
        # The profile is part of a version. If a newer check cannot read it, training again replaces it.
        code=[features.compute, model.network, fit, tabular, ReferenceProfile, of_residuals],
        resources={"mlflow"},
        by_day=False,
    )
    recipe_version = f"{next(iter(asset.specs)).code_version} {model.training}"
    return asset


def _train(
    context: dg.AssetExecutionContext, frozen: pd.DataFrame, model: Model, of: dict[str, str], compared: Sequence[str]
) -> str:
    """Fits the candidate in its own MLflow run and registers it; returns the version."""
    mlflow = context.resources.mlflow
    names = features_of(model).names
    with mlflow.run(context, experiment=model.name, tags=of) as run:
        recipe = model.training.sized_for(int(fit_rows(frozen, model).sum()))
        run.log_params({"features": len(names), "rows": len(frozen), **vars(recipe)})
        candidate = fit_candidate(frozen, model, context.log.info)
        choice = candidate.choice
        for quantity, folds in choice.curves.items():
            for fold, values in folds.items():
                for epoch, value in enumerate(values, start=1):
                    run.log_metric(f"{quantity}.{fold.replace(' ', '_')}", value, step=epoch)
        run.log_metrics({"epochs": choice.epochs, "folds_score": choice.score})
        run.log_metrics({f"share.{part}": share for part, share in choice.shares.items()})
        recent = recent_rows(context.resources.tables, frozen, model)
        X = recent.features[list(names)].to_numpy(dtype=np.float32)
        scores = candidate.predict(X)
        calibration, label_effect = _on_test_rows(candidate, frozen, model)
        columns = recent.features[list(dict.fromkeys([*compared, *features_of(model).calendar]))]
        unwatched = [name for name in features_of(model).compared if name not in columns]
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "bundle"
            Bundle.save(
                folder,
                module=candidate.network,
                model=model,
                feature_names=names,
                head=candidate.head,
                threshold=choice.threshold,
                fitted={
                    "epochs": choice.epochs,
                    "seed": model.training.seed,
                    "folds_score": choice.score,
                    "shares": choice.shares,
                    "chance": choice.chance,
                    "curves": choice.curves,
                    "data_version": of["data_version"],
                    "torch": importlib.metadata.version("torch"),
                    **({k: _words(v) for k, v in _days_of(frozen, model).items()} if model.is_stream else {}),
                },
            )
            profile = ReferenceProfile.build(
                columns,
                compared_scores(model.task, scores),
                calendar=features_of(model).calendar,
                importance=_importance(candidate, X, names, model.training.seed),
                calibration=choice.calibration + calibration,
                rows_of_weekday=recent.rows_of_weekday,
                entities=recent.entities,
                day=recent.day,
                label_effect=label_effect,
                unwatched=recent.features[unwatched],
                seed=model.training.seed,
            )
            profile.save(folder / REFERENCE)
            if candidate.trees is not None:
                candidate.trees.save(folder / TREES_FILE)
            return mlflow.register(
                model.name, run.mlflow_run_id, folder, tags=of, loader_module="assets.lifecycle.model.bundle"
            )


def _on_test_rows(candidate: Candidate, frozen: pd.DataFrame, model: Model) -> tuple[list[dict[str, float]], float]:
    """The candidate's calibration on the test rows (binary), and the design effect of its residuals (classes).

    Test rows are later than the folds, and nothing is selected on them. Without classes or entities the design effect
    is 1.
    """
    if model.task.kind == "regression":
        return [], 1.0
    test = frozen[test_rows(frozen, model)]
    scores, truth = candidate.predict(matrix(test, model)), test[model.target].to_numpy(dtype=float)
    who = {name: test[name].to_numpy() for name in entities_of(model)}
    if model.task.kind == "binary":
        return calibration_of(scores, truth), of_residuals(truth - scores, who)
    return [], of_residuals((scores.argmax(axis=1) == truth) - scores.max(axis=1), who)


def _importance(candidate: Candidate, X: np.ndarray, names: Sequence[str], seed: int) -> dict[str, float]:
    """Permutation importance by feature: mean absolute change of the scores, relative to the most important feature.

    It needs no labels, and shows how much a drift of the feature can change the scores.
    """
    rng = np.random.default_rng(seed)
    rows = X[rng.permutation(len(X))[:IMPORTANCE_ROWS]]
    said = candidate.predict(rows)
    moved = {}
    for i, name in enumerate(names):
        shuffled = rows.copy()
        shuffled[:, i] = rng.permutation(rows[:, i])
        moved[name] = float(np.abs(candidate.predict(shuffled) - said).mean())
    most = max(moved.values()) or 1.0
    return {name: value / most for name, value in moved.items()}


@dataclass(frozen=True)
class Recent:
    """The rows of the reference profile: the data at the time the version is trained.

    Args:
        features: ``[n]`` rows of the declared features.
        entities: by column, the entity of each row, ``[n]``.
        day: day of each row, ``[n]``; ``None`` if the rows are not whole weeks.
        rows_of_weekday: mean rows per day by weekday, Monday first; empty if the rows are not whole weeks.
    """

    features: pd.DataFrame
    entities: dict[str, np.ndarray]
    day: np.ndarray | None = None
    rows_of_weekday: Sequence[float] = ()


def entities_of(model: Model) -> list[str]:
    """Returns the entity columns: those of the features' history, and the one that the evaluation resamples by."""
    return list(dict.fromkeys([*features_of(model).entities, *filter(None, [model.evaluation.entity])]))


def recent_rows(tables: Any, frozen: pd.DataFrame, model: Model) -> Recent:
    """Returns the rows of the reference profile; they need no labels.

    With a time column these are the latest whole weeks after the days of the final fit, until they hold
    :data:`REFERENCE_ROWS` rows. If days of the latest week are missing, these are the test rows.

    Without a time column these are all rows, because the next landing contains mostly the same rows, and a model is
    more confident on rows that it was fitted on. A reference of the test rows alone reported drift on its own table.
    """
    names, table = list(features_of(model).names), model.table
    entities = entities_of(model)
    if days := _recent_weeks(tables, frozen, model):
        rows = tables.read(model.key("features"), days, [table.key, table.time, *names])
        who = tables.read(model.key(table.name), days, [table.key, *entities])
        who = rows[[table.key]].merge(who, how="left", on=table.key, validate="one_to_one")
        by_weekday: dict[int, list[float]] = {}
        for day in days:
            found = float(tables.stamp(model.key("features"), day).rows)
            by_weekday.setdefault(dt.date.fromisoformat(day).weekday(), []).append(found)
        return Recent(
            rows[names],
            {name: who[name].to_numpy() for name in entities},
            event_day(rows, table).to_numpy(),
            [float(np.mean(by_weekday[n])) for n in range(7)],
        )
    unseen = frozen if table.time is None else frozen[test_rows(frozen, model)]
    features = unseen[[feature_column(name) for name in names]].set_axis(names, axis=1)
    return Recent(features, {name: unseen[name].to_numpy() for name in entities})


def _recent_weeks(tables: Any, frozen: pd.DataFrame, model: Model) -> list[str]:
    """ISO days of the latest whole weeks for the reference profile; empty if the latest week is incomplete."""
    if model.table.time is None:
        return []
    split = windows_in(frozen, model)
    last = split.test[1] + dt.timedelta(days=model.label_delay_days)
    chosen: list[str] = []
    rows = 0
    while rows < REFERENCE_ROWS:
        week = iso_days(days_ending(last - dt.timedelta(days=len(chosen)), 7))
        stamps = [tables.stamp(model.key("features"), day) for day in week]
        if not all(stamps) or (chosen and dt.date.fromisoformat(week[0]) <= split.fit[1]):
            break
        chosen, rows = week + chosen, rows + sum(stamp.rows for stamp in stamps)
    return chosen


def _days_of(frozen: pd.DataFrame, model: Model) -> dict[str, tuple[dt.date, dt.date]]:
    split = windows_in(frozen, model)
    return {"fit": split.fit, "test": split.test}


def _words(days: tuple[dt.date, dt.date]) -> str:
    return f"{days[0]} … {days[1]}"

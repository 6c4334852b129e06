"""The asset ``trained_model``: the candidate as a registered version in MLflow.

Belongs here: fitting in an MLflow run, the reference profile, registration. Does not belong here: how a candidate is
fitted (``candidate.py``), the format of a version (``version/bundle.py``), test metrics (``evaluation.py``).
"""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd

from assets.declaration import Features, Model
from assets.lifecycle.data.features import features_of
from assets.lifecycle.data.forecasting import SPREAD
from assets.lifecycle.data.text_columns import vectors_by_text
from assets.lifecycle.model.candidate import Candidate, fit_candidate, network_of
from assets.lifecycle.model.conformal import Intervals
from assets.lifecycle.model.drawing import odds_of
from assets.lifecycle.model.fitting import (
    fit,
)
from assets.lifecycle.model.learners.ensemble import linear_model
from assets.lifecycle.model.learners.linear import fit_linear
from assets.lifecycle.model.learners.networks import tabular
from assets.lifecycle.model.learners.private import steps_of
from assets.lifecycle.model.learners.trees import fit_trees
from assets.lifecycle.model.objectives import objective_of
from assets.lifecycle.model.recipe import Recipe, recipe_in_use
from assets.lifecycle.model.reference_rows import entities_of, reference_rows
from assets.lifecycle.model.training_set import (
    feature_column,
    fit_rows,
    fold_rows,
    format_days,
    matrix,
    test_rows,
    windows_in,
)
from assets.lifecycle.model.version.bundle import REFERENCE, TREES_FILE, Bundle, Facts, model_code
from assets.lifecycle.model.version.training_rows import RowsRecord
from assets.lifecycle.prediction_format import format_of
from assets.lifecycle.profile.design_effect import of_residuals
from assets.lifecycle.profile.reference import ReferenceProfile, calibration_of
from assets.lifecycle.stage import TRAINING_POOL, Check, StageOutput, TableInput, table_asset
from resources.dagster_internals import CheckResult
from resources.git import BRANCH, DIRTY, git_tags
from resources.runtime import LOCK, Runtime
from resources.settings import project_root

CONVERGED = Check(
    name="converged", description="The loss is finite, and the candidate beats the base rate on the folds."
)


IMPORTANCE_ROWS = 2_000
SPENT = ("epsilon", "delta", "noise_multiplier", "sample_rate", "steps")
"""What a private fit spent and how, as metrics ``privacy.…`` of the run."""
BACKGROUND_ROWS = 32
"""Rows of the reference with which an explanation compares a row; more rows make an explanation slower."""


def trained_model_asset(model: Model) -> dg.AssetsDefinition:
    """Returns the asset ``trained_model``."""
    features = features_of(model)
    compared = model.drift.columns or features.compared

    def trained_model(
        context: dg.AssetExecutionContext, training_set: pd.DataFrame, tuning: pd.DataFrame
    ) -> StageOutput:
        mlflow, tables = context.resources.mlflow, context.resources.tables
        recipe = recipe_in_use(model, tuning)
        context.log.info(f"recipe: {recipe.reason}")
        data_version = tables.existing_stamp(model.key("training_set")).data_version
        tags = {
            "data_version": data_version,
            "code": model_code(model),
            "recipe": f"{code_version} {recipe.model.training}{f' {model.forecast}' if model.forecast else ''}",
        }
        # Training is deterministic: a version of the same rows, code and recipe is reused, so a retry is idempotent.
        # A branch has versions of its own. A clean tree does not reuse one of a tree with changes, which prod refuses.
        git = git_tags(project_root())
        same = {BRANCH: git.get(BRANCH, ""), **({DIRTY: "false"} if git.get(DIRTY) == "false" else {})}
        version = mlflow.version_of(model.name, {**tags, **{name: value for name, value in same.items() if value}})
        if version is None:
            version = _train(context, training_set, recipe, tags, compared)
        else:
            context.log.info(f"version {version} already has this code and these rows; it is not trained again")
        run_id = mlflow.run_of_version(model.name, version)
        facts = Facts.read(mlflow.download(model.name, version))
        fitted = facts.fitted
        score, chance, metric = fitted["folds_score"], fitted["chance"], objective_of(model.task).metric
        better = score > chance
        check_result = CheckResult(
            check=CONVERGED.name,
            passed=better,
            description=f"{metric} {score:.4f} on the folds, {chance:.4f} by chance"
            + ("" if better else "; the candidate learnt nothing, so check the learning curves and the features"),
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
        metadata = {
            "version": version,
            "mlflow": dg.MetadataValue.url(mlflow.run_url(run_id)),
            "data_version": data_version,
            "recipe": recipe.reason,
            "epochs": fitted["epochs"],
            "threshold": facts.threshold,
            f"folds_{metric}": score,
        }
        return StageOutput(frame, [check_result], metadata)

    asset = table_asset(
        model,
        "trained_model",
        trained_model,
        description="The candidate as a version in MLflow: weights, curves, git commit, data version, features code, "
        "contract and reference profile.",
        stage="model",
        kinds={"torch", "mlflow"},
        inputs={
            "training_set": TableInput(model.key("training_set")),
            "tuning": TableInput(model.key("tuning"), optional=True),
        },
        checks=[CONVERGED],
        op_tags=model.training.tags,
        pool=TRAINING_POOL,
        # The profile is part of a version. If a newer check cannot read it, training again replaces it.
        code=[
            features.compute,
            Intervals,
            network_of(model),
            fit_candidate,
            odds_of,
            fold_rows,
            fit,
            linear_model,
            fit_linear,
            fit_trees,
            objective_of,
            tabular,
            steps_of,
            reference_rows,
            ReferenceProfile,
            of_residuals,
        ],
        resources={"mlflow", "compute"},
        by_day=False,
    )
    code_version = next(iter(asset.specs)).code_version
    return asset


def _train(
    context: dg.AssetExecutionContext,
    frozen: pd.DataFrame,
    recipe_used: Recipe,
    tags: dict[str, str],
    compared: Sequence[str],
) -> str:
    """Fits the candidate in its own MLflow run and registers it; returns the version."""
    mlflow, model = context.resources.mlflow, recipe_used.model
    names = features_of(model).names
    with mlflow.run(context, experiment=model.name, tags=tags) as run:
        recipe = model.training.sized_for(int(fit_rows(frozen, model).sum()))
        settings = {name: value for name, value in vars(recipe).items() if name != "tags"}
        run.log_params({"features": len(names), "rows": len(frozen), **settings})
        run.log_params({"tuned": dict(recipe_used.tuned), "study": recipe_used.study})
        with context.resources.compute.open(model.compute, context.log.info) as pool:
            candidate = fit_candidate(frozen, model, context.log.info, pool)
        selection, privacy = candidate.selection, candidate.privacy
        for quantity, folds in selection.curves.items():
            for fold, values in folds.items():
                for epoch, value in enumerate(values, start=1):
                    run.log_metric(f"{quantity}.{fold.replace(' ', '_')}", value, step=epoch)
        run.log_metrics({"epochs": selection.epochs, "folds_score": selection.score})
        run.log_metrics({f"share.{part}": share for part, share in selection.shares.items()})
        if privacy:
            run.log_metrics({f"privacy.{name}": float(getattr(privacy, name)) for name in SPENT})
        recent = reference_rows(context.resources.tables, frozen, model)
        X = recent.features[list(names)].to_numpy(dtype=np.float32)
        scores = candidate.predict(X)
        background = X[np.random.default_rng(model.training.seed).permutation(len(X))[:BACKGROUND_ROWS]]
        calibration, label_effect = _calibration_and_label_effect(candidate, frozen, model)
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
                threshold=selection.threshold,
                background=background,
                fitted={
                    "epochs": selection.epochs,
                    "seed": model.training.seed,
                    "tuned": dict(recipe_used.tuned),
                    # As the search stores them, so that the same recipe can be fitted again (refit.py).
                    "chosen": {k: model.search_space[k].stored(v) for k, v in recipe_used.tuned.items()},
                    "study": recipe_used.study,
                    "folds_score": selection.score,
                    "shares": selection.shares,
                    "chance": selection.chance,
                    "curves": selection.curves,
                    "data_version": tags["data_version"],
                    "torch": importlib.metadata.version("torch"),
                    **({"privacy": privacy.to_dict()} if privacy else {}),
                    **({"intervals": intervals_of(candidate, frozen, model).to_dict()} if model.forecast else {}),
                    **({k: format_days(v) for k, v in _days_of(frozen, model).items()} if model.is_stream else {}),
                },
            )
            profile = ReferenceProfile.build(
                columns,
                format_of(model.task).compared(scores),
                calendar=features_of(model).calendar,
                importance=_importance(candidate, X, features_of(model), model.training.seed),
                calibration=selection.calibration + calibration,
                rows_of_weekday=recent.rows_of_weekday,
                entities=recent.entities,
                day=recent.day,
                label_effect=label_effect,
                unwatched=recent.features[unwatched],
                texts=vectors_by_text(model, recent.features),
                language=model.language.model if model.language else "",
                seed=model.training.seed,
                share=recent.share,
            )
            profile.save(folder / REFERENCE)
            RowsRecord.of_table(context.resources.tables, model, frozen).save(folder)
            runtime = Runtime.now()
            runtime.save(folder)
            if candidate.trees is not None:
                candidate.trees.save(folder / TREES_FILE)
            return mlflow.register(
                model.name,
                run.mlflow_run_id,
                folder,
                tags={**tags, LOCK: runtime.lock},
                loader_module="assets.lifecycle.model.version.bundle",
            )


def intervals_of(candidate: Candidate, frozen: pd.DataFrame, model: Model) -> Intervals:
    """The intervals of a forecast, from the errors on the validation rows of all folds."""
    assert model.forecast is not None
    valid = np.concatenate([rows for _, rows in fold_rows(frozen, model)])
    truth = frozen[model.target].to_numpy(dtype=float)[valid]
    spread = frozen[feature_column(SPREAD)].to_numpy(dtype=float)[valid]
    return Intervals.fit(truth, np.concatenate(candidate.selection.held_out), spread, model.forecast.coverage)


def _calibration_and_label_effect(
    candidate: Candidate, frozen: pd.DataFrame, model: Model
) -> tuple[list[dict[str, float]], float]:
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


def _importance(candidate: Candidate, X: np.ndarray, features: Features, seed: int) -> dict[str, float]:
    """Permutation importance by feature: mean absolute change of the scores, relative to the most important feature.

    It needs no labels, and shows how much a drift of the feature can change the scores. The words of a text are one
    feature, under the name of its column: exchanged one by one they would make texts that nobody wrote, and a language
    model would have to read all of these.
    """
    rng = np.random.default_rng(seed)
    rows = X[rng.permutation(len(X))[:IMPORTANCE_ROWS]]
    scores = candidate.predict(rows)
    words, together = set(features.words), dict[str, list[int]]()
    for i, (name, origin) in enumerate(zip(features.names, features.explained, strict=True)):
        together.setdefault(origin if name in words else name, []).append(i)
    moved: dict[str, float] = {}
    for name, columns in together.items():
        shuffled = rows.copy()
        shuffled[:, columns] = rows[rng.permutation(len(rows))][:, columns]
        moved[name] = float(np.abs(candidate.predict(shuffled) - scores).mean())
    most = max(moved.values()) or 1.0
    return {name: value / most for name, value in moved.items()}


def _days_of(frozen: pd.DataFrame, model: Model) -> dict[str, tuple[dt.date, dt.date]]:
    split = windows_in(frozen, model)
    return {"fit": split.fit, "test": split.test}

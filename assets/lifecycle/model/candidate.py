"""Fits a candidate: the declared recipe on a frozen training set.

Belongs here: the steps from a training set to a fitted ensemble. Does not belong here: the optimiser and the selection
of settings (``fitting.py``), the learners (``learners``), registration (``trained_model.py``).
"""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.features import features_of
from assets.lifecycle.model.drawing import represented_by
from assets.lifecycle.model.fitting import (
    FoldOutputs,
    Log,
    Selection,
    Watch,
    fit,
    outputs_of,
    select,
)
from assets.lifecycle.model.learners.ensemble import LEARNERS, NETWORK, mixture
from assets.lifecycle.model.learners.trees import Trees
from assets.lifecycle.model.objectives import ScoreTransform, objective_of
from assets.lifecycle.model.training_set import fit_rows, fold_rows, matrix


@dataclass(frozen=True)
class Candidate:
    """A fitted ensemble and its selected settings.

    Args:
        network: module of the ensemble; maps raw features to outputs.
        selection: settings selected on the folds.
        head: maps outputs to scores.
        trees: trees of the ensemble, if it has any and rows are not weighted; the report reuses them as its XGBoost
            baseline.
    """

    network: Any
    selection: Selection
    head: ScoreTransform
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
    weight, objective = row_weights(frozen, model), objective_of(model.task)
    arguments: dict[str, Any] = {"task": model.task, "tokens": features_of(model).word_positions}
    selection = select_on_folds(frozen, model, log=log)
    log(f"selected: {selection.epochs} epochs, {objective.metric} {selection.score:.4f} on the folds")
    log("ensemble weights: " + ", ".join(f"{part} {share:.0%}" for part, share in selection.shares.items()))
    arguments["weight"] = None if weight is None else weight[rows] / weight[rows].mean()
    parts: dict[str, Any] = {}
    trees = None
    if selection.shares[NETWORK]:
        parts[NETWORK] = fit(
            X[rows], y[rows], recipe=recipe, epochs=selection.epochs, network=model.network, log=log, **arguments
        )
    for name in recipe.ensemble:
        if selection.shares.get(name):
            fitted = LEARNERS[name].fit(X[rows], y[rows], seed=recipe.seed, rounds=selection.rounds, **arguments)
            parts[name], trees = fitted.module, fitted.trees or trees
    # Settings from the folds are kept, but the scale of a measured target comes from the rows of the final fit.
    head = objective.final_transform(selection.head, y[rows])
    return Candidate(mixture(parts, selection.shares), selection, head, trees if weight is None else None)


def select_on_folds(
    frozen: pd.DataFrame,
    model: Model,
    *,
    another: int = 0,
    log: Log = lambda _: None,
    watch: Watch = lambda *_: None,
    learnt: MutableMapping[str, list[FoldOutputs]] | None = None,
) -> Selection:
    """Selects the settings of the model's recipe on its folds; the test rows are not used.

    Args:
        frozen: the frozen training set.
        model: the model, whose ``training`` is the recipe.
        another: each number gives other folds (without `time`) and another seed of the fits, for a repetition.
        log, watch, learnt: see :func:`~assets.lifecycle.model.fitting.select`.

    Raises:
        FloatingPointError: the loss of a network is not finite.
    """
    recipe = model.training.sized_for(int(fit_rows(frozen, model).sum()))
    return select(
        matrix(frozen, model),
        frozen[model.target].to_numpy(dtype=float),
        fold_rows(frozen, model, another=another),
        recipe=replace(recipe, seed=recipe.seed + another),
        task=model.task,
        tokens=features_of(model).word_positions,
        network=model.network,
        weight=row_weights(frozen, model),
        represented=represented_by(frozen),
        log=log,
        watch=watch,
        learnt=learnt,
    )


def row_weights(frozen: pd.DataFrame, model: Model) -> np.ndarray | None:
    """Returns row weights by age, ``[n]``, 1 for the latest row; ``None`` if all rows have equal weights."""
    half_life = model.training.half_life_days
    if half_life is None:
        return None
    assert model.table.time is not None
    age = (frozen[model.table.time].max() - frozen[model.table.time]) / pd.Timedelta(days=1)
    return np.asarray(0.5 ** (age.to_numpy(dtype=float) / half_life))

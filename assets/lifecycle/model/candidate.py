"""Fits a candidate: the declared recipe on a frozen training set.

Belongs here: the steps from a training set to a fitted ensemble. Does not belong here: the optimiser and the selection
of settings (``fitting.py``), the learners (``learners``), registration (``trained_model.py``).
"""

from __future__ import annotations

import functools
from collections.abc import MutableMapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from assets.declaration import Model, NetworkFactory, Training
from assets.lifecycle.data.features import features_of
from assets.lifecycle.data.text import WORDS
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
from assets.lifecycle.model.learners.ensemble import LEARNERS, NETWORK, Fitted, mixture
from assets.lifecycle.model.learners.language import forget_vectors, language_network
from assets.lifecycle.model.learners.private import Plan
from assets.lifecycle.model.learners.trees import Trees
from assets.lifecycle.model.objectives import ScoreTransform, objective_of
from assets.lifecycle.model.training_set import fit_rows, fold_rows, matrix
from resources.compute import ALONE, HERE, Group, Pool, Tell


@dataclass(frozen=True)
class Candidate:
    """A fitted ensemble and its selected settings.

    Args:
        network: module of the ensemble; maps raw features to outputs.
        selection: settings selected on the folds.
        head: maps outputs to scores.
        trees: trees of the ensemble, if it has any and rows are not weighted; the report reuses them as its XGBoost
            baseline.
        privacy: what the network's final fit spent, with a recipe that is private.
    """

    network: Any
    selection: Selection
    head: ScoreTransform
    trees: Trees | None = None
    privacy: Plan | None = None

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Returns float64 scores ``[n]`` or ``[n, classes]`` of raw features ``[n, n_features]``."""
        return self.head(outputs_of(self.network, X))


def fit_candidate(frozen: pd.DataFrame, model: Model, log: Any, pool: Pool = HERE) -> Candidate:
    """Fits the declared recipe on a frozen training set: selects settings on the folds, then refits on the fit rows.

    Args:
        frozen: the frozen training set.
        model: the model, whose ``training`` is the recipe.
        log: receives lines of progress.
        pool: where the fits run.

    Raises:
        FloatingPointError: the loss of a network is not finite.
        ComputeError: see :class:`~resources.compute.Pool`.
        PrivacyError: ``training.privacy`` cannot be kept.
    """
    forget_vectors()
    X, y = matrix(frozen, model), frozen[model.target].to_numpy(dtype=float)
    rows = fit_rows(frozen, model)
    recipe = model.training.sized_for(int(rows.sum()))
    weight, objective = row_weights(frozen, model), objective_of(model.task)
    arguments: dict[str, Any] = {"task": model.task, "tokens": features_of(model).word_positions}
    selection = select_on_folds(frozen, model, log=log, pool=pool)
    log(f"selected: {selection.epochs} epochs, {objective.metric} {selection.score:.4f} on the folds")
    log("ensemble weights: " + ", ".join(f"{part} {share:.0%}" for part, share in selection.shares.items()))
    arguments["weight"] = None if weight is None else weight[rows] / weight[rows].mean()
    final = _FinalFit(X[rows], y[rows], recipe, selection, network_of(model), arguments)
    names = [name for name in (NETWORK, *recipe.ensemble) if selection.shares.get(name)]
    fitted: dict[str, Fitted] = {}
    if NETWORK in names and pool.data_parallel:
        fitted[NETWORK] = pool.together(_fit_together, shared=final, hear=functools.partial(_hear, log))
    alone = [name for name in names if name not in fitted]
    fitted |= zip(alone, pool.map(_fit_one, alone, shared=final, hear=functools.partial(_hear, log)), strict=True)
    parts = {name: fitted[name].module for name in names}
    trees = next((one.trees for one in fitted.values() if one.trees), None)
    # Settings from the folds are kept, but the scale of a measured target comes from the rows of the final fit.
    head = objective.final_transform(selection.head, y[rows])
    spent = Plan.of_recipe(recipe, rows=int(rows.sum()), epochs=selection.epochs)
    if spent:
        log(str(spent))
    return Candidate(mixture(parts, selection.shares), selection, head, trees if weight is None else None, spent)


def network_of(model: Model) -> NetworkFactory | None:
    """The factory of the declared network or language model; ``None`` for the default network."""
    if model.language is None:
        return model.network
    texts = len(features_of(model).words) // WORDS
    return functools.partial(language_network, language=model.language, texts=texts)


@dataclass(frozen=True)
class _FinalFit:
    """The rows of the final fit, and what the folds selected for it."""

    X: np.ndarray
    y: np.ndarray
    recipe: Training
    selection: Selection
    network: NetworkFactory | None
    arguments: dict[str, Any]

    def fit_network(self, log: Log, group: Group) -> Fitted:
        return Fitted(
            fit(self.X, self.y, recipe=self.recipe, epochs=self.selection.epochs, network=self.network, log=log,
                group=group, **self.arguments)
        )  # fmt: skip


def _fit_one(final: _FinalFit, name: str, tell: Tell) -> Fitted:
    """Fits one learner of the candidate."""
    if name == NETWORK:
        return final.fit_network(tell, ALONE)
    return LEARNERS[name].fit(
        final.X, final.y, seed=final.recipe.seed, rounds=final.selection.rounds, **final.arguments
    )


def _fit_together(final: _FinalFit, group: Group, tell: Tell) -> Fitted:
    """Fits the network of the candidate on the workers of a group."""
    return final.fit_network(tell, group)


def _hear(log: Log, _: int, line: str) -> None:
    log(line)


def select_on_folds(
    frozen: pd.DataFrame,
    model: Model,
    *,
    another: int = 0,
    log: Log = lambda _: None,
    watch: Watch = lambda *_: None,
    learnt: MutableMapping[str, list[FoldOutputs]] | None = None,
    pool: Pool = HERE,
) -> Selection:
    """Selects the settings of the model's recipe on its folds; the test rows are not used.

    Args:
        frozen: the frozen training set.
        model: the model, whose ``training`` is the recipe.
        another: each number gives other folds (without `time`) and another seed of the fits, for a repetition.
        log, watch, learnt, pool: see :func:`~assets.lifecycle.model.fitting.select`.

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
        network=network_of(model),
        weight=row_weights(frozen, model),
        represented=represented_by(frozen),
        log=log,
        watch=watch,
        learnt=learnt,
        pool=pool,
    )


def row_weights(frozen: pd.DataFrame, model: Model) -> np.ndarray | None:
    """Returns row weights by age, ``[n]``, 1 for the latest row; ``None`` if all rows have equal weights."""
    half_life = model.training.half_life_days
    if half_life is None:
        return None
    assert model.table.time is not None
    age = (frozen[model.table.time].max() - frozen[model.table.time]) / pd.Timedelta(days=1)
    return np.asarray(0.5 ** (age.to_numpy(dtype=float) / half_life))

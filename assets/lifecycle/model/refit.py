"""Fits a version again: the same rows, this commit's code and the version's recipe, without any store.

Belongs here: fitting and saving. Does not belong here: the process that calls it (``cli/refit.py``), finding the rows,
the worktree and comparing (``metadata/reproduction.py``).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.features import features_of
from assets.lifecycle.model.candidate import Candidate, fit_candidate
from assets.lifecycle.model.training_set import fit_rows
from assets.lifecycle.model.version.bundle import Bundle, Facts
from resources.runtime import Runtime

RECIPE = "recipe.json"
"""File with the parameters of the fit as text, as MLflow has them."""


class RefitError(Exception):
    """A version cannot be fitted again. The message is one sentence with the reason."""


def refit(model: Model, rows: pd.DataFrame, then: Facts, out: Path) -> None:
    """Fits the declaration on the rows and writes the folder of a version, with the parameters in ``recipe.json``.

    Args:
        model: the declaration of this commit.
        rows: the frozen training set.
        then: facts of the version, for the recipe that tuning found.
        out: folder to write.

    Raises:
        RefitError: the declaration has no place for the recipe, or the noise of the version was not kept.
    """
    privacy = then.fitted.get("privacy")
    if privacy and not privacy["repeatable"]:
        raise RefitError(
            "the version has differential privacy, and its noise was not kept; only versions with "
            "Privacy(repeatable=True) can be fitted again bit by bit"
        )
    recipe = with_tuned(model, then)
    candidate = fit_candidate(rows, recipe, lambda _: None)
    _save(out, candidate, recipe)
    sized = recipe.training.sized_for(int(fit_rows(rows, recipe).sum()))
    settings = {name: value for name, value in vars(sized).items() if name != "tags"}
    text = {name: str(value) for name, value in {"features": len(features_of(recipe).names), **settings}.items()}
    (out / RECIPE).write_text(json.dumps(text, indent=1), encoding="utf-8")


def with_tuned(model: Model, then: Facts) -> Model:
    """Returns the declaration with the recipe that tuning found for the version, if it found one.

    Raises:
        RefitError: a tuned setting is not in the search space of the declaration.
    """
    chosen = then.fitted.get("chosen", {})
    if then.fitted.get("tuned") and not chosen:
        raise RefitError("the version's recipe was tuned before versions recorded how to use such a recipe again")
    if unknown := sorted(set(chosen) - set(model.search_space)):
        raise RefitError(f"the search space of {model.name} has no {', '.join(unknown)}, which the recipe has")
    values = {name: model.search_space[name].value(stored) for name, stored in chosen.items()}
    return replace(model, training=model.training.with_values(values)) if values else model


def _save(out: Path, candidate: Candidate, model: Model) -> None:
    """Writes what scoring needs of a candidate, and the figures of its selection."""
    selection = candidate.selection
    fitted = {
        "epochs": selection.epochs,
        "seed": model.training.seed,
        "folds_score": selection.score,
        "shares": selection.shares,
        "chance": selection.chance,
    }
    Bundle.save(
        out,
        module=candidate.network,
        model=model,
        feature_names=features_of(model).names,
        head=candidate.head,
        threshold=selection.threshold,
        fitted=fitted,
    )
    Runtime.now().save(out)

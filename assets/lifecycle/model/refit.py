"""Fits a version again: the same rows, this commit's code and the version's recipe, without any store.

``python -m assets.lifecycle.model.refit --model NAME --tables DIR --bundle DIR --out DIR`` is what ``assetline
reproduce`` runs in a git worktree of the version's commit. A newer release calls the module as it is in an older
commit, so its arguments and files do not change.

Belongs here: fitting and saving. Does not belong here: finding the rows, the worktree, comparing
(``metadata/reproduction.py``).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from resources.settings import give_memory_back, one_thread_each, quiet_telemetry

quiet_telemetry()
one_thread_each()
give_memory_back()

import pandas as pd  # noqa: E402

from assets.declaration import Model  # noqa: E402
from assets.lifecycle.data.features import features_of  # noqa: E402
from assets.lifecycle.model.candidate import Candidate, fit_candidate  # noqa: E402
from assets.lifecycle.model.training_set import fit_rows  # noqa: E402
from assets.lifecycle.model.version.bundle import Bundle, Facts  # noqa: E402
from resources.runtime import Runtime  # noqa: E402
from resources.tables import ParquetTables  # noqa: E402

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
        RefitError: the declaration has no place for the recipe.
    """
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Fits one version again. Ends with a sentence and status 1 if it cannot be fitted."""
    parser = argparse.ArgumentParser(prog="python -m assets.lifecycle.model.refit")
    parser.add_argument("--model", required=True, help="name of the model")
    parser.add_argument("--tables", type=Path, required=True, help="folder of tables with the frozen training set")
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the version")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    given = parser.parse_args(arguments)
    from assets.models import read_folders

    found, broken = read_folders()
    declared = {model.name: model for model in found}
    if given.model not in declared:
        reasons = {one.name: one.reason for one in broken}
        said = reasons.get(given.model, f"the declared models are: {', '.join(declared) or 'none'}")
        raise SystemExit(f"this commit does not declare the model '{given.model}' ({said})")
    model = declared[given.model]
    rows = ParquetTables(root=str(given.tables)).read(model.key("training_set"))
    try:
        refit(model, rows, Facts.read(given.bundle), given.out)
    except RefitError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()

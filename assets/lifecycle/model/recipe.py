"""The recipe in use: the declared one, or what the latest tuning found for it.

Belongs here: which recipe training and backtest use, and why. Does not belong here: the search (``search.py``), the
asset that stores its result (``tuning.py``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd

from assets.declaration import Model


@dataclass(frozen=True)
class Recipe:
    """The recipe in use.

    Args:
        model: the declaration with the recipe in use as its ``training``.
        tuned: the tuned settings, by the keys of the search space; empty if the declared recipe is in use.
        study: the study that found them; empty if the declared recipe is in use.
        reason: one sentence on where the recipe comes from.
    """

    model: Model
    reason: str
    tuned: Mapping[str, Any] = field(default_factory=dict)
    study: str = ""


def fingerprint(model: Model) -> str:
    """Returns the hash of what a tuning result is valid for: the declared recipe, the network and the search space."""
    network = model.network and f"{getattr(model.network, '__module__', '')}.{getattr(model.network, '__name__', '')}"
    if model.language is not None:
        network = str(model.language)
    text = f"{model.training} {network} {sorted(model.search_space.items())}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def recipe_in_use(model: Model, tuning: pd.DataFrame) -> Recipe:
    """Returns the recipe that training uses.

    A result is used as long as the declared recipe, the network and the search space are those it was found with. Newer
    rows or features do not end it. A result of another declaration is not used, because nothing is known of how it
    compares with the recipe that is declared now.

    Args:
        model: the declaration.
        tuning: the table of the asset ``tuning``; empty if it was never materialised.
    """
    if tuning.empty:
        return Recipe(model, "the declared recipe; no tuning was run")
    found = tuning.iloc[0]
    if found["declaration"] != fingerprint(model):
        reason = (
            "the declared recipe; the latest tuning is of another recipe, network or search space, so its result is "
            f"not used: materialise {model.key('tuning').to_user_string()} again"
        )
        return Recipe(model, reason)
    space = model.search_space
    values = {name: space[name].value(stored) for name, stored in json.loads(found["chosen"]).items()}
    study = str(found["study"])
    if not values:
        return Recipe(model, f"the declared recipe; tuning found none that is clearly better (study {study})")
    tuned = replace(model, training=model.training.with_values(values))
    return Recipe(tuned, f"tuned: {format_values(values)} (study {study})", values, study)


def format_values(values: Mapping[str, Any]) -> str:
    """Returns settings as text, numbers with four digits."""
    return ", ".join(f"{name} {format_value(value)}" for name, value in values.items())


def format_value(value: Any) -> str:
    """Returns a setting as text, a number with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)

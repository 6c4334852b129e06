"""The text columns of a model with a language model, and their vectors.

Belongs here: finding the columns among the features. Does not belong here: the vectors themselves (``embeddings.py``),
comparing them (``assets/lifecycle/profile/text_cells.py``).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.embeddings import vectors_of_pieces
from assets.lifecycle.data.features import features_of


def pieces_by_text(model: Model) -> dict[str, list[str]]:
    """Names of the features that hold the word pieces of each text column; empty without a language model."""
    found: dict[str, list[str]] = {}
    for name in features_of(model).words if model.language else ():
        found.setdefault(name.partition("#")[0], []).append(name)
    return found


def vectors_by_text(model: Model, features: pd.DataFrame) -> dict[str, np.ndarray]:
    """Vectors of the texts by column, float32 ``[n, width]`` each, from the rows' features.

    Raises:
        LanguageError: the language model cannot be read, or its packages are not installed.
    """
    if model.language is None:
        return {}
    return {
        column: vectors_of_pieces(features[names].to_numpy(dtype=np.float32), model.language)
        for column, names in pieces_by_text(model).items()
    }

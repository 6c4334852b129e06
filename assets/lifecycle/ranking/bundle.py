"""A version of a ranking as a folder: the files of ``bundle.py`` without a network, and those of the ranker.

    ranking.npz      weights of towers and ranking network, contents and neighbours of the items
    items.json       ids, texts and facts of the items

Belongs here: writing and reading that folder. Does not belong here: lists (``ranker.py``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from assets.declaration import Model
from assets.lifecycle.model.version.bundle import (
    FACTS,
    Bundle,
    BundleError,
    Facts,
    damaged,
    keep_code,
    model_code,
)
from assets.lifecycle.ranking.ranker import ARRAYS, FEATURES, Ranker


@dataclass
class RankingBundle(Bundle):
    """A loaded version of a ranking. A row of features is a candidate; its score is that of the ranking network.

    So a version is probed over ``/score`` as all others are: before it is promoted, and when it is rolled back.
    """

    ranker: Ranker

    @staticmethod
    def write(directory: Path, ranker: Ranker, model: Model, fitted: Mapping[str, Any]) -> None:
        """Writes the folder; the caller adds ``reference/``, ``rows.json`` and ``runtime.json``."""
        directory.mkdir(parents=True, exist_ok=True)
        package = keep_code(directory, model)
        ranker.save(directory)
        facts = Facts(
            name=model.name,
            package=package.__name__,
            feature_names=FEATURES,
            head={"kind": "ranking", "slope": 1.0, "offset": 0.0},
            classes=(),
            threshold=0.0,
            review_cost=None,
            code=model_code(model),
            fitted=dict(fitted),
        )
        (directory / FACTS).write_text(json.dumps(asdict(facts), indent=1), encoding="utf-8")

    @classmethod
    def read(cls, directory: Path, facts: Facts) -> Self:
        """Reads the folder. Raises :class:`BundleError`, which names the file that is absent or damaged."""
        ranking = Bundle(directory, facts, None).model.ranking  # type: ignore[arg-type] # a ranking has no network
        if ranking is None:
            raise BundleError(f"{directory}: today's declaration of '{facts.name}' is no ranking; train again")
        try:
            ranker = Ranker.load(directory, ranking)
        except (OSError, ValueError, KeyError) as error:
            raise damaged(directory / ARRAYS, error) from error
        return cls(directory, facts, None, ranker)  # type: ignore[arg-type]

    def traced(self) -> Bundle:
        """Returns itself: numpy needs no trace."""
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Scores candidates from their features, float32 ``[n, features]``; a missing value counts as the mean.

        Raises:
            BundleError: the number of features is wrong.
        """
        if X.ndim != 2 or X.shape[1] != len(FEATURES):
            raise BundleError(f"{self.facts.name} expects {len(FEATURES)} features per row, got the shape {X.shape}")
        given = np.where(np.isnan(X), self.ranker.mean, X).astype(np.float32)
        return np.asarray(self.ranker.scores(given), dtype=np.float64)

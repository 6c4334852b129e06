"""Texts as a column that can be counted: each text's vector falls into a cell of the reference's vectors.

Belongs here: the cells and their file. Does not belong here: the vectors (``assets/lifecycle/data/embeddings.py``), the
counts and tests (``histograms.py``).

Drift of texts is drift of their vectors. The cells are those of the nearest of some centres, found by k-means on half
of the reference, and one for texts that are farther from every centre than nearly all of the reference. The counts of
the other half are the reference's histogram, because the centres fit the texts that they were found on better than
later ones. From there on a text is a column with categories: counts of days add up, and the drift rule applies
unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assets.lifecycle.profile.design_effect import DesignEffect
from assets.lifecycle.profile.histograms import Bins, Histogram

MOST_CELLS, TEXTS_OF_A_CELL = 24, 25
"""Cells of a reference of any size, and the least number of texts for each."""
FAR = 0.99
"""Share of the reference's texts that are not far."""
TAIL = 3.0
"""Standard deviations of the statistic at which its tail is matched; the rule judges near this point."""
FILE = "texts.npz"


@dataclass(frozen=True, eq=False)
class TextCells:
    """The cells of one text column.

    Args:
        language: name of the language model of the vectors.
        centres: float32 ``[cells, width]``, of length 1. They are means of many texts, so they are no one's text.
        radius: largest distance, 1 minus the cosine, of a text that is not far.
    """

    language: str
    centres: np.ndarray
    radius: float

    @property
    def bins(self) -> Bins:
        """One bin for each cell, and one for texts that are far from all."""
        edges = np.arange(len(self.centres) + 1, dtype=np.float64)
        return Bins("category", edges, float(edges[0]), float(edges[-1]))

    def of(self, vectors: np.ndarray) -> np.ndarray:
        """The cell of each text, float32 ``[n]``; the last one is that of far texts.

        Args:
            vectors: float32 ``[n, width]``, of length 1.
        """
        if not len(vectors):
            return np.empty(0, dtype=np.float32)
        cosines = vectors @ self.centres.T
        cell = cosines.argmax(axis=1).astype(np.float32)
        return np.where(1 - cosines.max(axis=1) > self.radius, np.float32(len(self.centres)), cell)


def cells_of(vectors: np.ndarray, language: str, seed: int = 0) -> tuple[TextCells, np.ndarray]:
    """Finds the cells on half of the texts.

    Args:
        vectors: vectors of the reference's texts, float32 ``[n, width]``, of length 1; at least 4.
        language: name of the language model.
        seed: seed of the halves and of k-means.

    Returns:
        The cells, and the positions of the texts of the other half.
    """
    from sklearn.cluster import KMeans

    order = np.random.default_rng(seed).permutation(len(vectors))
    mine, others = order[: len(order) // 2], np.sort(order[len(order) // 2 :])
    distinct = len(np.unique(vectors[mine].round(4), axis=0))
    number = max(1, min(MOST_CELLS, len(mine) // TEXTS_OF_A_CELL, distinct))
    found = KMeans(number, n_init=3, random_state=seed).fit(vectors[mine]).cluster_centers_
    centres = (found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)).astype(np.float32)
    distance = 1 - (vectors[others] @ centres.T).max(axis=1)
    return TextCells(language, centres, float(np.quantile(distance, FAR))), others


def variation(cells: np.ndarray, day: np.ndarray | None, bins: Bins) -> DesignEffect:
    """How much more the shares of the cells vary between days than those of independent texts, at least 1.

    Texts follow events, so those of a day are not independent. This is Pearson's statistic of days and cells. Where a
    few kinds of texts vary and the others do not, the statistic of a window varies more around its mean than a
    chi-square does, so that the effect is raised to match the tail (Rao and Scott, 1981, second order).

    Args:
        cells: cell of each text, ``[n]``.
        day: day of each text, ``[n]``; ``None`` if the table has no days: texts then count as independent.
        bins: the bins of the cells.
    """
    if day is None or len(np.unique(day)) < 2:
        return DesignEffect()
    counts = np.array([bins.count(cells[day == one]).counts for one in np.unique(day)], dtype=float)
    counts = counts[:, counts.sum(axis=0) > 0]
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    free_days, free_cells = counts.shape[0] - 1, max(counts.shape[1] - 1, 1)
    residuals = (counts - expected) / np.sqrt(expected)
    covariance = residuals.T @ residuals / free_days
    total = max(float(np.trace(covariance)), 1e-9)
    # The sum of squared eigenvalues, without what few days add to it: how many cells vary together.
    squares = float((covariance**2).sum()) - total**2 / free_days
    squares = max(squares * free_days**2 / max((free_days - 1) * (free_days + 2), 1), total**2 / free_cells)
    together = (1 + TAIL * (2 * squares) ** 0.5 / total) / (1 + TAIL * (2 / free_cells) ** 0.5)
    effect = max(total / free_cells * together, 1.0)
    return DesignEffect(effect, effect)


def count_texts(
    texts: Mapping[str, np.ndarray], language: str, day: np.ndarray | None, seed: int, share: float
) -> tuple[dict[str, TextCells], dict[str, Histogram], dict[str, DesignEffect]]:
    """The cells of each text column, the reference's counts in them, and how they vary between days.

    Args:
        texts: vectors of the reference's texts by column, ``[n, width]`` each.
        language: name of the language model.
        day: day of each text, ``[n]``; ``None`` without days.
        seed: seed of the halves.
        share: share of the rows of their days that the reference is a random part of.
    """
    cells: dict[str, TextCells] = {}
    counts: dict[str, Histogram] = {}
    effects: dict[str, DesignEffect] = {}
    for column, vectors in texts.items():
        cells[column], others = cells_of(vectors, language, seed)
        found = cells[column].of(vectors[others])
        counts[column] = cells[column].bins.count(found)
        of_days = None if day is None else np.asarray(day)[others]
        effects[column] = variation(found, of_days, cells[column].bins).of_all(share * len(others) / len(vectors))
    return cells, counts, effects


def save_texts(cells: Mapping[str, TextCells], directory: Path) -> None:
    """Writes the cells; nothing without text columns."""
    if cells:
        stored: dict[str, Any] = {}
        for column, one in cells.items():
            stored |= {f"{column}/centres": one.centres, f"{column}/radius": np.array(one.radius)}
            stored[f"{column}/language"] = np.array(one.language)
        np.savez_compressed(directory / FILE, **stored)


def load_texts(directory: Path) -> dict[str, TextCells]:
    """Reads the output of :func:`save_texts`; empty where there is none."""
    if not (directory / FILE).exists():
        return {}
    with np.load(directory / FILE, allow_pickle=False) as stored:
        columns = [name.removesuffix("/centres") for name in stored.files if name.endswith("/centres")]
        return {
            column: TextCells(
                str(stored[f"{column}/language"]), stored[f"{column}/centres"], float(stored[f"{column}/radius"])
            )
            for column in columns
        }

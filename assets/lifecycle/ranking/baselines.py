"""Simple ways to rank, which a candidate has to beat: popularity, items liked together, and factors (ALS).

Belongs here: scores of all items for given histories. Does not belong here: lists and measures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from assets.lifecycle.ranking.behaviour import DAY, Behaviour, Histories, Items
from assets.ranking import Ranking

if TYPE_CHECKING:
    import scipy.sparse

POPULAR_DAYS = 3
"""Days of events that popularity counts."""
NAMES = ("popularity", "item_knn", "als")
MOST_DENSE = 5_000
"""Largest catalogue for which weights of items liked together are solved exactly (its square is held in memory)."""
RIDGE = 200.0


class AlsError(Exception):
    """The package of the ALS baseline is not installed; the message says what to install."""


def matrix_of(past: Behaviour, items: int) -> scipy.sparse.csr_matrix:
    """Returns what users liked, float32 ``[users, items]``: the largest weight of each pair."""
    import scipy.sparse

    liked = past.liked
    best: dict[tuple[int, int], float] = {}
    for user, item, weight in zip(liked.user.tolist(), liked.item.tolist(), liked.weight.tolist(), strict=True):
        best[user, item] = max(weight, best.get((user, item), 0.0))
    pairs = np.array(list(best), dtype=np.int64).reshape(-1, 2)
    values = np.array(list(best.values()), dtype=np.float32)
    return scipy.sparse.csr_matrix((values, (pairs[:, 0], pairs[:, 1])), shape=(len(past.users), items))


def popularity(past: Behaviour, items: int, at: np.datetime64 | None = None) -> np.ndarray:
    """Returns the sum of the weights of each item's events, ``[m]``; with a moment, of the days before it."""
    kept = past if at is None else past.some((past.at < at) & (past.at >= at - POPULAR_DAYS * DAY))
    return np.bincount(kept.item, weights=kept.weight, minlength=items).astype(np.float32)


def together(past: Behaviour, items: int) -> np.ndarray:
    """Returns the cosine of the users of two items, float32 ``[m, m]`` with zeros on the diagonal (item-kNN)."""
    liked = matrix_of(past, items).astype(bool).astype(np.float32)
    count = np.asarray(liked.sum(axis=0)).ravel()
    both = (liked.T @ liked).toarray()
    found = both / np.sqrt(np.maximum(np.outer(count, count), 1e-9))
    np.fill_diagonal(found, 0)
    return found.astype(np.float32)


def linear_weights(past: Behaviour, items: int, ridge: float = RIDGE) -> np.ndarray:
    """Returns the weights of items for items of a ridge regression without the item itself, float32 ``[m, m]``.

    This is the closed form of Steck (2019), "Embarrassingly shallow autoencoders". A catalogue of more than
    :data:`MOST_DENSE` items gets the cosines of :func:`together`.
    """
    if items > MOST_DENSE:
        return together(past, items)
    liked = matrix_of(past, items).astype(bool).astype(np.float64)
    inverse = np.linalg.inv((liked.T @ liked).toarray() + ridge * np.eye(items))
    weights = -inverse / np.diag(inverse)[None, :]
    np.fill_diagonal(weights, 0)
    return weights.astype(np.float32)


def weighted(history: Histories, weights: np.ndarray) -> np.ndarray:
    """Returns the sum of the rows ``weights[item]`` over each history, ``[n, m]``."""
    found = np.zeros((len(history), weights.shape[1]), np.float32)
    for i in range(len(history)):
        used = history.item[i] >= 0
        found[i] = history.weight[i][used] @ weights[history.item[i][used]]
    return found


def als_items(past: Behaviour, items: int, *, width: int, seed: int) -> Any:
    """Fits factors of users and items (``implicit``).

    Raises:
        AlsError: the package is not installed.
    """
    try:
        from implicit.cpu.als import AlternatingLeastSquares
    except ImportError as error:
        raise AlsError("the baseline ALS needs `pip install 'assetline[ranking]'`") from error
    fitted = AlternatingLeastSquares(
        factors=width, regularization=0.05, alpha=4.0, iterations=15, random_state=seed, num_threads=1
    )
    fitted.fit(matrix_of(past, items), show_progress=False)
    return fitted


def als_scores(fitted: Any, history: Histories) -> np.ndarray:
    """Returns the scores of all items for histories, ``[n, m]``, with factors of the users that fit their histories."""
    import scipy.sparse

    items = len(fitted.item_factors)
    rows = np.repeat(np.arange(len(history)), history.item.shape[1])
    item, weight = history.item.ravel(), history.weight.ravel()
    used = item >= 0
    liked = scipy.sparse.csr_matrix((weight[used], (rows[used], item[used])), shape=(len(history), items))
    liked.sum_duplicates()
    users = np.vstack([fitted.recalculate_user(np.arange(len(history)), liked)])
    return np.asarray(users @ fitted.item_factors.T, dtype=np.float32)


def baseline_scores(
    fitted: Behaviour, history: Histories, items: Items, ranking: Ranking, recent: np.ndarray, *, seed: int
) -> dict[str, np.ndarray]:
    """Returns the scores of each baseline, ``[n, m]`` by name.

    Args:
        fitted: the events that are fitted.
        history: histories of the users who ask.
        items: the catalogue.
        ranking: the declaration.
        recent: popularity in the days before, ``[m]`` or ``[n, m]``.
        seed: of the factors.
    """
    model = als_items(fitted, len(items), width=ranking.width, seed=seed)
    return {
        "popularity": np.broadcast_to(recent, (len(history), len(items))),
        "item_knn": weighted(history, together(fitted, len(items))) + 1e-6 * recent,
        "als": als_scores(model, history),
    }

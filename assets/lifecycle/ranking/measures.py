"""How good lists are: recall, NDCG, coverage, novelty and the share of new items, with intervals by user.

Belongs here: the measures of lists whose truth is known. Does not belong here: making lists, the gate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from assets.lifecycle.model.metrics.intervals import Estimate, bootstrap, estimate

RESAMPLES = 200
BOUNDS = {"ndcg": (0.0, 1.0), "recall": (0.0, 1.0), "novelty": (0.0, math.inf), "new_share": (0.0, 1.0)}
"""Measures with a value for each list, and their bounds."""


@dataclass(frozen=True)
class Asked:
    """Lists that were asked for, and what their users liked afterwards.

    Attributes:
        user: whose list, int64 ``[n]``; one user may have several.
        liked: numbers of the items that the user liked, one array for each list; not empty.
        gains: how much, same shapes.
    """

    user: np.ndarray
    liked: Sequence[np.ndarray]
    gains: Sequence[np.ndarray]

    def __len__(self) -> int:
        return len(self.user)


@dataclass(frozen=True)
class ByList:
    """The measures of each list, ``[n]`` by name, and the items that are on any list."""

    user: np.ndarray
    values: Mapping[str, np.ndarray]
    listed: np.ndarray


def measure(lists: np.ndarray, asked: Asked, *, k: int, share: np.ndarray, new: np.ndarray) -> ByList:
    """Measures lists.

    Args:
        lists: numbers of items, ``[n, k]``, best first; −1 at places without an item.
        asked: whose lists, and the truth.
        k: length of a list.
        share: share of the events that each item has, ``[m]``; novelty is −log2 of it, at most 20 bits.
        new: whether an item is new at the time of each list, bool ``[n, m]`` or ``[m]``.
    """
    discount = 1 / np.log2(np.arange(k) + 2)
    n = len(asked)
    values = {name: np.zeros(n) for name in BOUNDS}
    bits = np.minimum(-np.log2(np.maximum(share, 1e-9)), 20.0)
    for i in range(n):
        items = lists[i][lists[i] >= 0][:k]
        gain_of = dict(zip(asked.liked[i].tolist(), asked.gains[i].tolist(), strict=True))
        gains = np.array([gain_of.get(item, 0.0) for item in items.tolist()])
        best = np.sort(asked.gains[i])[::-1][:k]
        values["ndcg"][i] = (gains * discount[: len(gains)]).sum() / (best * discount[: len(best)]).sum()
        values["recall"][i] = (gains > 0).sum() / min(len(gain_of), k)
        if len(items):
            values["novelty"][i] = bits[items].mean()
            values["new_share"][i] = (new[i] if new.ndim == 2 else new)[items].mean()
    return ByList(asked.user, values, np.unique(lists[lists >= 0]))


def figures(found: ByList, items: int, *, seed: int = 0) -> dict[str, Estimate]:
    """Returns the means over users with 95 % intervals, and the coverage: the share of the items that are on a list."""
    by_user = _by_user(found)
    point, draws = bootstrap(lambda weight: _means(by_user, weight), len(by_user), resamples=RESAMPLES, seed=seed)
    means = {name: estimate(point[i], draws[:, i], bounds=bounds) for i, (name, bounds) in enumerate(BOUNDS.items())}
    return means | {"coverage": Estimate(len(found.listed) / max(items, 1))}


def differences(first: ByList, second: ByList, *, seed: int = 0) -> dict[str, Estimate]:
    """Returns the means of one model's lists minus another's on the same users and draws, with 95 % intervals."""
    by_user = _by_user(first) - _by_user(second)
    point, draws = bootstrap(lambda weight: _means(by_user, weight), len(by_user), resamples=RESAMPLES, seed=seed)
    unbounded = (-math.inf, math.inf)
    return {name: estimate(point[i], draws[:, i], bounds=unbounded) for i, name in enumerate(BOUNDS)}


def some(found: ByList, kept: np.ndarray) -> ByList:
    """Returns the measures of some lists, by bool ``[n]``."""
    return ByList(found.user[kept], {name: values[kept] for name, values in found.values.items()}, found.listed)


def _by_user(found: ByList) -> np.ndarray:
    """Mean of each measure by user, ``[users, measures]``, so that a user with many lists counts as one."""
    _, code = np.unique(found.user, return_inverse=True)
    count = np.bincount(code)
    return np.column_stack([np.bincount(code, weights=found.values[name]) / count for name in BOUNDS])


def _means(by_user: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return weight @ by_user / weight.sum()

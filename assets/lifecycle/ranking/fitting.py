"""Fits a ranking: towers on the earlier events, the ranking network on the later ones, then the towers on all.

Belongs here: the order of the steps, and the examples of the ranking network. Does not belong here: the modules and
losses (``towers.py``), the fitted ranking (``ranker.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from assets.lifecycle.ranking.baselines import linear_weights, popularity
from assets.lifecycle.ranking.behaviour import TIMELESS, Behaviour, Items, histories
from assets.lifecycle.ranking.ranker import FEATURES, Moment, Ranker, strongest
from assets.lifecycle.ranking.texts import categories, content
from assets.lifecycle.ranking.towers import Log, fit_network, fit_towers
from assets.ranking import Ranking

LATER_DAYS = 4
"""Days at the end of the fit rows on which the ranking network is fitted, with towers of the days before."""
EXAMPLES, OF_USER, AMONG = 4_000, 8, 150
"""Most examples of the ranking network, of one user among them (so that a few busy users do not decide), and
candidates of each."""


@dataclass(frozen=True)
class FittedRanking:
    """A fitted ranking, and the loss of its towers by epoch."""

    ranker: Ranker
    losses: list[float]


def fit_ranking(past: Behaviour, items: Items, ranking: Ranking, *, seed: int, log: Log) -> FittedRanking:
    """Fits towers and ranking network; the same seed gives the same weights on a CPU.

    Args:
        past: the events of the fit rows, in the order of time.
        items: the catalogue of the fit rows.
        ranking: the declaration.
        seed: of everything random.
        log: receives lines of progress.

    Raises:
        ValueError: no event says anything about a liking.
        FloatingPointError: a loss is not finite.
        LanguageError: the declared language model cannot be read.
    """
    if not len(past.liked):
        raise ValueError(f"no event has a weight; the events that count are {', '.join(ranking.weights)}")
    values = categories(items)
    known = content(items, ranking, values)
    early, late = _divided(past, seed)
    first = _with_towers(early, items, known, values, ranking, seed, log)[0]
    if len(late) and (late.at != TIMELESS).any():
        # Items of the later days are new to these towers, as items after the fit rows are to the version. Otherwise the
        # ranking network would never have seen one that is not known.
        first = replace(first, code=np.where(items.since < late.at.min().astype("datetime64[D]"), first.code, -1))
    features, target = _examples(first, early, late, past, seed)
    fitted, losses = _with_towers(past, items, known, values, ranking, seed, log)
    if len(target) == 0:
        log("the ranking network is not fitted: no liking has a history; lists follow taste")
        return FittedRanking(replace(fitted, weights=fitted.weights | _taste_only()), losses)
    flat = features.reshape(-1, features.shape[2])
    mean, spread = flat.mean(axis=0), flat.std(axis=0)
    spread = np.where(spread < 1e-3, 1.0, spread).astype(
        np.float32
    )  # a feature that did not vary must not explode later
    network = fit_network(((features - mean) / spread).astype(np.float32), target, seed=seed)
    log(f"ranking network: fitted on {len(target):,} likings among {features.shape[1]} candidates each")
    return FittedRanking(replace(fitted, weights=fitted.weights | network, mean=mean, spread=spread), losses)


def _divided(past: Behaviour, seed: int) -> tuple[Behaviour, Behaviour]:
    """Earlier and later events; without time, the likings of most users and of the others."""
    if len(past) == 0 or (past.at == TIMELESS).all():
        later = (np.random.default_rng(seed).random(len(past.users)) < 0.25)[past.user]
    else:
        day = past.at.astype("datetime64[D]")
        days = int((day.max() - day.min()).astype(int)) + 1
        later = day > day.max() - min(LATER_DAYS, days // 2)
    return past.some(~later), past.some(later)


def _with_towers(
    past: Behaviour, items: Items, known: np.ndarray, values: list[list[str]], ranking: Ranking, seed: int, log: Log
) -> tuple[Ranker, list[float]]:
    towers = fit_towers(past, known, ranking, seed=seed, log=log)
    neighbour, strength = strongest(linear_weights(past, len(items)))
    zeros, ones = np.zeros(len(FEATURES), np.float32), np.ones(len(FEATURES), np.float32)
    ranker = Ranker(ranking, items, towers.weights | _taste_only(), np.arange(len(items)), known, values, neighbour,
                    strength, zeros, ones)  # fmt: skip
    return ranker, towers.losses


def _taste_only() -> dict[str, np.ndarray]:
    """The ranking network whose score is the taste (relu(x) − relu(−x) = x)."""
    first = np.zeros((len(FEATURES), 2), np.float32)
    first[0] = (1, -1)
    return {"rank_1": first, "rank_1_bias": np.zeros(2, np.float32), "rank_2": np.array([1, -1], np.float32)}


def _examples(
    ranker: Ranker, early: Behaviour, late: Behaviour, past: Behaviour, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Features of some candidates of later likings, ``[n, c, f]``, and the place of the liked one, ``[n]``."""
    rng = np.random.default_rng(seed)
    liked = late.liked
    order = rng.permutation(len(liked))
    number = pd.Series(liked.user[order]).groupby(liked.user[order]).cumcount().to_numpy()
    chosen = np.sort(order[number < OF_USER][:EXAMPLES])
    liked = liked.some(chosen)
    timeless = len(liked) == 0 or (liked.at == TIMELESS).all()
    # Lists of a day are made from what was known when it began, as those of the evaluation are.
    at = liked.at if timeless else liked.at.astype("datetime64[D]").astype("datetime64[s]")
    history = histories(past, liked.user, at, ranker.ranking, without=liked.item)
    taste, together = ranker.taste(history), ranker.together(history)
    moments: dict[np.datetime64, Moment] = {}
    found: list[np.ndarray] = []
    for i, item in enumerate(liked.item.tolist()):
        if at[i] not in moments:
            moments[at[i]] = moment_of(early if timeless else past, ranker.items, None if timeless else at[i])
        moment = moments[at[i]]
        if not moment.there[item]:
            continue
        seen = history.item[i]
        pool = ranker.candidates(taste[i], together[i], moment, np.append(seen, item))
        if len(pool) < AMONG - 1:
            rest = np.setdiff1d(np.arange(len(ranker.items)), np.append(pool, item))
            pool = np.append(pool, rng.choice(rest, min(len(rest), AMONG - 1 - len(pool)), replace=False))
        features = ranker.features(np.append(pool, item), taste[i], together[i], moment, seen)
        found.append(features[np.append(rng.permutation(len(pool))[: AMONG - 1], len(pool))])
    least = min((len(one) for one in found), default=0)
    # A short pool has fewer candidates; all examples get the length of the shortest, the liked one last.
    if least < 2:
        return np.zeros((0, 2, len(FEATURES)), np.float32), np.zeros(0, np.int64)
    stacked = np.stack([one[len(one) - least :] for one in found])
    return stacked.astype(np.float32), np.full(len(found), least - 1)


def moment_of(past: Behaviour, items: Items, at: np.datetime64 | None) -> Moment:
    """Returns what lists depend on at a moment; ``None``: a table without time, all of whose items are there."""
    if at is None:
        return Moment(np.datetime64("NaT"), popularity(past, len(items)), np.ones(len(items), dtype=bool))
    return Moment(at, popularity(past, len(items), at), items.there(at))

"""Lists of a day: made from what was known when it began, and compared with what users liked on it.

Belongs here: who is asked for on a day, the lists of a version and of the baselines for them, and their measures. Does
not belong here: the assets that use them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.ranking.baselines import baseline_scores, popularity
from assets.lifecycle.ranking.behaviour import DAY, Behaviour, Histories, Items, histories
from assets.lifecycle.ranking.fitting import moment_of
from assets.lifecycle.ranking.measures import Asked, ByList, measure
from assets.lifecycle.ranking.ranker import Moment, Ranker
from assets.ranking import Ranking


@dataclass(frozen=True)
class Day:
    """The users who liked something on a day that existed when it began, and what they liked.

    Attributes:
        start: the moment at which the day began.
        asked: users and truth.
        history: histories of these users at that moment.
        moment: popularity and catalogue at that moment.
    """

    start: np.datetime64
    asked: Asked
    history: Histories
    moment: Moment

    def new(self, items: Items, days: float) -> np.ndarray:
        """Returns bool ``[m]``: whether each item was new at that moment."""
        return np.asarray(items.since > self.start - np.timedelta64(round(days * 86_400), "s"))


def log_of(rows: pd.DataFrame, model: Model) -> tuple[Items, Behaviour]:
    """Returns the catalogue and the behaviour in rows of the log."""
    assert model.ranking is not None
    items = Items.of(rows, model.ranking, model.table.time)
    return items, Behaviour.of(rows, items, model.ranking, model.table.time)


def day_of(behaviour: Behaviour, items: Items, ranking: Ranking, day: str) -> Day:
    """Returns who is asked for on an ISO day. A liking of an item of the user's history is no part of the truth."""
    start = np.datetime64(day, "s")
    moment = moment_of(behaviour, items, start)
    later = behaviour.some((behaviour.at >= start) & (behaviour.at < start + DAY) & (behaviour.weight > 0))
    later = later.some(moment.there[later.item])
    users = np.unique(later.user)
    history = histories(behaviour, users, np.full(len(users), start), ranking)
    liked, gains, kept = [], [], []
    for i, user in enumerate(users.tolist()):
        mine = later.user == user
        best: dict[int, float] = {}
        for item, weight in zip(later.item[mine].tolist(), later.weight[mine].tolist(), strict=True):
            best[item] = max(weight, best.get(item, 0.0))
        for item in history.item[i].tolist():
            best.pop(item, None)
        if best:
            kept.append(i)
            liked.append(np.array(list(best)))
            gains.append(np.array(list(best.values())))
    asked = Asked(users[kept], liked, gains)
    return Day(start, asked, Histories(history.item[kept], history.weight[kept]), moment)


def lists_of(ranker: Ranker, day: Day) -> np.ndarray:
    """Returns a version's lists without exploration, ``[n, k]`` numbers of items; −1 at empty places."""
    k = ranker.ranking.k
    found = np.full((len(day.asked), k), -1)
    for i, one in enumerate(ranker.lists(day.history, day.moment, k)):
        found[i, : len(one.item)] = one.item
    return found


def best_of(scores: np.ndarray, day: Day, k: int) -> np.ndarray:
    """Returns the lists by the scores of all items, ``[n, k]``, without those of the histories."""
    found = np.full((len(day.asked), k), -1)
    for i in range(len(day.asked)):
        own = np.where(day.moment.there, scores[i], -np.inf)
        own[day.history.item[i][day.history.item[i] >= 0]] = -np.inf
        order = np.argsort(-own, kind="stable")[:k]
        order = order[np.isfinite(own[order])]
        found[i, : len(order)] = order
    return found


def measured_days(
    rankers: Mapping[str, Ranker],
    fitted: Behaviour | None,
    behaviour: Behaviour,
    items: Items,
    ranking: Ranking,
    days: Sequence[str],
    *,
    seed: int = 0,
) -> dict[str, ByList]:
    """Returns the measures of all lists of some days, of versions and (with ``fitted``) of the baselines.

    Args:
        rankers: versions by name, with the catalogue ``items``.
        fitted: the events on which the baselines are fitted; ``None``: no baselines.
        behaviour: all events, those of the days included.
        items: the catalogue.
        ranking: the declaration.
        days: ISO days.
        seed: of the factors of ALS.

    Raises:
        AlsError: the baselines need a package that is not installed.
    """
    found: dict[str, list[ByList]] = {}
    total = popularity(behaviour, len(items))
    share = total / max(float(total.sum()), 1e-9)
    for day in days:
        asked = day_of(behaviour, items, ranking, day)
        if not len(asked.asked):
            continue
        lists = {name: lists_of(ranker, asked) for name, ranker in rankers.items()}
        if fitted is not None:
            scores = baseline_scores(fitted, asked.history, items, ranking, asked.moment.popular, seed=seed)
            lists |= {name: best_of(np.array(of), asked, ranking.k) for name, of in scores.items()}
        new = asked.new(items, ranking.new_days)
        for name, of in lists.items():
            found.setdefault(name, []).append(measure(of, asked.asked, k=ranking.k, share=share, new=new))
    return {name: _joined(parts) for name, parts in found.items()}


def gains_of(
    ranker: Ranker, behaviour: Behaviour, items: Items, day: str, rows: pd.DataFrame, model: Model
) -> np.ndarray:
    """Returns for each row of a day how high its item was on its user's list, float ``[n]``: 1 at the top, 0 if absent.

    The list is the one that the version makes from what was known when the day began.
    """
    ranking = ranker.ranking
    start = np.datetime64(day, "s")
    users = pd.Index(behaviour.users)
    user = users.get_indexer(rows[ranking.user].astype("string").fillna("").astype(object))
    item = items.codes(rows[ranking.item].astype("string").fillna("").to_numpy(dtype=object))
    wanted = np.unique(user[user >= 0])
    found = np.zeros(len(rows))
    if len(wanted) == 0:
        return found
    history = histories(behaviour, wanted, np.full(len(wanted), start), ranking)
    lists = ranker.lists(history, moment_of(behaviour, items, start), ranking.k)
    place = {
        (int(one), int(listed)): j
        for one, of in zip(wanted, lists, strict=True)
        for j, listed in enumerate(of.item.tolist())
    }
    for i, pair in enumerate(zip(user.tolist(), item.tolist(), strict=True)):
        if pair in place:
            found[i] = 1 / np.log2(place[pair] + 2)
    return found


def _joined(parts: Sequence[ByList]) -> ByList:
    names = parts[0].values
    return ByList(
        np.concatenate([one.user for one in parts]),
        {name: np.concatenate([one.values[name] for one in parts]) for name in names},
        np.unique(np.concatenate([one.listed for one in parts])),
    )

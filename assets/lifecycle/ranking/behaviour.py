"""Behaviour and items as arrays: the log of events in the form that towers, baselines and lists read.

Belongs here: codes of users and items, the catalogue with its texts and facts, a user's latest events. Does not belong
here: vectors of texts (``texts.py``), learning (``towers.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from assets.ranking import Ranking

DAY = np.timedelta64(86_400, "s")
TIMELESS = np.datetime64(0, "s")
"""Moment of the events of a table without time."""


@dataclass(frozen=True)
class Items:
    """A catalogue. An item's number is its place.

    Attributes:
        ids: ``[m]`` texts, ascending.
        texts: ``[m]``; empty where an item has none.
        facts: ``[m, facts]`` texts.
        since: moment of the first row of each item, ``[m]``.
        until: moment at which it was withdrawn, ``[m]``; NaT for an item that is still there.
    """

    ids: np.ndarray
    texts: np.ndarray
    facts: np.ndarray
    since: np.ndarray
    until: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def codes(self, ids: np.ndarray) -> np.ndarray:
        """Returns the number of each id, int64 ``[n]``; −1 for one that is not in the catalogue."""
        return self._index.get_indexer(pd.Index(np.asarray(ids, dtype=object)))

    @cached_property
    def _index(self) -> pd.Index:
        return pd.Index(self.ids, dtype=object)

    def there(self, at: np.datetime64) -> np.ndarray:
        """Returns bool ``[m]``: whether an item was known and not withdrawn at a moment."""
        return (self.since < at) & (np.isnat(self.until) | (self.until >= at))

    @classmethod
    def of(cls, rows: pd.DataFrame, ranking: Ranking, time: str | None) -> Items:
        """Reads the catalogue from rows of the log, in any order; the latest text and facts of an item count."""
        rows = rows[rows[ranking.item].notna()]
        if time is not None:
            rows = rows.sort_values(time, kind="stable")
        item = rows[ranking.item].astype(str).to_numpy(dtype=object)
        at = moments(rows, time)
        ids, code = np.unique(item.astype(str), return_inverse=True)
        last = np.full(len(ids), 0)
        last[code] = np.arange(len(rows))
        since = np.full(len(ids), np.datetime64("NaT"), "datetime64[s]")
        since[code[::-1]] = at[::-1]
        until = np.full(len(ids), np.datetime64("NaT"), "datetime64[s]")
        gone = rows[ranking.event].map(ranking.weight).to_numpy(dtype=float) < 0
        until[code[gone]] = at[gone]
        newest = rows.iloc[last]
        return cls(
            ids.astype(object),
            _texts(newest, ranking.text),
            np.column_stack([_texts(newest, name) for name in ranking.facts])
            if ranking.facts
            else np.empty((len(ids), 0), dtype=object),
            since,
            until,
        )


@dataclass(frozen=True)
class Behaviour:
    """Events of users with items of a catalogue, in the order of time.

    Attributes:
        users: ids, ascending texts.
        user, item: numbers of the user and of the item of each event, int64 ``[n]``.
        weight: ``[n]``; 0 for an event that says nothing about a liking.
        at: moments, datetime64[s] ``[n]``.
    """

    users: np.ndarray
    user: np.ndarray
    item: np.ndarray
    weight: np.ndarray
    at: np.ndarray

    def __len__(self) -> int:
        return len(self.user)

    @classmethod
    def of(cls, rows: pd.DataFrame, items: Items, ranking: Ranking, time: str | None) -> Behaviour:
        """Reads the events of users from rows of the log; events of items that are not in the catalogue are left out.

        A user who does the same to an item several times at the same moment counts once.
        """
        names = [ranking.user, ranking.item, ranking.event, *([time] if time else [])]
        rows = rows[rows[ranking.user].notna() & (rows[ranking.user].astype(str) != "")].drop_duplicates(names)
        if time is not None:
            rows = rows.sort_values(time, kind="stable")
        code = items.codes(rows[ranking.item].astype(str).to_numpy(dtype=object))
        users, user = np.unique(rows[ranking.user].astype(str).to_numpy(dtype=str), return_inverse=True)
        weight = np.maximum(rows[ranking.event].map(ranking.weight).to_numpy(dtype=np.float32), 0)
        known = code >= 0
        return cls(users.astype(object), user[known], code[known], weight[known], moments(rows, time)[known])

    def some(self, kept: np.ndarray) -> Behaviour:
        """Returns some of the events, by bool ``[n]`` or positions; users keep their numbers."""
        return Behaviour(self.users, self.user[kept], self.item[kept], self.weight[kept], self.at[kept])

    @property
    def liked(self) -> Behaviour:
        """The events that count for a liking."""
        return self.some(self.weight > 0)


@dataclass(frozen=True)
class Histories:
    """The latest events of some users: places that are not used have item −1.

    Attributes:
        item: ``[n, history]`` numbers of items, latest first.
        weight: float32 ``[n, history]``, by kind of event and age; 0 at places that are not used.
    """

    item: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.item)


def histories(
    past: Behaviour, user: np.ndarray, at: np.ndarray, ranking: Ranking, *, without: np.ndarray | None = None
) -> Histories:
    """Returns the latest likings of users before a moment.

    Args:
        past: events in the order of time.
        user: numbers of users, ``[n]``; −1 for a user without events.
        at: moments, ``[n]``; an event at the moment itself is not part of the history.
        ranking: the declaration.
        without: numbers of items that are left out of each history, ``[n]``, e.g. the item to be predicted.
    """
    liked = past.liked
    order = np.lexsort((liked.at, liked.user))
    of_user, item, weight, when = (one[order] for one in (liked.user, liked.item, liked.weight, liked.at))
    first = np.searchsorted(of_user, user, "left")
    timeless = len(when) == 0 or (when == TIMELESS).all()
    if timeless:
        end = np.searchsorted(of_user, user, "right")
    else:
        # Moments as whole numbers below a user's number, so that one search finds the end of each history.
        base = int(when.min().astype("int64"))
        span = int(max(when.max().astype("int64"), at.max().astype("int64")) - base) + 2
        key = of_user.astype(np.int64) * span + (when.astype("int64") - base)
        sought = user.astype(np.int64) * span + np.clip(at.astype("datetime64[s]").astype("int64") - base, 0, span - 1)
        end = np.maximum(np.searchsorted(key, sought, "left"), first)
    place = end[:, None] - 1 - np.arange(ranking.history)[None, :]
    there = (place >= first[:, None]) & (user >= 0)[:, None]
    place = np.where(there, place, 0)
    if len(item) == 0:
        return Histories(np.full(place.shape, -1), np.zeros(place.shape, np.float32))
    items, weights = item[place], weight[place].astype(np.float32)
    if without is not None:
        there &= items != without[:, None]
    if not timeless:
        age = (at.astype("datetime64[s]")[:, None] - when[place]) / DAY
        weights = weights * 0.5 ** (np.maximum(age, 0) / ranking.half_life_days).astype(np.float32)
    return Histories(np.where(there, items, -1), np.where(there, weights, 0).astype(np.float32))


def moments(rows: pd.DataFrame, time: str | None) -> np.ndarray:
    """Returns the moments of rows, datetime64[s] ``[n]``."""
    if time is None:
        return np.full(len(rows), TIMELESS)
    return rows[time].to_numpy().astype("datetime64[s]")


def _texts(rows: pd.DataFrame, column: str | None) -> np.ndarray:
    if column is None:
        return np.full(len(rows), "", dtype=object)
    return rows[column].astype("string").fillna("").to_numpy(dtype=object)

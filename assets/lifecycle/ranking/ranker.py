"""A fitted ranking at work: candidates, features, the ranking network, reasons and exploration, in numpy alone.

Belongs here: everything that turns a history into a list, as files and in memory. Does not belong here: fitting
(``fitting.py``), HTTP (``serving/scoring/ranking.py``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from assets.lifecycle.ranking.behaviour import DAY, Histories, Items
from assets.lifecycle.ranking.texts import content
from assets.lifecycle.ranking.towers import Weights, item_vectors, user_vectors
from assets.ranking import Ranking

ARRAYS, ITEMS = "ranking.npz", "items.json"
FEATURES = ("taste", "popular", "age", "new", "together", "text", "known")
"""What the ranking network reads of a candidate. The place of an item on a list is not among them, so that what was
shown on top is not learnt to be good."""
LATEST = 5
"""Latest items of a history that a candidate's text is compared with."""
NEIGHBOURS = 50
"""Kept neighbours of an item."""
REASONS = {"popular": "popular in the last days", "new": "new", "taste": "fits what you like"}


@dataclass(frozen=True)
class Moment:
    """What a list depends on beside the history.

    Attributes:
        at: the moment.
        popular: sum of the weights of the events of the last days by item, ``[m]``.
        there: bool ``[m]``: the items that may be on the list.
    """

    at: np.datetime64
    popular: np.ndarray
    there: np.ndarray


@dataclass(frozen=True)
class Listed:
    """One list.

    Attributes:
        item: numbers of items, best first.
        score: their scores.
        propensity: probability with which each item is at its place.
        explored: whether it was drawn at random.
        reason: why it is on the list.
    """

    item: np.ndarray
    score: np.ndarray
    propensity: np.ndarray
    explored: np.ndarray
    reason: tuple[str, ...]


@dataclass(frozen=True)
class Ranker:
    """A fitted ranking with its catalogue.

    Attributes:
        ranking: the declaration.
        items: the catalogue.
        weights: of the towers and the ranking network.
        code: number of each item when the weights were fitted, ``[m]``; −1 for a later item.
        known: content of each item, ``[m, c]``.
        values: values of each fact when the weights were fitted.
        neighbour, strength: items liked together with each fitted item, ``[fitted, 50]``, and how strongly.
        mean, spread: of the ranking network's features.
    """

    ranking: Ranking
    items: Items
    weights: Weights
    code: np.ndarray
    known: np.ndarray
    values: Sequence[Sequence[str]]
    neighbour: np.ndarray
    strength: np.ndarray
    mean: np.ndarray
    spread: np.ndarray

    @cached_property
    def vectors(self) -> np.ndarray:
        """Vectors of all items, ``[m, d]``."""
        return item_vectors(self.weights, self.known, self.code)

    @cached_property
    def texts(self) -> np.ndarray:
        """Vectors of the items' texts, ``[m, t]``; without texts, of their facts."""
        facts = sum(map(len, self.values))
        found = self.known[:, : self.known.shape[1] - facts] if self.ranking.text else self.known
        return np.ascontiguousarray(found)

    @cached_property
    def _place(self) -> np.ndarray:
        """Number in this catalogue of each fitted item; −1 for one that is not in it."""
        found = np.full(len(self.weights["item_id"]), -1)
        there = self.code >= 0
        found[self.code[there]] = np.flatnonzero(there)
        return found

    @cached_property
    def _index(self) -> Any:
        """The approximate index of a large catalogue; ``None``: the product with all vectors is exact and fast."""
        if len(self.items) <= self.ranking.exact_items:
            return None
        from usearch.index import Index

        index = Index(ndim=self.vectors.shape[1], metric="ip", dtype="f32")
        index.add(np.arange(len(self.items)), self.vectors, threads=1)
        return index

    def with_items(self, items: Items) -> Ranker:
        """Returns the ranking with another catalogue. An item that was not fitted is found by its content.

        Raises:
            LanguageError: a text is new, and the language model cannot be read.
        """
        old = self.items.codes(items.ids)
        same = old >= 0
        same[same] &= self.items.texts[old[same]] == items.texts[same]
        known = np.zeros((len(items), self.known.shape[1]), np.float32)
        known[same] = self.known[old[same]]
        if not same.all():
            other = Items(*(getattr(items, name)[~same] for name in ("ids", "texts", "facts", "since", "until")))
            known[~same] = content(other, self.ranking, self.values)
        code = np.where(old >= 0, self.code[np.maximum(old, 0)] if len(self.code) else -1, -1)
        return replace(self, items=items, code=code, known=known)

    def taste(self, history: Histories) -> np.ndarray:
        """Returns how well all items fit histories, ``[n, m]``, from −1 to 1: the product of the towers."""
        return user_vectors(self.weights, self.vectors, history) @ self.vectors.T

    def together(self, history: Histories) -> np.ndarray:
        """Returns how strongly all items are liked together with those of histories, ``[n, m]``."""
        found = np.zeros((len(history), len(self.items)), np.float32)
        if not len(self.items):
            return found
        fitted = np.where(history.item >= 0, self.code[np.maximum(history.item, 0)], -1)
        for i in range(len(history)):
            for j in np.flatnonzero(fitted[i] >= 0):
                place = self._place[self.neighbour[fitted[i, j]]]
                there = place >= 0
                found[i, place[there]] += history.weight[i, j] * self.strength[fitted[i, j]][there]
        return found

    def candidates(self, taste: np.ndarray, together: np.ndarray, moment: Moment, without: np.ndarray) -> np.ndarray:
        """Returns the numbers of the candidates of one list: the best by taste, by company and by popularity."""
        there = moment.there.copy()
        there[without[without >= 0]] = False
        most = self.ranking.candidates
        if there.sum() <= most:
            return np.flatnonzero(there)
        chosen = [
            _best(np.where(there, scores, -np.inf), most * share // 4)
            for scores, share in ((taste, 2), (together, 1), (moment.popular, 1))
        ]
        return np.unique(np.concatenate(chosen))

    def features(
        self, item: np.ndarray, taste: np.ndarray, together: np.ndarray, moment: Moment, history: np.ndarray
    ) -> np.ndarray:
        """Returns what the ranking network reads of candidates, float32 ``[c, f]``, not standardised.

        Taste and company are relative to the other candidates of the list, because their scale changes with each fit of
        the towers.

        Args:
            item: numbers of the candidates.
            taste, together: of all items, ``[m]``.
            moment: the moment.
            history: numbers of the items of the history, latest first, −1 at unused places.
        """
        since = self.items.since[item]
        age = np.maximum((moment.at - since) / DAY, 0) if not np.isnat(moment.at) else np.zeros(len(item))
        latest = history[history >= 0][:LATEST]
        close = (self.texts[item] @ self.texts[latest].T).max(axis=1) if len(latest) else np.zeros(len(item))
        total = max(float(moment.popular.sum()), 1e-9)
        return np.column_stack(
            [
                _relative(taste[item]),
                np.log1p(moment.popular[item] / total * len(self.items)),
                np.log1p(age),
                age < self.ranking.new_days,
                _relative(together[item]),
                close,
                self.code[item] >= 0,
            ]
        ).astype(np.float32)

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Returns the scores of candidates from their features ``[c, f]``; higher is better."""
        hidden = np.maximum(
            (features - self.mean) / self.spread @ self.weights["rank_1"] + self.weights["rank_1_bias"], 0
        )
        return hidden @ self.weights["rank_2"]

    def lists(
        self,
        history: Histories,
        moment: Moment,
        k: int,
        *,
        repeats: bool = False,
        candidates: np.ndarray | None = None,
        seed: int | None = None,
    ) -> list[Listed]:
        """Returns a list for each history, of at most ``k`` items.

        Args:
            history: the histories.
            moment: when, and which items there are.
            k: length of the lists.
            repeats: whether items of the history may be on the list.
            candidates: numbers of the only items that may be on the list; default: all.
            seed: of the draws of exploration; ``None``: no exploration.
        """
        if candidates is not None:
            among = np.zeros(len(self.items), dtype=bool)
            among[candidates] = True
            moment = replace(moment, there=moment.there & among)
        together = self.together(history)
        taste = self._taste_of_some(history) if self._index is not None else self.taste(history)
        found = []
        for i in range(len(history)):
            without = np.empty(0, np.int64) if repeats else history.item[i]
            pool = self.candidates(taste[i], together[i], moment, without)
            if len(pool) == 0:
                none = np.empty(0)
                found.append(Listed(none.astype(int), none, none, none.astype(bool), ()))
                continue
            features = self.features(pool, taste[i], together[i], moment, history.item[i])
            scores = self.scores(features)
            order = np.argsort(-scores, kind="stable")
            rng = None if seed is None else np.random.default_rng([seed, i])
            chosen, propensity, explored = explore(order, k, self.ranking.exploration, rng)
            reasons = self._reasons(pool[chosen], features[chosen], history.item[i])
            found.append(Listed(pool[chosen], scores[chosen], propensity, explored, reasons))
        return found

    def _taste_of_some(self, history: Histories) -> np.ndarray:
        """Tastes of the items that the approximate index finds; −1, the lowest, for all others."""
        found = np.full((len(history), len(self.items)), -1.0, np.float32)
        users = user_vectors(self.weights, self.vectors, history)
        for i, user in enumerate(users):
            near = np.asarray(self._index.search(user, 2 * self.ranking.candidates).keys, dtype=np.int64)
            found[i, near] = self.vectors[near] @ user
        return found

    def _reasons(self, item: np.ndarray, features: np.ndarray, history: np.ndarray) -> tuple[str, ...]:
        """The strongest reason for each item of a list, in words."""
        of = (features - self.mean) / self.spread
        latest = history[history >= 0][:LATEST]
        near = self.texts[item] @ self.texts[latest].T if len(latest) else np.zeros((len(item), 0))
        found = []
        for i in range(len(item)):
            by = {name: of[i, FEATURES.index(name)] for name in ("taste", "popular", "together", "text")}
            if not len(latest):
                by = {"popular": by["popular"]}
            if features[i, FEATURES.index("new")]:
                found.append(REASONS["new"])
                continue
            name = max(by, key=lambda one: by[one])
            if name in ("together", "text"):
                like = int(latest[near[i].argmax()])
                found.append(f"similar to {self.items.texts[like] or self.items.ids[like]!r}")
            else:
                found.append(REASONS[name])
        return tuple(found)

    # -- files -------------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Writes :data:`ARRAYS` and :data:`ITEMS`; the declaration is kept by the version's code."""
        arrays = {f"w_{name}": value for name, value in self.weights.items()}
        named = ("code", "known", "neighbour", "strength", "mean", "spread")
        arrays |= {name: getattr(self, name) for name in named}
        arrays |= {name: getattr(self.items, name).astype("int64") for name in ("since", "until")}
        np.savez_compressed(folder / ARRAYS, **arrays)  # type: ignore[arg-type] # none is named allow_pickle
        told = {"ids": list(self.items.ids), "texts": list(self.items.texts), "facts": self.items.facts.tolist(),
                "values": [list(one) for one in self.values]}  # fmt: skip
        (folder / ITEMS).write_text(json.dumps(told), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, ranking: Ranking) -> Ranker:
        """Reads what :meth:`save` wrote. Raises :class:`OSError` or :class:`ValueError` for a damaged file."""
        with np.load(folder / ARRAYS, allow_pickle=False) as stored:
            arrays: Mapping[str, np.ndarray] = {name: stored[name] for name in stored.files}
        told = json.loads((folder / ITEMS).read_text(encoding="utf-8"))
        facts = np.array(told["facts"], dtype=object).reshape(len(told["ids"]), -1)
        since, until = (arrays[name].astype("datetime64[s]") for name in ("since", "until"))
        items = Items(np.array(told["ids"], dtype=object), np.array(told["texts"], dtype=object), facts, since, until)
        weights = {name[2:]: value for name, value in arrays.items() if name.startswith("w_")}
        named = ("code", "known", "neighbour", "strength", "mean", "spread")
        return cls(ranking, items, weights, values=told["values"], **{name: arrays[name] for name in named})


def explore(
    order: np.ndarray, k: int, share: float, rng: np.random.Generator | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws some places of a list at random.

    The best ``k`` keep their place with probability ``1 − share``. The other places get items of the pool behind them,
    each equally likely and at most once. So the probability of an item at a place is known, whatever is at the others.

    Args:
        order: positions of the candidates, best first.
        k: length of the list.
        share: probability that a place is drawn.
        rng: source of the draws; ``None``: none is drawn.

    Returns:
        Positions on the list, the probability of each at its place, and whether it was drawn.
    """
    chosen = order[:k].copy()
    pool = order[k:]
    explored = np.zeros(len(chosen), dtype=bool)
    if rng is None or share <= 0 or len(pool) < len(chosen):
        return chosen, np.ones(len(chosen)), explored
    explored = rng.random(len(chosen)) < share
    chosen[explored] = rng.choice(pool, int(explored.sum()), replace=False)
    return chosen, np.where(explored, share / len(pool), 1 - share), explored


def strongest(weights: np.ndarray, n: int = NEIGHBOURS) -> tuple[np.ndarray, np.ndarray]:
    """Returns the places and values of the largest weights of each row, ``[m, n]`` each (fewer if m is less)."""
    n = min(n, weights.shape[1])
    place = np.argpartition(-weights, n - 1, axis=1)[:, :n]
    return place, np.take_along_axis(weights, place, axis=1).astype(np.float32)


def _relative(scores: np.ndarray) -> np.ndarray:
    """Scores minus their mean, in standard deviations; zeros if all are the same."""
    return (scores - scores.mean()) / max(float(scores.std()), 1e-6)


def _best(scores: np.ndarray, n: int) -> np.ndarray:
    """Positions of the n highest finite scores, in no order."""
    n = min(max(n, 1), len(scores))
    found = np.argpartition(-scores, n - 1)[:n]
    return found[np.isfinite(scores[found])]

"""Measures the ranking on real ratings: NDCG@10 of the model and of each baseline, paired by user.

    python -m benchmarks.ranking --data DIR [--seeds 3] [--language]
    OMP_NUM_THREADS=1 python -m benchmarks.ranking --latency [--items 10000]   # one thread, as in the service

``DIR`` has ``film_ratings.csv`` (user, film, centred rating) and ``films.csv`` (title, genres). A film is liked if its
rating is above the user's mean. A fifth of each user's liked films is held out; lists are made of the films that the
user has not rated among the others. There are no moments, so nothing is learnt from the order.

``--latency`` times lists of the whole service in one process, without a network: random vectors of as many items, and
requests with two events each.

Belongs here: the measurements. Does not belong here: the model (``assets/lifecycle/ranking``).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from assets.language import Language
from assets.lifecycle.ranking.baselines import NAMES, baseline_scores, popularity
from assets.lifecycle.ranking.behaviour import Behaviour, Items, histories
from assets.lifecycle.ranking.fitting import fit_ranking, moment_of
from assets.lifecycle.ranking.measures import Asked, ByList, measure
from assets.lifecycle.ranking.ranker import FEATURES, Moment, Ranker
from assets.lifecycle.ranking.texts import categories, content
from assets.ranking import Ranking
from serving.scoring.ranking import Catalogue, Lists

HELD_OUT = 0.2
LEAST = 5
"""Fewest liked films of a user who is measured."""


def rows_of(folder: Path) -> pd.DataFrame:
    """Returns the likings with the films' titles and genres, as a log of events without time."""
    rated = pd.read_csv(folder / "film_ratings.csv")
    films = pd.read_csv(folder / "films.csv")
    liked = rated[rated["rating"] > 0].merge(films, on="movieId")
    return pd.DataFrame({
        "user": liked["userId"].astype(str), "film": liked["movieId"].astype(str), "event": "like",
        "title": liked["title"] + " " + liked["genres"].str.replace("|", " "),
        "genre": liked["genres"].str.split("|").str[0],
    })  # fmt: skip


def held_out(rows: pd.DataFrame, seed: int) -> np.ndarray:
    """Returns bool ``[n]``: a fifth of the likings of each user with enough of them."""
    rng = np.random.default_rng(seed)
    test = np.zeros(len(rows), dtype=bool)
    for places in rows.groupby("user").indices.values():
        if len(places) >= LEAST:
            test[rng.permutation(places)[: max(1, round(HELD_OUT * len(places)))]] = True
    return test


def measured(rows: pd.DataFrame, ranking: Ranking, seed: int) -> dict[str, ByList]:
    """Returns the measures by list of the model and of each baseline."""
    test = held_out(rows, seed)
    items = Items.of(rows, ranking, None)
    behaviour = Behaviour.of(rows, items, ranking, None)
    past, later = behaviour.some(~test), behaviour.some(test)
    users = np.unique(later.user)
    asked = Asked(
        users,
        [later.item[later.user == u] for u in users],
        [later.weight[later.user == u] for u in users],
    )
    fitted = fit_ranking(past, items, ranking, seed=seed, log=lambda _: None)
    history = histories(past, users, np.full(len(users), np.datetime64(0, "s")), ranking)
    moment = moment_of(past, items, None)
    lists = {"model": [one.item for one in fitted.ranker.lists(history, moment, ranking.k)]}
    scores = baseline_scores(past, history, items, ranking, popularity(past, len(items)), seed=seed)
    for name in NAMES:
        of = np.array(scores[name])
        for i in range(len(users)):
            of[i, history.item[i][history.item[i] >= 0]] = -np.inf
        lists[name] = list(np.argsort(-of, axis=1, kind="stable")[:, : ranking.k])
    share = popularity(past, len(items)) / len(past)
    new = np.zeros(len(items), dtype=bool)
    return {
        name: measure(np.stack([np.pad(one, (0, ranking.k - len(one)), constant_values=-1) for one in found]), asked,
                      k=ranking.k, share=share, new=new)
        for name, found in lists.items()
    }  # fmt: skip


def latency(count: int, lists: int = 200) -> None:
    """Prints the median and the 95th percentile of a list, from a request with two events."""
    ranking = Ranking(user="user", item="item", event="event", weights={"click": 1.0}, text="title", facts=("topic",))
    rng = np.random.default_rng(0)
    n, start = 60_000, np.datetime64("2026-01-01", "s")
    rows = pd.DataFrame({
        "user": rng.integers(0, 3_000, n).astype(str), "item": rng.integers(0, count, n).astype(str),
        "event": "click", "at": start + np.sort(rng.integers(0, 14 * 86_400, n)).astype("timedelta64[s]"),
    })  # fmt: skip
    rows["title"], rows["topic"] = "words of " + rows["item"], (rows["item"].astype(int) % 20).astype(str)
    items = Items.of(rows, ranking, "at")
    past = Behaviour.of(rows, items, ranking, "at")
    width, values = ranking.width, categories(items)
    weights = {
        "item_id": rng.normal(size=(len(items), width)).astype(np.float32),
        "nobody": np.zeros(width, np.float32), "user_1": np.eye(width, dtype=np.float32),
        "user_1_bias": np.zeros(width, np.float32), "user_2": np.zeros((width, width), np.float32),
        "rank_1": rng.normal(size=(len(FEATURES), 16)).astype(np.float32), "rank_1_bias": np.zeros(16, np.float32),
        "rank_2": rng.normal(size=16).astype(np.float32),
    }  # fmt: skip
    known = content(items, ranking, values)
    weights["content"] = rng.normal(size=(known.shape[1], width)).astype(np.float32)
    near = rng.integers(0, len(items), (len(items), 50))
    zeros, ones = np.zeros(len(FEATURES), np.float32), np.ones(len(FEATURES), np.float32)
    ranker = Ranker(ranking, items, weights, np.arange(len(items)), known, values, near,
                    rng.random(near.shape).astype(np.float32), zeros, ones)  # fmt: skip
    at = rows["at"].max().to_datetime64().astype("datetime64[s]")
    catalogue = Catalogue(None, ranker, past, pd.Index(past.users), popularity(past, len(items), at))
    moment, known_lists, times = Moment(at, catalogue.popular, items.there(at)), Lists(), []
    for i in range(lists + 20):
        began = time.perf_counter()
        user = str(rng.integers(0, 3_000))
        sent = [{"item": str(one), "event": "click", "at": str(at), "weight": 1.0} for one in rng.integers(0, count, 2)]
        known_lists.add(user, sent)
        ranker.lists(known_lists.history(catalogue, user, ranking, at), moment, 10, seed=i)
        times.append(1_000 * (time.perf_counter() - began))
    median, high = np.quantile(times[20:], [0.5, 0.95])
    print(f"{len(items):,} items, {lists} lists: median {median:.2f} ms, 95th percentile {high:.2f} ms")


def main() -> None:
    """Prints NDCG@10 by seed, and the paired difference from the best baseline over all seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--latency", action="store_true", help="time lists instead")
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--language", action="store_true", help="titles by the language model, not by their words")
    given = parser.parse_args()
    if given.latency:
        latency(given.items)
        return
    if given.data is None:
        parser.error("--data is missing: the folder with film_ratings.csv and films.csv")
    rows = rows_of(given.data)
    ranking = Ranking(
        user="user", item="film", event="event", weights={"like": 1.0}, text="title", facts=("genre",),
        language=Language() if given.language else None, history=100, epochs=8,
    )  # fmt: skip
    found = [measured(rows, ranking, seed) for seed in range(given.seeds)]
    for name in found[0]:
        values = [float(one[name].values["ndcg"].mean()) for one in found]
        recall = [float(one[name].values["recall"].mean()) for one in found]
        print(f"{name:12} NDCG@10 {np.mean(values):.4f}  {np.round(values, 4).tolist()}  recall {np.mean(recall):.4f}")
    best = max(NAMES, key=lambda name: np.mean([one[name].values["ndcg"].mean() for one in found]))
    by_user = pd.concat(
        pd.DataFrame({"user": one["model"].user, "d": one["model"].values["ndcg"] - one[best].values["ndcg"]})
        for one in found
    )
    means = by_user.groupby("user")["d"].mean()
    error = means.std(ddof=1) / len(means) ** 0.5
    print(f"model − {best}: {means.mean():+.4f}, standard error {error:.4f} by user: {means.mean() / error:+.1f}")


if __name__ == "__main__":
    main()

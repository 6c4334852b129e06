"""The upstream of the recommendations: articles and their readers, simulated.

Readers have tastes over topics. A reader sees lists of twenty articles, chosen by popularity, newness and a little
taste, and opens one with a probability that falls with its place (position bias) and rises with taste. From the day of
the change on, four readers in five turn to other topics, one of which is new.

Belongs here: who sees and does what on a day, and how the rows are spoilt. Does not belong here: the world's settings
(``world.py``), the meaning of the columns (``tables.py``).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from pydantic import Field

from assets.models.recommend.world import PLAN, SIZES
from assets.simulated import World, yesterday
from resources.settings import Settings
from resources.sources import SourceError, Stream

WORDS = {
    "cycling": "bike saddle climb race wheel helmet trail pedal",
    "baking": "bread oven flour dough cake yeast crust recipe",
    "gardens": "soil seed tomato hedge prune bloom compost rose",
    "films": "director actor scene festival script cinema premiere studio",
    "chess": "opening knight endgame bishop rating tournament gambit rook",
    "sailing": "wind harbour mast regatta keel tide rope deck",
    "history": "empire king archive treaty castle medieval letters siege",
    "space": "rocket orbit telescope moon probe comet launch galaxy",
    "music": "concert guitar album choir melody drummer stage violin",
    "money": "savings pension budget mortgage interest shares tax bank",
    "robots": "sensor gripper motor factory circuit drone code assembly",
}
"""Words of each topic. The last topic appears on the day of the change."""
TOPICS = tuple(WORDS)
LIFE_DAYS = 10
"""Days for which an article is shown."""
SEEN, VISITS = 20, 0.75
"""Articles on a shown list, and probability that a reader comes on a day."""
DIRTY, LATE = 0.01, 0.01
"""Shares of rows that are spoilt, and that land a day or two later."""
TURNED = 0.8
"""Share of the readers whose taste turns."""
_EXTRA = "how why guide first best new what city winter summer small great short long easy".split()


@dataclass(frozen=True)
class Articles:
    """All articles of a world: ``[m]`` each."""

    id: np.ndarray
    topic: np.ndarray
    title: np.ndarray
    day: np.ndarray
    quality: np.ndarray


class WorldActivity(Stream):
    """The activity in the state folder's own world (``world-recommend.json``), which the story draws up."""

    first_day: str = Field(default="", description="First day of a world of its own; empty: the state folder's world.")
    shift_from: str = Field(default="", description="Day of the change in a world of its own.")
    seed: int = Field(default=0, description="Seed of a world of its own.")

    def _world(self) -> World | None:
        if self.first_day:
            return World(dt.date.fromisoformat(self.first_day), dt.date.fromisoformat(self.shift_from), seed=self.seed)
        return PLAN.find(Settings.from_env().home)

    def land(self, day: dt.date) -> pd.DataFrame:
        """See :class:`~resources.sources.Stream`."""
        world = self._world()
        if world is None:
            raise SourceError("the simulated world is not drawn up yet; run `assetline run --model recommend`")
        if day < world.first_day:
            raise SourceError(f"{day}: the simulated world begins on {world.first_day}; land that day or a later one")
        number = (day - world.first_day).days
        parts = []
        for late in range(min(number, 2) + 1):
            rows, delay = _sent(world, number - late)
            parts.append(rows[delay == late])
        return pd.concat(parts, ignore_index=True)

    def land_labels(self, day: dt.date) -> pd.DataFrame:
        """Raises :class:`~resources.sources.SourceError`: an event is its own label."""
        raise SourceError("there are no labels: an event is its own label")

    def landed_until(self) -> dt.date:
        """Returns yesterday, UTC; before there is a world, the day before the table starts, so that nothing lands."""
        from assets.models.recommend.tables import START

        return yesterday() if self._world() is not None else START - dt.timedelta(days=1)


@lru_cache(maxsize=4)
def articles(world: World) -> Articles:
    """Returns all articles that appear within two years."""
    rng = np.random.default_rng([world.seed, 1])
    per_day = SIZES[world.size].articles
    shift = (world.shift_from - world.first_day).days
    day = np.repeat(np.arange(-LIFE_DAYS, 730), per_day)
    topic = np.arange(len(day)) % (len(TOPICS) - 1)  # each topic appears equally often, so that only tastes change
    # Each fifth article after the change is of the new topic.
    topic = np.where((day >= shift) & (rng.random(len(day)) < 0.2), len(TOPICS) - 1, topic)
    words = [WORDS[name].split() for name in TOPICS]
    title = [
        " ".join(rng.permutation([*rng.choice(words[t], 3, replace=False), *rng.choice(_EXTRA, 2, replace=False)]))
        for t in topic
    ]
    ids = np.array([f"a{i:06d}" for i in range(len(day))], dtype=object)
    return Articles(ids, topic, np.array(title, dtype=object), day, rng.normal(0, 0.4, len(day)))


@lru_cache(maxsize=4)
def tastes(world: World) -> tuple[np.ndarray, np.ndarray]:
    """Returns how much each reader likes each topic before and after the change, ``[readers, topics]`` each."""
    rng = np.random.default_rng([world.seed, 2])
    n, k = SIZES[world.size].readers, len(TOPICS)

    def drawn(chance: np.ndarray) -> np.ndarray:
        found = np.zeros((n, k))
        for row in found:
            row[rng.choice(k, 2, replace=False, p=chance)] = rng.uniform(0.7, 1.0, 2)
        return found

    half = (k - 1) // 2
    before = np.concatenate([np.full(half, 4.0), np.full(k - 1 - half, 1.0), [0.0]])
    after = np.concatenate([np.full(half, 1.0), np.full(k - 1 - half, 4.0), [8.0]])
    old, other = drawn(before / before.sum()), drawn(after / after.sum())
    return old, np.where((rng.random(n) < TURNED)[:, None], other, old)


def chance_of_opening(taste: np.ndarray, quality: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Returns the probability that an article is opened: looked at (by its place, from 0) and liked."""
    return 1 / (1 + place) ** 0.5 / (1 + np.exp(3.2 - 4.2 * taste - quality))


@lru_cache(maxsize=6)
def happened(world: World, number: int) -> pd.DataFrame:
    """Returns what happened on a day, in the order of time: the true rows, without dirt."""
    rng = np.random.default_rng([world.seed, 3, number])
    every, day = articles(world), world.first_day + dt.timedelta(days=number)
    midnight = pd.Timestamp(day)
    liking = tastes(world)[int(day >= world.shift_from)]
    shown = np.flatnonzero((every.day > number - LIFE_DAYS) & (every.day <= number))
    age = number - every.day[shown]
    appeal = rng.gumbel(0, 0.3, len(shown)) + every.quality[shown] - 0.15 * age
    rows: list[tuple[str, str, str, float, int]] = [
        ("", every.id[item], "publish", float(rng.uniform(0, 3_600)), -1)
        for item in np.flatnonzero(every.day == number)
    ]
    gone = np.flatnonzero((every.day == number - LIFE_DAYS) & (number > 0))
    rows += [("", every.id[item], "withdraw", 5.0, -1) for item in gone]
    for reader in np.flatnonzero(rng.random(len(liking)) < VISITS):
        taste = liking[reader, every.topic[shown]]
        order = np.argsort(-(appeal + 0.8 * taste + rng.gumbel(0, 0.9, len(shown))))[:SEEN]
        began = float(rng.uniform(3_700, 85_000))
        opened = rng.random(len(order)) < chance_of_opening(
            taste[order], every.quality[shown[order]], np.arange(len(order))
        )
        for place, (at, is_open) in enumerate(zip(shown[order], opened, strict=True)):
            moment = began + 5 * place
            rows.append((f"r{reader:05d}", every.id[at], "view", moment, place))
            if is_open:
                rows.append((f"r{reader:05d}", every.id[at], "click", moment + 2, place))
                for event, chance in (("comment", 0.08), ("share", 0.05)):
                    if rng.random() < chance:
                        rows.append((f"r{reader:05d}", every.id[at], event, moment + 4, place))
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "event", "second", "place"])
    frame = frame.sort_values("second", kind="stable").reset_index(drop=True)
    code = frame["item_id"].str[1:].astype(int).to_numpy()
    return frame.assign(
        event_id=[f"{day:%Y%m%d}-{i:06d}" for i in range(len(frame))],
        at=midnight + pd.to_timedelta(np.minimum(frame.pop("second"), 86_399).astype(int), "s"),
        title=every.title[code],
        topic=np.array(TOPICS, dtype=object)[every.topic[code]],
    )


@lru_cache(maxsize=6)
def _sent(world: World, number: int) -> tuple[pd.DataFrame, np.ndarray]:
    """All rows that are ever sent about a day, as text, and the days by which each is late."""
    rng = np.random.default_rng([world.seed, 4, number])
    true = happened(world, number)
    rows = true[["event_id", "at", "user_id", "item_id", "event", "place", "title", "topic"]].astype("string[pyarrow]")
    rows["at"] = true["at"].dt.strftime("%Y-%m-%d %H:%M:%S").astype("string[pyarrow]")
    late = np.where(rng.random(len(rows)) < LATE, rng.integers(1, 3, len(rows)), 0)
    kind = np.where(rng.random(len(rows)) < DIRTY, rng.integers(0, 4, len(rows)), -1)
    for i, column in enumerate(("at", "item_id", "event")):
        rows.loc[kind == i, column] = ("yesterday", "", "clik")[i]
    copies = rows[kind == 3]
    return (
        pd.concat([rows, copies], ignore_index=True),
        np.concatenate([late, np.zeros(len(copies), dtype=int)]),
    )

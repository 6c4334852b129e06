"""The upstream of the models ``news`` and ``news_topics``: short English texts, simulated from templates.

Every day can be made alone and is always the same. Texts come through the day with a weekday pattern, and more or fewer
on a topic than usual, as real ones do. Some land late, twice, empty, as a bare link, or in another script. Editors say
topic and sentiment a day later, and are wrong about some. From the day of the shift, many texts are about new
things in new words, and for some days negative texts on one topic are several times as many.

Belongs here: the texts, the rows that land, and the plan of the world. Does not belong here: the contract
(``tables.py``), the story (``story/news.py``).
"""

from __future__ import annotations

import datetime as dt
import enum
from functools import lru_cache

import numpy as np
import pandas as pd

from assets.models.news.tables import SENTIMENTS
from assets.simulated import World, WorldPlan, yesterday
from resources.settings import Settings
from resources.sources import SourceError, Stream

PLAN = WorldPlan(file="world-news.json", story_days=47, shift_after_days=35)
"""The world turns on day 36: a new vocabulary for good, and a surge for :data:`SURGE_DAYS` days."""
LABEL_DELAY = dt.timedelta(days=1)
SURGE_TOPIC, SURGE_DAYS, SURGE_FACTOR = "supply", 4, 5.0
"""The negative texts of this topic are this many times as many."""
NEW_SHARE = 0.5
"""Share of texts in the new vocabulary from the shift on."""
TEXTS_A_DAY = 54.0
WEEKDAYS = np.array([1.15, 1.25, 1.25, 1.2, 1.15, 0.5, 0.5])
DISPERSION = 1.2
"""Variance of a topic's count over Poisson's."""
WRONG_LABELS = 0.04
LATE, TWICE, EMPTY, LINK, OTHER_SCRIPT = 0.02, 0.01, 0.008, 0.006, 0.006
"""Shares of the texts that land a day or two late, twice, empty, as a bare link, and in another script."""
HOURS = np.array([1, 1, 1, 1, 1, 2, 4, 7, 9, 9, 8, 7, 6, 7, 8, 8, 7, 6, 5, 4, 3, 3, 2, 1], dtype=float)
_IDS_A_DAY = 10_000
TEXT = pd.StringDtype("pyarrow")

COMPANIES = ["Arvela", "Brightport", "Caldwin", "Dunmore Steel", "Estrano", "Fenwick Foods", "Galvex", "Horizon Air"]
NEW_COMPANIES = ["Quantiva", "Robolux", "Skyhelm", "Neurana"]
THINGS = {
    "deals": ["the takeover of a rival", "its merger talks", "the sale of its retail arm", "a joint venture in Asia"],
    "earnings": ["quarterly profit", "its full year results", "operating margin", "revenue in the third quarter"],
    "jobs": ["hiring at its plants", "pay talks with the union", "staff at the head office", "its workforce plan"],
    "lawsuits": ["the patent trial", "a class action by customers", "the antitrust case", "its appeal in court"],
    "products": ["its new phone", "the electric van", "the latest software release", "its range of snacks"],
    "supply": ["deliveries of chips", "its container shipping", "the parts warehouse", "raw material stocks"],
}
NEW_THINGS = {
    "deals": ["the tokenised share swap", "a stake in a satellite fund"],
    "earnings": ["income from agent subscriptions", "carbon credit revenue"],
    "jobs": ["its retraining for robot crews", "four day week contracts"],
    "lawsuits": ["the deepfake liability suit", "a hearing on training data"],
    "products": ["its household robot", "the brain implant headset"],
    "supply": ["the drone freight corridor", "rare earth export licences"],
}
SAID = {
    "negative": [
        "{c} warns that {t} will be worse than feared", "Shares of {c} slump on bad news about {t}",
        "Analysts are worried about {t} at {c}", "{c} disappoints with {t}", "Serious trouble for {c}: {t} in crisis",
        "{c} apologises for failures around {t}",
    ],
    "neutral": [
        "{c} publishes an update on {t}", "{c} to comment on {t} next week", "What to know about {t} at {c}",
        "{c} says plans for {t} are unchanged", "Board of {c} meets to discuss {t}", "A look at {t} of {c}",
    ],
    "positive": [
        "{c} celebrates a great success with {t}", "Shares of {c} jump as {t} beats hopes",
        "Analysts praise {t} at {c}", "{c} delighted by strong {t}", "Good news for {c}: {t} improves again",
        "{c} wins applause for {t}",
    ],
}  # fmt: skip
NEW_SAID = {
    "negative": ["{t} glitches burn {c} badly", "{c} melts down over {t}, backers flee"],
    "neutral": ["{c} files a briefing note on {t}", "Panel reviews {t} by {c}"],
    "positive": ["{c} soars skyward thanks to {t}", "{t} dazzles, {c} backers cheer"],
}
PLACES = ["Leeds", "Porto", "Gdansk", "Lyon", "Cork", "Turin", "Malmo", "Basel", "Ghent", "Graz", "Bergen", "Riga"]
TAILS = [
    "{n} staff work at the site in {p}.",
    "Sources in {p} put it at {n} million euros.",
    "{p} desk, item {n}.",
    "The note from {p} runs to {n} pages.",
    "Investors in {p} hold {n} thousand shares.",
]
"""Second sentences, so that few texts are equal; they say nothing of topic or sentiment."""
ELSEWHERE = ["供应链出现严重问题", "Компания сообщает о рекордной прибыли", "新製品の発表会を開催", "صفقة جديدة للشركة"]


class _Draw(enum.IntEnum):
    TEXTS = 0
    LANDING = 1


class WorldNews(Stream):
    """The texts of the state folder's own world. It has no days until ``assetline run --model news`` draws it up."""

    def land(self, day: dt.date) -> pd.DataFrame:
        """The rows that arrived on a day, as text. Raises :class:`SourceError` outside of the world."""
        return landed(self._world(day), day)

    def land_labels(self, day: dt.date) -> pd.DataFrame:
        """What editors said of the texts of three days before."""
        world = self._world(day)
        known = texts_of(world, day - LABEL_DELAY)  # of the first days, labels of texts before the world
        said = known[["news_id", "said_sentiment", "said_topic"]]
        return said.set_axis(["news_id", "sentiment", "topic"], axis=1).astype(TEXT).reset_index(drop=True)

    def landed_until(self) -> dt.date:
        """Yesterday, UTC; long ago where there is no world yet, so that nothing is asked for."""
        return yesterday() if PLAN.find(Settings.from_env().home) else dt.date(2000, 1, 1)

    def _world(self, day: dt.date) -> World:
        world = PLAN.find(Settings.from_env().home)
        if world is None:
            raise SourceError(
                "there is no simulated news in this state folder: `assetline run --model news` draws it up"
            )
        if day < world.first_day:
            raise SourceError(f"{day}: the simulated news begins on {world.first_day}; land that day or a later one")
        return world


@lru_cache(maxsize=8)
def texts_of(world: World, day: dt.date) -> pd.DataFrame:
    """The true texts of a day by time: news_id, published_at, text, topic, sentiment, and what editors say of them.

    Callers must not change the result.
    """
    number = (day - world.first_day).days
    rng = np.random.default_rng([world.seed, _Draw.TEXTS, number + 100])
    since = (day - world.shift_from).days
    topics, sentiments = [], []
    for topic in THINGS:
        for sentiment, share in zip(SENTIMENTS, (0.3, 0.4, 0.3), strict=True):
            mean = TEXTS_A_DAY / len(THINGS) * share * WEEKDAYS[day.weekday()]
            if topic == SURGE_TOPIC and sentiment == "negative" and 0 <= since < SURGE_DAYS:
                mean *= SURGE_FACTOR
            n = rng.poisson(rng.gamma(mean / (DISPERSION - 1), DISPERSION - 1))
            topics += [topic] * n
            sentiments += [sentiment] * n
    order = rng.permutation(len(topics))
    of_topic, said = (np.array(one, dtype=object)[order] for one in (topics, sentiments))
    hours = rng.choice(24, len(order), p=HOURS / HOURS.sum())
    seconds = np.sort(hours * 3_600 + rng.integers(0, 3_600, len(order)))
    new = rng.random(len(order)) < (NEW_SHARE if since >= 0 else 0.0)

    def written(i: int) -> str:
        company = rng.choice(NEW_COMPANIES if new[i] else COMPANIES)
        thing = rng.choice((NEW_THINGS if new[i] else THINGS)[of_topic[i]])
        text = str(rng.choice((NEW_SAID if new[i] else SAID)[said[i]])).format(c=company, t=thing)
        tail = str(rng.choice(TAILS)).format(n=rng.integers(2, 1_000), p=rng.choice(PLACES))
        return f"{text[0].upper()}{text[1:]}. {tail}"

    wrong = rng.random(len(order)) < WRONG_LABELS
    return pd.DataFrame(
        {
            "news_id": (number + 100) * _IDS_A_DAY + np.arange(len(order)),
            "published_at": pd.Timestamp(day) + pd.to_timedelta(seconds, "s"),
            "text": [written(i) for i in range(len(order))],
            "topic": of_topic,
            "sentiment": said,
            "said_topic": np.where(wrong, rng.choice(list(THINGS), len(order)), of_topic),
            "said_sentiment": np.where(wrong, rng.choice(SENTIMENTS, len(order)), said),
        }
    )


def landed(world: World, day: dt.date) -> pd.DataFrame:
    """The rows that land on a day, as text: those of the day, and late ones of the two days before."""
    parts = [
        _sent(world, day - dt.timedelta(days=age))
        for age in (2, 1, 0)
        if day - dt.timedelta(days=age) >= world.first_day
    ]
    rows = pd.concat(parts, ignore_index=True)
    return rows[rows["lands_on"] == day].drop(columns="lands_on").astype(TEXT).reset_index(drop=True)


def _sent(world: World, day: dt.date) -> pd.DataFrame:
    """All rows that are ever sent of a day's texts."""
    truth = texts_of(world, day)
    rng = np.random.default_rng([world.seed, _Draw.LANDING, (day - world.first_day).days + 100])
    n = len(truth)
    text = truth["text"].to_numpy(dtype=object).copy()
    kind = np.searchsorted(np.cumsum([EMPTY, LINK, OTHER_SCRIPT]), rng.random(n), side="right")
    text[kind == 0] = "  "
    text[kind == 1] = [f"https://news.example/a/{number}" for number in truth["news_id"][kind == 1]]
    text[kind == 2] = (
        np.array(ELSEWHERE, dtype=object)[rng.integers(0, len(ELSEWHERE), n)][kind == 2]
        + " "
        + truth["news_id"].astype(str)[kind == 2].to_numpy(dtype=object)
    )
    late = np.where(rng.random(n) < LATE, rng.integers(1, 3, n), 0)
    rows = pd.DataFrame(
        {
            "news_id": truth["news_id"],
            "published_at": truth["published_at"].astype(str),
            "text": text,
            "sentiment": pd.array([None] * n, dtype=TEXT),
            "lands_on": [day + dt.timedelta(days=int(days)) for days in late],
        }
    )
    return pd.concat([rows, rows[rng.random(n) < TWICE]], ignore_index=True)

"""The upstream of the support model: questions of a bank's customers, simulated.

Belongs here: the true questions (:meth:`QuestionSimulator.questions`), the rows that land, and the upstream of a state
folder (:class:`WorldQuestions`). Does not belong here: cleaning and the contract (``tables.py``), the wording
(``wording.py``).

From ``shift_from`` on, customers ask about messages of swindlers, which no intent covered before, and more of them
write in short forms. A day can be made alone, and is the same each time.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pandas as pd
from pydantic import Field

from assets.models.support import wording
from assets.models.support.tables import INTENTS, SCAM
from assets.models.support.world import existing_world
from resources.settings import Settings
from resources.sources import SourceError, Stream

LABEL_DELAY = dt.timedelta(days=2)
"""Agents close a question two days after it was asked, and say what it was about."""
MISTAKEN = 0.01
"""Share of questions for which the agent says a wrong intent."""
BY_WEEKDAY = (1.2, 1.1, 1.05, 1.0, 1.05, 0.8, 0.8)
"""Questions by weekday, from Monday, as a share of the mean."""
DIRT = {"duplicate": 0.3, "padded": 0.25, "escaped": 0.2, "empty": 0.1, "garbled_time": 0.05, "unknown_channel": 0.1}
"""Kinds of dirt and their shares of the dirty rows. The first three lose no question."""
_IDS_A_DAY = 100_000
_LATEST_ARRIVAL = 2  # days after the question


class _Draw(enum.IntEnum):
    """Independent random streams; each day of each stream has its own generator."""

    QUESTIONS = 0
    LANDING = 1


class QuestionSimulator(Stream):
    """Questions of a bank's customers, deterministic for any day."""

    seed: int = Field(default=0, ge=0, description="Seed of all random draws.")
    daily: float = Field(default=75, gt=0, le=10_000, description="Mean number of questions a day.")
    dirty_share: float = Field(default=0.02, ge=0, le=0.5, description="Share of questions that land with some dirt.")
    late_share: float = Field(default=0.01, ge=0, le=0.5, description="Share of questions landing 1 or 2 days late.")
    first_day: str = Field(default="2026-01-01", description="ISO day on which the simulated world begins.")
    shift_from: str = Field(default="", description="ISO day from which the new topic is asked about; empty: never.")
    new_topic: float = Field(default=0.2, ge=0, lt=1, description="Shifted world: share of the new topic.")

    def questions(self, day: dt.date) -> pd.DataFrame:
        """Returns the true questions of a day, in order of time.

        Columns: question_id int64, asked_at datetime64[s], text, channel, intent (the true one), said (the agent's).
        """
        return _questions(self, day.toordinal())

    def land(self, day: dt.date) -> pd.DataFrame:
        """Returns the rows that arrived on ``day`` as text, in order of arrival, with the dirt of :data:`DIRT`.

        Raises:
            SourceError: ``day`` is before the first day of the simulated world.
        """
        self._refuse_before_the_first(day)
        sent = [_sent(self, day.toordinal() - age) for age in range(_LATEST_ARRIVAL, -1, -1)]
        today = [rows[rows["arrived_at"].str.startswith(day.isoformat())] for rows in sent]
        return pd.concat(today).sort_values("arrived_at", kind="stable", ignore_index=True)

    def land_labels(self, day: dt.date) -> pd.DataFrame:
        """Returns what agents say of the questions asked :data:`LABEL_DELAY` before ``day``: question_id and intent.

        Raises:
            SourceError: ``day`` is before the first day of the simulated world.
        """
        self._refuse_before_the_first(day)
        asked = self.questions(day - LABEL_DELAY)
        return pd.DataFrame({"question_id": asked["question_id"], "intent": asked["said"]})

    def landed_until(self) -> dt.date:
        """Returns yesterday, UTC."""
        return dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)

    def shifted(self, day: int) -> bool:
        """Whether the new topic is asked about on a day (a proleptic ordinal)."""
        return bool(self.shift_from) and day >= _ordinal(self.shift_from, "shift_from")

    def _refuse_before_the_first(self, day: dt.date) -> None:
        if day.toordinal() < _ordinal(self.first_day, "first_day"):
            raise SourceError(f"{day}: the simulated world begins on {self.first_day}; land that day or a later one")


def _ordinal(text: str, setting: str) -> int:
    try:
        return dt.date.fromisoformat(text).toordinal()
    except ValueError as error:
        raise SourceError(f"QuestionSimulator.{setting}={text!r} is not a day; write it as 2026-05-31") from error


def _generator(source: QuestionSimulator, draw: _Draw, day: int) -> np.random.Generator:
    # Days are numbered from the first one, so that a world does not depend on its date.
    return np.random.default_rng([source.seed, draw, 1_000 + day - _ordinal(source.first_day, "first_day")])


@lru_cache(maxsize=16)
def _questions(source: QuestionSimulator, day: int) -> pd.DataFrame:
    rng, shifted = _generator(source, _Draw.QUESTIONS, day), source.shifted(day)
    usual = [name for name in INTENTS if name != SCAM]
    mean = source.daily * BY_WEEKDAY[dt.date.fromordinal(day).weekday()]
    intents = list(rng.choice(usual, rng.poisson(mean), p=wording.shares(usual)))
    if shifted:
        intents += [SCAM] * int(rng.poisson(mean * source.new_topic / (1 - source.new_topic)))
    seconds = np.sort(np.clip(rng.normal(50_000, 14_000, len(intents)), 0, 86_399).astype(np.int64))
    intents = [intents[i] for i in rng.permutation(len(intents))]
    texts = [wording.question(intent, rng, short=0.45 if shifted else 0.1) for intent in intents]
    wrong = rng.random(len(intents)) < MISTAKEN
    said = [str(rng.choice(usual)) if wrong[i] else intent for i, intent in enumerate(intents)]
    number = 1_000 + day - _ordinal(source.first_day, "first_day")
    return pd.DataFrame(
        {
            "question_id": number * _IDS_A_DAY + np.arange(len(intents)),
            "asked_at": np.datetime64(dt.date.fromordinal(day), "s") + seconds.astype("timedelta64[s]"),
            "text": texts,
            "channel": rng.choice(["app", "chat", "email"], len(intents), p=[0.5, 0.3, 0.2]),
            "intent": intents,
            "said": said,
        }
    )


@lru_cache(maxsize=_LATEST_ARRIVAL + 2)
def _sent(source: QuestionSimulator, day: int) -> pd.DataFrame:
    """All rows that are ever sent about one day's questions, as text."""
    truth, rng = _questions(source, day), _generator(source, _Draw.LANDING, day)
    n = len(truth)
    kind = np.searchsorted(
        np.cumsum([*(source.dirty_share * share for share in DIRT.values()), source.late_share]), rng.random(n), "right"
    )
    late = np.where(kind == len(DIRT), rng.integers(1, _LATEST_ARRIVAL + 1, n), 0)
    asked = truth["asked_at"].to_numpy("datetime64[s]")
    arrived = asked + (late * 86_400 + rng.integers(1, 6, n)).astype("timedelta64[s]")
    end_of_day = (asked + (late * 86_400).astype("timedelta64[s]")).astype("datetime64[D]") + np.timedelta64(1, "D")
    arrived = np.minimum(arrived, end_of_day.astype("datetime64[s]") - np.timedelta64(1, "s"))
    rows = pd.DataFrame(
        {
            "question_id": truth["question_id"].astype(str),
            "asked_at": _moments(asked),
            "text": truth["text"],
            "channel": truth["channel"],
            "arrived_at": _moments(arrived),
        }
    ).astype("string[pyarrow]")
    spoilt: dict[str, tuple[str, Callable[[str], str]]] = {
        "padded": ("text", lambda text: f"   {text}  "),
        "escaped": ("text", lambda text: text.replace("'", "&#39;") + "&nbsp;&amp; thanks"),
        "empty": ("text", lambda text: " "),
        "garbled_time": ("asked_at", lambda text: "n/a"),
        "unknown_channel": ("channel", lambda text: "fax"),
    }
    for place, name in enumerate(DIRT):
        if name in spoilt:
            column, spoil = spoilt[name]
            rows.loc[kind == place, column] = rows.loc[kind == place, column].map(spoil)
    return pd.concat([rows, rows[kind == list(DIRT).index("duplicate")]], ignore_index=True)


def _moments(values: np.ndarray) -> list[str]:
    return [str(value).replace("T", " ") for value in values.astype("datetime64[s]")]


class WorldQuestions(Stream):
    """The questions of the state folder's own world, which has no days until a story draws it up."""

    def simulator(self) -> QuestionSimulator:
        """Returns the simulator with the settings of that world. Raises ``SourceUnavailable`` if there is none."""
        world = existing_world(Settings.from_env().home)
        return QuestionSimulator(
            seed=world.seed, first_day=world.first_day.isoformat(), shift_from=world.shift_from.isoformat()
        )

    def land(self, day: dt.date) -> pd.DataFrame:
        """See :meth:`QuestionSimulator.land`."""
        return self.simulator().land(day)

    def land_labels(self, day: dt.date) -> pd.DataFrame:
        """See :meth:`QuestionSimulator.land_labels`."""
        return self.simulator().land_labels(day)

    def landed_until(self) -> dt.date:
        """Returns yesterday, UTC."""
        return self.simulator().landed_until()

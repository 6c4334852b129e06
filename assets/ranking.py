"""The declaration of a ranking: which columns hold behaviour and items, and how a list is made of them.

Belongs here: the fields a fork may set, and what cannot work. Does not belong here: anything that computes
(``assets/lifecycle/ranking``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from assets.language import Language

MOST_LISTED = 100
"""Maximum length of a list."""
LOGGED = ("events", "listed", "propensity", "explored")
"""Fields of a list in the log of requests, beside the column of the user."""
WITHDRAWN = -1.0
"""Weight of the event by which an item disappears."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """A model whose answer is a ranked list of items. Its table is a log of events, one row for each.

    The log is also the catalogue: an item exists from its first row until a row with the event ``withdrawn``. A row
    with the event ``published`` makes an item known that nobody has seen yet; its user is empty.

    Args:
        user: column of the user who did something.
        item: column of the item.
        event: column of the kind of event. It is the model's ``target``.
        weights: how much an event of each kind says about a liking; above 0. An event that is not named counts 0,
            e.g. one by which an item was only shown.
        text: column with the item's text on each row of the log; ``None``: items have no text.
        facts: columns with facts of the item, e.g. its topic, on each row of the log. They are read as categories.
        language: the pretrained language model that reads the text; ``None``: the words of the text are hashed, which
            needs no extra package.
        published, withdrawn: the events by which an item appears and disappears.
        k: length of a list, and the number at which a list is evaluated.
        history: number of latest events of a user that are read.
        half_life_days: age at which an event has half its weight in the user's history. Without ``table.time`` events
            have no age.
        new_days: an item is new for this many days.
        width: numbers in the vector of a user or item.
        epochs: passes over the events for the towers.
        candidates: number of items that the towers pass on to the ranking network.
        exact_items: largest catalogue that is searched exactly; a larger one has an approximate index (usearch).
        exploration: share of the places of a list that are drawn at random from the candidates. The probability of
            each drawn item is logged, which ``off_policy`` needs.
    """

    user: str
    item: str
    event: str
    weights: Mapping[str, float] = field(default_factory=dict)
    text: str | None = None
    facts: tuple[str, ...] = ()
    language: Language | None = None
    published: str = "publish"
    withdrawn: str = "withdraw"
    k: int = 10
    history: int = 30
    half_life_days: float = 3.0
    new_days: float = 2.0
    width: int = 48
    epochs: int = 12
    candidates: int = 200
    exact_items: int = 50_000
    exploration: float = 0.0

    def weight(self, event: object) -> float:
        """Returns the weight of a kind of event: 0 for one that is not named, −1 if the item disappears.

        A number, as in the ``labels`` table, is a weight already.
        """
        if isinstance(event, int | float):
            return float(event)
        return WITHDRAWN if str(event) == self.withdrawn else float(self.weights.get(str(event), 0.0))

    @property
    def codes(self) -> dict[str, float]:
        """The weights by event, that of a withdrawal included."""
        return {**self.weights, self.withdrawn: WITHDRAWN}

    @property
    def columns(self) -> dict[str, str]:
        """The columns that the declaration names, by field."""
        named = {"user": self.user, "item": self.item, "event": self.event}
        if self.text is not None:
            named["text"] = self.text
        return named | {f"facts[{i}]": name for i, name in enumerate(self.facts)}

    def wrong(self, columns: tuple[str, ...]) -> Iterator[tuple[str, object, str]]:
        """Yields field, value and fix of what cannot work with the columns of a contract."""
        for name, column in self.columns.items():
            if column not in columns:
                yield name, column, f"name a column of the contract: {', '.join(columns)}"
        if self.user in LOGGED:
            yield "user", self.user, f"rename the column; the log of lists has fields of its own: {', '.join(LOGGED)}"
        if not self.weights or not all(_number(one) and one > 0 for one in self.weights.values()):
            yield "weights", dict(self.weights), "give a weight above 0 for at least one kind of event"
        for name in (self.published, self.withdrawn):
            if name in self.weights:
                yield "weights", name, "leave out the events by which an item appears and disappears"
        for name, most in (("k", MOST_LISTED), ("history", 1_000), ("width", 1_024), ("epochs", 1_000),
                           ("candidates", 100_000), ("exact_items", 10_000_000)):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
                yield name, value, f"give a whole number from 1 to {most:,}"
        for name in ("half_life_days", "new_days"):
            if not (_number(getattr(self, name)) and getattr(self, name) > 0):
                yield name, getattr(self, name), "give more than 0 days"
        if not (_number(self.exploration) and 0 <= self.exploration <= 0.5):
            yield "exploration", self.exploration, "give a share from 0 (no exploration) to 0.5"
        for name, value, mend in self.language.wrong() if self.language else ():
            yield f"language.{name}", value, mend


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

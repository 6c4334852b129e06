"""What a search for a better recipe may try: ranges and choices by setting, and the budget of the search.

Belongs here: the types of a search space, and which settings may be in one. Does not belong here: the validation
against a model (``declaration.py``), the search itself (``assets/lifecycle/model/search.py``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NETWORK_PREFIX = "network."
"""Keys with this prefix are keyword arguments of the network factory; other keys are fields of ``Training``."""

SEARCHABLE = (
    "learning_rate", "weight_decay", "batch_size", "members", "max_epochs", "patience", "half_life_days", "ensemble",
)  # fmt: skip
"""Fields of ``Training`` that may be in a search space. The others define the rows of a comparison or its randomness,
so trials with different values could not be compared."""

DEFAULT_NETWORK_ARGUMENTS = ("blocks", "dropout")
"""Keyword arguments of the default network that a declaration and a search space may set."""

LANGUAGE_NETWORK_ARGUMENTS = ("hidden", "dropout")
"""The same for the head of a declared language model."""


@dataclass(frozen=True)
class Range:
    """All values from ``low`` to ``high``, both included; whole numbers if both bounds are whole numbers.

    Args:
        low, high: the bounds.
        log: whether values are drawn evenly on a logarithmic scale, as suits a learning rate.
        step: distance between values; default: any value, or each whole number.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        """Whether the values are whole numbers."""
        return all(_is_whole(bound) for bound in (self.low, self.high, self.step) if bound is not None)

    @property
    def samples(self) -> tuple[Any, ...]:
        """The bounds, which the validation of a declaration tries."""
        return self.low, self.high

    @property
    def problem(self) -> str:
        """The fix of a range that cannot work; empty if it can."""
        bounds = (self.low, self.high)
        if not all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in bounds):
            return "give two numbers"
        if not (all(map(math.isfinite, bounds)) and self.low < self.high):
            return "`low` must be below `high`"
        if self.log and self.low <= 0:
            return "a logarithmic range begins above 0"
        if self.step is not None and (self.log or not 0 < self.step <= self.high - self.low):
            return "`step` must be above 0, at most `high` - `low`, and without `log`"
        return ""

    def value(self, stored: Any) -> Any:
        """Returns the setting of a stored value. Raises :class:`ValueError` if it is outside the range."""
        if not (isinstance(stored, int | float) and self.low <= stored <= self.high):
            raise ValueError(f"{stored!r} is not in {self}")
        return int(stored) if self.whole else float(stored)

    def stored(self, setting: Any) -> Any:
        """Returns how a setting is stored. Raises :class:`ValueError` if it is outside the range."""
        return self.value(setting)


@dataclass(frozen=True, init=False)
class Choice:
    """One of some values, e.g. ``Choice(64, 128, 256)``."""

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        object.__setattr__(self, "values", values)

    @property
    def samples(self) -> tuple[Any, ...]:
        """The values, which the validation of a declaration tries."""
        return self.values

    @property
    def problem(self) -> str:
        """The fix of a choice that cannot work; empty if it can."""
        labels = self.labels
        return "" if labels and len(set(map(repr, labels))) == len(labels) else "name at least one value, each once"

    @property
    def labels(self) -> list[Any]:
        """The values as they are stored: numbers, truth values and text as they are, others as text."""
        return [value if isinstance(value, bool | int | float | str) else repr(value) for value in self.values]

    def value(self, stored: Any) -> Any:
        """Returns the setting of a stored value. Raises :class:`ValueError` if it is none of the values."""
        return self.values[self.labels.index(stored)]

    def stored(self, setting: Any) -> Any:
        """Returns how a setting is stored. Raises :class:`ValueError` if it is none of the values."""
        return self.labels[self.values.index(setting)]


Space = Mapping[str, Range | Choice]
"""By setting, the values to try."""

DEFAULT_SPACE: Space = {
    "learning_rate": Range(1e-3, 2e-2, log=True),
    "weight_decay": Range(1e-4, 1e-1, log=True),
    "batch_size": Choice(64, 128, 256, 512),
}
"""Searched where a declaration names no space."""

DEFAULT_NETWORK_SPACE: Space = {
    "members": Choice(2, 4, 8, 16),
    "network.blocks": Choice(1, 2, 3),
    "network.dropout": Choice(0.0, 0.1, 0.2),
}
"""Searched, too, if the model has the default network."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """The search for a better recipe, on request (the asset ``tuning``) or by a schedule.

    Args:
        space: values to try, by field of :class:`~assets.declaration.Training` or by ``network.<argument>`` of the
            network factory; default: :data:`DEFAULT_SPACE`, and for the default network
            :data:`DEFAULT_NETWORK_SPACE`, too.
        trials: number of recipes to try, the declared one included. The launchpad may set another number.
        minutes: no trial begins later than this after the run began. The launchpad may set another number.
        schedule: cron schedule of the search (UTC), or ``None``.
    """

    space: Space | None = None
    trials: int = 30
    minutes: float = 30.0
    schedule: str | None = None


def _is_whole(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)

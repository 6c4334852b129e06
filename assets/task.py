"""The kind of a model's target, and its class codes.

Belongs here: deriving the kind from a contract's column, and the few facts that all stages share. Does not belong here:
how a stage treats a kind (``assets/lifecycle``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

TaskKind = Literal["binary", "multiclass", "regression", "ranking"]

MEASURED: tuple[TaskKind, ...] = ("regression", "ranking")
"""Kinds whose codes are measured values and not classes."""

NUMBERS = ("int", "uint", "float", "Int", "UInt", "Float")
"""Prefixes of the names of number types in pandas and numpy."""


class TaskError(ValueError):
    """A target column that fits no kind; the message says which columns would."""


@dataclass(frozen=True)
class Task:
    """The kind of a target and, for classes, the class of each code (0, 1, …).

    A binary target's codes are 0 and 1, and the probability is that of code 1. The code of an event of a ranking is its
    weight.
    """

    kind: TaskKind
    classes: tuple[Any, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, column: Any) -> Task:
        """Returns the task of a target column of a pandera schema.

        Booleans and two ``isin`` values are binary (the second value has code 1). More ``isin`` values are classes.
        Other numbers are measured values.

        Raises:
            TaskError: the column is text without ``isin``, a date, or a single value.
        """
        kind = str(column.dtype)
        allowed = next((check.statistics["allowed_values"] for check in column.checks if check.name == "isin"), None)
        if kind.startswith("bool"):
            return cls("binary", (False, True))
        if allowed is not None:
            classes = tuple(allowed)
            if len(classes) < 2:
                raise TaskError(f"isin={list(classes)} has fewer than two values, so there is nothing to predict")
            return cls("binary" if len(classes) == 2 else "multiclass", classes)
        if kind.startswith(NUMBERS):
            return cls("regression")
        raise TaskError(
            f"a target of type {kind} needs isin=[...] with its classes; otherwise make it a number or boolean"
        )

    def codes(self, values: pd.Series) -> pd.Series:
        """Returns class codes or measured values, float64 ``[n]``; NaN for missing values and unknown classes."""
        import pandas as pd

        if self.kind == "regression":
            return pd.to_numeric(values, errors="coerce").astype("float64")
        if self.kind == "ranking":
            return values.map(lambda event: float(self.weights.get(str(event), 0.0))).astype("float64")
        known = {value: float(code) for code, value in enumerate(self.classes)}
        return values.map(known).astype("float64")

    @property
    def dtype(self) -> str:
        """Data type of the codes in the ``labels`` table."""
        return "float64" if self.kind in MEASURED else "int8" if len(self.classes) < 128 else "int32"

    @property
    def names(self) -> tuple[str, ...]:
        """The classes as text, in the order of their codes."""
        return tuple(str(value) for value in self.classes)


BINARY = Task("binary", (False, True))
"""The task of labels that land later: 0 or 1."""

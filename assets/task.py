"""What kind of target a model has, and what follows from it: codes of its classes, the metrics that fit.

Belongs here: reading the kind off a contract's column, and the few facts that every stage must agree on. Does not
belong here: how a stage treats a kind (``assets/lifecycle``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["binary", "multiclass", "regression"]

METRICS: dict[Kind, tuple[str, ...]] = {
    "binary": ("average_precision", "roc_auc", "cp_at_k", "brier"),
    "multiclass": ("accuracy", "balanced_accuracy", "roc_auc", "log_loss"),
    "regression": ("r2", "rmse", "mae"),
}
"""By kind of target, the metrics a gate may ask for."""
DEFAULT_METRIC: dict[Kind, str] = {"binary": "roc_auc", "multiclass": "roc_auc", "regression": "r2"}
DEFAULT_FLOOR = {"roc_auc": 0.6, "r2": 0.1}
"""What a gate asks for where nothing is declared: clearly more than guessing. Other metrics have no such figure."""
LOWER_IS_BETTER = frozenset({"brier", "log_loss", "rmse", "mae"})
NUMBERS = ("int", "uint", "float", "Int", "UInt", "Float")
"""How the names of number types begin, in pandas and numpy."""


class TaskError(ValueError):
    """A target column that is none of the kinds; the message says what would be."""


@dataclass(frozen=True)
class Task:
    """The kind of a target and, for classes, which code (0, 1, …) stands for which.

    A binary target's codes are 0 and 1, and 1 is what the probability is of.
    """

    kind: Kind
    classes: tuple[Any, ...] = ()

    @classmethod
    def of(cls, column: Any) -> Task:
        """That of a target column of a pandera schema: booleans and two ``isin`` values are binary (the second is 1),
        more are classes, other numbers are measured.

        Raises :class:`TaskError` for text without ``isin``, dates, and a single value.
        """
        kind = str(column.dtype)
        allowed = next((check.statistics["allowed_values"] for check in column.checks if check.name == "isin"), None)
        if kind.startswith("bool"):
            return cls("binary", (False, True))
        if allowed is not None:
            classes = tuple(allowed)
            if len(classes) < 2:
                raise TaskError(f"isin={list(classes)} is one value: there is nothing to predict")
            return cls("binary" if len(classes) == 2 else "multiclass", classes)
        if kind.startswith(NUMBERS):
            return cls("regression")
        raise TaskError(f"a target of type {kind} needs isin=[...] with its classes, or be a number or a boolean")

    def codes(self, values: pd.Series) -> pd.Series:
        """float64: class codes or measured values; NaN where missing. A value that is no class is NaN, too."""
        import pandas as pd

        if self.kind == "regression":
            return pd.to_numeric(values, errors="coerce").astype("float64")
        known = {value: float(code) for code, value in enumerate(self.classes)}
        return values.map(known).astype("float64")

    @property
    def dtype(self) -> str:
        """Of the codes in the ``labels`` table."""
        return "float64" if self.kind == "regression" else "int8" if len(self.classes) < 128 else "int32"

    @property
    def names(self) -> tuple[str, ...]:
        """The classes as text, in the order of their codes."""
        return tuple(str(value) for value in self.classes)


BINARY = Task("binary", (False, True))
"""That of labels which land later: 0 or 1."""

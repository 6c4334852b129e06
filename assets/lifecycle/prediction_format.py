"""Predictions of each kind of target: as table columns, as JSON, and as values that the drift check compares.

Belongs here: the format of scores and labels, one class per kind. Does not belong here: how scores are fitted
(``model/objectives.py``), computed (``model/version/bundle.py``) or evaluated (``model/metrics``).
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from assets.task import Task, TaskKind

SCORE, PREDICTED = "score", "predicted"
"""Columns of the score (for classes: of the predicted class) and of the predicted class's code."""

Schema = dict[str, Any]
"""A JSON schema."""

_SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}


class PredictionFormat(abc.ABC):
    """The format of the predictions of one kind of target. Scores are ``[n]``, or ``[n, classes]`` for classes.

    Args:
        task: the target.
        score_columns: names of the predictions table's score columns.
    """

    noun: ClassVar[str] = "probability between 0 and 1"
    """What a valid score is, in messages."""
    has_alerts: ClassVar[bool] = False
    """Whether a prediction includes the decision to alert."""

    def __init__(self, task: Task, score_columns: list[str]) -> None:
        self.task = task
        self.score_columns = score_columns

    def shape(self, rows: int) -> tuple[int, ...]:
        """Returns the shape of the scores of ``rows`` rows."""
        return (rows,)

    def valid(self, scores: np.ndarray) -> np.ndarray:
        """Returns whether each value is valid, boolean of the shape of ``scores``."""
        return np.isfinite(scores) & (scores >= 0) & (scores <= 1)

    @abc.abstractmethod
    def columns(self, scores: np.ndarray, alerts: np.ndarray | None) -> dict[str, Any]:
        """Returns the columns of the predictions table, ``[n]`` each.

        Args:
            scores: the scores.
            alerts: boolean ``[n]``; required if ``has_alerts``.
        """

    def scores_in(self, predictions: pd.DataFrame) -> np.ndarray:
        """Returns the scores in a predictions table."""
        return predictions[self.score_columns[0]].to_numpy(dtype=float)

    def compared(self, scores: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the score columns that a drift check compares, float32 ``[n]`` each."""
        return {SCORE: scores.astype(np.float32)}

    @abc.abstractmethod
    def to_json(self, scores: np.ndarray, alerts: np.ndarray | None) -> list[dict[str, Any]]:
        """Returns the service's predictions, one dictionary per row; arguments as for :meth:`columns`."""

    @abc.abstractmethod
    def schema(self) -> Schema:
        """Returns the JSON schemas of the fields of a dictionary of :meth:`to_json`, by field."""

    @abc.abstractmethod
    def summary(self, predictions: pd.DataFrame) -> dict[str, Any]:
        """Returns metadata that summarises one or more rows of a predictions table."""

    @abc.abstractmethod
    def label_summary(self, labels: pd.Series) -> dict[str, Any]:
        """Returns metadata that summarises one or more labels: class codes or measured values."""


class BinaryFormat(PredictionFormat):
    """Columns ``probability`` and ``alert``; the decision in JSON is ``alert`` or ``pass``."""

    has_alerts = True

    def __init__(self, task: Task) -> None:
        super().__init__(task, ["probability"])

    def columns(self, scores: np.ndarray, alerts: np.ndarray | None) -> dict[str, Any]:
        """See :class:`PredictionFormat`."""
        return {"probability": scores, "alert": alerts}

    def to_json(self, scores: np.ndarray, alerts: np.ndarray | None) -> list[dict[str, Any]]:
        """See :class:`PredictionFormat`."""
        assert alerts is not None
        return [
            {"probability": float(p), "decision": "alert" if alert else "pass"}
            for p, alert in zip(scores, alerts, strict=True)
        ]

    def schema(self) -> Schema:
        """See :class:`PredictionFormat`."""
        return {"probability": _SHARE, "decision": {"type": "string", "enum": ["alert", "pass"]}}

    def summary(self, predictions: pd.DataFrame) -> dict[str, Any]:
        """See :class:`PredictionFormat`."""
        return {"alerts": int(predictions["alert"].sum()), "mean_probability": float(predictions["probability"].mean())}

    def label_summary(self, labels: pd.Series) -> dict[str, Any]:
        """See :class:`PredictionFormat`."""
        return {"positive_share": float(labels.mean())}


class ClassFormat(PredictionFormat):
    """Columns ``prediction``, its ``probability``, and ``p_<class>`` of each class."""

    def __init__(self, task: Task) -> None:
        super().__init__(task, [f"p_{name}" for name in task.names])

    def shape(self, rows: int) -> tuple[int, ...]:
        """See :class:`PredictionFormat`."""
        return rows, len(self.task.classes)

    def columns(self, scores: np.ndarray, alerts: np.ndarray | None) -> dict[str, Any]:
        """See :class:`PredictionFormat`."""
        predicted = scores.argmax(axis=1) if len(scores) else np.empty(0, dtype=int)
        names = pd.array(np.array(self.task.names, dtype=object)[predicted], dtype="string[pyarrow]")
        each = {name: scores[:, code] for code, name in enumerate(self.score_columns)}
        return {"prediction": names, "probability": scores.max(axis=1) if len(scores) else np.empty(0), **each}

    def scores_in(self, predictions: pd.DataFrame) -> np.ndarray:
        """See :class:`PredictionFormat`."""
        return predictions[self.score_columns].to_numpy(dtype=float)

    def compared(self, scores: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the highest probability and the predicted class's code."""
        if not len(scores):
            return {SCORE: np.empty(0, np.float32), PREDICTED: np.empty(0, np.float32)}
        return {SCORE: scores.max(axis=1).astype(np.float32), PREDICTED: scores.argmax(axis=1).astype(np.float32)}

    def to_json(self, scores: np.ndarray, alerts: np.ndarray | None) -> list[dict[str, Any]]:
        """See :class:`PredictionFormat`."""
        return [
            {
                "prediction": self.task.names[int(row.argmax())],
                "probability": float(row.max()),
                "probabilities": dict(zip(self.task.names, map(float, row), strict=True)),
            }
            for row in scores
        ]

    def schema(self) -> Schema:
        """See :class:`PredictionFormat`."""
        names = list(self.task.names)
        shares = {"type": "object", "required": names, "properties": dict.fromkeys(names, _SHARE)}
        return {"prediction": {"type": "string", "enum": names}, "probability": _SHARE, "probabilities": shares}

    def summary(self, predictions: pd.DataFrame) -> dict[str, Any]:
        """See :class:`PredictionFormat`."""
        return {"predicted": {str(name): int(n) for name, n in predictions["prediction"].value_counts().items()}}

    def label_summary(self, labels: pd.Series) -> dict[str, Any]:
        """See :class:`PredictionFormat`."""
        return {
            "classes": {f"{code}: {name}": int((labels == code).sum()) for code, name in enumerate(self.task.names)}
        }


class ValueFormat(PredictionFormat):
    """Column ``prediction``: a measured value in the target's unit."""

    noun = "finite prediction"

    def __init__(self, task: Task) -> None:
        super().__init__(task, ["prediction"])

    def valid(self, scores: np.ndarray) -> np.ndarray:
        """See :class:`PredictionFormat`."""
        return np.isfinite(scores)

    def columns(self, scores: np.ndarray, alerts: np.ndarray | None) -> dict[str, Any]:
        """See :class:`PredictionFormat`."""
        return {"prediction": scores}

    def to_json(self, scores: np.ndarray, alerts: np.ndarray | None) -> list[dict[str, Any]]:
        """See :class:`PredictionFormat`."""
        return [{"prediction": float(value)} for value in scores]

    def schema(self) -> Schema:
        """See :class:`PredictionFormat`."""
        return {"prediction": {"type": "number"}}

    def summary(self, predictions: pd.DataFrame) -> dict[str, Any]:
        """See :class:`PredictionFormat`."""
        return {"mean_prediction": float(predictions["prediction"].mean())}

    def label_summary(self, labels: pd.Series) -> dict[str, Any]:
        """See :class:`PredictionFormat`."""
        return {"mean": float(labels.mean()), "lowest": float(labels.min()), "highest": float(labels.max())}


class PlaceFormat(ValueFormat):
    """Column ``prediction``: the place of an event's item on its user's list, from 0 (absent) to 1 (top)."""

    def compared(self, scores: np.ndarray) -> dict[str, np.ndarray]:
        """Returns zeros: places change with the age of a version, so the asset ``performance`` watches them instead."""
        return {SCORE: np.zeros(len(scores), np.float32)}


_FORMATS: dict[TaskKind, Callable[[Task], PredictionFormat]] = {
    "binary": BinaryFormat,
    "multiclass": ClassFormat,
    "regression": ValueFormat,
    "ranking": PlaceFormat,
}


def format_of(task: Task) -> PredictionFormat:
    """Returns the format of the predictions of a target."""
    return _FORMATS[task.kind](task)

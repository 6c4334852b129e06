"""Output formats by kind of target: columns of the predictions, responses of the service, values that drift compares.

Belongs here: conversion between scores and output columns or responses. Does not belong here: how scores are computed
(``bundle.py``) or evaluated (``metrics``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from assets.task import Task

SCORE, PREDICTED = "score", "predicted"
"""Columns of the score (for classes: of the predicted class) and of the predicted class's code."""


def prediction_columns(task: Task, scores: np.ndarray, alerts: np.ndarray | None) -> dict[str, Any]:
    """Returns the columns of the predictions table, ``[n]`` each.

    Binary: ``probability`` and ``alert``. Classes: ``prediction``, its ``probability``, and ``p_<class>`` of each
    class. Measured values: ``prediction``.

    Args:
        task: kind of target.
        scores: ``[n]``, or ``[n, classes]`` for classes.
        alerts: boolean ``[n]`` for binary targets, else ``None``.
    """
    if task.kind == "binary":
        return {"probability": scores, "alert": alerts}
    if task.kind == "regression":
        return {"prediction": scores}
    predicted = scores.argmax(axis=1) if len(scores) else np.empty(0, dtype=int)
    names = pd.array(np.array(task.names, dtype=object)[predicted], dtype="string[pyarrow]")
    each = {f"p_{name}": scores[:, code] for code, name in enumerate(task.names)}
    return {"prediction": names, "probability": scores.max(axis=1) if len(scores) else np.empty(0), **each}


def score_columns(task: Task) -> list[str]:
    """Returns the names of the predictions table's score columns."""
    if task.kind == "multiclass":
        return [f"p_{name}" for name in task.names]
    return ["probability" if task.kind == "binary" else "prediction"]


def scores_in(task: Task, predictions: pd.DataFrame) -> np.ndarray:
    """Returns the scores in a predictions table, ``[n]`` or ``[n, classes]``."""
    columns = score_columns(task)
    return predictions[columns if task.kind == "multiclass" else columns[0]].to_numpy(dtype=float)


def compared_scores(task: Task, scores: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the score columns that a drift check compares, float32 ``[n]`` each.

    For classes these are the highest probability and the predicted class's code; otherwise the score itself.
    """
    if task.kind != "multiclass":
        return {SCORE: scores.astype(np.float32)}
    if not len(scores):
        return {SCORE: np.empty(0, np.float32), PREDICTED: np.empty(0, np.float32)}
    return {SCORE: scores.max(axis=1).astype(np.float32), PREDICTED: scores.argmax(axis=1).astype(np.float32)}


def json_predictions(task: Task, scores: np.ndarray, alerts: np.ndarray | None) -> list[dict[str, Any]]:
    """Returns the service's responses, one JSON-compatible dictionary per row.

    Args:
        task: kind of target.
        scores: ``[n]``, or ``[n, classes]`` for classes.
        alerts: boolean ``[n]``; required for binary targets.
    """
    if task.kind == "binary":
        assert alerts is not None
        return [
            {"probability": float(p), "decision": "alert" if alert else "pass"}
            for p, alert in zip(scores, alerts, strict=True)
        ]
    if task.kind == "regression":
        return [{"prediction": float(value)} for value in scores]
    return [
        {
            "prediction": task.names[int(row.argmax())],
            "probability": float(row.max()),
            "probabilities": dict(zip(task.names, map(float, row), strict=True)),
        }
        for row in scores
    ]

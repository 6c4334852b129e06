"""Fairness: how much a score's decisions and errors differ between the groups of a declared column.

Belongs here: the figures by group, their largest difference and its interval, on arrays. Does not belong here: the
columns (``Evaluation.groups``), a limit on a difference (``gate.py``), the presentation (``report.py``,
``release/model_card.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from assets.lifecycle.model.metrics.intervals import bootstrap, estimate
from assets.task import Task

if TYPE_CHECKING:
    from fairlearn.metrics import MetricFrame

MIN_ROWS = 30
"""Minimum number of rows for which a group is compared; with fewer rows the largest difference would be chance."""
MOST_GROUPS = 50
"""Maximum number of groups of a column; a column with more values than this names rows, not groups."""
MISSING = "missing"
"""Name of the group of the rows without a value."""


@dataclass(frozen=True)
class GroupGap:
    """A figure by the groups of one column, and its largest difference between two groups.

    Attributes:
        column: column whose values are the groups.
        figure: ``selection_rate`` (share of alerts), ``true_positive_rate``, ``false_positive_rate``, ``accuracy``, or
            ``mean_error`` (predicted minus true, in the target's unit).
        gap: largest difference between two compared groups, at least 0; None with fewer than two compared groups.
        worst_group, best_group: the two groups of ``gap``. The worst has the lower true positive rate or accuracy, the
            higher share of alerts or of false alerts, or the mean error that is further from 0.
        low, high: 95 % interval of the difference between these two groups; None without ``gap``. It contains 0 if the
            difference may be chance; it does not account for the choice of the two groups out of several.
        by_group: the figure of each group, also of groups that are too small to be compared; groups without a row that
            counts are absent.
        rows: number of rows that count for the figure, by group: positives for the true positive rate, negatives for
            the false positive rate, otherwise all.
        ratio: smallest figure of the compared groups as a share of the largest; None for a mean error, without ``gap``,
            or if all are 0.
    """

    column: str
    figure: str
    gap: float | None
    worst_group: str | None
    best_group: str | None
    low: float | None
    high: float | None
    by_group: dict[str, float]
    rows: dict[str, int]
    ratio: float | None = None

    @property
    def compared(self) -> list[str]:
        """The groups with at least :data:`MIN_ROWS` rows that count."""
        return [group for group, rows in self.rows.items() if rows >= MIN_ROWS]


def fairness_of(
    y: np.ndarray,
    score: np.ndarray,
    alert: np.ndarray | None,
    groups: Mapping[str, np.ndarray],
    *,
    task: Task,
    cluster: np.ndarray | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> list[GroupGap]:
    """Compares the groups of each column, by fairlearn's ``MetricFrame``.

    Args:
        y: class codes or measured values, ``[n]``.
        score: probabilities ``[n]`` or ``[n, classes]``, or predicted values ``[n]``.
        alert: binary targets: whether a row is alerted, bool ``[n]``; ignored otherwise.
        groups: by column, the value of each row, ``[n]``; missing values are a group.
        task: the kind of target.
        cluster: cluster codes 0, 1, … of rows that are drawn together, ``[n]``; default: each row alone.
        resamples: number of bootstrap draws for the intervals.
        seed: of the draws.

    Returns:
        One entry per column and figure, in the order of ``groups``. Binary: ``selection_rate``, ``true_positive_rate``
        and ``false_positive_rate``; classes: ``accuracy``; measured values: ``mean_error``.

    Raises:
        ValueError: a column has another length than ``y`` or more than :data:`MOST_GROUPS` values, or a binary target
            has no alerts; the message gives the fix.
    """
    if task.kind == "binary" and alert is None:
        raise ValueError("the fairness of a binary target needs `alert`, whether each row is alerted")
    cluster = np.arange(len(y)) if cluster is None else cluster
    found = []
    for column, values in groups.items():
        named = _named(column, values, len(y))
        for figure, counted, value in _figures(y, score, alert, task):
            found.append(_gap(column, figure, named[counted], value[counted], cluster[counted], resamples, seed))
    return found


def _named(column: str, values: np.ndarray, rows: int) -> np.ndarray:
    """The groups of a column as text, ``[n]``."""
    if np.shape(values) != (rows,):
        raise ValueError(
            f"column {column!r} has shape {np.shape(values)}; it must give one value for each of {rows} rows"
        )
    series = pd.Series(values)
    named = series.astype(str).where(series.notna(), MISSING).to_numpy(dtype=object)
    if (found := len(set(named))) > MOST_GROUPS:
        raise ValueError(
            f"column {column!r} has {found} values, but at most {MOST_GROUPS} groups can be compared; name a column "
            "with fewer values in evaluation.groups, or join values in the table's `clean`"
        )
    return named


def _figures(
    y: np.ndarray, score: np.ndarray, alert: np.ndarray | None, task: Task
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name of a figure, the rows that count, and the value of each row; the figure is the mean of these values.

    The rates of alerts among positives and among negatives are taken over these rows only. fairlearn's own
    ``true_positive_rate`` is 0 for a group without a positive row, which would be the largest difference of all.
    """
    everyone = np.ones(len(y), dtype=bool)
    if task.kind == "regression":
        yield "mean_error", everyone, np.asarray(score - y, dtype=float)
    elif task.kind == "multiclass":
        yield "accuracy", everyone, (score.argmax(axis=1) == y).astype(float)
    else:
        alerted = np.asarray(alert, dtype=float)
        yield "selection_rate", everyone, alerted
        yield "true_positive_rate", y == 1, alerted
        yield "false_positive_rate", y == 0, alerted


def _gap(
    column: str, figure: str, group: np.ndarray, value: np.ndarray, cluster: np.ndarray, resamples: int, seed: int
) -> GroupGap:
    """The figure of each group and its largest difference; all arrays ``[n]``, of the rows that count."""
    if not len(value):
        return GroupGap(column, figure, None, None, None, None, None, {}, {})
    rows = {name: int(n) for name, n in zip(*np.unique(group, return_counts=True), strict=True)}
    by_group = _frame(value, group).by_group
    shown = {name: float(by_group[name]) for name in rows}
    compared = np.isin(group, [name for name, n in rows.items() if n >= MIN_ROWS])
    if len(np.unique(group[compared])) < 2:
        return GroupGap(column, figure, None, None, None, None, None, shown, rows)
    frame = _frame(value[compared], group[compared])
    worst, best = _ends(figure, {name: float(at) for name, at in frame.by_group.items()})
    low, high = _interval(value, group, cluster, worst, best, resamples, seed)
    ratio = float(frame.ratio(method="between_groups")) if figure != "mean_error" else math.nan
    return GroupGap(
        column, figure, float(frame.difference(method="between_groups")), worst, best, low, high, shown, rows,
        ratio if math.isfinite(ratio) else None,
    )  # fmt: skip


def _frame(value: np.ndarray, group: np.ndarray) -> MetricFrame:
    """The mean of the values by group."""
    from fairlearn.metrics import MetricFrame, mean_prediction

    return MetricFrame(metrics=mean_prediction, y_true=value, y_pred=value, sensitive_features=group)


def _ends(figure: str, by_group: Mapping[str, float]) -> tuple[str, str]:
    """The worst and the best of the two groups between which the difference is largest."""
    lowest, highest = min(by_group, key=lambda name: by_group[name]), max(by_group, key=lambda name: by_group[name])
    badness: Callable[[str], float] = {
        "mean_error": lambda name: abs(by_group[name]),
        "accuracy": lambda name: -by_group[name],
        "true_positive_rate": lambda name: -by_group[name],
    }.get(figure, lambda name: by_group[name])
    if lowest == highest:  # all are equal
        highest = next(name for name in by_group if name != lowest)
    return (lowest, highest) if badness(lowest) > badness(highest) else (highest, lowest)


def _interval(
    value: np.ndarray, group: np.ndarray, cluster: np.ndarray, worst: str, best: str, resamples: int, seed: int
) -> tuple[float | None, float | None]:
    """The 95 % interval of the difference between two groups, larger minus smaller, from draws of clusters."""
    pair = np.isin(group, [worst, best])
    is_worst, value = group[pair] == worst, value[pair]
    codes, clusters = np.unique(cluster[pair], return_inverse=True)
    sums, counts = (
        [np.bincount(clusters, weights=weight * side, minlength=len(codes)) for side in (is_worst, ~is_worst)]
        for weight in (value, np.ones(len(value)))
    )

    def difference(weight: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # a draw without a row of one of the groups
            return np.array([weight @ sums[0] / (weight @ counts[0]) - weight @ sums[1] / (weight @ counts[1])])

    point, draws = bootstrap(difference, len(codes), resamples=resamples, seed=seed)
    found = estimate(abs(point[0]), draws[:, 0] * (1 if point[0] >= 0 else -1), bounds=(-math.inf, math.inf))
    return found.low, found.high

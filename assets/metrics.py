"""The metrics by name: label, bounds, direction, and the kinds of target whose gate may use them.

Belongs here: what a declaration, the gate and the report need to know of a metric without computing it. Does not belong
here: its value (``assets/lifecycle/model/metrics/figures.py``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from assets.task import TaskKind

Form = Literal["decimal", "small", "percent", "unit", "money"]
"""How values are written: .123, .12345, 12.3 %, four digits in the target's unit, or whole money."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What is known of a metric.

    Args:
        label: name in tables and plots.
        kinds: kinds of target whose gate may use it; empty for a metric that only the report shows.
        low, high: bounds of its values.
        lower_is_better: direction; ``None`` for a quantity that has no better end.
        floor: default floor of a gate, clearly better than guessing; ``None``: the gate has to declare one.
        form: how values are written.
    """

    label: str
    kinds: tuple[TaskKind, ...] = ()
    low: float = 0.0
    high: float = 1.0
    lower_is_better: bool | None = False
    floor: float | None = None
    form: Form = "decimal"


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(label="Accuracy", kinds=("multiclass",)),
    "balanced_accuracy": Metric(label="Balanced accuracy", kinds=("multiclass",)),
    "average_precision": Metric(label="AP", kinds=("binary",)),
    "roc_auc": Metric(label="AUC", kinds=("binary", "multiclass"), floor=0.6),
    "cp_at_k": Metric(label="CP@k", kinds=("binary",)),
    "brier": Metric(label="Brier", kinds=("binary",), lower_is_better=True, form="small"),
    "log_loss": Metric(label="Log loss", kinds=("multiclass",), high=math.inf, lower_is_better=True),
    "precision_at_0.5pct": Metric(label="Precision at 0.5 %", form="percent"),
    "recall_at_0.5pct": Metric(label="Recall at 0.5 %", form="percent"),
    "precision_at_1pct": Metric(label="Precision at 1 %", form="percent"),
    "recall_at_1pct": Metric(label="Recall at 1 %", form="percent"),
    "saved": Metric(label="Saved", low=-math.inf, high=math.inf, form="money"),  # money may also be lost
    "saved_share": Metric(label="Saved, share of oracle", low=-math.inf, high=math.inf, form="percent"),
    "alert_rate": Metric(label="Alerted share", lower_is_better=None, form="percent"),
    "r2": Metric(label="R²", kinds=("regression",), low=-math.inf, floor=0.1),
    "rmse": Metric(label="RMSE", kinds=("regression",), high=math.inf, lower_is_better=True, form="unit"),
    "mae": Metric(label="MAE", kinds=("regression",), high=math.inf, lower_is_better=True, form="unit"),
    "ndcg": Metric(label="NDCG@k", kinds=("ranking",), floor=0.01),
    "recall": Metric(label="Recall@k", kinds=("ranking",)),
    "coverage": Metric(label="Coverage", lower_is_better=None, form="percent"),
    "novelty": Metric(label="Novelty (bits)", high=math.inf, lower_is_better=None),
    "new_share": Metric(label="Share of new items", lower_is_better=None, form="percent"),
}
"""All metrics, in the order of the report's tables."""

DEFAULT_METRIC: Mapping[TaskKind, str] = {
    "binary": "roc_auc",
    "multiclass": "roc_auc",
    "regression": "r2",
    "ranking": "ndcg",
}
"""The gate's metric where none is declared."""


def gate_metrics(kind: TaskKind) -> list[str]:
    """Returns the names of the metrics that a gate may use for a kind of target."""
    return [name for name, metric in METRICS.items() if kind in metric.kinds]


def slice_metric(name: str, kind: TaskKind) -> str:
    """Returns the metric by which slices are compared: the gate's, or the default one if slices do not have it."""
    return DEFAULT_METRIC[kind] if name in ("brier", "cp_at_k") else name


def lower_is_better(name: str) -> bool:
    """Returns whether lower values of a metric are better."""
    return bool(METRICS[name].lower_is_better)

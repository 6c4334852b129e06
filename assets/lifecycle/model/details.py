"""What an evaluation says of the candidate beyond its metrics: importance, explained rows, groups, thresholds.

Belongs here: the choice of rows, and the result as plain values for ``evaluation.json``, from which the report and the
model card are drawn. Does not belong here: how each part is computed (``importance.py``, ``explain.py``,
``fairness.py``, ``metrics/thresholds.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.features import features_of
from assets.lifecycle.model.explain import SCALES, Explanations, explain, groups_of
from assets.lifecycle.model.fairness import GroupGap, fairness_of
from assets.lifecycle.model.importance import Importance, importance_of
from assets.lifecycle.model.metrics import Estimate
from assets.lifecycle.model.metrics.thresholds import Thresholds, thresholds
from assets.lifecycle.model.version.bundle import Bundle

EXPLAINED_ROWS = 3
"""Number of rows with the highest scores, and of the most wrong ones, that are explained."""
SHOWN = 8
"""Number of contributions of a row that are shown one by one; the others are added up."""
HIGHEST, MOST_WRONG = "highest score", "most wrong"


@dataclass(frozen=True)
class ExplainedRow:
    """A test row with its explanation. For classes, the contributions are those to the logit of ``of_class``.

    Attributes:
        why: ``highest score`` or ``most wrong``.
        key: the row's key as text.
        score: probability or predicted value.
        truth: the true class, or the true value.
        of_class: class whose score is explained; empty for measured values.
        base: output without any contribution.
        contributions: by feature, the value in the row (None for a text, a category or a missing value) and the
            contribution; largest first.
        rest: sum of the other contributions.
        output: base + contributions + rest.
    """

    why: str
    key: str
    score: float
    truth: str | float
    of_class: str
    base: float
    contributions: dict[str, tuple[float | None, float]]
    rest: float
    output: float


@dataclass(frozen=True)
class Details:
    """The parts; empty or None where a part does not apply.

    Attributes:
        importance: loss of the metric by feature.
        scale: the scale of the contributions.
        explained: test rows with explanations; empty for a version without background rows.
        fairness: figures by group of each column of ``Evaluation.groups``.
        thresholds: binary targets: alerts by threshold.
    """

    importance: Importance
    scale: str
    explained: list[ExplainedRow] = field(default_factory=list)
    fairness: list[GroupGap] = field(default_factory=list)
    thresholds: Thresholds | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for strict JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Details:
        """Returns the details of :meth:`to_dict`."""
        importance = plain["importance"]
        lost = {name: Estimate(**one) for name, one in importance["lost"].items()}
        return cls(
            importance=Importance(importance["metric"], importance["rows"], lost),
            scale=plain["scale"],
            explained=[ExplainedRow(**one) for one in plain["explained"]],
            fairness=[GroupGap(**one) for one in plain["fairness"]],
            thresholds=None if plain["thresholds"] is None else Thresholds(**plain["thresholds"]),
        )


def details_of(
    bundle: Bundle, rows: pd.DataFrame, X: np.ndarray, scores: np.ndarray, model: Model, known: np.ndarray | None
) -> Details:
    """Computes all parts on the rows that the metrics are computed on.

    Args:
        bundle: the candidate.
        rows: test rows with the table's columns and the target.
        X: their features, float32 ``[n, n_features]``.
        scores: the candidate's scores, ``[n]`` or ``[n, classes]``.
        model: the declaration.
        known: rows that the metrics leave out, bool ``[n]``, or None.
    """
    kept = np.ones(len(rows), dtype=bool) if known is None else ~known
    rows, X, scores = rows[kept].reset_index(drop=True), X[kept], scores[kept]
    y, seed = rows[model.target].to_numpy(dtype=float), model.training.seed
    alerted, curve = None, None
    if model.task.kind == "binary":
        amount = rows[model.evaluation.amount].to_numpy(dtype=float) if model.evaluation.amount else None
        alerted = bundle.alerts(scores, amount)
        cost = bundle.facts.review_cost
        by_cost = amount is not None and cost is not None
        chosen = cost if by_cost and cost is not None else bundle.facts.threshold
        curve = thresholds(y, scores, chosen=chosen, amount=amount, review_cost=cost)
    entity = model.evaluation.entity
    return Details(
        importance=importance_of(
            bundle,
            features_of(model),
            X,
            y,
            metric=model.gate.metric,
            seed=seed,
            read=model.language is not None,
        ),
        scale=SCALES[model.task.kind],
        explained=[] if bundle.background is None else _explained(bundle, rows, X, y, scores, model),
        fairness=fairness_of(
            y,
            scores,
            alerted,
            {name: rows[name].to_numpy(dtype=object) for name in model.evaluation.groups},
            task=model.task,
            cluster=pd.factorize(rows[entity])[0] if entity else None,
            seed=seed,
        ),
        thresholds=curve,
    )


def _explained(
    bundle: Bundle, rows: pd.DataFrame, X: np.ndarray, y: np.ndarray, scores: np.ndarray, model: Model
) -> list[ExplainedRow]:
    kind = model.task.kind
    if kind == "multiclass":
        height, wrong = scores.max(axis=1), 1 - scores[np.arange(len(y)), y.astype(int)]
    else:
        height, wrong = scores, np.abs(scores - y)
    some: dict[tuple[str, int], int] = {}
    for why, by in ((HIGHEST, height), (MOST_WRONG, wrong)):
        some |= {(why, n): int(i) for n, i in enumerate(np.argsort(-by, kind="stable")[:EXPLAINED_ROWS])}
    positions = list(some.values())
    features = features_of(model)
    found, (names, group) = explain(bundle, features, X[positions], seed=model.training.seed), groups_of(features)
    alone = {names[i]: int(np.flatnonzero(group == i)[0]) for i in range(len(names)) if (group == i).sum() == 1}
    result = []
    for n, ((why, _), i) in enumerate(some.items()):
        code = int(scores[i].argmax()) if kind == "multiclass" else None
        of_class = model.task.names[code if code is not None else 1] if kind != "regression" else ""
        contributions = _part(found, n, code)
        order = np.argsort(-np.abs(contributions), kind="stable")
        shown = {
            names[j]: (_plain(X[i, alone[names[j]]]) if names[j] in alone else None, float(contributions[j]))
            for j in order[:SHOWN]
        }
        result.append(
            ExplainedRow(
                why=why,
                key=str(rows[model.table.key].iloc[i]),
                score=float(scores[i] if code is None else scores[i, code]),
                truth=float(y[i]) if kind == "regression" else model.task.names[int(y[i])],
                of_class=of_class,
                base=float(found.base if code is None else found.base[code]),
                contributions=shown,
                rest=float(contributions[order[SHOWN:]].sum()),
                output=float(found.outputs[n] if code is None else found.outputs[n, code]),
            )
        )
    return result


def _part(found: Explanations, row: int, code: int | None) -> np.ndarray:
    return found.contributions[row] if code is None else found.contributions[row, :, code]


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None

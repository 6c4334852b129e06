"""The asset ``answering``: from when on a version answers by itself, chosen by cost, and what that is worth.

Belongs here: the thresholds of a version, the abstention curve, the checks ``grounded`` and ``abstention``, and what
the watch of unknown questions compares with. Does not belong here: the reply (``reply.py``), the daily watch
(``assets/lifecycle/monitoring/unknown_intents.py``).

The latest labelled rows, which the version was not fitted on, are split in time. The earlier half chooses the
thresholds, and the later half says what they are worth. Of the declared questions, every other one chooses how well a
passage has to fit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.knowledge import Answers
from assets.lifecycle.data.embeddings import vectors_of
from assets.lifecycle.model.report import inline
from assets.lifecycle.model.training_set import fit_rows, matrix, test_rows
from assets.lifecycle.model.version.bundle import loaded
from assets.lifecycle.retrieval.curve import curve_picture
from assets.lifecycle.retrieval.knowledge import as_text, index_of, language_of, pairs_of
from assets.lifecycle.retrieval.reply import Limits, compose, without_source
from assets.lifecycle.retrieval.search import Index
from assets.lifecycle.stage import Check, StageOutput, TableInput, table_asset
from resources.dagster_internals import CheckResult
from resources.tables import ParquetTables
from resources.tombstones import canonical

GROUNDED = Check(
    name="grounded",
    description="Each sentence of the replies to the later questions stands in the source that it cites.",
    blocking=False,
)
ABSTENTION = Check(
    name="abstention",
    description="On later questions, answering with these thresholds costs less than handing over everything.",
    blocking=False,
)
KEPT_VERSIONS = 6
"""Versions whose thresholds are kept, the latest first: the one in production is among them."""
KNOWN_QUESTIONS = 400
"""Questions of the training set that a new one is compared with."""
UNSHOWN = ("known", "known_keys")
"""Columns of the table that the UI does not show: vectors of questions, and the keys of these."""
MOST_REPLIES = 200
"""Replies that are composed for the check of sources."""
FEW_OF_A_CLASS = 10
"""A class with fewer rows in the fit is not known to the version."""
UNCERTAIN, FAR = 0.3, 0.1
"""Shares of earlier known questions that count as uncertain, and as far from all questions of the training set."""


@dataclass(frozen=True)
class Curve:
    """What each threshold costs: all arrays ``[n]``, by ascending threshold.

    Attributes:
        thresholds: the thresholds.
        answered: share of the questions that are answered.
        wrong: share of all questions that are answered wrongly.
        cost: mean cost of a question.
    """

    thresholds: np.ndarray
    answered: np.ndarray
    wrong: np.ndarray
    cost: np.ndarray

    @classmethod
    def of(cls, certainty: np.ndarray, right: np.ndarray, answers: Answers) -> Curve:
        """The curve of questions.

        Args:
            certainty: of each question's answer, ``[n]``, at least one.
            right: whether the answer is right, bool ``[n]``.
            answers: the costs.
        """
        # The threshold above all certainties hands over everything.
        thresholds = np.append(np.unique(certainty), np.nextafter(certainty.max(), np.inf))
        given = certainty[None, :] >= thresholds[:, None]
        answered, wrong = given.mean(axis=1), (given & ~right[None, :]).mean(axis=1)
        cost = answers.wrong_cost * wrong + answers.handover_cost * (1 - answered)
        return cls(thresholds, answered, wrong, cost)

    @property
    def cheapest(self) -> float:
        """The threshold with the lowest cost, the highest one of those."""
        return float(self.thresholds[np.flatnonzero(self.cost <= self.cost.min() + 1e-12)[-1]])


def cost_at(certainty: np.ndarray, right: np.ndarray, threshold: float, answers: Answers) -> float:
    """The mean cost of questions with a threshold; arguments as in :meth:`Curve.of`."""
    given = certainty >= threshold
    return float((answers.wrong_cost * (given & ~right) + answers.handover_cost * ~given).mean())


def answering_asset(model: Model) -> dg.AssetsDefinition | None:
    """Returns the asset ``answering``; ``None`` if the model declares no answers."""
    answers = model.answers
    if answers is None:
        return None

    def answering(
        context: dg.AssetExecutionContext, trained_model: pd.DataFrame, training_set: pd.DataFrame,
        knowledge: pd.DataFrame,
    ) -> StageOutput:  # fmt: skip
        version = str(trained_model["version"].iloc[0])
        bundle = loaded(context.resources.mlflow.download(model.name, version))
        fit, tested = training_set[fit_rows(training_set, model)], training_set[test_rows(training_set, model)]
        if model.table.time:
            tested = tested.sort_values([model.table.time, model.table.key])
        scores = bundle.predict(matrix(tested, model))
        asked = _Asked.of(tested, scores, model)
        earlier, later = asked.part(0, len(tested) // 2), asked.part(len(tested) // 2, len(tested))
        chosen = Curve.of(earlier.certainty, earlier.right, answers)
        passage, of_pairs = _passage_limit(model, index_of(knowledge))
        limits = Limits(chosen.cheapest, passage)
        curve = Curve.of(later.certainty, later.right, answers)
        cost = cost_at(later.certainty, later.right, limits.intent, answers)
        vectors = [vectors_of(part.texts, language_of(model)) for part in (earlier, later)]
        ungrounded, replies = _ungrounded(model, index_of(knowledge), later, vectors[1], limits)
        watched = _watched(model, fit, (earlier, later), vectors)
        row = {
            "version": version, "intent": limits.intent, "passage": limits.passage, "cost": cost,
            "answered": float((later.certainty >= limits.intent).mean()), **watched,
        }  # fmt: skip
        frame = _with_former(context.resources.tables, model, row)
        metadata: dict[str, Any] = {
            **{name: value for name, value in row.items() if name not in UNSHOWN},
            **of_pairs,
            "curve": inline(curve_picture(curve, limits.intent, answers)),
            "curve_points": json.dumps(
                {name: [round(float(v), 4) for v in getattr(curve, name)[:: max(1, len(curve.cost) // 50)]]
                 for name in ("thresholds", "answered", "wrong", "cost")}
            ),
        }  # fmt: skip
        return StageOutput(frame, [_grounded(ungrounded, replies), _abstention(cost, answers, later, limits)], metadata)

    return table_asset(
        model,
        "answering",
        answering,
        description="The thresholds of each version: from which certainty an intent or a passage is answered, chosen "
        "by the declared costs on earlier questions, and what that costs on later ones.",
        stage="answers",
        kinds={"torch"},
        inputs={name: TableInput(model.key(name)) for name in ("trained_model", "training_set", "knowledge")},
        checks=[GROUNDED, ABSTENTION],
        code=[compose, Index],
        resources={"mlflow"},
        by_day=False,
        unshown=UNSHOWN,
        declared=f"{answers.wrong_cost}/{answers.handover_cost}",
    )


@dataclass(frozen=True)
class _Asked:
    """Questions with the version's answer: the texts, the intent said, its probability, and whether it is right."""

    texts: list[str]
    intents: list[str]
    certainty: np.ndarray
    right: np.ndarray
    truth: np.ndarray

    @classmethod
    def of(cls, rows: pd.DataFrame, scores: np.ndarray, model: Model) -> _Asked:
        assert model.answers is not None
        truth, said = rows[model.target].to_numpy(dtype=int), scores.argmax(axis=1)
        texts = rows[model.answers.column(model)].astype(str).tolist()
        return cls(texts, [model.task.names[code] for code in said], scores.max(axis=1), said == truth, truth)

    def part(self, first: int, last: int) -> _Asked:
        """Some of them, by place."""
        at = slice(first, last)
        return _Asked(self.texts[at], self.intents[at], self.certainty[at], self.right[at], self.truth[at])


def _passage_limit(model: Model, index: Index) -> tuple[float, dict[str, Any]]:
    """How well a passage has to fit, by the cost on every other declared question; half without any questions."""
    assert model.answers is not None
    pairs = pairs_of(model)
    if len(pairs) < 4:
        return 0.5, {}
    vectors = vectors_of(list(pairs["question"]), language_of(model))
    found = [index.search(q, v, 1) for q, v in zip(pairs["question"], vectors, strict=True)]
    certainty = np.array([one[0].score if one else 0.0 for one in found])
    right = np.array(
        [bool(one) and one[0].chunk.document == d for one, d in zip(found, pairs["document"], strict=True)]
    )
    curve = Curve.of(certainty[::2], right[::2], model.answers)
    chosen = np.flatnonzero(curve.cost <= curve.cost.min() + 1e-12)
    # Between the last threshold that hands over too little and the chosen one, where neither side is close.
    below = curve.thresholds[chosen[0] - 1] if chosen[0] else 0.0
    limit = float((below + curve.thresholds[chosen[0]]) / 2)
    given = certainty[1::2] >= limit
    return limit, {
        "other_pairs_answered": float(given.mean()),
        "other_pairs_right": float(right[1::2][given].mean()) if given.any() else float("nan"),
        "other_pairs_cost": cost_at(certainty[1::2], right[1::2], limit, model.answers),
    }


def _ungrounded(
    model: Model, index: Index, asked: _Asked, vectors: np.ndarray, limits: Limits
) -> tuple[list[str], int]:  # fmt: skip
    """Sentences of replies without a source, and the number of replies."""
    assert model.answers is not None
    texts = asked.texts[:MOST_REPLIES]
    lacking, replies = [], 0
    for text, intent, p, vector in zip(texts, asked.intents, asked.certainty, vectors, strict=False):
        passages = index.search(text, vector)
        reply = compose(text, intent, float(p), passages, model.answers.templates, limits, model.answers.passages)
        lacking += without_source(reply, text, model.answers.templates)
        replies += not reply.abstained
    return lacking, replies


def _watched(
    model: Model, fit: pd.DataFrame, parts: tuple[_Asked, _Asked], asked: list[np.ndarray]
) -> dict[str, Any]:  # fmt: skip
    """What unknown questions are compared with: known questions, limits, and their share on the test rows."""
    assert model.answers is not None
    earlier, later = parts
    counts = fit[model.target].astype(int).value_counts()
    known = counts[counts >= FEW_OF_A_CLASS].index.to_numpy()
    sample = fit.sample(min(len(fit), KNOWN_QUESTIONS), random_state=model.training.seed)
    vectors = vectors_of(sample[model.answers.column(model)].astype(str).tolist(), language_of(model))
    nearest = [nearest_of(of_part, vectors) for of_part in asked]
    of_known = [np.isin(part.truth, known) for part in (earlier, later)]
    uncertain = float(np.quantile(earlier.certainty[of_known[0]], UNCERTAIN)) if of_known[0].any() else 1.0
    far = float(np.quantile(nearest[0][of_known[0]], FAR)) if of_known[0].any() else 0.0
    unknown = [
        is_unknown(part.certainty, near, uncertain, far) & there
        for part, near, there in zip(parts, nearest, of_known, strict=True)
    ]
    return {
        "uncertain": uncertain, "far": far, "unknown": int(sum(part.sum() for part in unknown)),
        "rows": int(sum(part.sum() for part in of_known)),
        "known": as_text(vectors), "known_rows": len(vectors),
        # Whose vectors these are, for erasure.
        "known_keys": json.dumps([canonical(one) for one in sample[model.table.key]]),
    }  # fmt: skip


def nearest_of(vectors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The similarity of each vector to the nearest known one, ``[n]``; both of length 1."""
    return (vectors @ known.T).max(axis=1) if len(vectors) else np.zeros(0)


def is_unknown(certainty: np.ndarray, nearest: np.ndarray, uncertain: float, far: float) -> np.ndarray:
    """Whether each question has no intent that the version knows, bool ``[n]``: uncertain, and far from all others."""
    return (certainty < uncertain) & (nearest < far)


def _with_former(tables: ParquetTables, model: Model, row: dict[str, Any]) -> pd.DataFrame:
    key = model.key("answering")
    former = tables.read(key) if tables.stamp(key) else pd.DataFrame()
    former = former[former["version"] != row["version"]] if len(former) else former
    return pd.concat([pd.DataFrame([row]), former.head(KEPT_VERSIONS - 1)], ignore_index=True)


def _grounded(lacking: list[str], replies: int) -> CheckResult:
    message = f"{replies} replies, each sentence with its source"
    if lacking:
        message = f"{len(lacking)} sentences of {replies} replies stand in no source, e.g.: {lacking[0][:100]}"
    return CheckResult(check=GROUNDED.name, passed=not lacking, description=message, metadata={"replies": replies},
                       severity=dg.AssetCheckSeverity.WARN)  # fmt: skip


def _abstention(cost: float, answers: Answers, later: _Asked, limits: Limits) -> CheckResult:
    share = float((later.certainty >= limits.intent).mean())
    message = (
        f"answering {share:.0%} of the later questions costs {cost:.3f} a question, handing over all "
        f"{answers.handover_cost:.3f}"
    )
    passed = cost < answers.handover_cost
    if not passed:
        message += "; hand over everything, or train a better version"
    return CheckResult(check=ABSTENTION.name, passed=passed, description=message, severity=dg.AssetCheckSeverity.WARN,
                       metadata={"cost": cost, "answered": share})  # fmt: skip

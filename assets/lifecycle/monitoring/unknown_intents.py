"""The asset ``unknown_intents``: the share of a day's questions that have no intent, and examples of them.

Belongs here: the day's count, its comparison with the version's own share, and the check ``new_topic``. Does not belong
here: which question is unknown (``assets/lifecycle/retrieval/answering.py``), notification (``sensors/alerts.py``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.knowledge import Unknown
from assets.lifecycle.data.embeddings import vectors_of
from assets.lifecycle.data.event_days import rows_by_day
from assets.lifecycle.retrieval.answering import is_unknown, nearest_of
from assets.lifecycle.retrieval.knowledge import language_of, vectors_in
from assets.lifecycle.stage import Check, StageOutput, TableInput, days_in_run, eager, table_asset
from assets.recognisers import redacted
from resources.dagster_internals import CheckResult
from resources.encryption import in_use
from resources.tables import ParquetTables, days_of_window

NEW_TOPIC = Check(
    name="new_topic",
    description="The share of questions without an intent is that of the version's own test rows and calm days: the "
    "first day above it warns, the next consecutive one pages.",
    blocking=False,
)
WEEK = 7
"""Days that are added to a day with few questions, and days that are searched for a beginning."""
EXAMPLES, MOST_LETTERS = 3, 90


@dataclass(frozen=True)
class Share:
    """A number of unknown questions among a number of questions."""

    unknown: int
    rows: int

    @property
    def value(self) -> float:
        """The share; 0 without questions."""
        return self.unknown / self.rows if self.rows else 0.0

    def __add__(self, other: Share) -> Share:
        return Share(self.unknown + other.unknown, self.rows + other.rows)


def has_risen(now: Share, usual: Share, rule: Unknown) -> bool:
    """Whether a share is above the usual one: by Fisher's exact test, and by at least the declared effect."""
    from scipy.stats import fisher_exact

    if not now.rows or not usual.rows or now.value - usual.value < rule.min_effect:
        return False
    table = [[now.unknown, now.rows - now.unknown], [usual.unknown, usual.rows - usual.unknown]]
    return bool(fisher_exact(table, alternative="greater").pvalue < rule.alpha)


def unknown_intents_asset(model: Model) -> dg.AssetsDefinition | None:
    """Returns the asset ``unknown_intents``; ``None`` if the model does not declare it."""
    answers = model.answers
    if answers is None or answers.unknown is None:
        return None
    rule = answers.unknown

    def unknown_intents(
        context: dg.AssetExecutionContext, predictions: pd.DataFrame, questions: pd.DataFrame
    ) -> StageOutput:
        tables: ParquetTables = context.resources.tables
        known = tables.read(model.key("answering")) if tables.stamp(model.key("answering")) else pd.DataFrame()
        text = answers.column(model)
        scored = predictions.merge(questions[[model.table.key, text]], on=model.table.key)
        lines: dict[str, dict[str, Any]] = {}
        check_results = []
        for day, rows in rows_by_day(scored, model, days_in_run(context)).items():
            version = str(rows["version"].mode().iloc[0]) if len(rows) else ""
            of_version = known[(known["version"] == version) & (known["known_rows"] > 0)] if len(known) else known
            if of_version.empty:
                check_results.append(_without_limits(model, day, version))
                lines[day] = _line(day, version, Share(0, 0), "ok", "", [])
                continue
            limits: dict[str, Any] = {str(name): value for name, value in of_version.iloc[0].items()}
            share, examples = _unknown(rows, text, limits, model)
            past = _past(tables, model, day, version, lines)
            window, usual = _window(share, past, rule), _usual(limits, past)
            risen = has_risen(window, usual, rule)
            begin = _since(day, past, risen)
            days = 1 + sum(begin <= earlier < day for earlier in past) if risen else 0
            level = "ok" if not risen else "page" if days >= rule.page_after else "warn"
            lines[day] = _line(day, version, share, level, begin if risen else "", examples) | {"usual": usual.value}
            check_results.append(_check_result(lines[day], window, usual, examples))
        frame = pd.DataFrame(list(lines.values()))
        last = lines[max(lines)]
        return StageOutput(
            frame, check_results, {"level": last["level"], "unknown": last["unknown"], "rows": last["rows"]}
        )

    return table_asset(
        model,
        "unknown_intents",
        unknown_intents,
        description="Questions of each day that have no intent the version knows: its answer is uncertain, and no "
        "question of its training set is near. Their share is compared with that of its own test rows.",
        stage="monitoring",
        kinds={"torch"},
        inputs={
            "predictions": TableInput(model.key("predictions")),
            "questions": TableInput(model.key(model.table.name)),
        },
        checks=[NEW_TOPIC],
        day_column="day",
        unshown=["examples"],
        code=[is_unknown],
        automation=eager(model.table.late_days + 1),
    )


def _unknown(
    rows: pd.DataFrame, text: str, limits: Mapping[str, Any], model: Model
) -> tuple[Share, list[str]]:  # fmt: skip
    certainty = rows["probability"].to_numpy(dtype=float)
    # Only uncertain questions can be unknown, so only they need a vector.
    uncertain = np.flatnonzero(certainty < float(limits["uncertain"]))
    texts = rows[text].astype(str).to_numpy()[uncertain]
    vectors = vectors_of(list(texts), language_of(model))
    known = vectors_in(limits["known"], int(limits["known_rows"]))
    far = is_unknown(certainty[uncertain], nearest_of(vectors, known), float(limits["uncertain"]), float(limits["far"]))
    return Share(int(far.sum()), len(rows)), examples_of(list(texts[far]), vectors[far])


def examples_of(texts: Sequence[str], vectors: np.ndarray) -> list[str]:
    """A few of the texts that are most alike, without addresses and numbers of persons, cut after some letters."""
    if not len(texts):
        return []
    alike = np.sort(vectors @ vectors.T, axis=1)[:, -min(len(texts), EXAMPLES) :].mean(axis=1)
    center = int(alike.argmax())
    order = np.argsort(-(vectors @ vectors[center]), kind="stable")
    distinct = list(dict.fromkeys(excerpt_of(texts[i]) for i in order))
    return distinct[:EXAMPLES]


def excerpt_of(text: str) -> str:
    """What an example shows of a question."""
    return redacted(text)[:MOST_LETTERS]


def _past(
    tables: ParquetTables, model: Model, day: str, version: str, in_run: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The lines of the days before that the same version scored, by day, the latest first."""
    key, found = model.key("unknown_intents"), {}
    for earlier in reversed(days_of_window(day, (-WEEK, -1))):
        if earlier in in_run:
            line = in_run[earlier]
        elif tables.stamp(key, earlier):
            line = {str(name): value for name, value in tables.read(key, [earlier]).iloc[0].items()}
        else:
            continue
        if str(line["version"]) == version:
            found[earlier] = line
    return found


def _window(share: Share, past: Mapping[str, Mapping[str, Any]], rule: Unknown) -> Share:
    for line in past.values():
        if share.rows >= rule.min_rows:
            break
        share += Share(int(line["unknown"]), int(line["rows"]))
    return share


def _usual(limits: Mapping[str, Any], past: Mapping[str, Mapping[str, Any]]) -> Share:
    """The share of the version's own test rows and of its days of the last week without a rise."""
    usual = Share(int(limits["unknown"]), int(limits["rows"]))
    for line in past.values():
        if line["level"] == "ok":
            usual += Share(int(line["unknown"]), int(line["rows"]))
    return usual


def _since(day: str, past: Mapping[str, Mapping[str, Any]], risen: bool) -> str:
    """The first of the consecutive days with a rise that end with ``day``."""
    begin = day
    for earlier, line in past.items():
        if not risen or line["level"] == "ok" or earlier != days_of_window(begin, (-1, -1))[0]:
            break
        begin = earlier
    return begin


def _line(day: str, version: str, share: Share, level: str, since: str, examples: Sequence[str]) -> dict[str, Any]:
    return {
        "day": pd.Timestamp(day), "version": version, "rows": share.rows, "unknown": share.unknown, "usual": np.nan,
        "level": level, "since": since, "examples": json.dumps(list(examples), ensure_ascii=False),
    }  # fmt: skip


def _check_result(line: Mapping[str, Any], window: Share, usual: Share, examples: Sequence[str]) -> CheckResult:
    day, level = str(line["day"].date()), line["level"]
    message = f"{window.unknown} of {window.rows} questions have no intent, {usual.value:.1%} is usual"
    if level != "ok":
        # Dagster's database is not encrypted, so it holds no words of customers if the tables are.
        shown = "see the table for examples" if in_use.encrypts() else f"e.g.: {' | '.join(examples)}"
        message += f" (since {line['since']}); {shown}; declare an intent for them, and write an article"
    return CheckResult(
        check=NEW_TOPIC.name,
        day=day,
        passed=level == "ok",
        severity=dg.AssetCheckSeverity.ERROR if level == "page" else dg.AssetCheckSeverity.WARN,
        description=message,
        metadata={"unknown": window.unknown, "rows": window.rows, "usual": usual.value}
        | ({"since": line["since"]} if level != "ok" else {}),
    )


def _without_limits(model: Model, day: str, version: str) -> CheckResult:
    said = f"version {version} has no thresholds" if version else "no question was scored"
    return CheckResult(
        check=NEW_TOPIC.name, day=day, passed=not version, severity=dg.AssetCheckSeverity.WARN,
        description=f"{said}; materialise {model.name}/answering" if version else said,
    )  # fmt: skip

"""What a declaration says about answers to questions: the knowledge base, templates, and what a mistake costs.

Belongs here: the fields, their defaults and their validation. Does not belong here: retrieval, replies and thresholds
(``assets/lifecycle/retrieval``), the endpoint (``serving/scoring/answers.py``).
"""

from __future__ import annotations

import math
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from resources.settings import Settings, project_root

if TYPE_CHECKING:
    from assets.declaration import Model

SLOTS = ("amount", "card", "country", "email")
"""What a template may take from a question; see ``assets/lifecycle/retrieval/slots.py``."""


@dataclass(frozen=True)
class Documents:
    """Folders of documents in Markdown, one file each.

    Args:
        folder: folder with ``*.md``, relative to the project.
        published: folder of the state folder with further documents, which need no new release. A document of the same
            name replaces that of ``folder``. Empty: none.
    """

    folder: str
    published: str = ""

    def places(self, settings: Settings) -> list[Path]:
        """The folders, the later one counts."""
        return [project_root() / self.folder, *([settings.home / self.published] if self.published else [])]


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """How a rise of questions without an intent is found: the answer is uncertain, and no known question is near.

    Args:
        alpha: probability of a warning on a day without change.
        min_effect: smallest rise of the share that counts.
        page_after: number of consecutive days with a rise after which a warning becomes a page.
        min_rows: days with fewer questions are judged together with the days before, up to a week.
    """

    alpha: float = 0.005
    min_effect: float = 0.02
    page_after: int = 2
    min_rows: int = 40


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Answers to the questions of a model whose classes are intents.

    A question whose intent is certain is answered by the intent's template and by passages of the knowledge base; other
    questions by passages alone. Where neither is certain enough, the question is handed over to a person.

    Args:
        knowledge: the documents.
        templates: text by intent. A sentence with ``{amount}`` or another of :data:`SLOTS` is left out if the question
            does not say it.
        pairs: CSV file of the project with the columns ``question`` and ``document`` (empty: no document answers it).
            It measures recall, and chooses how similar a passage has to be.
        text: column of the question; default: the only text column.
        wrong_cost: cost of a wrong answer, in any unit.
        handover_cost: cost of a question that a person answers, in the same unit.
        least_recall: smallest recall@5 on ``pairs``; below it the knowledge base is refused.
        passages: maximum number of sentences that a reply takes from the knowledge base.
        unknown: how the share of questions without an intent is watched; ``None``: it is not.
    """

    knowledge: Documents
    templates: Mapping[str, str] = field(default_factory=dict)
    pairs: str = ""
    text: str = ""
    wrong_cost: float = 5.0
    handover_cost: float = 1.0
    least_recall: float = 0.8
    passages: int = 3
    unknown: Unknown | None = field(default_factory=Unknown)

    def column(self, model: Model) -> str:
        """The column of the question; empty if it is not clear which one it is."""
        return self.text or next(iter(texts_of(model)), "")


def texts_of(model: Model) -> list[str]:
    """The columns of the contract that hold free text."""
    table = model.table
    return [
        name
        for name, column in table.contract.to_schema().columns.items()
        if name not in (table.key, table.time, model.target)
        and str(column.dtype).startswith(("str", "object"))
        and not any(check.name == "isin" for check in column.checks)
    ]


def slots_in(template: str) -> set[str]:
    """Names of the slots of a template. Raises :class:`ValueError` for one that cannot be read."""
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}


def wrong_answers(model: Model) -> Iterator[tuple[str, object, str]]:
    """Yields field, value and fix of what cannot work."""
    answers = model.answers
    if answers is None:
        return
    if model.task.kind != "multiclass":
        yield "answers", model.target, "the target has to be the intent, a column with isin=[...] of at least three"
        return
    texts = texts_of(model)
    if answers.text and answers.text not in texts:
        yield "answers.text", answers.text, f"name a text column of the contract: {', '.join(texts) or 'it has none'}"
    elif not answers.text and len(texts) != 1:
        yield "answers.text", answers.text, f"name the column of the question, one of: {', '.join(texts) or 'none'}"
    if not answers.knowledge.folder:
        yield "answers.knowledge", answers.knowledge.folder, "give a folder of the project with *.md files"
    yield from _wrong_templates(answers, model)
    yield from _wrong_numbers(answers)
    if answers.unknown is not None:
        yield from _wrong_watch(answers.unknown, model)


def _wrong_templates(answers: Answers, model: Model) -> Iterator[tuple[str, object, str]]:
    for intent, template in answers.templates.items():
        if intent not in model.task.names:
            yield "answers.templates", intent, f"name a class of the target: {', '.join(model.task.names)}"
        try:
            unknown = slots_in(template) - set(SLOTS)
        except ValueError as error:
            yield f"answers.templates['{intent}']", template, f"close its braces ({error})"
            continue
        if unknown:
            yield f"answers.templates['{intent}']", min(unknown), f"use one of the slots {', '.join(SLOTS)}"


def _wrong_numbers(answers: Answers) -> Iterator[tuple[str, object, str]]:
    for name in ("wrong_cost", "handover_cost"):
        if not 0 < getattr(answers, name) < math.inf:
            yield f"answers.{name}", getattr(answers, name), "give a number above 0"
    if not 0 <= answers.least_recall <= 1:
        yield "answers.least_recall", answers.least_recall, "give a share from 0 to 1"
    if answers.passages < 1:
        yield "answers.passages", answers.passages, "give at least 1"


def _wrong_watch(watched: Unknown, model: Model) -> Iterator[tuple[str, object, str]]:
    if not model.is_stream:
        yield "answers.unknown", watched, "give None, because a table without `time` has no days to compare"
    if not 0 < watched.alpha < 0.5:
        yield "answers.unknown.alpha", watched.alpha, "give a probability above 0 and below .5"
    if not 0 <= watched.min_effect < 1:
        yield "answers.unknown.min_effect", watched.min_effect, "give a share from 0 to 1"
    for name in ("page_after", "min_rows"):
        if getattr(watched, name) < 1:
            yield f"answers.unknown.{name}", getattr(watched, name), "give a whole number of at least 1"

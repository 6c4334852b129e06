"""``POST /models/{model}/answer``: a question in, and a reply with its sources out, or a hand-over with the reason.

Belongs here: the body of a question, and following the knowledge base and the thresholds. Does not belong here: scoring
the question (``service.py``, which logs it as any row), the reply (``assets/lifecycle/retrieval``).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from fastapi import HTTPException, Request

from assets.declaration import Model
from assets.lifecycle.data.embeddings import vectors_of
from assets.lifecycle.data.word_pieces import LanguageError
from assets.lifecycle.retrieval.knowledge import index_of, language_of
from assets.lifecycle.retrieval.reply import Limits, Reply, compose
from assets.lifecycle.retrieval.search import Index
from assets.lifecycle.retrieval.writer import Writer
from resources.settings import Settings
from resources.tables import ParquetTables
from serving.scoring.bodies import not_understood
from serving.scoring.errors import RETRY_AFTER_S
from serving.scoring.request_parsing import ARRIVED_AT, Raw, RequestParser

MOST_CHARACTERS = 20_000
"""Longest question; a longer one is refused, because nothing reads its end."""
QUESTION, CONTEXT = "question", "context"


@dataclass(frozen=True)
class Answerer:
    """What a version needs to answer: the index of the knowledge base and its thresholds."""

    model: Model
    index: Index
    limits: Limits
    writer: Writer | None

    async def reply(self, question: str, intent: str, probability: float) -> Reply:
        """The reply to a question whose intent was scored. Vectors are computed in a thread."""
        assert self.model.answers is not None
        passages = await asyncio.to_thread(self._search, question)
        answers = self.model.answers
        found = compose(question, intent, probability, passages, answers.templates, self.limits, answers.passages)
        return found if self.writer is None else await self.writer.rewritten(question, found)

    def _search(self, question: str) -> Any:
        return self.index.search(question, vectors_of([question], language_of(self.model))[0])


class Answering:
    """Follows the knowledge base and the thresholds of one model.

    Args:
        name: name of the model.
        tables: the tables ``knowledge`` and ``answering``.
        settings: where a language model writes, if one does; ``None``: read when it is needed.
    """

    def __init__(self, name: str, tables: ParquetTables, settings: Settings | None) -> None:
        self._name, self._tables, self._settings = name, tables, settings
        self._answerer: Answerer | None = None
        self._of: tuple[str, ...] = ()
        self._problem = "it has not been read yet"

    async def follow(self, version: str, model: Model) -> None:
        """Reads both tables again if they or the version have changed. An error is told by :meth:`ready`."""
        if model.answers is None:
            self._answerer, self._of = None, ()
            return
        try:
            await asyncio.to_thread(self._read, version, model)
        except Exception as error:  # it must not stop the scores
            self._answerer, self._of, self._problem = None, (), str(error)

    def ready(self) -> Answerer:
        """What answers. Raises HTTP 503 if there is no knowledge base, or no thresholds of the version."""
        if self._answerer is None:
            said = f"'{self._name}' cannot answer yet: {self._problem}"
            raise HTTPException(503, said, headers={"Retry-After": str(RETRY_AFTER_S)})
        return self._answerer

    def _read(self, version: str, model: Model) -> None:
        keys = [model.key(name) for name in ("knowledge", "answering")]
        stamps = [self._tables.stamp(key) for key in keys]
        now = (version, *(stamp.data_version if stamp else "" for stamp in stamps))
        if now == self._of:
            return
        lacking = [key.to_user_string() for key, stamp in zip(keys, stamps, strict=True) if stamp is None]
        if lacking:
            raise _NotReadyError(f"materialise {' and '.join(lacking)}")
        limits = limits_of(self._tables.read(keys[1]), version)
        if limits is None:
            raise _NotReadyError(f"version {version} has no thresholds; materialise {keys[1].to_user_string()}")
        index = index_of(self._tables.read(keys[0]))
        try:
            vectors_of(["a first text"], language_of(model))
        except LanguageError as error:
            raise _NotReadyError(str(error)) from error
        writer = Writer.of(self._settings or Settings.from_env(part="service"))
        self._answerer, self._of = Answerer(model, index, limits, writer), now


class _NotReadyError(Exception):
    """A version cannot answer yet; the message is the fix."""


def limits_of(answering: pd.DataFrame, version: str) -> Limits | None:
    """The thresholds of a version; of a bundle without a number the latest ones; ``None`` if there are none."""
    rows = answering if version == "staged" else answering[answering["version"] == version]
    return None if rows.empty else Limits(float(rows["intent"].iloc[0]), float(rows["passage"].iloc[0]))


def row_of(request: Request, body: Any, model: Model, parser: RequestParser, now: dt.datetime) -> Raw:
    """The row of the model's table that a question is scored as.

    The context may hold any columns of the contract. Its key is drawn at random and its time is now, unless it has
    them; another column that is left out and has a fixed list of values gets the first of them.

    Raises:
        HTTPException: 422: the body has another form, or the question is too long.
    """
    assert model.answers is not None
    if not isinstance(body, dict) or not isinstance(body.get(QUESTION), str):
        raise not_understood(request, 'send {"question": "…"}, and columns of the contract as "context"')
    if unknown := sorted(set(body) - {QUESTION, CONTEXT}):
        raise not_understood(request, f"'{unknown[0][:50]}' is neither 'question' nor 'context'")
    context = body.get(CONTEXT, {})
    column, table = model.answers.column(model), model.table
    if not isinstance(context, Mapping) or column in context:
        raise not_understood(request, f"'context' is an object of columns other than '{column}'")
    if others := sorted(set(context) - set(parser.columns)):
        raise not_understood(
            request, f"context: '{others[0][:50]}' is no column; there are {', '.join(parser.columns)}"
        )
    if len(body[QUESTION]) > MOST_CHARACTERS:
        raise HTTPException(
            422, f"the question has {len(body[QUESTION]):,} characters; send at most {MOST_CHARACTERS:,}"
        )
    made: dict[str, Callable[[], Any]] = {table.key: lambda: _key(parser, table.key)}
    if table.time:
        made[table.time] = lambda: now.isoformat(sep=" ", timespec="seconds")
    if table.time and ARRIVED_AT in parser.columns:
        made[ARRIVED_AT] = made[table.time]
    for name, one in parser.schema.columns.items():
        allowed = next((check.statistics["allowed_values"] for check in one.checks if check.name == "isin"), None)
        if name not in made and allowed:
            made[name] = lambda allowed=allowed: next(iter(allowed))  # type: ignore[misc]
    drawn = {name: make() for name, make in made.items() if name not in context}
    return {**drawn, **context, column: body[QUESTION]}


def _key(parser: RequestParser, key: str) -> Any:
    """A key that no row has: a whole number of 53 bits, or a text."""
    number = secrets.randbits(53)
    return number if np.issubdtype(parser.dtypes[key], np.integer) else f"q-{number:x}"


def response_of(scored: Mapping[str, Any], reply: Reply) -> dict[str, Any]:
    """The response to a question: the reply, the intent with its probability, and the version."""
    intent = {"intent": scored["prediction"], "probability": scored["probability"]}
    return {**reply.to_json(), **intent, "model": scored["model"], "version": scored["version"]}

"""The asset ``knowledge``: the chunks of the documents with their vectors, and its recall on declared questions.

Belongs here: the table of chunks, of which only changed ones get new vectors, and the check ``recall_at_5``. Does not
belong here: reading documents (``documents.py``), searching (``search.py``).
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.language import Language
from assets.lifecycle.data.embeddings import vectors_of
from assets.lifecycle.retrieval.documents import Chunk, KnowledgeError, chunks_of, read_documents
from assets.lifecycle.retrieval.search import Index
from assets.lifecycle.stage import Check, StageOutput, table_asset
from resources.dagster_internals import CheckResult
from resources.settings import Settings, project_root
from resources.tables import ParquetTables

RECALL = Check(
    name="recall_at_5",
    description="Of the declared questions that a document answers, enough find it among the first five passages.",
)
FOUND_AMONG = 5


def knowledge_asset(model: Model) -> dg.AssetsDefinition | None:
    """Returns the asset ``knowledge``; ``None`` if the model declares no answers."""
    answers = model.answers
    if answers is None:
        return None

    def knowledge(context: dg.AssetExecutionContext) -> StageOutput:
        tables: ParquetTables = context.resources.tables
        try:
            documents = read_documents(answers.knowledge.places(Settings.from_env()))
            pairs = pairs_of(model)
        except KnowledgeError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from error
        chunks = [chunk for document in documents for chunk in chunks_of(document)]
        before = tables.read(model.key("knowledge")) if tables.stamp(model.key("knowledge")) else None
        frame, embedded = with_vectors(chunks, language_of(model), before)
        gone = 0 if before is None else len(set(before["document"]) - set(frame["document"]))
        metadata: dict[str, Any] = {
            "dagster/row_count": len(frame),
            "documents": len(documents),
            "embedded": embedded,
            "removed_documents": gone,
            "files": digest_of(model),
        }
        return StageOutput(frame, _recall(model, index_of(frame), pairs), metadata)

    return table_asset(
        model,
        "knowledge",
        knowledge,
        description="The documents in chunks with their vectors. Only chunks that changed get a new vector, and those "
        "of a deleted document are gone.",
        stage="answers",
        kinds={"torch"},
        checks=[RECALL] if answers.pairs else [],
        code=[chunks_of, Index],
        by_day=False,
    )


def language_of(model: Model) -> Language:
    """The language model whose vectors are compared: the declared one, or the default."""
    return model.language or Language()


def with_vectors(chunks: Sequence[Chunk], language: Language, before: pd.DataFrame | None) -> tuple[pd.DataFrame, int]:
    """The table of chunks, and the number of those that got a new vector.

    Args:
        chunks: ``[n]``.
        language: the language model.
        before: the former table, whose vectors of equal texts are kept.
    """
    digests = [_digest(chunk.searched, language.model) for chunk in chunks]
    known = {} if before is None else dict(zip(before["digest"], before["vector"], strict=True))
    lacking = list(dict.fromkeys(d for d in digests if d not in known))
    texts = {digest: chunk.searched for digest, chunk in zip(digests, chunks, strict=True)}
    made = list(vectors_of([texts[digest] for digest in lacking], language)) if lacking else []
    known |= {digest: as_text(vector) for digest, vector in zip(lacking, made, strict=True)}
    frame = pd.DataFrame([{"chunk": chunk.name, **asdict(chunk)} for chunk in chunks])
    frame["updated"] = frame["updated"].map(dt.date.isoformat)
    return frame.assign(digest=digests, vector=[known[digest] for digest in digests]), len(lacking)


def index_of(frame: pd.DataFrame) -> Index:
    """The index of a table of chunks."""
    chunks = [
        Chunk(row["document"], int(row["place"]), row["title"], dt.date.fromisoformat(row["updated"]), row["text"])
        for row in frame.to_dict("records")
    ]
    return Index(chunks, np.stack([vectors_in(vector)[0] for vector in frame["vector"]]))


def as_text(vectors: np.ndarray) -> str:
    """Vectors as text for a table: base64 of float32."""
    return base64.b64encode(vectors.astype(np.float32).tobytes()).decode()


def vectors_in(text: str, rows: int = 1) -> np.ndarray:
    """The vectors of a text by :func:`as_text`, float32 ``[rows, width]``."""
    return np.frombuffer(base64.b64decode(text), dtype=np.float32).reshape(rows, -1)


def digest_of(model: Model) -> str:
    """A short text that changes when a document's file changes, is added or removed; empty if none can be read."""
    assert model.answers is not None
    digest = hashlib.blake2b(digest_size=8)
    for folder in model.answers.knowledge.places(Settings.from_env()):
        for path in sorted(folder.glob("*.md")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def pairs_of(model: Model) -> pd.DataFrame:
    """The declared questions with the document that answers each; no rows if none are declared.

    Raises:
        KnowledgeError: the file cannot be read, or lacks a column.
    """
    assert model.answers is not None
    if not model.answers.pairs:
        return pd.DataFrame({"question": [], "document": []}, dtype=str)
    path = project_root() / model.answers.pairs
    try:
        pairs = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise KnowledgeError(f"{path}: cannot be read as CSV ({error}); see answers.pairs") from error
    if not {"question", "document"} <= set(pairs.columns):
        raise KnowledgeError(f"{path}: has the columns {', '.join(pairs.columns)}; it needs question and document")
    return pairs


def _recall(model: Model, index: Index, pairs: pd.DataFrame) -> list[CheckResult]:
    assert model.answers is not None
    answered = pairs[pairs["document"] != ""]
    if answered.empty:
        return []
    there = {chunk.document for chunk in index.chunks}
    lacking = sorted(set(answered["document"]) - there)
    missed = []
    vectors = vectors_of(list(answered["question"]), language_of(model))
    for question, document, vector in zip(answered["question"], answered["document"], vectors, strict=True):
        if document not in {one.chunk.document for one in index.search(question, vector, FOUND_AMONG)}:
            missed.append(question)
    recall = 1 - len(missed) / len(answered)
    message = f"recall@5 {recall:.2f} on {len(answered)} questions, at least {model.answers.least_recall:.2f}"
    if lacking:
        message += f"; these documents are not there: {', '.join(lacking[:3])}"
    if recall < model.answers.least_recall:
        examples = "; ".join(missed[:3])
        message += f"; not found, e.g.: {examples}; write what they ask for, or correct {model.answers.pairs}"
    return [
        CheckResult(
            check=RECALL.name,
            passed=recall >= model.answers.least_recall,
            description=message,
            metadata={"recall_at_5": recall, "questions": len(answered)},
        )
    ]


def _digest(text: str, language: str) -> str:
    return hashlib.blake2b(f"{language}\0{text}".encode(), digest_size=12).hexdigest()

"""Documents of a knowledge base, and the chunks that are searched.

    ---
    updated: 2026-05-20
    ---

    # What a cash withdrawal costs

    You have 5 free cash withdrawals a month. …

Belongs here: reading Markdown files, and splitting them. Does not belong here: vectors and the table of chunks
(``knowledge.py``), searching (``search.py``).
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MOST_WORDS = 32
"""Words of a chunk: the language model reads the first 48 word pieces of a text, and the title comes before."""
MOST_BYTES = 1_000_000
"""Largest document; a larger file is hardly an article."""
_ENDS = re.compile(r"(?<=[.!?。！？])(?:\s+|(?<=[。！？]))")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class KnowledgeError(Exception):
    """Documents cannot be read. The message names the file and the fix."""


@dataclass(frozen=True)
class Document:
    """A document: its name (the file's, without ``.md``), title, day of its last change, and paragraphs."""

    name: str
    title: str
    updated: dt.date
    paragraphs: tuple[str, ...]


@dataclass(frozen=True)
class Chunk:
    """A few sentences of a document that are found and cited together; ``place`` counts from 1."""

    document: str
    place: int
    title: str
    updated: dt.date
    text: str

    @property
    def name(self) -> str:
        """How the chunk is cited."""
        return f"{self.document}#{self.place}"

    @property
    def searched(self) -> str:
        """The text that is compared with questions."""
        return f"{self.title}. {self.text}"


def read_documents(folders: Sequence[Path]) -> list[Document]:
    """Reads the documents of folders, ordered by name. A document of a later folder replaces one of the same name.

    A folder after the first may be absent.

    Raises:
        KnowledgeError: the first folder is absent, there are no documents, or one cannot be read.
    """
    if not folders[0].is_dir():
        raise KnowledgeError(f"{folders[0]}: no such folder; make it and put one *.md file per document there")
    paths = {path.stem: path for folder in folders for path in sorted(folder.glob("*.md"))}
    if not paths:
        raise KnowledgeError(f"{folders[0]}: no *.md file; write at least one document")
    return [read_document(paths[name]) for name in sorted(paths)]


def read_document(path: Path) -> Document:
    """Reads one document. Raises :class:`KnowledgeError` if it cannot be read."""
    if not _NAME.fullmatch(path.stem):
        raise KnowledgeError(f"{path}: the name has other characters than letters, digits, '-', '_' and '.'; rename it")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise KnowledgeError(f"{path}: larger than {MOST_BYTES:,} bytes; split it into articles")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KnowledgeError(f"{path}: cannot be read as UTF-8 text ({error}); save it again") from error
    head = re.match(r"\s*---\s*\n(.*?)\n---\s*\n", text, re.DOTALL)
    said = re.search(r"^updated:\s*(\S+)\s*$", head[1], re.MULTILINE) if head else None
    try:
        updated = dt.date.fromisoformat(said[1]) if said else None
    except ValueError:
        updated = None
    if head is None or updated is None:
        raise KnowledgeError(f"{path}: begins without its day; begin it with '---', 'updated: 2026-05-31', '---'")
    body = text[head.end() :]
    title = re.search(r"^#\s+(.+?)\s*$", body, re.MULTILINE)
    if title is None:
        raise KnowledgeError(f"{path}: no title; write one in a line that begins with '# '")
    rest = body[: title.start()] + body[title.end() :]
    blocks = [re.sub(r"^#+\s.*$", "", block, flags=re.MULTILINE) for block in re.split(r"\n\s*\n", rest)]
    paragraphs = tuple(plain for block in blocks if (plain := re.sub(r"\s+", " ", block).strip()))
    if not paragraphs:
        raise KnowledgeError(f"{path}: no text under the title; write it, or remove the file")
    return Document(path.stem, title[1], updated, paragraphs)


def chunks_of(document: Document) -> list[Chunk]:
    """Splits a document into chunks of whole sentences of one paragraph, of about :data:`MOST_WORDS` words."""
    texts: list[str] = []
    for paragraph in document.paragraphs:
        kept: list[str] = []
        for sentence in sentences(paragraph):
            if kept and len(" ".join([*kept, sentence]).split()) > MOST_WORDS:
                texts.append(" ".join(kept))
                kept = []
            kept.append(sentence)
        texts.append(" ".join(kept))
    return [Chunk(document.name, i, document.title, document.updated, text) for i, text in enumerate(texts, start=1)]


def sentences(text: str) -> list[str]:
    """The sentences of a text."""
    return [sentence.strip() for sentence in _ENDS.split(text) if sentence.strip()]

"""The content of items as numbers: vectors of their texts, and their facts.

Belongs here: the two kinds of text vectors, and facts as categories. Does not belong here: the language model
(``assets/lifecycle/data/embeddings.py``), what is learnt from the numbers (``towers.py``).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np

from assets.language import Language
from assets.lifecycle.ranking.behaviour import Items
from assets.ranking import Ranking

HASHED = 128
"""Numbers in the vector of a text without a language model."""


def text_vectors(texts: Sequence[str] | np.ndarray, language: Language | None) -> np.ndarray:
    """Returns the vectors of texts, float32 ``[n, width]`` of length 1; a text without words has zeros or no words.

    Raises:
        LanguageError: the declared language model cannot be read.
    """
    if language is not None:
        from assets.lifecycle.data.embeddings import vectors_of

        return vectors_of(texts, language)
    found = np.zeros((len(texts), HASHED), np.float32)
    for row, text in zip(found, texts, strict=True):
        for word in re.findall(r"\w+", str(text).casefold()):
            code = zlib.crc32(word.encode())
            row[code % HASHED] += 1.0 if code & 1 << 20 else -1.0
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)


def categories(items: Items) -> list[list[str]]:
    """Returns the values of each fact, ascending."""
    return [sorted(set(map(str, items.facts[:, i]))) for i in range(items.facts.shape[1])]


def content(items: Items, ranking: Ranking, values: Sequence[Sequence[str]]) -> np.ndarray:
    """Returns what is known of items without any event, float32 ``[m, c]``: text vector, then a 1 for each fact.

    Args:
        items: the catalogue.
        ranking: the declaration.
        values: the values of each fact (:func:`categories`); a new value has zeros.
    """
    parts = [text_vectors(items.texts, ranking.language)] if ranking.text else []
    for i, known in enumerate(values):
        place = {value: j for j, value in enumerate(known)}
        found = np.zeros((len(items), len(known)), np.float32)
        for row, value in enumerate(map(str, items.facts[:, i])):
            if value in place:
                found[row, place[value]] = 1
        parts.append(found)
    return np.concatenate(parts, axis=1) if parts else np.zeros((len(items), 1), np.float32)

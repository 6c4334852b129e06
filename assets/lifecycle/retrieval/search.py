"""Searching the chunks of a knowledge base: by words (BM25) and by vectors, fused, then ranked again.

Belongs here: the index in memory and its ranking. Does not belong here: the table of chunks (``knowledge.py``), what is
made of the passages (``reply.py``).
"""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from assets.lifecycle.retrieval.documents import Chunk

CANDIDATES = 20
"""Chunks that each of the two searches proposes."""
FUSED_BY = 60
"""Constant of reciprocal rank fusion (Cormack et al., 2009)."""
K1, B = 1.2, 0.75
"""BM25's usual constants."""
_WORD = re.compile(r"[^\W_]+")
_HAN = re.compile(r"[぀-ヿ㐀-鿿]")
STOP = frozenset((
    "a", "about", "after", "all", "am", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by", "can",
    "could", "did", "do", "does", "for", "from", "get", "give", "got", "had", "has", "have", "hello", "help", "hi",
    "how", "i", "if", "in", "is", "it", "its", "just", "may", "me", "my", "no", "not", "now", "of", "on", "one",
    "or", "our", "please", "she", "should", "so", "some", "than", "thank", "thanks", "that", "the", "their", "them",
    "then", "there", "these", "they", "this", "to", "too", "up", "us", "was", "we", "were", "what", "when", "where",
    "which", "who", "whom", "why", "will", "with", "would", "you", "your",
))  # fmt: skip
"""Words that say nothing of a topic."""
_ENDINGS = (
    ("ies", "y"), ("ations", ""), ("ation", ""), ("ings", ""), ("ing", ""), ("edly", ""), ("ed", ""), ("als", ""),
    ("al", ""), ("es", ""), ("s", ""), ("e", ""),
)  # fmt: skip


def words_of(text: str) -> list[str]:
    """The words of a text that say something of its topic, without common endings; a Han character is a word."""
    found = []
    for word in _WORD.findall(text.lower()):
        if _HAN.search(word):
            found += list(word)
        elif word not in STOP:
            found.append(stem(word))
    return found


def stem(word: str) -> str:
    """An English word without its ending, so that forms of a word are mostly the same."""
    for ending, instead in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending) + instead
    return word


@dataclass(frozen=True)
class Passage:
    """A chunk that was found.

    Attributes:
        chunk: the chunk.
        score: how well it fits, from 0 to about 1; what thresholds are compared with.
        cosine: similarity of the vectors.
        overlap: share of the question's words that it has, weighted by how rare they are.
    """

    chunk: Chunk
    score: float
    cosine: float
    overlap: float


class Index:
    """The chunks in memory.

    Args:
        chunks: ``[n]``, at least one.
        vectors: their vectors, float32 ``[n, width]``, of length 1.
    """

    def __init__(self, chunks: Sequence[Chunk], vectors: np.ndarray) -> None:
        self.chunks, self.vectors = list(chunks), vectors
        self._words = [collections.Counter(words_of(chunk.searched)) for chunk in self.chunks]
        self._titles = [set(words_of(chunk.title)) for chunk in self.chunks]
        self._lengths = np.array([sum(words.values()) for words in self._words], dtype=float)
        self._places: dict[str, list[int]] = {}
        for place, words in enumerate(self._words):
            for word in words:
                self._places.setdefault(word, []).append(place)

    def rarity(self, word: str) -> float:
        """BM25's weight of a word: high for a word of few chunks."""
        n, there = len(self.chunks), len(self._places.get(word, ()))
        return math.log(1 + (n - there + 0.5) / (there + 0.5))

    def bm25(self, words: Sequence[str]) -> np.ndarray:
        """The BM25 score of each chunk, ``[n]``."""
        scores = np.zeros(len(self.chunks))
        mean = max(float(self._lengths.mean()), 1.0)
        for word in set(words):
            places = np.array(self._places.get(word, ()), dtype=int)
            count = np.array([self._words[place][word] for place in places], dtype=float)
            scores[places] += (
                self.rarity(word) * count * (K1 + 1) / (count + K1 * (1 - B + B * self._lengths[places] / mean))
            )
        return scores

    def search(self, question: str, vector: np.ndarray, k: int = 5) -> list[Passage]:
        """The ``k`` passages that fit best, the best first.

        Args:
            question: the text.
            vector: its vector, ``[width]``.
            k: number of passages.
        """
        words = list(dict.fromkeys(words_of(question)))
        by_words, cosines = self.bm25(words), self.vectors @ vector
        fused = np.zeros(len(self.chunks))
        for scores in (by_words, cosines):
            order = np.argsort(-scores, kind="stable")[:CANDIDATES]
            order = order[scores[order] > 0]
            fused[order] += 1 / (FUSED_BY + 1 + np.arange(len(order)))
        candidates = np.argsort(-fused, kind="stable")[:CANDIDATES]
        passages = [self._passage(int(place), words, float(cosines[place])) for place in candidates if fused[place] > 0]
        return sorted(passages, key=lambda one: -one.score)[:k]

    def _passage(self, place: int, words: Sequence[str], cosine: float) -> Passage:
        """A candidate with its final score: the mean of meaning and words; words in the title count twice."""
        rarities = {word: self.rarity(word) for word in words}
        whole = sum(rarities.values()) or 1.0
        overlap = sum(rarity for word, rarity in rarities.items() if word in self._words[place]) / whole
        of_title = sum(rarity for word, rarity in rarities.items() if word in self._titles[place]) / whole
        score = 0.6 * max(cosine, 0.0) + 0.25 * overlap + 0.15 * of_title
        return Passage(self.chunks[place], score, cosine, overlap)

"""The regularised linear model on standardised numbers and on TF-IDF weights of words and word pairs.

Belongs here: the fit with scikit-learn, and the same model as a torch module. Does not belong here: its ensemble weight
(``fitting.py``), its role as a baseline of the gate (``baselines.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from assets.lifecycle.data.text import BUCKETS, WORDS, as_words, pairs_of
from assets.lifecycle.model.learners.preprocessing import preprocessing
from assets.task import BINARY, Task

if TYPE_CHECKING:
    import torch

MAX_DEVIATIONS = 8.0
"""Standardised values are clipped at ± this value, so that one extreme amount cannot distort the linear model."""
WORDS_STRENGTH = 3.0
"""Inverse penalty strength (scikit-learn's C) with text; without text it is 1. With 1, a text with one informative word
has too small an effect."""
OF_PAIRS = 0.5
"""Length of a text's vector of word pairs, relative to the length 1 of its vector of words."""
ROWS_OF_A_PAIR = 2
"""Word pairs in fewer rows than this are ignored."""
RARE = 1e-4
"""Probability of a class that is absent from the training rows."""


def fit_linear(
    X: np.ndarray,
    y: np.ndarray,
    *,
    task: Task = BINARY,
    tokens: Sequence[int] = (),
    weight: np.ndarray | None = None,
) -> torch.nn.Module:
    """Fits the linear model.

    Missing values are replaced by the median; a column with missing values in the training rows also gets an indicator.
    Columns are standardised and clipped at ± :data:`MAX_DEVIATIONS`. A text is represented by TF-IDF of its words and
    of its pairs of neighbouring words: one plus the logarithm of the count, times the inverse document frequency,
    scaled to a fixed length.

    Args:
        X: ``[n, n_features]``; missing values are NaN, infinite values are not allowed.
        y: class codes or measured values, ``[n]``.
        task: the kind of target.
        tokens: positions of the columns that hold word numbers.
        weight: row weights, ``[n]``; default: equal weights.

    Returns:
        A module in evaluation mode that maps raw float32 ``[n, n_features]`` (NaN allowed) to outputs: logits ``[n]``,
        log probabilities ``[n, classes]``, or values in the unit of ``y`` ``[n]``.
    """
    import torch
    from scipy.sparse import csr_array, hstack
    from torch import nn

    texts = len(tokens) // WORDS
    before = preprocessing(torch.from_numpy(np.asarray(X, np.float32)), tokens)
    ready = before(torch.from_numpy(np.asarray(X, np.float32)))
    width = ready.shape[1] - len(tokens)
    numbers = ready[:, :width].clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS).double().numpy()
    if texts:
        words_of_rows = as_words(ready[:, width:])
        of_words = _Rarity.of(words_of_rows.numpy(), 1)
        of_pairs = _Rarity.of(pairs_of(words_of_rows, texts).numpy(), ROWS_OF_A_PAIR)
        blocks = [csr_array(numbers), of_words.rows, OF_PAIRS * of_pairs.rows]
        weights, intercept, codes = _solve(csr_array(hstack(blocks)), y, task, weight)
        cuts = np.cumsum([width, len(of_words.seen)])
        on_numbers, on_words, on_pairs = np.split(weights, cuts, axis=1)
        tables = [of_words.table(on_words), of_pairs.table(OF_PAIRS * on_pairs)]
    else:
        on_numbers, intercept, codes = _solve(numbers, y, task, weight)
    n_outputs = len(intercept)

    class Linear(nn.Module):
        weights: torch.Tensor
        intercept: torch.Tensor
        present: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weights", torch.from_numpy(on_numbers.T.astype(np.float32)))
            self.register_buffer("intercept", torch.from_numpy(intercept.astype(np.float32)))
            self.texts = nn.ModuleList(_weighed_text(*table) for table in tables) if texts else None
            if task.kind == "multiclass":
                self.register_buffer("present", torch.from_numpy(np.asarray(codes, dtype=np.int64)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            outputs = x[:, :width].clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS) @ self.weights + self.intercept
            if self.texts is not None:
                words = as_words(x[:, width:])
                outputs = outputs + self.texts[0](words) + self.texts[1](pairs_of(words, texts))
            if task.kind != "multiclass":
                return outputs.squeeze(1)
            if n_outputs == 1:
                outputs = torch.cat([-outputs / 2, outputs / 2], dim=1)
            known = torch.log_softmax(outputs, dim=1)
            every = known.new_full((known.shape[0], len(task.classes)), float(np.log(RARE)))
            return every.index_copy(1, self.present, known)

    return nn.Sequential(before, Linear()).eval()


def _solve(X: Any, y: np.ndarray, task: Task, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fits weights ``[outputs, columns]`` and intercepts ``[outputs]``; also returns the class codes found in ``y``."""
    from scipy.sparse import issparse
    from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV

    if task.kind == "regression":
        model = Ridge(1 / WORDS_STRENGTH) if issparse(X) else RidgeCV(np.logspace(-3, 3, 13))
        model.fit(X, y, sample_weight=weight)
        return model.coef_[None, :], np.atleast_1d(model.intercept_), np.array([])
    # newton-cholesky suits many rows and few columns; word columns are many.
    solver = "lbfgs" if issparse(X) or len(np.unique(y)) > 2 else "newton-cholesky"
    model = LogisticRegression(C=WORDS_STRENGTH if issparse(X) else 1.0, solver=solver, max_iter=300)
    model.fit(X, y, sample_weight=weight)
    return model.coef_, model.intercept_, model.classes_


class _Rarity:
    """TF-IDF of words or word pairs.

    Attributes:
        seen: numbers of the words that occur in enough rows.
        idf: weight of each of them (scikit-learn's smoothed inverse document frequency); rarer words weigh more.
        rows: sparse TF-IDF ``[n, len(seen)]``; each row has length 1 (or 0 without words).
    """

    def __init__(self, seen: np.ndarray, idf: np.ndarray, rows: Any) -> None:
        self.seen, self.idf, self.rows = seen, idf, rows

    @classmethod
    def of(cls, words: np.ndarray, least: int) -> _Rarity:
        """Fits TF-IDF on word numbers ``[n, places]`` (0 means no word), for words in at least ``least`` rows."""
        from scipy.sparse import csr_array
        from sklearn.feature_extraction.text import TfidfTransformer

        counts = word_counts(words)
        seen = np.flatnonzero(np.bincount(counts.indices, minlength=BUCKETS + 1) >= least)
        if not len(seen):  # e.g. no pairs, because each text is a single word
            return cls(seen, np.empty(0), csr_array((len(words), 0)))
        weigh = TfidfTransformer(sublinear_tf=True)
        rows = weigh.fit_transform(counts[:, seen])
        return cls(seen, weigh.idf_, rows)

    def table(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns a lookup table: a line per word number, int64 ``[BUCKETS + 1]``, and the values of each line.

        The values are IDF and ``weights`` (``[outputs, len(seen)]``) as float32 ``[lines, 1 + outputs]``; line 0 is 0.
        """
        lines = np.zeros(BUCKETS + 1, dtype=np.int64)
        lines[self.seen] = np.arange(1, len(self.seen) + 1)
        values = np.zeros((len(self.seen) + 1, 1 + len(weights)), dtype=np.float32)
        values[1:, 0], values[1:, 1:] = self.idf, weights.T
        return lines, values


def _weighed_text(lines: np.ndarray, values: np.ndarray) -> torch.nn.Module:
    """A module that maps word numbers ``[n, places]`` to the linear output of their TF-IDF, ``[n, outputs]``."""
    import torch
    from torch import nn

    class WeighedText(nn.Module):
        lines: torch.Tensor
        values: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("lines", torch.from_numpy(lines))
            self.register_buffer("values", torch.from_numpy(values))

        def forward(self, words: torch.Tensor) -> torch.Tensor:
            count = (words.unsqueeze(1) == words.unsqueeze(2)).sum(dim=1).to(self.values.dtype)
            table = self.values[self.lines[words]]
            # A word's weight is split evenly among its places, so no list of a row's distinct words is needed.
            weight = (1 + count.log()) * table[:, :, 0]
            length = (weight.square() / count).sum(dim=1, keepdim=True).sqrt().clamp(min=1e-12)
            return ((weight / count / length).unsqueeze(1) @ table[:, :, 1:]).squeeze(1)

    return WeighedText()


def word_counts(words: np.ndarray) -> Any:
    """Counts word numbers ``[n, places]`` per row, as sparse ``[n, BUCKETS + 1]``; the number 0 means no word."""
    from scipy.sparse import csr_array

    row, place = np.nonzero(words)
    counts = csr_array((np.ones(len(row)), (row, words[row, place])), shape=(len(words), BUCKETS + 1))
    counts.sum_duplicates()
    return counts

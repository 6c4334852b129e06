"""The regularised linear model: of the numbers, standardised, and of words and pairs of words, by TF-IDF.

Belongs here: the fit, by scikit-learn, and the same model as a torch module. Does not belong here: what share it gets
beside a network (``fitting.py``), that the gate holds a candidate against it (``baselines.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from assets.lifecycle.data.text import BUCKETS, WORDS, pairs_of
from assets.lifecycle.model.learners.preprocessing import preprocessing
from assets.task import BINARY, Task

if TYPE_CHECKING:
    import torch

MAX_DEVIATIONS = 8.0
"""Standardised values are cut here, so that one absurd amount cannot tilt a linear model."""
WORDS_STRENGTH = 3.0
"""Inverse strength of the penalty (scikit-learn's C) where there is text; 1 where there is none. With 1, a text of one
telling word says too little."""
OF_PAIRS = 0.5
"""Length of a text's vector of pairs, beside that of its words, which is 1."""
ROWS_OF_A_PAIR = 2
"""Pairs of words in fewer rows than this are not looked at."""
RARE = 1e-4
"""Probability of a class that the rows fitted on lack."""


def fit_linear(
    X: np.ndarray,
    y: np.ndarray,
    *,
    task: Task = BINARY,
    tokens: Sequence[int] = (),
    weight: np.ndarray | None = None,
) -> torch.nn.Module:
    """A fitted module from raw float32 ``[n, n_features]`` (NaN allowed) to outputs, as a network has.

    Missing values become the median, beside a column that says so where the rows had any; columns are standardised and
    cut at ± :data:`MAX_DEVIATIONS`. A text is its words and its pairs of neighbouring words by TF-IDF: one plus the
    logarithm of the count, weighed by how rare the word is, the whole of a fixed length.

    Args:
        X: ``[n, k]``, may hold NaN but nothing infinite.
        y: class codes or measured values, ``[n]``.
        task: the kind of target.
        tokens: positions of the columns that hold word numbers.
        weight: of each row, ``[n]``; default: all alike.

    Returns:
        In evaluation mode. Outputs are logits ``[n]``, log probabilities ``[n, classes]``, or values in the unit of
        ``y`` ``[n]``.
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
        of_words = _Rarity.of(ready[:, width:].long().numpy(), 1)
        of_pairs = _Rarity.of(pairs_of(ready[:, width:].long(), texts).numpy(), ROWS_OF_A_PAIR)
        said = [csr_array(numbers), of_words.rows, OF_PAIRS * of_pairs.rows]
        weights, intercept, codes = _solve(csr_array(hstack(said)), y, task, weight)
        cuts = np.cumsum([width, len(of_words.seen)])
        on_numbers, on_words, on_pairs = np.split(weights, cuts, axis=1)
        tables = [of_words.table(on_words), of_pairs.table(OF_PAIRS * on_pairs)]
    else:
        on_numbers, intercept, codes = _solve(numbers, y, task, weight)
    outputs = len(intercept)

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
            said = x[:, :width].clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS) @ self.weights + self.intercept
            if self.texts is not None:
                words = torch.nan_to_num(x[:, width:]).clamp(0, BUCKETS).long()
                said = said + self.texts[0](words) + self.texts[1](pairs_of(words, texts))
            if task.kind != "multiclass":
                return said.squeeze(1)
            if outputs == 1:
                said = torch.cat([-said / 2, said / 2], dim=1)
            known = torch.log_softmax(said, dim=1)
            every = known.new_full((known.shape[0], len(task.classes)), float(np.log(RARE)))
            return every.index_copy(1, self.present, known)

    return nn.Sequential(before, Linear()).eval()


def _solve(X: Any, y: np.ndarray, task: Task, weight: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights ``[outputs, columns]``, intercepts ``[outputs]``, and the codes of the classes that there were."""
    from scipy.sparse import issparse
    from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV

    if task.kind == "regression":
        model = Ridge(1 / WORDS_STRENGTH) if issparse(X) else RidgeCV(np.logspace(-3, 3, 13))
        model.fit(X, y, sample_weight=weight)
        return model.coef_[None, :], np.atleast_1d(model.intercept_), np.array([])
    # Many rows and few columns; with words there are many columns.
    solver = "lbfgs" if issparse(X) or len(np.unique(y)) > 2 else "newton-cholesky"
    model = LogisticRegression(C=WORDS_STRENGTH if issparse(X) else 1.0, solver=solver, max_iter=300)
    model.fit(X, y, sample_weight=weight)
    return model.coef_, model.intercept_, model.classes_


class _Rarity:
    """How rare each word (or pair) is, and the rows by it.

    Attributes:
        seen: the numbers of the words that are in enough rows.
        idf: what each of them weighs, the rarer the more (scikit-learn's smoothed inverse document frequency).
        rows: sparse ``[n, len(seen)]``, each row of length 1 (or 0).
    """

    def __init__(self, seen: np.ndarray, idf: np.ndarray, rows: Any) -> None:
        self.seen, self.idf, self.rows = seen, idf, rows

    @classmethod
    def of(cls, words: np.ndarray, least: int) -> _Rarity:
        """Of word numbers ``[n, places]``; 0 is no word."""
        from sklearn.feature_extraction.text import TfidfTransformer

        counts = word_counts(words)
        seen = np.flatnonzero(np.bincount(counts.indices, minlength=BUCKETS + 1) >= least)
        weigh = TfidfTransformer(sublinear_tf=True)
        rows = weigh.fit_transform(counts[:, seen])
        return cls(seen, weigh.idf_, rows)

    def table(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """By word number a line, int64 ``[BUCKETS + 1]``; and by line, rarity and weights, ``[lines, 1 + outputs]``."""
        lines = np.zeros(BUCKETS + 1, dtype=np.int64)
        lines[self.seen] = np.arange(1, len(self.seen) + 1)
        values = np.zeros((len(self.seen) + 1, 1 + len(weights)), dtype=np.float32)
        values[1:, 0], values[1:, 1:] = self.idf, weights.T
        return lines, values


def _weighed_text(lines: np.ndarray, values: np.ndarray) -> torch.nn.Module:
    """From word numbers ``[n, places]`` to what their TF-IDF says, ``[n, outputs]``."""
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
            # Each place of a word has its share of the word's weight: there is no list of a row's different words.
            weight = (1 + count.log()) * table[:, :, 0]
            length = (weight.square() / count).sum(dim=1, keepdim=True).sqrt().clamp(min=1e-12)
            return ((weight / count / length).unsqueeze(1) @ table[:, :, 1:]).squeeze(1)

    return WeighedText()


def word_counts(words: np.ndarray) -> Any:
    """Sparse ``[n, BUCKETS + 1]``: how often each word number is in a row; the number 0 is no word."""
    from scipy.sparse import csr_array

    row, place = np.nonzero(words)
    counts = csr_array((np.ones(len(row)), (row, words[row, place])), shape=(len(words), BUCKETS + 1))
    counts.sum_duplicates()
    return counts

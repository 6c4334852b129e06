"""The default network for tabular features; a declaration may replace it with its own.

Belongs here: modules, and how their layers are sized from training rows. Does not belong here: the fit
(``fitting.py``), the text encoder (``text.py``).
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

WIDTHS, WIDEST = 1_024, 256
"""Total hidden units per layer over all members, and the maximum per member."""
TREE_BINS, QUANTILE_BINS = 64, 64
EMBEDDING, LEAST_EMBEDDING, EMBEDDINGS = 16, 4, 480
"""Embedding size per feature: maximum, minimum, and the target total over all features, so that more features get
smaller embeddings. With 300 features and 400 rows, size 4 learns better than 16 (AUC .637 and .620, four tables) in
half the time."""
ROWS_A_BIN = 40
"""Minimum number of rows per piece of an embedding; with fewer rows it learns noise."""


def tabular(
    X: torch.Tensor, y: torch.Tensor, *, texts: int = 0, members: int = 8, blocks: int = 2, dropout: float = 0.0
) -> torch.nn.Module:
    """Builds the default network: each feature's piecewise-linear embedding and clipped value feed small networks.

    The edges of the pieces are quantiles merged with the thresholds of a tree per feature, because quantiles alone miss
    a sharp cut in a feature's tail. Features with two values have no embedding. Embeddings: Gorishniy et al. (2022),
    "On Embeddings for Numerical Features in Tabular Deep Learning". Members trained in parallel: Gorishniy et al.
    (2025), "TabM". Both use the authors' packages. ``docs/default-network.md`` lists the experiments.

    Args:
        X: float32 ``[n, n_features]``, standardised, without missing values, as the module receives them. Columns of
            word numbers come last.
        y: float32, as described in :data:`~assets.declaration.NetworkFactory`.
        members: number of small networks fitted to the same target; the output is their mean.
        texts: number of text columns, of :data:`~assets.lifecycle.data.text.WORDS` word numbers each.
        blocks: hidden layers of each member.
        dropout: share of the hidden units that a training step leaves out.

    Returns:
        A module that maps ``[n, n_features]`` to outputs of the shape of ``y``; in training mode, to one output per
        member.
    """
    import torch
    from rtdl_num_embeddings import PiecewiseLinearEmbeddings
    from tabm import EnsembleView, LinearEnsemble, MLPBackboneEnsemble
    from torch import nn

    from assets.lifecycle.data.text import WIDTH as TEXT_WIDTH
    from assets.lifecycle.data.text import WORDS, text_encoder

    hidden = min(WIDEST, WIDTHS // members)
    outputs = y.shape[1] if y.ndim == 2 else 1
    numbers = X.shape[1] - texts * WORDS
    target = (y.argmax(dim=1) if y.ndim == 2 else y).cpu().numpy()
    measured = y.ndim == 1 and not np.isin(target, (0, 1)).all()
    words_of_rows = X[:, numbers:].split(WORDS, dim=1) if texts else ()
    edges = [bin_edges(column, target, measured=measured) for column in X[:, :numbers].cpu().numpy().T]
    many = [i for i, cuts in enumerate(edges) if len(cuts) > 2]
    few = [i for i, cuts in enumerate(edges) if len(cuts) == 2]

    class Tabular(nn.Module):
        many: torch.Tensor
        few: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("many", torch.tensor(many, dtype=torch.long))
            self.register_buffer("few", torch.tensor(few, dtype=torch.long))
            pieces = [torch.from_numpy(edges[i]) for i in many]
            size = min(EMBEDDING, max(LEAST_EMBEDDING, EMBEDDINGS // max(1, len(many))))
            self.embedding = PiecewiseLinearEmbeddings(pieces, size, activation=False, version="B") if many else None
            self.texts = nn.ModuleList(text_encoder(numbers) for numbers in words_of_rows)
            width = len(many) * (size + 1) + len(few) + texts * TEXT_WIDTH
            self.members = nn.Sequential(
                EnsembleView(k=members),
                MLPBackboneEnsemble(d_in=width, n_blocks=blocks, d_block=hidden, dropout=dropout, k=members),
                LinearEnsemble(hidden, outputs, k=members),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            clipped = x[:, :numbers].clamp(-3, 3)
            parts = [clipped.index_select(1, self.few)]
            if self.embedding is not None:
                parts += [self.embedding(x.index_select(1, self.many)).flatten(1), clipped.index_select(1, self.many)]
            words = x[:, numbers:].split(WORDS, dim=1) if texts else ()
            parts += [encode(numbers_) for encode, numbers_ in zip(self.texts, words, strict=True)]
            outputs = self.members(torch.cat(parts, dim=1))
            outputs = outputs.squeeze(-1) if y.ndim == 1 else outputs
            return outputs if self.training else outputs.mean(dim=1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few pieces are correct for a feature with few values
        return Tabular()


def bin_edges(values: np.ndarray, target: np.ndarray, *, measured: bool = False, seed: int = 0) -> np.ndarray:
    """Returns the ascending float32 edges of one feature's pieces, at least two.

    Args:
        values: ``[n]`` without missing values.
        target: ``[n]``, class codes, or values if ``measured``.
        measured: whether the target is a measured value.
        seed: of the sample of at most 50,000 rows that the tree is fitted on.
    """
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    low, high = float(values.min()), float(values.max())
    if ((values == low) | (values == high)).all():  # a cut between the two values would add a piece
        return np.array([low, high if high > low else low + 1], dtype=np.float32)
    rows = np.random.default_rng(seed).permutation(len(values))[:50_000]
    bins = max(2, min(TREE_BINS, len(rows) // ROWS_A_BIN))
    kind = DecisionTreeRegressor if measured else DecisionTreeClassifier
    least = min(0.5, max(20, len(rows) // 5_000) / len(rows))
    tree = kind(max_leaf_nodes=bins, min_weight_fraction_leaf=least, random_state=0)
    if measured:
        tree.fit(values[rows, None], target[rows])
    else:
        # Rows of equal value and class are merged into one weighted row, which is faster to sort and split.
        classes = np.unique(target[rows])
        found = [np.unique(values[rows][target[rows] == k], return_counts=True) for k in classes]
        different, count = (np.concatenate(part) for part in zip(*found, strict=True))
        code = np.repeat(classes, [len(part) for part, _ in found])
        tree.fit(different[:, None], code, sample_weight=count)
    cuts = tree.tree_.threshold[tree.tree_.feature >= 0]
    quantiles = np.quantile(values, np.linspace(0, 1, min(QUANTILE_BINS, bins) + 1))
    edges = np.unique(np.concatenate([cuts, quantiles]).astype(np.float32))
    # Edges closer than this would give a piece whose slope dominates all others.
    edges = edges[np.concatenate([[True], np.diff(edges) > 1e-4])]
    return edges if len(edges) > 1 else np.array([edges[0], edges[0] + 1], dtype=np.float32)

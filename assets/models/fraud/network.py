"""The fraud network: a single small network that needs a fraction of the default ensemble's time.

Belongs here: the module and how its structure is derived from training rows.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

TREE_BINS, QUANTILE_BINS = 12, 12
EMBEDDING, WIDTH, DROPOUT = 4, 96, 0.1


def network(X: torch.Tensor, y: torch.Tensor) -> torch.nn.Module:
    """Returns a network of two hidden layers on piecewise-linear feature embeddings and clipped feature values.

    The edges of the pieces combine quantiles with the thresholds of a small tree per feature, because quantiles alone
    miss a sharp cut in a feature's tail (an amount above which every payment is fraud). Embeddings: Gorishniy et al.
    (2022), "On Embeddings for Numerical Features in Tabular Deep Learning", from the authors' package.

    Args:
        X: float32 ``[n, n_features]``, standardised, without missing values, as the module's input will be.
        y: float32 ``[n]``, 0 or 1.

    Returns:
        A module from ``[n, n_features]`` to logits ``[n]``.
    """
    import torch
    from rtdl_num_embeddings import PiecewiseLinearEmbeddings
    from torch import nn

    class Tabular(nn.Module):
        def __init__(self, edges: list[torch.Tensor]) -> None:
            super().__init__()
            self.embedding = PiecewiseLinearEmbeddings(edges, EMBEDDING, activation=False, version="A")
            self.layers = nn.Sequential(
                nn.Linear(len(edges) * (EMBEDDING + 1), WIDTH), nn.ReLU(), nn.Dropout(DROPOUT),
                nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Dropout(DROPOUT),
                nn.Linear(WIDTH, 1),
            )  # fmt: skip

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pieces = self.embedding(x).flatten(1)
            return self.layers(torch.cat([pieces, x.clamp(-3, 3)], dim=1)).squeeze(-1)

    edges = [torch.from_numpy(bin_edges(column, y.cpu().numpy())) for column in X.cpu().numpy().T]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a feature with two values correctly has one piece
        return Tabular(edges)


def bin_edges(values: np.ndarray, target: np.ndarray, seed: int = 0) -> np.ndarray:
    """Returns the ascending float32 edges of one feature's pieces, at least two.

    Args:
        values: ``[n]`` without missing values.
        target: ``[n]``, 0 or 1.
        seed: seed of the sample (at most 50,000 rows) that the tree is fitted to.
    """
    from sklearn.tree import DecisionTreeClassifier

    rows = np.random.default_rng(seed).permutation(len(values))[:50_000]
    # Rows with equal value and class are merged into one weighted row: counts and shares have few distinct values.
    good, fraud = (np.unique(values[rows][target[rows] == k], return_counts=True) for k in (0, 1))
    least = min(0.5, max(20, len(rows) // 5_000) / len(rows))
    tree = DecisionTreeClassifier(max_leaf_nodes=TREE_BINS, min_weight_fraction_leaf=least, random_state=0)
    tree.fit(
        np.concatenate([good[0], fraud[0]])[:, None],
        np.repeat([0, 1], [len(good[0]), len(fraud[0])]),
        sample_weight=np.concatenate([good[1], fraud[1]]),
    )
    cuts = tree.tree_.threshold[tree.tree_.feature >= 0]
    quantiles = np.quantile(values, np.linspace(0, 1, QUANTILE_BINS + 1))
    edges = np.unique(np.concatenate([cuts, quantiles]).astype(np.float32))
    # A piece between closer edges would have a slope that dominates all others.
    edges = edges[np.concatenate([[True], np.diff(edges) > 1e-4])]
    return edges if len(edges) > 1 else np.array([edges[0], edges[0] + 1], dtype=np.float32)

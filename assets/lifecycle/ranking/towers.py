"""The two towers: a vector for a user's history and one for an item, whose product says how well they fit.

Belongs here: the torch modules, their loss and their fitting. Does not belong here: the fitted weights at work, which
need no torch (``ranker.py``), the ranking network's features (``ranker.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from assets.lifecycle.ranking.behaviour import Behaviour, Histories, histories
from assets.ranking import Ranking

NEGATIVES = 512
"""Items drawn for the sampled softmax of a step."""
BATCH = 256
WITHOUT_ID = 0.3
"""Share of the items of a step whose id is left out, so that an item is also found by its content alone."""
MLP_WIDTH = 16
MLP_EPOCHS = 30

Log = Callable[[str], None]
Weights = dict[str, np.ndarray]
"""Fitted weights by name, float32."""


@dataclass(frozen=True)
class FittedTowers:
    """Fitted weights and the loss by epoch.

    Attributes:
        weights: ``item_id`` ``[m, d]``, ``content`` ``[c, d]``, ``user_1``, ``user_1_bias``, ``user_2``, ``nobody``
            ``[d]``, ``scale`` ``[1]``.
        losses: mean loss of each epoch.
    """

    weights: Weights
    losses: list[float]


def fit_towers(past: Behaviour, content: np.ndarray, ranking: Ranking, *, seed: int, log: Log) -> FittedTowers:
    """Fits the towers on each liking with the history before it. The same seed gives the same weights on a CPU.

    The loss is a sampled softmax: an item that is drawn often is corrected by the logarithm of its probability (logQ),
    because otherwise popular items would be learnt to be bad.

    Args:
        past: the events, in the order of time.
        content: what is known of each item without events, ``[m, c]``.
        ranking: the declaration.
        seed: of the initial weights, the order and the draws.
        log: receives lines of progress.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    import torch

    liked = past.liked
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    of = histories(past, liked.user, liked.at, ranking, without=liked.item)
    items = torch.from_numpy(of.item).to(device)
    weights = torch.from_numpy(of.weight).to(device)
    target = torch.from_numpy(liked.item).to(device)
    importance = torch.from_numpy(np.sqrt(liked.weight).astype(np.float32)).to(device)
    count = np.bincount(liked.item, minlength=len(content)) + 1.0
    probability = torch.from_numpy((count**0.75 / (count**0.75).sum()).astype(np.float32))
    log_q = probability.log().to(device)
    towers = _towers(len(content), torch.from_numpy(content).to(device), ranking.width).to(device)
    optimiser = torch.optim.AdamW(towers.parameters(), lr=5e-3, weight_decay=1e-3)
    losses: list[float] = []
    for epoch in range(ranking.epochs if len(target) else 0):
        order = torch.randperm(len(target), generator=generator)
        total = 0.0
        for chosen in order.split(BATCH):
            some = chosen.to(device)
            drawn = torch.multinomial(probability, NEGATIVES, replacement=True, generator=generator).to(device)
            keeps = (torch.rand(len(content), 1, generator=generator) >= WITHOUT_ID).float().to(device)
            every = towers.items(keeps)
            user = towers.users(every, items[some], weights[some])
            own = (user * every[target[some]]).sum(dim=1, keepdim=True) * towers.scale.exp() - log_q[target[some], None]
            others = user @ every[drawn].T * towers.scale.exp() - log_q[drawn]
            others = others.masked_fill(drawn[None, :] == target[some, None], -1e9)
            one = torch.logsumexp(torch.cat([own, others], dim=1), dim=1) - own[:, 0]
            loss = (one * importance[some]).sum() / importance[some].sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += float(loss.detach()) * len(some)
        losses.append(total / max(len(target), 1))
        if not np.isfinite(losses[-1]):
            raise FloatingPointError(f"the loss of the towers is {losses[-1]} in epoch {epoch + 1}")
        log(f"towers: epoch {epoch + 1} of {ranking.epochs}, loss {losses[-1]:.4f}")
    return FittedTowers(towers.as_arrays(), losses)


def _towers(items: int, content: Any, width: int) -> Any:
    """The module; torch is imported only when something is fitted."""
    import torch

    class Towers(torch.nn.Module):
        """Item: id and content. User: the weighted mean of the items of the history, then a layer with a shortcut."""

        def __init__(self) -> None:
            super().__init__()
            self.item_id = torch.nn.Parameter(torch.randn(items, width) * 0.05)
            self.content = torch.nn.Parameter(torch.randn(content.shape[1], width) / content.shape[1] ** 0.5)
            self.user_1 = torch.nn.Parameter(torch.randn(width, width) / width**0.5)
            self.user_1_bias = torch.nn.Parameter(torch.zeros(width))
            self.user_2 = torch.nn.Parameter(torch.randn(width, width) * 0.1 / width**0.5)
            self.nobody = torch.nn.Parameter(torch.randn(width) * 0.1)
            self.scale = torch.nn.Parameter(torch.tensor(2.0))

        def items(self, keeps: Any) -> Any:
            return torch.nn.functional.normalize(self.item_id * keeps + content @ self.content, dim=1)

        def users(self, every: Any, item: Any, weight: Any) -> Any:
            total = weight.sum(dim=1, keepdim=True)
            mean = (every[item.clamp(min=0)] * weight[:, :, None]).sum(dim=1) / total.clamp(min=1e-9)
            mean = torch.where(total > 0, mean, self.nobody)
            hidden = torch.relu(mean @ self.user_1 + self.user_1_bias)
            return torch.nn.functional.normalize(mean + hidden @ self.user_2, dim=1)

        def as_arrays(self) -> Weights:
            return {name: one.detach().cpu().numpy().astype(np.float32) for name, one in self.named_parameters()}

    return Towers()


def user_vectors(weights: Weights, every: np.ndarray, history: Histories) -> np.ndarray:
    """Returns the vectors of histories, float32 ``[n, d]``: the user tower without torch.

    Args:
        weights: fitted weights.
        every: vectors of all items, ``[m, d]``.
        history: the histories.
    """
    total = history.weight.sum(axis=1, keepdims=True)
    if len(every):
        mean = np.einsum("nhd,nh->nd", every[np.maximum(history.item, 0)], history.weight) / np.maximum(total, 1e-9)
        mean = np.where(total > 0, mean, weights["nobody"])
    else:
        mean = np.broadcast_to(weights["nobody"], (len(history), len(weights["nobody"])))
    hidden = np.maximum(mean @ weights["user_1"] + weights["user_1_bias"], 0)
    return _unit(mean + hidden @ weights["user_2"])


def item_vectors(weights: Weights, content: np.ndarray, code: np.ndarray) -> np.ndarray:
    """Returns the vectors of items, float32 ``[m, d]``: the item tower without torch.

    Args:
        weights: fitted weights.
        content: ``[m, c]``.
        code: number of each item when the weights were fitted, ``[m]``; −1 for an item that was not known then, whose
            vector is that of its content alone.
    """
    known = code >= 0
    own = np.zeros((len(code), weights["item_id"].shape[1]), np.float32)
    own[known] = weights["item_id"][code[known]]
    return _unit(own + content @ weights["content"])


def _unit(rows: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(norm, 1e-9), dtype=np.float32)


def fit_network(features: np.ndarray, target: np.ndarray, *, seed: int) -> Weights:
    """Fits the ranking network: which of some candidates was liked.

    Args:
        features: standardised, float32 ``[n, candidates, f]``.
        target: place of the liked candidate, int64 ``[n]``.
        seed: of weights and order.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    import torch

    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Linear(features.shape[2], MLP_WIDTH), torch.nn.ReLU(), torch.nn.Linear(MLP_WIDTH, 1)
    )
    X, y = torch.from_numpy(features), torch.from_numpy(target)
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3, weight_decay=1e-3)
    for _ in range(MLP_EPOCHS):
        for some in torch.randperm(len(y), generator=generator).split(BATCH):
            loss = torch.nn.functional.cross_entropy(network(X[some])[:, :, 0], y[some])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    if not np.isfinite(float(loss.detach())):
        raise FloatingPointError("the loss of the ranking network is not finite")
    fitted = {name: weights.numpy() for name, weights in network.state_dict().items()}
    return {
        "rank_1": fitted["0.weight"].T.copy(),
        "rank_1_bias": fitted["0.bias"].copy(),
        "rank_2": fitted["2.weight"][0].copy(),
    }

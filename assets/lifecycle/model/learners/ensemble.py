"""The learners that join the network in a candidate's ensemble, and the ensemble as one module.

Belongs here: what all learners have in common, one class per learner, and their weighted sum. Does not belong here: how
a learner works (``linear.py``, ``trees.py``, ``networks.py``), the choice of weights (``fitting.py``).
"""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from assets.lifecycle.model.learners.linear import fit_linear
from assets.lifecycle.model.learners.threads import on_one_thread
from assets.lifecycle.model.learners.trees import Trees, as_module, fit_trees
from assets.lifecycle.model.objectives import objective_of
from assets.task import Task

if TYPE_CHECKING:
    import torch

NETWORK, LINEAR, TREES = "network", "linear", "trees"
"""Names of the learners in the ensemble."""


@dataclass(frozen=True)
class Fitted:
    """A fitted learner.

    Args:
        module: maps raw float32 ``[n, n_features]`` to the outputs of the network: ``[n]`` or ``[n, classes]``.
        rounds: number of boosting rounds; ``None`` for a learner without rounds.
        trees: the trees, for a learner that has trees.
    """

    module: torch.nn.Module
    rounds: int | None = None
    trees: Trees | None = None


class Learner(abc.ABC):
    """A learner that joins the network. Its module is part of the version, so ``torch.export`` must take it."""

    @abc.abstractmethod
    def fit(
        self,
        X: np.ndarray,
        y: np.ndarray,
        *,
        task: Task,
        seed: int,
        tokens: Sequence[int] = (),
        weight: np.ndarray | None = None,
        valid: tuple[np.ndarray, np.ndarray] | None = None,
        rounds: int | None = None,
    ) -> Fitted:
        """Fits the learner. It may run in a second thread, so it must not use the global random state.

        Args:
            X: float32 ``[n, n_features]``; missing values are NaN.
            y: ``[n]``, class codes or measured values.
            task: the kind of target.
            seed: seed of everything random.
            tokens: positions of the columns of word numbers.
            weight: row weights ``[n]``; default: equal weights.
            valid: rows of a fold to stop early on; ``None`` for the final fit.
            rounds: number of rounds for the final fit, as selected on the folds.
        """


class LinearLearner(Learner):
    """The regularised linear model."""

    def fit(
        self,
        X: np.ndarray,
        y: np.ndarray,
        *,
        task: Task,
        seed: int,
        tokens: Sequence[int] = (),
        weight: np.ndarray | None = None,
        valid: tuple[np.ndarray, np.ndarray] | None = None,
        rounds: int | None = None,
    ) -> Fitted:
        """See :class:`Learner`."""
        return Fitted(linear_model(X, y, task=task, tokens=tokens, weight=weight))


class TreesLearner(Learner):
    """Boosted trees; the folds select the number of rounds where the kind of target asks for it."""

    def fit(
        self,
        X: np.ndarray,
        y: np.ndarray,
        *,
        task: Task,
        seed: int,
        tokens: Sequence[int] = (),
        weight: np.ndarray | None = None,
        valid: tuple[np.ndarray, np.ndarray] | None = None,
        rounds: int | None = None,
    ) -> Fitted:
        """See :class:`Learner`."""
        trees = boosted_trees(X, y, task=task, seed=seed, tokens=tokens, weight=weight, valid=valid, rounds=rounds)
        return Fitted(as_module(trees, task, tokens), trees.rounds, trees)


LEARNERS: Mapping[str, Learner] = {LINEAR: LinearLearner(), TREES: TreesLearner()}
"""The learners by the name in ``Training.ensemble``."""


@on_one_thread
def linear_model(
    X: np.ndarray, y: np.ndarray, *, task: Task, tokens: Sequence[int] = (), weight: np.ndarray | None = None
) -> torch.nn.Module:
    """Fits the regularised linear model, a module with the inputs and outputs of the network.

    Args:
        X: float32 ``[n, n_features]``; missing values are NaN.
        y: ``[n]``, class codes or measured values.
        task: the kind of target.
        tokens: positions of the columns of word numbers.
        weight: row weights ``[n]``; default: equal weights.
    """
    return fit_linear(X, objective_of(task).learnt(y), task=task, tokens=tokens, weight=weight)


def boosted_trees(X: np.ndarray, y: np.ndarray, *, task: Task, **arguments: Any) -> Trees:
    """Fits the trees, whose module has the inputs and outputs of the network; see :func:`fit_trees`.

    Args:
        X: float32 ``[n, n_features]``; missing values are NaN.
        y: ``[n]``, class codes or measured values.
        task: the kind of target.
        **arguments: further arguments of :func:`fit_trees`; ``valid`` holds measured values in their own unit.
    """
    objective = objective_of(task)
    if (valid := arguments.get("valid")) is not None:
        arguments["valid"] = valid[0], objective.in_scale_of(y, valid[1])
    return fit_trees(X, objective.learnt(y), task=task, **arguments)


def mixture(parts: Mapping[str, torch.nn.Module], shares: Mapping[str, float]) -> torch.nn.Module:
    """The ensemble as a module: the weighted sum of its learners' outputs; a single learner is returned as it is."""
    import torch

    if len(parts) == 1:
        return next(iter(parts.values()))

    class Mixture(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = torch.nn.ModuleDict(dict(parts))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            outputs = [shares[name] * part(x) for name, part in self.parts.items()]
            return torch.stack(outputs).sum(dim=0)

    return Mixture().eval()

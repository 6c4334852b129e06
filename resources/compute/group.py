"""Workers that fit one network together (data-parallel), or a single one.

Belongs here: what a fit needs of its group. Does not belong here: the fit (``assets/lifecycle/model/fitting.py``), and
how the workers of a group find each other (Ray Train, ``on_worker.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class Group:
    """One process of a group; this class is a group of one process, which saves nothing."""

    rank: int = 0
    """Number of this process, from 0."""
    size: int = 1
    """Number of processes."""

    def joined(self, module: torch.nn.Module) -> torch.nn.Module:
        """Returns the module with gradients that are averaged over the group."""
        return module

    def agreed(self, stop: bool) -> bool:
        """Returns the answer of the first process, so that all stop after the same epoch."""
        return stop

    def mean(self, value: float) -> float:
        """Returns the mean of the values of all processes."""
        return value

    def saved(self) -> dict[str, Any] | None:
        """Returns the state that was saved last; ``None`` at the beginning."""
        return None

    def save(self, state: Callable[[], dict[str, Any]]) -> None:
        """Saves the state of the first process. All processes call it, once per epoch, and wait for each other.

        Args:
            state: returns the state, with the key ``epoch``; tensors, and what torch can save.
        """


ALONE = Group()
"""The group of this process alone."""

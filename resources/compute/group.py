"""Workers that fit one network together (data-parallel), or a single one.

Belongs here: what a fit needs of its group, and torch's process group. Does not belong here: the fit
(``assets/lifecycle/model/fitting.py``), how workers find each other and where they save (``on_worker.py``).
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


class TorchGroup(Group):
    """A process of torch's process group."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def joined(self, module: torch.nn.Module) -> torch.nn.Module:
        """See :class:`Group`."""
        if self.size == 1 or not any(one.requires_grad for one in module.parameters()):
            return module
        import torch

        return torch.nn.parallel.DistributedDataParallel(module)

    def agreed(self, stop: bool) -> bool:
        """See :class:`Group`."""
        return stop if self.size == 1 else bool(self._sum(float(stop and not self.rank)))

    def mean(self, value: float) -> float:
        """See :class:`Group`."""
        return value if self.size == 1 else self._sum(value) / self.size

    def _sum(self, value: float) -> float:
        import torch

        total = torch.tensor([value], dtype=torch.float64)
        if torch.distributed.get_backend() == "nccl":
            total = total.cuda()
        torch.distributed.all_reduce(total)
        return float(total.item())


ALONE = Group()
"""The group of this process alone."""

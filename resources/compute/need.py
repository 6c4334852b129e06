"""What a model asks of a cluster.

Belongs here: the declaration and its validation. Does not belong here: whether a cluster has it (``on_ray.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Compute:
    """What the fits and scorings of a model get on a Ray cluster. Without ``ASSETLINE_RAY``, it has no effect.

    It is not part of the recipe: a change of it trains no new version.

    Args:
        workers: how many pieces of work are in progress at once: fits, trials, rounds of a backtest, days to score.
        cpus: processor cores that Ray reserves for a worker.
        gpus: GPUs that Ray reserves for a worker; a share below 1 lets several workers use the same one.
        memory: memory that Ray reserves for a worker, in GiB; 0: none. Ray does not enforce it.
        data_parallel: whether all workers fit each network together, each on its share of every batch. Worth it only
            where one fit is long: a step of the optimiser then waits for the slowest worker and for the network.
    """

    workers: int = 2
    cpus: float = 1.0
    gpus: float = 0.0
    memory: float = 0.0
    data_parallel: bool = False

    def wrong(self) -> Iterator[tuple[str, object, str]]:
        """Yields field, value and fix of what cannot work."""
        if isinstance(self.workers, bool) or not isinstance(self.workers, int) or self.workers < 1:
            yield "workers", self.workers, "give a whole number of at least 1"
        for name, least in {"cpus": "more than 0", "gpus": "0 or more", "memory": "0 or more GiB"}.items():
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not number or value < 0 or (name == "cpus" and value == 0):
                yield name, value, f"give {least}"
            elif value > 1 and name != "memory" and value != int(value):
                yield name, value, "Ray divides only the first one: give a whole number, or less than 1"
        if not isinstance(self.data_parallel, bool):
            yield "data_parallel", self.data_parallel, "give True or False"

    @property
    def resources(self) -> dict[str, float]:
        """What Ray reserves for one worker, by Ray's names; memory in bytes."""
        asked = {"CPU": float(self.cpus), "GPU": float(self.gpus), "memory": self.memory * 2**30}
        return {name: value for name, value in asked.items() if value}

    def __str__(self) -> str:
        """The request in words, e.g. ``2 workers with 1 CPU each``."""
        parts = [f"{self.cpus:g} CPU"]
        parts += [f"{self.gpus:g} GPU"] if self.gpus else []
        parts += [f"{self.memory:g} GiB of memory"] if self.memory else []
        return f"{self.workers} worker{'s' if self.workers > 1 else ''} with {', '.join(parts)} each"

"""A model that is fitted in milliseconds, and a setting that plainly matters: for tests of the search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from assets.declaration import Model, Training
from assets.search_space import Choice, Range, Tuning
from tests.declarations.readings import plain

SPACE = {"learning_rate": Range(0.01, 0.2, log=True), "network.blind": Choice(True, False)}
"""A network that is blind learns only the base rate."""


def line(X, y, *, blind: bool = False, broken: bool = False):
    """A line; if it is blind, it does not see its inputs; if it is broken, its loss is not finite."""
    import torch

    class Line(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = torch.nn.Linear(X.shape[1], 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen = torch.zeros_like(x) if blind else x
            return self.line(seen).squeeze(-1) * (float("nan") if broken else 1.0)

    return Line()


def tunable(arguments: Mapping[str, Any] = {}, **given: Any) -> Model:
    """A plain table of readings whose network is a line; ``arguments`` are those of the declared recipe."""
    training = Training(
        min_rows=100, max_epochs=6, batch_size=64, learning_rate=0.05, ensemble=(), network_arguments=dict(arguments)
    )
    return plain(**{"network": line, "training": training, "tuning": Tuning(space=SPACE, trials=6), **given})

"""Preprocessing of raw features for the linear model and networks, as a torch module.

Belongs here: missing values and scales. Does not belong here: the layers (``networks.py``), the fit (``fitting.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def preprocessing(rows: torch.Tensor, tokens: Sequence[int] = ()) -> torch.nn.Module:
    """Builds the preprocessing: median imputation, standardisation, and an indicator per feature with missing values.

    The module is part of the network, so that the exported network accepts raw features.

    Args:
        rows: training rows, float32 ``[n, n_features]``; missing values are NaN.
        tokens: positions of the columns of word numbers; they come last in the output, unchanged.

    Returns:
        A module that maps ``[n, n_features]`` to standardised features, indicators and word numbers.
    """
    import torch

    is_token = torch.zeros(rows.shape[1], dtype=torch.bool)
    is_token[list(tokens)] = True
    rows = rows[:, ~is_token]

    class Preprocessing(torch.nn.Module):
        medians: torch.Tensor
        means: torch.Tensor
        scales: torch.Tensor
        missing: torch.Tensor
        numbers: torch.Tensor
        words: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            medians = torch.nan_to_num(rows.nanmedian(dim=0).values)
            filled = torch.where(rows.isnan(), medians, rows)
            scales = filled.std(dim=0, unbiased=False) if filled.numel() else filled.new_ones(rows.shape[1])
            self.register_buffer("medians", medians)
            self.register_buffer("means", filled.mean(dim=0))
            self.register_buffer("scales", torch.where(scales > 0, scales, torch.ones_like(scales)))
            self.register_buffer("missing", rows.isnan().any(dim=0).nonzero().flatten())
            self.register_buffer("numbers", (~is_token).nonzero().flatten())
            self.register_buffer("words", is_token.nonzero().flatten())

        def forward(self, everything: torch.Tensor) -> torch.Tensor:
            x = everything.index_select(1, self.numbers) if len(self.words) else everything
            unknown = x.isnan()
            standard = (torch.where(unknown, self.medians, x) - self.means) / self.scales
            parts = [standard, unknown.index_select(1, self.missing).to(x.dtype)]
            if len(self.words):
                parts.append(everything.index_select(1, self.words))
            return torch.cat(parts, dim=1)

    return Preprocessing()

"""Free text as numbers, without any download: word numbers as features, and the torch encoder that reads them.

Belongs here: splitting text into word numbers, and the module that turns these into a vector. Does not belong
here: which columns are text (``default_features.py``), what the vector is used for (``networks.py``).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

BUCKETS = 32_768
"""Word numbers are 1 to this; two words may share one. All are exact in float32."""
WORDS = 48
"""Words of a text that count, the first ones."""
WIDTH = 32
"""Of the vector that a text becomes."""

_WORD = re.compile(r"\w+")


def word_numbers(texts: Sequence[str | None] | np.ndarray) -> np.ndarray:
    """float32 ``[n, WORDS]``: the numbers of the first words of each text, then zeros; case does not count."""
    numbers = np.zeros((len(texts), WORDS), dtype=np.float32)
    known: dict[str, int] = {}
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            continue
        for place, word in enumerate(_WORD.findall(text.lower())[:WORDS]):
            number = known.get(word)
            if number is None:
                number = known[word] = zlib.crc32(word.encode()) % BUCKETS + 1
            numbers[row, place] = number
    return numbers


def text_encoder() -> torch.nn.Module:
    """A module from word numbers float ``[n, WORDS]`` to ``[n, WIDTH]``: the mean over words and pairs of words.

    As Joulin et al. (2017), "Bag of Tricks for Efficient Text Classification": pairs keep what order says.
    """
    import torch

    class TextEncoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = torch.nn.Embedding(BUCKETS + 1, WIDTH)
            torch.nn.init.normal_(self.words.weight, std=0.1)

        def forward(self, numbers: torch.Tensor) -> torch.Tensor:
            single = numbers.long()
            first, second = single[:, :-1], single[:, 1:]
            pairs = torch.where((first > 0) & (second > 0), (first * 31 + second * 17) % BUCKETS + 1, 0)
            both = torch.cat([single, pairs], dim=1)
            there = (both > 0).unsqueeze(-1).to(self.words.weight.dtype)
            # A long text says no more than a short one: the mean, but a text of few words is not blown up either.
            return (self.words(both) * there).sum(1) / there.sum(1).clamp(min=1.0).sqrt()

    return TextEncoder()

"""Free text as numbers, without downloads: word numbers as features, and the torch encoder that reads them.

Belongs here: splitting text into word numbers, and the module that turns these into a vector. Does not belong here:
which columns are text (``default_features.py``), how the vector is used (``networks.py``).
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

BUCKETS = 32_768
"""Word numbers range from 1 to this value; two words may share a number. float32 represents all of them exactly."""
WORDS = 48
"""Number of words of a text that are used; later words are ignored."""
WIDTH = 32
"""Width of a text's vector."""
ROWS_OF_A_WORD = 3
WORD_DROPOUT = 0.3

_WORD = re.compile(r"\w+")


def word_numbers(texts: Sequence[str | None] | np.ndarray) -> np.ndarray:
    """Returns the numbers of each text's first words, then zeros, float32 ``[n, WORDS]``; case is ignored."""
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


def as_words(numbers: torch.Tensor) -> torch.Tensor:
    """Returns the features of texts as int64 numbers of 0 to :data:`BUCKETS`; 0 means no word, as a missing value does.

    Numbers of word pieces may be greater than :data:`BUCKETS`; some of them then share a number.
    """
    import torch

    words = torch.nan_to_num(numbers).clamp(min=0).long()
    return torch.where(words > 0, (words - 1) % BUCKETS + 1, 0)


def text_encoder(numbers: torch.Tensor) -> torch.nn.Module:
    """Returns a module that sums vectors of words and word pairs: word numbers ``[n, WORDS]`` to float ``[n, WIDTH]``.

    The method follows Joulin et al. (2017), "Bag of Tricks for Efficient Text Classification"; pairs preserve word
    order. Words in fewer than :data:`ROWS_OF_A_WORD` texts and infrequent pairs are ignored. There are more pairs than
    rows, so an encoder fitted to all of them would memorise the rows.

    Args:
        numbers: float ``[n, WORDS]``, word numbers of the training rows; frequent words and pairs are counted here,
            once.
    """
    import torch
    from torch import nn

    words = as_words(numbers)
    known = _rows_with(words) >= ROWS_OF_A_WORD
    frequent = _rows_with(pairs_of(words)) >= max(30, len(words) // 100)

    class Known(nn.Module):
        """Sum of the vectors of the numbers that are used, with dropout during training."""

        lines: torch.Tensor

        def __init__(self, counts: torch.Tensor) -> None:
            super().__init__()
            counts[0] = False
            lines = torch.zeros(BUCKETS + 1, dtype=torch.long)
            lines[counts] = torch.arange(1, int(counts.sum()) + 1)
            self.register_buffer("lines", lines)  # only these get vectors: others would never be fitted
            self.vectors = nn.Embedding(int(counts.sum()) + 1, WIDTH)
            self.left_out = nn.Dropout(WORD_DROPOUT)

        def forward(self, numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            lines = self.lines[numbers]
            there = (lines > 0).to(self.vectors.weight.dtype)
            return (self.vectors(lines) * self.left_out(there).unsqueeze(-1)).sum(1), there.sum(1, keepdim=True)

    class TextEncoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.pairs = Known(known), Known(frequent)
            nn.init.normal_(self.words.vectors.weight, std=0.1)
            nn.init.zeros_(self.pairs.vectors.weight)

        def forward(self, numbers: torch.Tensor) -> torch.Tensor:
            words = as_words(numbers)
            total, count = self.words(words)
            # A long text carries more information than a short one, but not in proportion to its length.
            return (total + self.pairs(pairs_of(words))[0]) / count.clamp(min=1.0).sqrt()

    return TextEncoder()


def pairs_of(words: torch.Tensor, texts: int = 1) -> torch.Tensor:
    """Returns numbers of neighbouring word pairs, ``[n, texts · (WORDS - 1)]``; 0 where there is no second word.

    Args:
        words: int64 ``[n, texts · WORDS]``.
        texts: number of texts side by side; the last word of a text has no neighbour.
    """
    if texts > 1:
        return pairs_of(words.unflatten(1, (texts, WORDS)).flatten(0, 1)).unflatten(0, (-1, texts)).flatten(1)
    first, second = words[:, :-1], words[:, 1:]
    return ((first * 31 + second * 17) % BUCKETS + 1) * ((first > 0) & (second > 0))


def _rows_with(numbers: torch.Tensor) -> torch.Tensor:
    """Returns how many rows contain each number, ``[BUCKETS + 1]``."""
    import torch

    counts = torch.zeros(BUCKETS + 1)
    for rows in numbers.split(8_192):
        row = torch.arange(len(rows), device=rows.device).unsqueeze(1).expand_as(rows)
        once = torch.unique(row.flatten() * (BUCKETS + 1) + rows.flatten())
        counts += torch.bincount((once % (BUCKETS + 1)).cpu(), minlength=BUCKETS + 1)
    return counts


def sentence_vectors(texts: Sequence[str | None], model: str) -> np.ndarray:
    """Returns sentence-transformers vectors of whole texts, float32 ``[n, width]``, for a model folder's own features.

    Args:
        texts: texts; missing ones are read as empty.
        model: folder of a saved model, or a model name, which is downloaded once.

    Raises:
        ImportError: the extra is not installed; the message gives the install command.
    """
    try:
        encode = _sentence_model(model).encode
    except ImportError as error:
        raise ImportError("sentence embeddings need an extra: pip install -e '.[sentences]'") from error
    plain = [text if isinstance(text, str) else "" for text in texts]
    return np.asarray(encode(plain, convert_to_numpy=True, show_progress_bar=False), dtype=np.float32)


@functools.cache
def _sentence_model(model: str) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(model)

"""Texts as vectors of a pretrained language model.

Belongs here: the vector of a text, as every stage computes it. Does not belong here: the files of the model and its
tokenizer (``word_pieces.py``), fitting its layers (``assets/lifecycle/model/learners/language.py``).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from assets.language import Language
from assets.lifecycle.data.word_pieces import LanguageFiles, pieces_of

if TYPE_CHECKING:
    import torch

AT_ONCE = 32
"""Number of texts of one forward pass without gradients."""


def vectors_of(texts: Sequence[str | None] | np.ndarray, language: Language | None = None) -> np.ndarray:
    """Returns the vectors of texts by a language model as it is published, without fitted layers.

    The cosine of two texts is the product of their vectors. Equal texts have equal vectors up to rounding. A missing or
    empty text has the vector of no words.

    Args:
        texts: ``[n]``; the first :data:`~assets.lifecycle.data.text.WORDS` word pieces of each are read.
        language: the language model; default: :class:`Language` with its defaults.

    Returns:
        float32 ``[n, width]``, of length 1.

    Raises:
        LanguageError: the language model cannot be read, or its packages are not installed.
    """
    language = language or Language()
    return vectors_of_pieces(pieces_of(language).numbers(texts), language)


def vectors_of_pieces(numbers_of_pieces: np.ndarray, language: Language) -> np.ndarray:
    """Returns what :func:`vectors_of` does, from the word pieces that the features of a text are.

    Args:
        numbers_of_pieces: float32 ``[n, WORDS]``, see :meth:`~assets.lifecycle.data.word_pieces.Pieces.numbers`.
        language: the language model.

    Raises:
        LanguageError: see :func:`vectors_of`.
    """
    import torch

    pieces, network = pieces_of(language), published(language.model)
    found = np.zeros((len(numbers_of_pieces), int(network.config.hidden_size)), dtype=np.float32)
    numbers = torch.from_numpy(np.nan_to_num(np.asarray(numbers_of_pieces))).long()
    with torch.no_grad():
        for some in by_length(numbers):
            vectors = mean_of_pieces(network, cut(numbers[some]), pieces.first, pieces.last)
            found[some.numpy()] = torch.nn.functional.normalize(vectors, dim=1).numpy()
    return found


def by_length(numbers: torch.Tensor, at_once: int = AT_ONCE) -> Iterator[torch.Tensor]:
    """Yields the row numbers of texts of a similar length, so that few places of a pass are empty."""
    if len(numbers):
        yield from (numbers > 0).sum(dim=1).argsort(stable=True).split(at_once)


def cut(numbers: torch.Tensor) -> torch.Tensor:
    """Numbers of word pieces without the places behind the longest text."""
    return numbers[:, : int((numbers > 0).sum(dim=1).max())]


def mean_of_pieces(network: Any, numbers: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """Mean over the word pieces of each text, float32 ``[n, width]``.

    Args:
        network: the language model.
        numbers: whole numbers ``[n, places]``: word pieces plus one, then zeros.
        first, last: numbers of the pieces before and after each text.
    """
    import torch

    count = (numbers > 0).sum(dim=1, keepdim=True)
    none = torch.zeros_like(count)
    with_ends = torch.cat([none + first + 1, numbers, none], dim=1)
    place = torch.arange(with_ends.shape[1], device=numbers.device)
    with_ends = torch.where(place == count + 1, last + 1, with_ends)
    there = place <= count + 1
    states = network(input_ids=(with_ends - 1).clamp(min=0), attention_mask=there.long()).last_hidden_state.float()
    return (states * there.unsqueeze(-1)).sum(dim=1) / (count + 2)


@functools.lru_cache(maxsize=2)
def published(name: str) -> Any:
    """The language model as it is published, which takes seconds to read. Callers must copy it before they change it.

    Raises:
        LanguageError: see :meth:`~assets.lifecycle.data.word_pieces.LanguageFiles.network`.
    """
    return LanguageFiles.of(name).network()

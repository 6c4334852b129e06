"""The network of a declared language model: its vectors of the texts, and a small head.

Belongs here: the module, which of its layers are fitted, and at what rate. Does not belong here: the files and the
tokenizer (``assets/lifecycle/data/word_pieces.py``), the fit (``fitting.py``).
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from assets.language import Language
from assets.lifecycle.data.embeddings import by_length, cut, mean_of_pieces, published
from assets.lifecycle.data.text import WORDS
from assets.lifecycle.data.word_pieces import pieces_of

if TYPE_CHECKING:
    import torch

STRETCH = 16
"""Number of batches whose rows are sorted by the lengths of their texts. With all batches, equal texts would meet."""
MOST_VECTORS = 200_000
"""Number of vectors of texts that are kept for the next epoch; each takes 1.5 KB."""


def language_network(
    X: torch.Tensor, y: torch.Tensor, *, language: Language, texts: int, hidden: int = 0, dropout: float = 0.1
) -> torch.nn.Module:
    """Builds the language model with its head.

    A text's vector is the mean over its word pieces, scaled to the length that a vector of standardised numbers has.

    Args:
        X: float32 ``[n, n_features]``, standardised, without missing values. Columns of word pieces come last.
        y: float32, as described in :data:`~assets.declaration.NetworkFactory`.
        language: the declared language model.
        texts: number of text columns, of :data:`~assets.lifecycle.data.text.WORDS` word pieces each.
        hidden: units of a hidden layer of the head; 0: the head is linear.
        dropout: share of the head's inputs that a training step leaves out.

    Returns:
        A module that maps ``[n, n_features]`` to outputs of the shape of ``y``.

    Raises:
        LanguageError: the language model cannot be read.
    """
    import torch
    from torch import nn

    pieces = pieces_of(language)
    numbers = X.shape[1] - texts * WORDS
    outputs = y.shape[1] if y.ndim == 2 else 1

    class Language_(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = text_vectors(language, pieces.first, pieces.last)
            self.fits_pretrained_layers = any(p.requires_grad for p in self.encoder.parameters())
            width = self.encoder.width * texts + numbers
            layers: list[nn.Module] = [nn.Dropout(dropout)]
            if hidden:
                layers += [nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout)]
            self.head = nn.Sequential(*layers, nn.Linear(hidden or width, outputs))

        def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
            """The parameters that are fitted, with their learning rates."""
            layers = [p for p in self.encoder.parameters() if p.requires_grad]
            groups = [{"params": list(self.head.parameters()), "lr": learning_rate}]
            return [*groups, {"params": layers, "lr": language.learning_rate}] if layers else groups

        def arranged(
            self, order: torch.Tensor, rows: torch.Tensor, batch_size: int, generator: torch.Generator
        ) -> torch.Tensor:
            """The order of an epoch's rows in which the texts of a batch have similar lengths; see :func:`arranged`."""
            return arranged(order, rows[:, numbers:], batch_size, generator) if self.fits_pretrained_layers else order

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            vectors = [self.encoder(text) for text in x[:, numbers:].split(WORDS, dim=1)] if texts else []
            outputs = self.head(torch.cat([x[:, :numbers].clamp(-3, 3), *vectors], dim=1))
            return outputs.squeeze(-1) if y.ndim == 1 else outputs

    return Language_()


def text_vectors(language: Language, first: int, last: int) -> Any:
    """Builds the module that maps numbers of word pieces, float ``[n, WORDS]``, to vectors ``[n, width]``.

    A model whose layers are not fitted computes the vector of a text once and keeps it until :func:`forget_vectors`.

    Args:
        language: the declared language model.
        first, last: numbers of the pieces before and after each text.
    """
    import torch
    from torch import nn

    network = copy.deepcopy(published(language.model))
    network.pooler = None  # it would be exported with each version, and nothing reads it
    fitted = _fitted_layers(network, language)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    for layer in fitted:
        layer.requires_grad_(True)
    vocabulary = int(network.config.vocab_size)

    class TextVectors(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.width = int(network.config.hidden_size)

        def train(self, mode: bool = True) -> Any:
            super().train(mode)
            if not fitted:
                self.network.eval()  # without dropout, so that a text has one vector
            return self

        def forward(self, numbers: torch.Tensor) -> torch.Tensor:
            numbers = torch.nan_to_num(numbers).clamp(0, vocabulary).long()
            if torch.compiler.is_exporting():
                return self.of_different(numbers)
            if fitted and torch.is_grad_enabled():
                return self.vectors(cut(numbers))
            return self.kept(numbers) if not fitted else self.in_parts(numbers)

        def vectors(self, numbers: torch.Tensor) -> torch.Tensor:
            """Vectors of some texts, in one pass; the places behind the longest text may be cut off."""
            with _in_bfloat16(numbers.device, bool(fitted) and torch.is_grad_enabled()):
                mean = mean_of_pieces(self.network, numbers, first, last)
            return torch.nn.functional.normalize(mean, dim=1) * self.width**0.5

        def of_different(self, numbers: torch.Tensor) -> torch.Tensor:
            """Vectors of texts of which equal ones are read once; an explanation has each text hundreds of times."""
            different, place = torch.unique(numbers, dim=0, return_inverse=True)
            longest: Any = (different > 0).sum(dim=1).max().clamp(min=1).item()
            torch._check(longest >= 1)  # torch.export asks for the limits of a number that depends on the rows
            torch._check(longest <= WORDS)
            return self.vectors(different[:, :longest]).index_select(0, place)

        @torch.no_grad()
        def in_parts(self, numbers: torch.Tensor) -> torch.Tensor:
            """Vectors of any number of texts; texts of a similar length share a pass, so that few places are empty."""
            found = numbers.new_empty(len(numbers), self.width, dtype=torch.float32)
            for some in by_length(numbers):
                found[some] = self.vectors(cut(numbers[some]))
            return found

        def kept(self, numbers: torch.Tensor) -> torch.Tensor:
            """Vectors of texts, from those that are kept where possible."""
            keys = [(language.model, bytes(row)) for row in numbers.int().cpu().numpy()]
            lacking = {key: i for i, key in enumerate(keys) if key not in _vectors}
            if lacking:
                _vectors.update(zip(lacking, self.in_parts(numbers[list(lacking.values())]).cpu(), strict=True))
            found = torch.stack([_vectors[key] for key in keys]).to(numbers.device)
            while len(_vectors) > MOST_VECTORS:
                _vectors.popitem(last=False)
            return found

    return TextVectors()


def arranged(order: torch.Tensor, pieces: torch.Tensor, batch_size: int, generator: torch.Generator) -> torch.Tensor:
    """Returns an order in which the texts of each batch have similar lengths, so that few places of a pass are empty.

    Rows keep to their stretch of :data:`STRETCH` batches, and the batches of a stretch come in a random order.

    Args:
        order: row numbers ``[n]`` in random order.
        pieces: word pieces of all texts of the rows, ``[rows, places]``; 0 means none.
        batch_size: rows of a batch.
        generator: draws the order of the batches.
    """
    import torch

    lengths = (pieces[order] > 0).sum(dim=1)
    found = []
    for rows, length in zip(order.split(batch_size * STRETCH), lengths.split(batch_size * STRETCH), strict=True):
        batches = rows[length.argsort(stable=True)].split(batch_size)
        whole = [batch for batch in batches if len(batch) == batch_size]
        found += [whole[i] for i in torch.randperm(len(whole), generator=generator)]
        found += [batch for batch in batches if len(batch) < batch_size]  # it has to stay last
    return torch.cat(found)


def _in_bfloat16(device: torch.device, wanted: bool) -> Any:
    """Matrix products in bfloat16 where the device has units for them; they fit layers in half the time."""
    import torch

    there = device.type == "cuda" or bool(torch.cpu.get_capabilities().get("amx_bf16"))
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and there)


def forget_vectors() -> None:
    """Drops the kept vectors. A fit begins with this, so that it does not depend on what the process did before."""
    _vectors.clear()


_vectors: OrderedDict[tuple[str, bytes], Any] = OrderedDict()
"""Vectors of texts by language model and word pieces, on the CPU."""


def _fitted_layers(network: Any, language: Language) -> list[Any]:
    """The layers of the language model that are fitted."""
    layers = list(network.encoder.layer)
    if language.fine_tune == "none":
        return []
    return layers if language.fine_tune == "all" else layers[-language.layers :]

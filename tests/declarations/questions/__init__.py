"""Questions of a bank's customers: what is one about? Free text, read by a language model that tests make."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

from assets.declaration import Gate, Model, Table, Training
from assets.language import FineTune, Language
from resources.sources import CsvFile

INTENTS = {"card": ["card", "chip", "pin"], "cash": ["cash", "note", "coin"], "fee": ["fee", "price", "charge"]}
AROUND = ["where", "is", "my", "why", "does", "the", "not", "work", "please", "help", "today", "again"]


class Questions(pa.DataFrameModel):
    """One question."""

    question_id: Series[int] = pa.Field(ge=0)
    text: Series[str]
    length: Series[float] = pa.Field(ge=0, description="Seconds of the call.")
    intent: Series[str] = pa.Field(isin=list(INTENTS))


def questions(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    """Questions in which one word says what they are about."""
    rng = np.random.default_rng(seed)
    intent = rng.choice(list(INTENTS), rows)
    texts = [" ".join(rng.permutation([*rng.choice(AROUND, 5), rng.choice(INTENTS[one])])) for one in intent]
    return pd.DataFrame(
        {"question_id": np.arange(rows), "text": texts, "length": rng.uniform(5, 90, rows), "intent": intent}
    )


def small_language_model(folder: Path, words: int = 0, known: Sequence[str] = ()) -> Path:
    """Writes a BERT of two narrow layers with random weights, and a tokenizer of the words above.

    ``words``: number of further words in its vocabulary. ``known``: further words.
    """
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    in_it = [
        *special,
        *AROUND,
        *(word for some in INTENTS.values() for word in some),
        "the",
        "##s",
        "ca",
        "##rd",
        *known,
    ]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(in_it))}
    vocabulary |= {f"word{n}": len(vocabulary) + n for n in range(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    BertModel(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def questions_model(
    language_model: Path | str, *, fine_tune: FineTune = "none", source: str = "questions.csv"
) -> Model:
    """The declaration, with a language model of a folder."""
    return Model(
        name="questions",
        table=Table(name="asked", source=CsvFile(path=source), key="question_id", contract=Questions),
        target="intent",
        language=Language(model=str(language_model), fine_tune=fine_tune, layers=1, learning_rate=5e-3),
        training=Training(ensemble=("linear",), max_epochs=12 if fine_tune == "none" else 6, batch_size=32),
        gate=Gate(calibration_error=None),
    )


model = questions_model("where/the/tests/put/it")

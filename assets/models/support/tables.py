"""The table of questions: its contract, and the conversion of landed text to typed rows.

Belongs here: what a question is, and the intents. Does not belong here: where questions come from (``simulator.py``).
"""

from __future__ import annotations

import html
import re

import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

from assets.personal import personal
from assets.reading import typed

SCAM = "scam_message"
"""The intent that is declared before anybody asks about it."""
INTENTS = (
    "card_arrival", "lost_card", "card_declined", "change_pin", "transfer_pending", "transfer_fee", "exchange_rate",
    "cash_fee", "refund", "direct_debit", "top_up", "close_account", SCAM,
)  # fmt: skip
MOST_CHARACTERS = 20_000
"""Longer texts are cut; the language model reads only the beginning."""


class Questions(pa.DataFrameModel):
    """One question of a customer. Moments are UTC, naive, whole seconds."""

    question_id: Series[int] = pa.Field(ge=0, description="Identifies the question.")
    asked_at: Series[pd.Timestamp] = pa.Field(description="When it was asked.")
    text: Series[str] = pa.Field(metadata=personal("text"), description="The question, in the customer's words.")
    channel: Series[str] = pa.Field(isin=["app", "chat", "email"], description="Where it was asked.")
    intent: Series[str] = pa.Field(
        isin=list(INTENTS), nullable=True, description="What it is about. Agents say it two days later."
    )


def clean(raw: pd.DataFrame) -> pd.DataFrame:
    """Types rows that landed as text. A text without a letter or a digit is missing, and the contract refuses it."""
    text = raw["text"].astype("string[pyarrow]").map(html.unescape, na_action="ignore").astype("string[pyarrow]")
    text = text.str.replace(r"\s+", " ", regex=True).str.strip().str.slice(0, MOST_CHARACTERS)
    # Not str.contains(): pyarrow's \w knows ASCII alone, and a question may be in any script.
    text = text.where(text.map(_has_a_word, na_action="ignore").fillna(False).astype(bool))
    nothing = pd.Series(pd.array([None] * len(raw), dtype="string[pyarrow]"), index=raw.index)
    return typed(raw.assign(text=text, intent=nothing), Questions)


def _has_a_word(text: str) -> bool:
    return re.search(r"\w", text) is not None

"""The table of texts: what a clean text is.

Belongs here: the contract. Does not belong here: refused rows (the lifecycle), the source (``simulator.py``).
"""

from __future__ import annotations

import pandas as pd
import pandera.pandas as pandera
from pandera.typing.pandas import Series

SENTIMENTS = ["negative", "neutral", "positive"]


class News(pandera.DataFrameModel):
    """A news text. The moment is UTC, naive."""

    news_id: Series[int] = pandera.Field(ge=0, description="Identifies the text.")
    published_at: Series[pd.Timestamp] = pandera.Field(description="When it was published.")
    text: Series[str] = pandera.Field(str_matches=r"\s*\S", description="The text, without markup.")
    sentiment: Series[str] = pandera.Field(
        isin=SENTIMENTS, nullable=True, description="What an editor said; it lands days later."
    )

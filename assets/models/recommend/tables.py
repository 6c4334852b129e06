"""The table of activity: its contract, and the conversion of landed text to typed rows.

Belongs here: the definition of a clean event. Does not belong here: handling of refused rows (the lifecycle), the
source of the rows (``simulator.py``).
"""

from __future__ import annotations

import datetime as dt

import pandas as pd
import pandera.pandas as pandera
from pandera.typing.pandas import Series

START = dt.date(2025, 6, 1)
LIKED = ("click", "comment", "share")
EVENTS = ("publish", "withdraw", "view", *LIKED)


class Activity(pandera.DataFrameModel):
    """One event: a reader saw or did something, or an article appeared or disappeared."""

    event_id: Series[str] = pandera.Field(description="Identifies the event.")
    at: Series[pd.Timestamp] = pandera.Field(description="When it happened, UTC.")
    user_id: Series[str] = pandera.Field(nullable=True, description="The reader; empty for publish and withdraw.")
    item_id: Series[str] = pandera.Field(str_matches=r"^a\d{6}$", description="The article.")
    event: Series[str] = pandera.Field(isin=EVENTS, description="What happened.")
    liked: Series[float] = pandera.Field(isin=(0.0, 1.0), description="Whether the reader opened it or did more.")
    place: Series[float] = pandera.Field(ge=-1, lt=1000, description="Place on the list it was seen on; −1: none.")
    title: Series[str] = pandera.Field(nullable=True, description="The article's title.")
    topic: Series[str] = pandera.Field(nullable=True, description="The article's topic.")


def clean(raw: pd.DataFrame) -> pd.DataFrame:
    """Types rows that landed as text; keeps the index and returns the contract's columns."""
    names = [name for name in Activity.to_schema().columns if name != "liked"]
    text = {name: raw[name].astype("string[pyarrow]").str.strip() for name in names}
    typed: dict[str, pd.Series] = {}
    for name, column in text.items():
        if name == "at":
            typed[name] = pd.to_datetime(column, format="%Y-%m-%d %H:%M:%S", errors="coerce")
        elif name == "place":
            typed[name] = pd.to_numeric(column, errors="coerce").astype("float64")
        else:
            typed[name] = column if name in ("user_id", "title", "topic") else column.replace("", pd.NA)
    typed["liked"] = typed["event"].isin(LIKED).astype("float64")
    return pd.DataFrame(typed, index=raw.index)[list(Activity.to_schema().columns)]

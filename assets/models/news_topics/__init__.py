"""Example model: the topic of a news text, on the table of ``news``. A fork may delete it, together with that one.

Belongs here: the declaration and its contract. The rows are landed and cleaned by the model ``news``.
"""

from __future__ import annotations

import datetime as dt

import pandas as pd
import pandera.pandas as pandera
from pandera.typing.pandas import Series

from assets.declaration import Card, Drift, Gate, Model, Table, Training
from assets.language import Language

TOPICS = ["deals", "earnings", "jobs", "lawsuits", "products", "supply"]


class NewsByTopic(pandera.DataFrameModel):
    """A news text. The moment is UTC, naive."""

    news_id: Series[int] = pandera.Field(ge=0, description="Identifies the text.")
    published_at: Series[pd.Timestamp] = pandera.Field(description="When it was published.")
    text: Series[str] = pandera.Field(str_matches=r"\s*\S", description="The text, without markup.")
    topic: Series[str] = pandera.Field(
        isin=TOPICS, nullable=True, description="What an editor said; it lands days later."
    )


model = Model(
    name="news_topics",
    owner="team:news",
    description="The topic of a news text.",
    table=Table(
        name="texts",
        of="news",
        key="news_id",
        time="published_at",
        start=dt.date(2025, 6, 1),
        contract=NewsByTopic,
        late_days=2,
        max_refused=0.2,
    ),
    target="topic",
    label_delay_days=1,
    language=Language(),
    training=Training(window_days=14, test_days=2, folds=1, max_epochs=40, ensemble=("linear",)),
    drift=Drift(min_rows=80),
    retrain_cooldown_days=4,
    gate=Gate(metric="balanced_accuracy", floor=0.8, calibration_error=None),
    card=Card(
        intended_use="An example. It sorts texts by topic, so that the model `news` counts negative ones by topic.",
        limits=("The texts are simulated from templates, so the figures say nothing of real news.",),
    ),
)

"""Example model: the sentiment of short news texts, and surges of negative ones. A fork may delete it.

Belongs here: the declaration. The table is in ``tables.py``, the simulated upstream in ``simulator.py``. The topic of a
text is predicted by the model beside it, ``news_topics``, on the same table.
"""

from __future__ import annotations

import datetime as dt

from assets.declaration import Card, Drift, Gate, Model, Table, Training
from assets.language import Language
from assets.models.news.simulator import WorldNews
from assets.models.news.tables import News
from assets.surge import Surge

model = Model(
    name="news",
    owner="team:news",
    description="The sentiment of a news text: negative, neutral or positive.",
    table=Table(
        name="texts",
        source=WorldNews(),
        key="news_id",
        time="published_at",
        start=dt.date(2025, 6, 1),
        contract=News,
        late_days=2,
        max_refused=0.2,
    ),
    target="sentiment",
    label_delay_days=1,
    language=Language(),
    # The head alone is fitted: a text is read once, so a training of a thousand texts takes seconds.
    training=Training(window_days=14, test_days=2, folds=1, max_epochs=40, ensemble=("linear",)),
    drift=Drift(min_rows=80),
    retrain_cooldown_days=4,
    gate=Gate(metric="balanced_accuracy", floor=0.7, calibration_error=None),
    surge=Surge(topics="news_topics", value="negative", hourly=True, least_days=14),
    card=Card(
        intended_use="An example. An editor sees which topics turn negative; nobody is judged by a score.",
        limits=(
            "The texts are simulated from templates, so the figures say nothing of real news.",
            "The language model is English. Texts in another script are counted, and their sentiment is a guess.",
            "Labels are known after a day.",
        ),
    ),
)

"""Example model: a ranked list of articles for a reader. A fork may copy from it and may delete it.

Belongs here: the declaration. The table is in ``tables.py``, the simulated upstream in ``simulator.py`` and
``world.py``.
"""

from __future__ import annotations

import numpy as np

from assets.declaration import Card, Columns, Drift, Features, Gate, Model, Table, Training
from assets.models.recommend.simulator import TOPICS, WorldActivity
from assets.models.recommend.tables import START, Activity, clean
from assets.ranking import Ranking

WEIGHTS = {"click": 1.0, "comment": 2.0, "share": 3.0}


def watched(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """What the drift check compares: the topic of what readers like, and the hour. No history is needed."""
    number = {name: float(i) for i, name in enumerate(TOPICS)}
    topic = np.array([number.get(str(name), np.nan) for name in events["topic"][wanted]], np.float32)
    hour = events["at"][wanted].astype("datetime64[h]").astype(int) % 24
    liked = events["liked"][wanted] > 0
    return {"liked_topic": np.where(liked, topic, np.nan).astype(np.float32), "hour": hour.astype(np.float32)}


model = Model(
    name="recommend",
    owner="team:reading",
    description="A ranked list of articles for a reader, from what the reader opened, commented on and shared.",
    table=Table(
        name="activity",
        source=WorldActivity(),
        key="event_id",
        time="at",
        start=START,
        contract=Activity,
        clean=clean,
        quiet_days=True,
    ),
    target="event",
    ranking=Ranking(
        user="user_id", item="item_id", event="event", weights=WEIGHTS, text="title", facts=("topic",),
        exploration=0.1,
    ),
    features=Features(
        compute=watched, lookback_days=12, names=("liked_topic", "hour"), entities=("user_id",), calendar=("hour",)
    ),
    training=Training(window_days=14, test_days=4, folds=0, max_epochs=1, min_rows=500),
    # With 600 test users, a margin of .02 would refuse two of five equal challengers.
    gate=Gate(metric="ndcg", floor=0.05, margin=-0.03, baseline_margin=-0.02, calibration_error=None, latency_ms=50),
    # Six rows in seven are no liking, so the effect of a change is a seventh of that among likings. Over three seeds it
    # was at most .018 on a day before tastes turned, and at least .036 from that day on.
    drift=Drift(columns=("liked_topic",), min_rows=200, min_effect=0.026, missing=0.2),
    retrain_cooldown_days=5,
    card=Card(
        intended_use="An example. A page shows the list; a reader chooses what to open.",
        limits=(
            "The readers are simulated: they have tastes over topics and nothing else.",
            "What was shown higher is opened more often, and only the explored places correct for it.",
        ),
    ),
)  # fmt: skip

"""Example model: the probability that a card payment is fraud. A fork may copy from it and may delete it.

Belongs here: the declaration. The table is in ``tables.py``, the features in ``features.py`` and ``suspicion.py``, the
network in ``network.py``, the simulated upstream in ``simulator.py`` and ``world.py``, and the best possible result in
``ceiling.py``.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd

from assets.declaration import Card, Drift, Evaluation, Gate, Model, Table, Training
from assets.models.fraud.ceiling import ceiling
from assets.models.fraud.features import features
from assets.models.fraud.network import network
from assets.models.fraud.simulator import WorldPayments
from assets.models.fraud.tables import Payments, clean

FAST = (
    "amount",
    "customer_count_1d",
    "customer_mean_1d",
    "customer_count_7d",
    "customer_mean_7d",
    "customer_days_since_last",
    "terminal_count_1d",
    "terminal_fraud_share_1d",
    "terminal_days_since_label",
)
"""Features with a memory of about a week, which the drift check compares. A terminal's 7-day window is not among them:
it ends where labels begin to be known, so it reaches back two weeks."""


def slices(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Returns the parts of the test rows that the report evaluates separately, boolean ``[n]`` by name."""
    amount, scenario = rows["amount"].to_numpy(), rows["scenario"].to_numpy()
    return {
        "amount below 50": amount < 50,
        "amount 50 to 220": (amount >= 50) & (amount <= 220),
        "amount above 220": amount > 220,
        "night": rows["x_is_night"].to_numpy() == 1,
        "weekend": rows["x_is_weekend"].to_numpy() == 1,
        "new terminal": rows["x_terminal_count_30d"].to_numpy() == 0,
        # A scenario contains only frauds. With the good payments added, it shows how well this kind of fraud is found.
        "scenario 1, large amounts": (scenario == 0) | (scenario == 1),
        "scenario 2, terminals": (scenario == 0) | (scenario == 2),
        "scenario 3, customers": (scenario == 0) | (scenario == 3),
    }


model = Model(
    name="fraud",
    owner="team:risk",
    description="The probability that a card payment is fraud, at the moment of payment.",
    table=Table(
        name="payments",
        source=WorldPayments(),
        key="transaction_id",
        time="paid_at",
        start=dt.date(2025, 6, 1),
        contract=Payments,
        clean=clean,
    ),
    target="is_fraud",
    label_delay_days=7,
    features=features,
    network=network,
    # A month of payments needs few passes. All rows count alike: weights by age (`half_life_days=14`) gain .004 of
    # average precision weeks after a change and lose .002 as long as nothing changes (docs/quality.md).
    training=Training(max_epochs=3, patience=1, batch_size=256, learning_rate=6e-3),
    evaluation=Evaluation(
        entity="customer_id",
        top_k=100,
        amount="amount",
        slices=slices,
        ceiling=ceiling,
        # XGBoost on the 15 features, mean of four weeks: Le Borgne et al. (2022), see docs/architecture.md
        published={"average_precision": 0.694, "roc_auc": 0.871, "cp_at_k": 0.304},
    ),
    # One payment in a hundred is fraud, so the error of the probabilities is small in any case.
    gate=Gate(metric="average_precision", floor=0.6, calibration_error=0.005),
    # A mean over 30 days shows a shift for 30 days afterwards. The compared features have a memory of about a week.
    drift=Drift(columns=FAST),
    retrain="0 6 * * MON",
    review_cost=2.0,
    card=Card(
        intended_use="An example. A risk team reviews the payments whose expected loss (probability times amount) is "
        "above the cost of a review. A person decides on each of them; the score alone declines no payment.",
        limits=(
            "The payments are simulated: three known kinds of fraud, and no others. The figures say nothing of real "
            "payments.",
            "A label is known after seven days, so a new kind of fraud is learnt a week late at the earliest.",
            "A terminal or customer without payments in the last 30 days is scored with little history.",
            "The payments hold no personal data, so no groups of people can be compared.",
        ),
    ),
)

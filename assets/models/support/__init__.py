"""Example model: what a customer's question is about, and the answer to it. A fork may copy from it and may delete it.

Belongs here: the declaration. The table is in ``tables.py``, the simulated upstream in ``simulator.py``, its words in
``wording.py``, the articles in ``knowledge``. ``later`` holds the article that the story publishes.
"""

from __future__ import annotations

import datetime as dt
import math

from assets.declaration import Card, Gate, Model, Table, Training
from assets.knowledge import Answers, Documents
from assets.language import Language
from assets.models.support.simulator import WorldQuestions
from assets.models.support.tables import SCAM, Questions, clean

# They say what to do and promise nothing: nobody has looked at the customer's account.
TEMPLATES = {
    "card_arrival": "This is how long a new card takes. Delivery to {country} may take longer.",
    "lost_card": "I am sorry that your card is gone. Please block the card ending {card} in the app now.",
    "card_declined": "I am sorry that it did not work. The app shows the reason beside the payment of {amount}.",
    "change_pin": "You can set a new PIN yourself.",
    "transfer_pending": "A transfer may take some days. The app shows the state of the transfer of {amount}.",
    "transfer_fee": "The app shows the fee before you confirm a transfer.",
    "exchange_rate": "This is how we convert currencies.",
    "cash_fee": "This is what cash withdrawals cost. The fee of {amount} may be that of the cash machine's owner.",
    "refund": "A refund takes some days. The app shows the refund of {amount} when it arrives.",
    "direct_debit": "You can return a direct debit yourself. Choose the debit of {amount} in the app.",
    "top_up": "This is how top-ups work. The app shows whether the top-up of {amount} arrived.",
    "close_account": "I am sorry that you want to leave. This is how you close the account.",
    SCAM: "That message is not from us.",
}

model = Model(
    name="support",
    owner="team:support",
    description="What a customer's question is about, and the answer to it.",
    table=Table(
        name="questions",
        source=WorldQuestions(),
        key="question_id",
        time="asked_at",
        start=dt.date(2025, 6, 1),
        contract=Questions,
        clean=clean,
        # The world has no days until its story is played, which is no fault.
        source_down_hours=math.inf,
    ),
    target="intent",
    label_delay_days=2,
    language=Language(),
    answers=Answers(
        knowledge=Documents("assets/models/support/knowledge", published="knowledge/support"),
        templates=TEMPLATES,
        pairs="assets/models/support/pairs.csv",
    ),
    training=Training(
        window_days=14, test_days=2, folds=1, ensemble=("linear",), awaited=(SCAM,), max_epochs=40, patience=6
    ),
    gate=Gate(metric="accuracy", floor=0.75),
    retrain_cooldown_days=4,
    card=Card(
        intended_use="An example. It answers what it is sure of, with the source, and hands the rest to a person.",
        limits=(
            "The questions are simulated: thirteen intents in a few phrases each. They say nothing of real ones.",
            "The language model is English. A question in another language is mostly handed over.",
            "It tells what the articles say. It knows nothing of a customer's account.",
        ),
    ),
)

"""The example's payments as a small stream: goes when the example goes."""

from dataclasses import replace
from typing import Any

from assets.declaration import Gate, Model, Training
from assets.models.fraud import model as fraud
from assets.models.fraud.simulator import PaymentSimulator
from tests.worlds import FIRST


def payments_model(source: PaymentSimulator, **replaced: Any) -> Model:
    """The fraud model on another upstream, with windows short enough for a small world and a gate that it can pass."""
    given = {
        "table": replace(fraud.table, source=source, start=FIRST),
        "training": Training(window_days=14, folds=1, max_epochs=8, batch_size=128, learning_rate=3e-3),
        "gate": Gate(metric="average_precision", floor=0.2, margin=-0.5, baseline_margin=-0.5),
    }
    return replace(fraud, **{**given, **replaced})

"""A version scores by the features code it was trained with, whatever the model folder says today."""

import datetime as dt
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from assets.lifecycle.data.event_days import event_day
from assets.lifecycle.data.features import compute_features, events_of
from assets.lifecycle.model.objectives import ScoreTransform
from assets.lifecycle.model.version.bundle import Bundle
from assets.lifecycle.model.version.features_by_version import features_by
from assets.models.fraud import model as fraud
from assets.models.fraud.simulator import PaymentSimulator
from resources.tables import ParquetTables

LAST = dt.date(2026, 3, 20)
NAMES = fraud.features.names


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> ParquetTables:
    """Three weeks of payments, the first two with labels."""
    tables = ParquetTables(root=str(tmp_path_factory.mktemp("tables")))
    payments = PaymentSimulator.small().payments(LAST - dt.timedelta(days=20), LAST)
    day = event_day(payments, fraud.table)
    for name, columns, last in (
        ("payments", ["transaction_id", "paid_at", "customer_id", "terminal_id", "amount"], LAST),
        ("labels", ["transaction_id", "paid_at", "is_fraud"], LAST - dt.timedelta(days=7)),
    ):
        for of_day, rows in payments[columns].groupby(day):
            if str(of_day) <= str(last):
                cleaned = rows.assign(arrived_at=rows["paid_at"]) if name == "payments" else rows
                tables.write(fraud.key(name), cleaned.reset_index(drop=True), str(of_day))
    return tables


@pytest.fixture(scope="module")
def rows(tables) -> pd.DataFrame:
    return tables.read(fraud.key("payments"), [str(LAST)])


@pytest.fixture(scope="module")
def today(tables, rows) -> np.ndarray:
    """Their features by today's code, as the features table has them."""
    everything = tables.read(fraud.key("payments"))
    events = events_of(everything, tables.read(fraud.key("labels")), fraud)
    return compute_features(fraud.features, events, np.flatnonzero(everything["paid_at"] >= pd.Timestamp(LAST)))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle") / "1"
    network = torch.nn.Sequential(torch.nn.Linear(len(NAMES), 1), torch.nn.Flatten(0))
    Bundle.save(folder, module=network, model=fraud, feature_names=NAMES, head=ScoreTransform(), threshold=0.5,
                fitted={})  # fmt: skip
    return Bundle.load(folder)


@pytest.fixture(scope="module")
def older(bundle, tmp_path_factory) -> Bundle:
    """A version of another time, when an amount was counted in cents."""
    folder = Path(shutil.copytree(bundle.directory, tmp_path_factory.mktemp("older") / "2"))
    code = folder / "code" / "features.py"
    code.write_text(
        code.read_text()
        + """

def in_cents(events, wanted):
    made = compute(events, wanted)
    return made | {"amount": made["amount"] * 100}


features = __import__("dataclasses").replace(features, compute=in_cents)
"""
    )
    facts = folder / "bundle.json"
    facts.write_text(facts.read_text().replace(bundle.facts.code, "fedcba9876543210"))
    return Bundle.load(folder)


def test_the_same_code_takes_the_features_as_they_are(bundle, tables, rows, today):
    assert features_by(bundle, tables, fraud, rows, today) is today


def test_other_code_makes_its_own_from_the_same_past(older, tables, rows, today):
    made = features_by(older, tables, fraud, rows, today)
    amount = NAMES.index("amount")
    assert made[:, amount] == pytest.approx(today[:, amount] * 100)
    others = [i for i in range(len(NAMES)) if i != amount]
    np.testing.assert_array_equal(made[:, others], today[:, others])


def test_other_code_and_no_new_rows_is_no_error(older, tables, rows, today):
    assert len(features_by(older, tables, fraud, rows.iloc[:0], today[:0])) == 0

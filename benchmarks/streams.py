"""Declarations of many small streams, for the benchmark of many models. None ever lands a row.

Belongs here: the declarations. Does not belong here: what is measured on them (``many_models.py``).
"""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

from assets.declaration import Columns, Features, Model, Table
from resources.sources import Stream

START = dt.date(2023, 12, 1)
"""First day of every model: three years of days."""


class Feed(Stream):
    """Lands nothing."""

    def land(self, day: dt.date) -> pd.DataFrame:
        """See :class:`~resources.sources.Stream`."""
        return pd.DataFrame()

    def land_labels(self, day: dt.date) -> pd.DataFrame:
        """See :class:`~resources.sources.Stream`."""
        return pd.DataFrame()

    def landed_until(self) -> dt.date:
        """See :class:`~resources.sources.Stream`."""
        return START


def amounts(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """The only feature."""
    return {"amount": events["amount"][wanted].astype(np.float32)}


def declared(name: str) -> Model:
    """A stream with a contract and a source of its own, features, and labels that land a week later."""

    class Payments(pa.DataFrameModel):
        """A payment, of this model alone."""

        payment_id: Series[int]
        paid_at: Series[pd.Timestamp]
        customer: Series[str]
        amount: Series[float] = pa.Field(ge=0)
        country: Series[str]

    return Model(
        name=name,
        table=Table(name="payments", source=Feed(), key="payment_id", contract=Payments, time="paid_at", start=START),
        target="is_fraud",
        label_delay_days=7,
        features=Features(compute=amounts, lookback_days=2, names=("amount",), entities=("customer",)),
        retrain="0 6 * * MON",
    )


def streams(number: int) -> list[Model]:
    """Declares ``number`` streams."""
    return [declared(f"m{n:03d}") for n in range(number)]

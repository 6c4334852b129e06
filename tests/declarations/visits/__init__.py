"""Visits of customers: a stream of people, really trained in seconds, with a history by customer and late labels."""

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

from assets.declaration import Columns, Features, Gate, Model, Table, Training
from resources.sources import Stream

START = dt.date(2026, 1, 1)
CUSTOMERS = 30


class Visits(pa.DataFrameModel):
    """One visit."""

    visit_id: Series[int] = pa.Field(ge=0)
    made_at: Series[pd.Timestamp]
    customer_id: Series[int] = pa.Field(ge=0)
    spent: Series[float] = pa.Field(ge=0)


def visits(day: dt.date, rows: int = 90) -> pd.DataFrame:
    """The visits of a day; customer 7 makes some each day. The more is spent, the likelier is a complaint."""
    rng = np.random.default_rng(day.toordinal())
    spent = rng.uniform(0, 100, rows).round(2)
    return pd.DataFrame({
        "visit_id": day.toordinal() * 100_000 + np.arange(rows),
        "made_at": pd.Timestamp(day) + pd.to_timedelta(np.sort(rng.integers(0, 86_400, rows)), "s"),
        "customer_id": rng.integers(0, CUSTOMERS, rows),
        "spent": spent,
        "complains": rng.random(rows) < spent / 200,
    })  # fmt: skip


class Register(Stream):
    """The visits of each day, and the complaints a day later. Its raw columns have other names than the contract's."""

    def land(self, day: dt.date) -> pd.DataFrame:
        """See :class:`~resources.sources.Stream`."""
        rows = visits(day).drop(columns="complains").astype("string[pyarrow]")
        rows.loc[rows.index[:1], "spent"] = "much"  # goes to quarantine
        return rows.rename(columns={"customer_id": "Customer No."})

    def land_labels(self, day: dt.date) -> pd.DataFrame:
        """See :class:`~resources.sources.Stream`."""
        known = visits(day - dt.timedelta(days=1))[["visit_id", "complains"]]
        return known.astype({"complains": int}).astype("string[pyarrow]")

    def landed_until(self) -> dt.date:
        """See :class:`~resources.sources.Stream`."""
        return dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)


def read(raw: pd.DataFrame) -> pd.DataFrame:
    """The raw rows with the names and types of the contract."""
    rows = raw.rename(columns={"Customer No.": "customer_id"})
    numbers = {name: pd.to_numeric(rows[name], errors="coerce") for name in ("visit_id", "customer_id", "spent")}
    return rows[["made_at"]].assign(made_at=pd.to_datetime(rows["made_at"]), **numbers)[
        list(Visits.to_schema().columns)
    ]


def spent_and_before(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """What was spent, and what the customer spent in the two days before."""
    at, customer, spent = events["made_at"], events["customer_id"], events["spent"]
    window = np.timedelta64(2, "D")
    before = [spent[(customer == customer[i]) & (at < at[i]) & (at >= at[i] - window)].sum() for i in wanted]
    return {"spent": spent[wanted].astype(np.float32), "before": np.array(before, np.float32)}


def visits_model(**given: Any) -> Model:
    """The declaration."""
    table = Table(name="visits", source=Register(), key="visit_id", contract=Visits, clean=read, time="made_at",
                  start=START, late_days=2)  # fmt: skip
    features = Features(compute=spent_and_before, lookback_days=2, names=("spent", "before"), entities=("customer_id",))
    training = Training(window_days=6, test_days=3, folds=1, max_epochs=2, members=1, min_rows=40, ensemble=())
    gate = Gate(metric="roc_auc", floor=0.05, margin=-0.9, baseline_margin=-0.9, calibration_error=None)
    defaults = {
        "name": "visit", "table": table, "target": "complains", "label_delay_days": 1, "features": features,
        "training": training, "gate": gate,
    }  # fmt: skip
    return Model(**{**defaults, **given})


model = visits_model()

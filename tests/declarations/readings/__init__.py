"""Meters that are read: small declarations of every kind, for tests of one stage at a time. None is ever trained."""

import datetime as dt
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

from assets.declaration import Approval, Columns, Features, Gate, Model, Rollout, Table, Training
from assets.forecast import Forecast
from assets.surge import Surge
from resources.sources import CsvFile, Stream

START = dt.date(2026, 1, 1)


class Readings(pa.DataFrameModel):
    """One reading of a meter; what is wanted of it is the model's choice."""

    reading_id: Series[int] = pa.Field(ge=0)
    read_at: Series[pd.Timestamp]
    site: Series[str] = pa.Field(isin=["north", "south", "east"])
    level: Series[float] = pa.Field(ge=0, le=100)
    faulty: Series[bool]


class LateReadings(pa.DataFrameModel):
    """The same where nobody knows yet whether the meter is faulty."""

    reading_id: Series[int] = pa.Field(ge=0)
    read_at: Series[pd.Timestamp]
    site: Series[str] = pa.Field(isin=["north", "south", "east"])
    level: Series[float] = pa.Field(ge=0, le=100)


def readings(rows: int, day: dt.date = START, seed: int = 0) -> pd.DataFrame:
    """Readings of one day, typed as the contract has them. The higher the level, the likelier is a fault."""
    rng = np.random.default_rng([seed, day.toordinal()])
    level = rng.uniform(0, 100, rows)
    return pd.DataFrame({
        "reading_id": day.toordinal() * 100_000 + np.arange(rows),
        "read_at": pd.Timestamp(day) + pd.to_timedelta(np.sort(rng.integers(0, 86_400, rows)), "s"),
        "site": pd.array(rng.choice(["north", "south", "east"], rows), dtype="string[pyarrow]"),
        "level": level,
        "faulty": rng.random(rows) < level / 200,
    })  # fmt: skip


class Feed(Stream):
    """Lands as many readings a day as it is told to, all on their own day, and all labels a week later."""

    rows: int = 40

    def land(self, day: dt.date) -> pd.DataFrame:
        """See :class:`~resources.sources.Stream`."""
        return readings(self.rows, day).drop(columns="faulty").astype("string[pyarrow]")

    def land_labels(self, day: dt.date) -> pd.DataFrame:
        """See :class:`~resources.sources.Stream`."""
        known = readings(self.rows, day - dt.timedelta(days=7))[["reading_id", "faulty"]]
        return known.astype({"faulty": int}).astype("string[pyarrow]")

    def landed_until(self) -> dt.date:
        """See :class:`~resources.sources.Stream`."""
        return dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)


def level_and_past(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
    """The level, and how many readings of the site there were in the two days before."""
    at, site = events["read_at"], events["site"]
    window = np.timedelta64(2, "D")
    before = [((site == site[i]) & (at < at[i]) & (at >= at[i] - window)).sum() for i in wanted]
    return {"level": events["level"][wanted].astype(np.float32), "before": np.array(before, np.float32)}


def plain(**given: Any) -> Model:
    """A table without a clock: whether a meter is faulty, unless another target is given."""
    table = Table(name="readings", source=CsvFile(path="readings.csv"), key="reading_id", contract=Readings)
    return Model(**{"name": "meter", "table": table, "target": "faulty", "training": Training(min_rows=100), **given})


def stream(**given: Any) -> Model:
    """A stream whose labels land a week later, with features of its own."""
    table = Table(name="readings", source=Feed(), key="reading_id", contract=LateReadings, time="read_at", start=START,
                  late_days=2)  # fmt: skip
    features = Features(compute=level_and_past, lookback_days=2, names=("level", "before"), entities=("site",))
    defaults = {
        "name": "meter", "table": table, "target": "faulty", "label_delay_days": 7, "features": features,
        "training": Training(window_days=2, test_days=1, folds=1, min_rows=40),
        "gate": Gate(metric="roc_auc", floor=0.6),
    }  # fmt: skip
    return Model(**{**defaults, **given})


def labelled_stream(**given: Any) -> Model:
    """A stream whose rows land with their labels."""
    table = replace(stream().table, contract=Readings)
    return stream(**{"table": table, "label_delay_days": 0, **given})


VARIANTS = {
    "plain": plain(),
    "approved": plain(approval=Approval(by="team:risk")),
    "rolled out": plain(rollout=Rollout()),
    "classes": plain(target="site", gate=Gate()),
    "measured": plain(target="level", gate=Gate()),
    "stream": stream(),
    "labelled stream": labelled_stream(),
    "stream of classes": labelled_stream(target="site", gate=Gate()),
    "stream of classes with surges": labelled_stream(
        target="site", gate=Gate(), surge=Surge(value="east", column="site")
    ),
    "stream of measured values": labelled_stream(target="level", gate=Gate()),
    "forecast": labelled_stream(target="level", gate=Gate(), features=None, forecast=Forecast(series="site")),
}
"""Every kind of target, with and without days, labels with the rows and later."""

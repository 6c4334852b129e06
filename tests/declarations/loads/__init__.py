"""The load of three stations by the hour, forecast a day ahead: day and week, noise, and a level for each station."""

import datetime as dt

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

from assets.declaration import Model, Table, Training
from assets.forecast import Forecast
from resources.sources import Stream

START = dt.date(2026, 1, 5)
STATIONS = {"north": 100.0, "south": 40.0, "east": 10.0}


class Loads(pa.DataFrameModel):
    """The mean load of a station in one hour."""

    load_id: Series[str]
    hour: Series[pd.Timestamp]
    station: Series[str] = pa.Field(isin=list(STATIONS))
    megawatts: Series[float] = pa.Field(ge=0)
    temperature: Series[float] = pa.Field(description="Measured, so it is not known ahead.")
    holiday: Series[bool]


def loads(day: dt.date, *, noise: float = 0.05) -> pd.DataFrame:
    """The loads of one day. A holiday, every tenth day, has the load of a Sunday."""
    rng = np.random.default_rng(day.toordinal())
    hour = np.arange(24)
    holiday = day.toordinal() % 10 == 0
    week = 0.7 if holiday or day.weekday() == 6 else 0.85 if day.weekday() == 5 else 1.0
    shape = 1 + 0.4 * np.sin((hour - 8) * np.pi / 12) + 0.1 * np.cos(hour * np.pi / 3)
    parts = [
        pd.DataFrame({
            "load_id": [f"{station} {day} {one:02}" for one in hour],
            "hour": pd.Timestamp(day) + pd.to_timedelta(hour, "h"),
            "station": station,
            "megawatts": level * week * shape * np.exp(rng.normal(0, noise, 24)),
            "temperature": 10 + rng.normal(0, 3, 24),
            "holiday": holiday,
        })
        for station, level in STATIONS.items()
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


class Meters(Stream):
    """Lands the loads of a day when it is over."""

    noise: float = 0.05

    def land(self, day: dt.date) -> pd.DataFrame:
        """See :class:`~resources.sources.Stream`."""
        return loads(day, noise=self.noise).astype("string[pyarrow]")

    def land_labels(self, day: dt.date) -> pd.DataFrame:
        """The labels are in the table."""
        raise NotImplementedError

    def landed_until(self) -> dt.date:
        """See :class:`~resources.sources.Stream`."""
        return dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)


def loads_model(**given: object) -> Model:
    """The declaration, fitted in seconds."""
    fields: dict[str, object] = {
        "name": "loads",
        "table": Table(name="loads_by_hour", source=Meters(), key="load_id", contract=Loads, time="hour", start=START),
        "target": "megawatts",
        "forecast": Forecast(series="station"),
        "training": Training(window_days=28, test_days=7, folds=2, max_epochs=20, members=2),
    }
    return Model(**{**fields, **given})  # type: ignore[arg-type]


model = loads_model()

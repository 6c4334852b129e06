"""The features of a forecast: earlier values of the series, and the calendar.

Belongs here: which earlier values a row gets, and the rule that they are at least the horizon older. Does not belong
here: the encoding of the calendar and of columns that are known ahead (``default_features.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from assets.declaration import Columns, Features
from assets.forecast import Forecast

if TYPE_CHECKING:
    from assets.declaration import Model

HISTORY_DAYS = 28
"""Days of history before the latest value that a forecast may use."""
NEAR = np.timedelta64(1, "h")
"""A lagged value is the latest one within this time before the lagged moment."""
STALE = np.timedelta64(7, "D")
"""The latest known value is missing if it is older than this."""
LAST, SEASON, SPREAD = "last", "same_time_of_week", "spread_7d"
"""Names of the latest known value, of the mean at this time of the week, and of the recent standard deviation."""


def lag_days(forecast: Forecast) -> tuple[int, ...]:
    """Returns the lags in days: the first three whole days and the first three whole weeks beyond the horizon."""
    first = forecast.horizon_days
    weeks = _weeks(forecast)
    return tuple(sorted({first, first + 1, first + 2, *weeks}))


def lag_name(days: int) -> str:
    """Name of the feature with the value so many days before."""
    return f"lag_{days}d"


def naive_names(forecast: Forecast) -> tuple[str, str]:
    """Names of the two lags of a seasonal naive forecast: a day, or a week, beyond the horizon."""
    return lag_name(forecast.horizon_days), lag_name(_weeks(forecast)[0])


def forecast_features(model: Model, known: Features) -> Features:
    """Returns the features of a forecast.

    Args:
        model: a model with ``forecast``.
        known: the features of what is known ahead: the calendar, the series, and the declared columns.
    """
    forecast = model.forecast
    assert forecast is not None
    assert model.table.time is not None
    series, time, lags = forecast.series, model.table.time, lag_days(forecast)
    weeks = [lag_name(days) for days in _weeks(forecast)]
    horizon = np.timedelta64(forecast.horizon_hours, "h")
    past = (LAST, *(lag_name(days) for days in lags), SEASON, "mean_1d", "mean_7d", SPREAD)

    def compute(events: Columns, wanted: np.ndarray) -> dict[str, np.ndarray]:
        values = _Series.of(events[series], events[time], events["label"])
        which, at = events[series][wanted], events[time][wanted].astype("datetime64[s]")
        made = {LAST: values.latest(which, at - horizon, STALE)}
        for days in lags:
            made[lag_name(days)] = values.latest(which, at - np.timedelta64(days, "D"), NEAR)
        made[SEASON] = _mean_of_known(np.column_stack([made[name] for name in weeks]))
        made["mean_1d"], _ = values.mean_and_spread(which, at - horizon, np.timedelta64(1, "D"))
        made["mean_7d"], made[SPREAD] = values.mean_and_spread(which, at - horizon, np.timedelta64(7, "D"))
        return {**{name: column.astype(np.float32) for name, column in made.items()}, **known.compute(events, wanted)}

    return Features(
        compute=compute,
        lookback_days=HISTORY_DAYS + forecast.horizon_days,
        names=(*past, *known.names),
        entities=(series,),
        calendar=known.calendar,
        words=known.words,
        origins=(*past, *known.explained),
        reads=(series, time, *forecast.known),
    )


class _Series:
    """The known values of all series, ordered by series and time.

    Args:
        names: the series, ascending, ``[k]``.
        first: place of the first value of each series, and the number of values, ``[k + 1]``.
        times: seconds, ``[n]``.
        values: float64 ``[n]``.
    """

    def __init__(self, names: np.ndarray, first: np.ndarray, times: np.ndarray, values: np.ndarray) -> None:
        self.names, self.first, self.times, self.values = names, first, times, values

    @classmethod
    def of(cls, series: np.ndarray, times: np.ndarray, values: np.ndarray) -> _Series:
        """The values that are not missing."""
        there = np.flatnonzero(~np.isnan(values))
        names, codes = np.unique(series[there].astype(str), return_inverse=True)
        seconds = times[there].astype("datetime64[s]")
        # The values order those of equal times, so that the order of the rows does not matter.
        order = np.lexsort((values[there], seconds, codes))
        first = np.searchsorted(codes[order], np.arange(len(names) + 1))
        return cls(names, first, seconds[order], values[there][order])

    def _ends(self, series: np.ndarray, until: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each wanted moment, the place of the series' first value and the one after its last up to the moment."""
        start, end = np.zeros(len(series), dtype=np.int64), np.zeros(len(series), dtype=np.int64)
        wanted, codes = np.unique(series.astype(str), return_inverse=True)
        for code, name in enumerate(wanted):
            own = np.flatnonzero(codes == code)
            at = np.searchsorted(self.names, name)
            if at == len(self.names) or self.names[at] != name:
                continue
            a, b = self.first[at], self.first[at + 1]
            start[own] = a
            end[own] = a + np.searchsorted(self.times[a:b], until[own], side="right")
        return start, end

    def latest(self, series: np.ndarray, until: np.ndarray, within: np.timedelta64) -> np.ndarray:
        """The latest value of each series up to a moment, float64 ``[n]``; NaN if it is older than ``within``."""
        start, end = self._ends(series, until)
        found = np.full(len(series), np.nan)
        there = np.flatnonzero(end > start)
        there = there[until[there] - self.times[end[there] - 1] < within]
        found[there] = self.values[end[there] - 1]
        return found

    def mean_and_spread(
        self, series: np.ndarray, until: np.ndarray, window: np.timedelta64
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the values in a window that ends at a moment, float64 ``[n]`` each.

        Each window is summed by itself, so that a result does not depend on rows outside of it, not even by rounding.
        """
        _, end = self._ends(series, until)
        start, _ = self._ends(series, until)
        _, before = self._ends(series, until - window)
        start = np.maximum(start, before)
        mean, spread = np.full(len(series), np.nan), np.full(len(series), np.nan)
        there = np.flatnonzero(end > start)
        if not len(there):
            return mean, spread
        edges = np.column_stack([start[there], end[there]]).ravel()
        padded = np.append(self.values, 0.0)  # a window may end behind the last value
        count = (end - start)[there]
        mean[there] = np.add.reduceat(padded, edges)[::2] / count
        squares = np.add.reduceat(padded * padded, edges)[::2] / count - np.square(mean[there])
        spread[there] = np.sqrt(np.maximum(squares, 0))
        return mean, spread


def _weeks(forecast: Forecast) -> tuple[int, int, int]:
    first = -(-forecast.horizon_days // 7) * 7
    return first, first + 7, first + 14


def _mean_of_known(columns: np.ndarray) -> np.ndarray:
    """Mean of the values of each row that are not missing, ``[n]``; NaN if all are."""
    known = ~np.isnan(columns)
    count = known.sum(axis=1)
    total = np.where(known, columns, 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)

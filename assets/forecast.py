"""What a declaration says about a forecast.

Belongs here: the fields, their defaults and their validation. Does not belong here: the features of a forecast
(``assets/lifecycle/data/forecasting.py``), its intervals (``assets/lifecycle/model/conformal.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

LONGEST_DAYS = 28
"""Maximum horizon; beyond it, the lags of a forecast would reach back further than its history of 28 days."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The target of a row is forecast some time ahead, from earlier values of its own series.

    Each row is one measurement of one series. Its features are values of the target that are at least the horizon
    older, the calendar, and the columns that are known ahead. Other columns are not read, because their values are not
    known when the forecast is made.

    Args:
        series: column that tells the series apart, e.g. a station or a shop; its past is kept by the service.
        horizon_hours: how long before its time a value is forecast.
        known: columns whose values are known ahead, e.g. a holiday or a planned price.
        coverage: share of the true values that the intervals shall contain.
    """

    series: str
    horizon_hours: int = 24
    known: tuple[str, ...] = ()
    coverage: float = 0.9

    @property
    def horizon_days(self) -> int:
        """The horizon in whole days, rounded up."""
        return -(-self.horizon_hours // 24)

    def wrong(self, columns: tuple[str, ...], others: tuple[str | None, ...]) -> Iterator[tuple[str, object, str]]:
        """Yields field, value and fix of each value that cannot work.

        Args:
            columns: columns of the contract.
            others: columns that have another role: the key, the time and the target.
        """
        free = ", ".join(name for name in columns if name not in others)
        if self.series not in columns or self.series in others:
            yield "series", self.series, f"name a column of the contract that tells the series apart: {free}"
        if not 1 <= self.horizon_hours <= 24 * LONGEST_DAYS:
            yield "horizon_hours", self.horizon_hours, f"give 1 to {24 * LONGEST_DAYS} hours"
        for name in self.known if not isinstance(self.known, str) else ():
            if name not in columns or name in (*others, self.series):
                yield "known", name, f"name columns of the contract whose values are known ahead: {free}"
        if isinstance(self.known, str):
            yield "known", self.known, "name the columns in a tuple"
        if not 0.5 <= self.coverage <= 0.99:
            yield "coverage", self.coverage, "give a share from .5 to .99"

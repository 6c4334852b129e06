"""Event days of rows.

Belongs here: the day of a row, and the rows of a day. Does not belong here: anything that reads a table.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from assets.declaration import Model, Table
from resources.tables import WHOLE


def event_day(accepted: pd.DataFrame, table: Table) -> pd.Series:
    """Returns the ISO event day of each row."""
    return iso_day(accepted[table.time])


def iso_day(times: pd.Series) -> pd.Series:
    """Returns the ISO day of each time."""
    # There are few distinct days and many rows, so each day is formatted once.
    days = times.dt.floor("D")
    return days.map({day: str(day.date()) for day in days.dropna().unique()})


def in_order(rows: pd.DataFrame, table: Table) -> pd.DataFrame:
    """Returns rows ordered by time, then key, with a new index."""
    names = [c for c in (table.time, table.key) if c]
    if any(rows[name].dtype.kind not in "iuM" for name in names):
        return rows.sort_values(names, kind="stable", ignore_index=True)
    # A fifth of the time of sort_values, which numbers the values of each column first.
    order = np.lexsort([rows[name].to_numpy() for name in reversed(names)])
    return rows.take(order).reset_index(drop=True)


def rows_by_day(frame: pd.DataFrame, model: Model, days: list[str]) -> dict[str, pd.DataFrame]:
    """Returns the rows of each of ``days``, in that order; all rows under ``WHOLE`` for a table without days."""
    if not model.is_stream:
        return {WHOLE: frame}
    day = event_day(frame, model.table)
    return {d: frame[(day == d).to_numpy()] for d in days}

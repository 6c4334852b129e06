"""The trailing week and the gate's floor, which ``estimated_performance`` and ``performance`` share."""

from __future__ import annotations

from typing import Any

import dagster as dg

from assets.declaration import Model
from assets.metrics import lower_is_better
from resources.tables import ParquetTables

TRAILING_DAYS = 7


def row_of_day(tables: ParquetTables, key: dg.AssetKey, day: str) -> dict[str, Any] | None:
    """Returns the only row of a day of a table; ``None`` if the day has no file."""
    return {str(k): v for k, v in tables.read(key, [day]).iloc[0].items()} if tables.stamp(key, day) else None


def is_worse_than_floor(model: Model, value: float) -> bool:
    """Whether a value of the gate's metric is worse than the floor."""
    floor = model.gate.floor
    return value > floor if lower_is_better(model.gate.metric) else value < floor

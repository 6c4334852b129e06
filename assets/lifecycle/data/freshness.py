"""Staleness of a day: whether its code version or the data versions of its inputs changed since it was made.

Belongs here: comparing a file's stamp with the versions that would be read now. Does not belong here: the decision to
materialize it again.
"""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from resources.tables import ParquetTables, TableError, days_of_window, inputs_of


def stale_days(asset: dg.AssetsDefinition, tables: ParquetTables, days: Iterable[str]) -> list[str]:
    """Returns the days whose file is absent, damaged, made by other code, or made from rows that have changed.

    Args:
        asset: the table's asset.
        tables: store of the table files and their stamps.
        days: ISO days to check.
    """
    spec = next(iter(asset.specs))
    windows = {name: (int(a), int(b)) for name, (a, b) in spec.metadata["reads"].items()}
    days = list(days)
    versions = {
        name: _versions(
            tables, dg.AssetKey.from_user_string(name), {d for day in days for d in days_of_window(day, window)}
        )
        for name, window in windows.items()
    }
    stale = []
    for day in days:
        try:
            stamp = tables.stamp(spec.key, day)
        except TableError:
            stamp = None
        read_now = inputs_of(windows, versions, day)
        if stamp is None or stamp.code_version != spec.code_version or stamp.inputs != read_now:
            stale.append(day)
    return stale


def _versions(tables: ParquetTables, key: dg.AssetKey, days: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for day in days:
        try:
            found |= tables.versions(key, [day])
        except TableError:
            found[day] = "damaged"
    return found

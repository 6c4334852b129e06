"""Whether making a day again could change it: by code version and by the data versions of what it reads.

Belongs here: comparing a file's stamp with what would be read now. Does not belong here: deciding to make it again.
"""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from resources.tables import ParquetTables, TableError, days_of_window, inputs_of


def stale_days(asset: dg.AssetsDefinition, tables: ParquetTables, days: Iterable[str]) -> list[str]:
    """Those of ``days`` whose file is absent, damaged, by other code, or made from other rows than there are now."""
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

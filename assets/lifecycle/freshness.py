"""Whether making a day again could change it: by code version and by the data versions of what it reads.

Belongs here: comparing a file's stamp with what would be read now. Does not belong here: deciding to make it again.
"""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from resources.tables import ParquetTables, TableError, inputs_of


def stale_days(asset: dg.AssetsDefinition, tables: ParquetTables, days: Iterable[str]) -> list[str]:
    """Those of ``days`` whose file is absent, damaged, by other code, or made from other rows than there are now."""
    spec = next(iter(asset.specs))
    windows = {name: (int(a), int(b)) for name, (a, b) in spec.metadata["reads"].items()}
    versions = {name: _versions(tables, dg.AssetKey.from_user_string(name)) for name in windows}
    stale = []
    for day in days:
        try:
            stamp = tables.stamp(spec.key, day)
        except TableError:
            stamp = None
        if (
            stamp is None
            or stamp.code_version != spec.code_version
            or stamp.inputs != inputs_of(windows, versions, day)
        ):
            stale.append(day)
    return stale


def _versions(tables: ParquetTables, key: dg.AssetKey) -> dict[str, str]:
    found = {}
    for day in tables.days(key):
        try:
            found |= tables.versions(key, [day])
        except TableError:
            found[day] = "damaged"
    return found

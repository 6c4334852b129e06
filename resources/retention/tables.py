"""Old days of tables whose period is declared.

Belongs here: which days go. Does not belong here: the files (``tables.py``).

A day stays while a file that stays was made from it. So the frozen rows of a version keep the days that they were made
from, and raw days can only go once the days made from them go, too.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from functools import partial

import dagster as dg

from resources.retention.periods import Retention
from resources.retention.plan import Removal, RetentionError
from resources.tables import WHOLE, ParquetTables

_File = tuple[str, str]
"""Table and day."""


def table_days(tables: ParquetTables, retention: Retention, now: dt.datetime) -> Iterator[Removal]:
    """Removals of days before the declared period. Raises :class:`RetentionError` for a table that does not exist."""
    if not retention.table_days:
        return
    there = _days_by_table(tables)
    for name, period in retention.table_days.items():
        if name not in there:
            raise RetentionError(f"table_days names {name}, but the tables are: {', '.join(sorted(there)) or 'none'}")
        if period < 1:
            raise RetentionError(f"table_days keeps {period} days of {name}; keep at least 1, or leave it out")
    old = {
        (name, day)
        for name, period in retention.table_days.items()
        for day in there[name]
        if day != WHOLE and day < str((now - dt.timedelta(days=period)).date())
    }
    for name, day in sorted(_unused(tables, there, old)):
        yield Removal(
            "tables", f"{name} of {day}", tables.size(_key(name), day), partial(tables.remove, _key(name), day)
        )


def _days_by_table(tables: ParquetTables) -> dict[str, list[str]]:
    return {name: tables.days(_key(name)) for name in tables.names()}


def _unused(tables: ParquetTables, there: dict[str, list[str]], old: set[_File]) -> set[_File]:
    """Those of ``old`` that no file outside of the result was made from."""
    inputs: dict[_File, set[_File]] = {}
    for name, days in there.items():
        for day, stamp in tables.stamps(_key(name), days).items():
            inputs[name, day] = {(upstream, d) for upstream, found in stamp.inputs.items() for d in found}
    kept = set(inputs) - old
    reached = list(kept)
    while reached:
        for one in inputs.get(reached.pop(), set()) - kept:
            kept.add(one)
            reached.append(one)
    return old - kept


def _key(name: str) -> dg.AssetKey:
    return dg.AssetKey(name.split("/"))

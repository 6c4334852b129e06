"""Rows of people who were forgotten: recognised in raw rows, and left out of a landing.

Belongs here: the person that a raw row belongs to, and a landing without the rows of tombstones. Does not belong here:
the tombstones (``resources/tombstones.py``), removing rows that are stored (``assets/lifecycle/erasure``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import dagster as dg
import numpy as np
import pandas as pd

from assets.declaration import Table
from assets.reading import typed
from resources.tables import WHOLE, ParquetTables
from resources.tombstones import TombstoneError, Tombstones, digested_among


def identities(table: Table, raw: pd.DataFrame, columns: Collection[str]) -> dict[str, pd.Series]:
    """The values of some columns of the contract in raw rows, ``[n]`` each, as the table's ``clean`` reads them.

    A raw table may name a column otherwise than the contract. A column that cannot be read so is taken as it landed.
    """
    found: dict[str, pd.Series] = {}
    if len(raw):
        try:
            rows = table.clean(raw) if table.clean else typed(raw, table.contract)
            found = {name: rows[name] for name in columns if name in rows and len(rows) == len(raw)}
        except Exception:  # whatever a model's own code raises for rows that it cannot read; they are no less personal
            found = {}
    return {**{name: raw[name] for name in columns if name in raw}, **found}


def without_forgotten(
    tables: ParquetTables,
    table: Table,
    lander: str,
    landed: dict[str, pd.DataFrame],
    *,
    labels: bool,
    formerly: Callable[[], Sequence[Mapping[str, pd.DataFrame]]] = tuple,
) -> tuple[dict[str, pd.DataFrame], int]:
    """Landed rows without those of people who were forgotten, and the number of rows that were left out.

    Args:
        tables: the tables, with the tombstones beside them.
        table: the table that lands.
        lander: name of the model that lands it.
        landed: by ISO landing day, or ``WHOLE``, the rows as the source returned them.
        labels: whether these are the labels, which only have a key.
        formerly: the same rows with the pseudonyms that they had before each re-keying.

    Raises:
        dagster.Failure: the tombstones cannot be read.
    """
    try:
        tombstones = Tombstones.read(tables.files)
    except TombstoneError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error
    if not tombstones.people:
        return landed, 0
    kept, left_out, name = {}, 0, f"{lander}/{table.name}"
    before = formerly()
    for day, rows in landed.items():
        as_stored = [rows, *(one[day] for one in before)]
        gone = np.any([_forgotten(tombstones, table, name, day, one, labels=labels) for one in as_stored], axis=0)
        kept[day], left_out = rows[~gone] if gone.any() else rows, left_out + int(gone.sum())
    return kept, left_out


def _forgotten(
    tombstones: Tombstones, table: Table, name: str, day: str, rows: pd.DataFrame, *, labels: bool
) -> np.ndarray:
    """Whether each row belongs to somebody who was forgotten, boolean ``[n]``."""
    people = [one for one in tombstones.people if one.holds(day, WHOLE) and name in one.keys]
    by_column: dict[str, set[str]] = {}
    if not labels:
        for one in people:
            by_column.setdefault(one.column, set()).add(one.digest)
    by_column.setdefault(table.key, set()).update(*(one.keys[name] for one in people))
    values = identities(table, rows, by_column) if people else {}
    gone = np.zeros(len(rows), dtype=bool)
    for column, column_values in values.items():
        gone |= digested_among(column_values, by_column[column], tombstones)
    return gone

"""Values of a database as text columns, as ``resources/files.py`` writes those of a Parquet file.

Belongs here: one value of each type as text. Does not belong here: reading rows (``sql_reading.py``).

Each value is written by itself, so its text does not depend on the other rows: pandas writes the times of a column
without their time of day if all of them are at midnight.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from resources.files import TEXT

NESTED = (list, tuple, dict, set, frozenset, np.ndarray)


class NestedError(Exception):
    """A column holds lists or structures. The message is the column's name."""


class TextColumns:
    """Collects rows chunk by chunk as text, so that only one chunk exists as Python values."""

    def __init__(self, names: Sequence[str], single: Iterable[str] = ()) -> None:
        """Begins without rows.

        Args:
            names: names of the columns.
            single: columns with floats of single precision, which Python would write with digits that they do not have.
        """
        self.names, self._single = list(names), set(single)
        self._parts: list[list[pa.Array]] = [[] for _ in self.names]

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Adds rows. Raises :class:`NestedError` for a column of lists or structures."""
        for name, parts, values in zip(self.names, self._parts, zip(*rows, strict=True), strict=True):
            parts.append(pa.array(_texts(name, values, name in self._single), pa.large_string()))

    def frame(self) -> pd.DataFrame:
        """All rows, ``string[pyarrow]`` columns."""
        columns = {
            name: pd.Series(pa.chunked_array(parts, pa.large_string()), dtype=TEXT)
            for name, parts in zip(self.names, self._parts, strict=True)
        }
        return pd.DataFrame(columns, columns=self.names)


def as_text(value: Any) -> str | None:
    """The text of one value; ``None`` stays missing.

    Decimals are exact. Times with a zone are written in UTC without it; times without a zone are written as they are.
    Intervals are written in seconds. Bytes that are not UTF-8 are written as ``\\xff``.
    """
    if value is None or isinstance(value, str):
        return value
    return (_WRITERS.get(type(value)) or _writer_of(value))(value)


def _texts(name: str, values: Sequence[Any], single: bool) -> Sequence[str | None]:
    kinds = set(map(type, values)) - {type(None)}
    if any(issubclass(kind, NESTED) for kind in kinds):
        raise NestedError(name)
    if kinds <= {str}:
        return values
    if len(kinds) == 1 and (write := _WRITERS.get(next(iter(kinds)))) is not None:
        if single and kinds == {float}:
            write = _single
        return [None if value is None else write(value) for value in values]
    return [as_text(value) for value in values]


def _single(value: float) -> str:
    return str(np.float32(value))


def _time(value: dt.datetime) -> str:
    if value.tzinfo is not None:
        value = value.astimezone(dt.UTC).replace(tzinfo=None)
    return value.isoformat(sep=" ")


def _bytes(value: bytes | bytearray | memoryview) -> str:
    return bytes(value).decode("utf-8", "backslashreplace")


def _seconds(value: dt.timedelta) -> str:
    return str(value.total_seconds())


_WRITERS: dict[type, Callable[[Any], str]] = {
    bool: str, int: str, float: str, Decimal: str, dt.date: dt.date.isoformat, dt.time: str, dt.datetime: _time,
    dt.timedelta: _seconds, bytes: _bytes, bytearray: _bytes, memoryview: _bytes,
}  # fmt: skip


def _writer_of(value: Any) -> Callable[[Any], str]:
    """The writer of a subclass, such as a driver's own kind of datetime; other values write themselves."""
    for kind in (dt.datetime, dt.date, dt.timedelta, bytes):
        if isinstance(value, kind):
            return _WRITERS[kind]
    return str

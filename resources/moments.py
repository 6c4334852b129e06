"""Parses timestamps, as text or as numbers counted from a day, to naive UTC.

Belongs here: parsing one column of timestamps in a known form. Does not belong here: detecting the form
(``scaffold/columns.py``).
"""

from __future__ import annotations

import re
from typing import Literal

import pandas as pd

ISO = "ISO8601"
Unit = Literal["D", "s", "ms", "us", "ns"]
UNITS: dict[str, Unit] = {"days": "D", "seconds": "s", "milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns"}
"""Units of a form such as ``milliseconds since 1970-01-01``, with pandas' names for them."""
_SINCE = re.compile(rf"({'|'.join(UNITS)}) since (\d{{4}}-\d\d-\d\d)")
_FULL_ISO = r"\d{4}-\d\d-\d\d(?:[T ].*)?"
_OFFSET = r"[Tt ]\d.*(?:[Zz]|[+-]\d\d(?::?\d\d)?)$"


def moments(text: pd.Series, form: str = ISO) -> pd.Series:
    """Parses text to datetime64[ns] (UTC, naive); values that cannot be parsed are missing.

    Timestamps with an offset are converted to UTC; those without are assumed to be UTC. Full ISO 8601 timestamps are
    accepted with every form, because programs send them.

    Args:
        text: text column, ``[n]``.
        form: ``ISO8601``, a ``strptime`` form, or ``<unit> since <ISO day>`` for numbers
            (:data:`UNITS`), such as ``milliseconds since 1970-01-01`` or Excel's ``days since 1899-12-30``.

    Returns:
        The timestamps, ``[n]``, with the index of ``text``.
    """
    plain = text.astype("string[pyarrow]").str.strip().reset_index(drop=True)
    return _read(plain, form).set_axis(text.index)


def _read(plain: pd.Series, form: str) -> pd.Series:
    if form == ISO:
        return _iso(plain)
    if (since := _SINCE.fullmatch(form)) is not None:
        read = _since(plain, UNITS[since[1]], since[2])
    else:
        read = pd.to_datetime(plain, format=form, errors="coerce", utc=True).dt.tz_localize(None).dt.as_unit("ns")
    left = plain[read.isna() & plain.str.fullmatch(_FULL_ISO).fillna(False)]
    return read.fillna(_iso(left)) if len(left) else read


def _iso(plain: pd.Series) -> pd.Series:
    """Parses ISO 8601 with mixed offsets, and close variants: lower case, ``UTC``, a zone name in brackets."""
    read = _strictly_iso(plain)
    left = plain[read.isna() & plain.str.match(r"\d{4}-\d\d-\d\d[Tt ]").fillna(False)]
    if left.empty:
        return read
    mended = left.str.upper().str.replace(r"\[[A-Z_/+-]+\]$", "", regex=True)
    mended = mended.str.replace(r"\s*(?:UTC|GMT)$", "Z", regex=True).str.replace(r"(:\d\d),(\d)", r"\1.\2", regex=True)
    return read.fillna(_strictly_iso(mended))


def _strictly_iso(plain: pd.Series) -> pd.Series:
    # Parsed in two groups, because pandas applies an earlier offset to values without one (pandas issue 61389).
    has_offset = plain.str.contains(_OFFSET).fillna(False).astype(bool)
    read = pd.Series(pd.NaT, index=plain.index, dtype="datetime64[ns, UTC]")
    for part in (plain[has_offset], plain[~has_offset]):
        if len(part):
            read[part.index] = pd.to_datetime(part, format=ISO, errors="coerce", utc=True)
    return read.dt.tz_localize(None)


def _since(plain: pd.Series, unit: Unit, origin: str) -> pd.Series:
    shift = pd.Timestamp(origin) - pd.Timestamp("1970-01-01")
    furthest = (pd.Timedelta.max - abs(shift)).to_timedelta64() / pd.Timedelta(1, unit).to_timedelta64()
    numbers = pd.to_numeric(plain, errors="coerce")
    numbers = numbers.mask(numbers.isna() | (numbers.abs() > furthest))  # pandas would raise on out-of-bounds values
    return pd.to_datetime(numbers, unit=unit, errors="coerce") + shift

"""From text as it landed to typed columns: what a model folder's ``clean`` is made of.

Belongs here: readers of one column, and typing a table by its contract. Does not belong here: which rows are refused
(``assets/lifecycle/cleaning.py``), which reader a table needs (the model folder).

What cannot be read becomes missing; the contract then refuses the row, or lets it pass where the column may be missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

TRUE = ("true", "yes", "y", "t", "1", "1.0", "on")
FALSE = ("false", "no", "n", "f", "0", "0.0", "off")
"""Words that are booleans, in lower case."""

_NOT_DIGITS = r"\s'%$€£¥" + chr(0xA0) + chr(0x202F)
"""What may stand beside the digits of an amount: blanks (the two that do not break, too), currency, percent."""


def typed(raw: pd.DataFrame, contract: Any, *, missing: Sequence[str] = ()) -> pd.DataFrame:
    """The contract's columns, typed: blanks at the ends do not count, empty text is missing.

    Args:
        raw: text columns; a column that is typed already (by a reader below) stays as it is.
        contract: pandera model, or anything with its ``to_schema()``.
        missing: further words that stand for a missing value, e.g. ``["N/A", "?"]``.

    Raises:
        KeyError: a column of the contract is not there.
    """
    columns = {
        name: _typed(raw[name], str(column.dtype), missing) for name, column in contract.to_schema().columns.items()
    }
    return pd.DataFrame(columns, index=raw.index)


def number(text: pd.Series, *, decimal: str = ".") -> pd.Series:
    """Text numbers from amounts as people write them: without currency, percent sign and thousands separators."""
    thousands = "," if decimal == "." else "."
    plain = text.str.replace(f"[{_NOT_DIGITS}{thousands}]|USD|EUR|GBP", "", regex=True)
    return plain if decimal == "." else plain.str.replace(decimal, ".", regex=False)


def moment(text: pd.Series, form: str) -> pd.Series:
    """datetime64 (UTC, naive) of text in the given ``strptime`` form."""
    return pd.to_datetime(text.str.strip(), format=form, errors="coerce")


def row_key(raw: pd.DataFrame) -> pd.Series:
    """A key for a table that has none: the hash of the row's text. The same row twice is one row."""
    hashed = pd.util.hash_pandas_object(raw.astype("string").fillna(""), index=False)
    return pd.Series([f"{value:016x}" for value in hashed], index=raw.index, dtype="string[pyarrow]")


def _typed(values: pd.Series, kind: str, missing: Sequence[str]) -> pd.Series:
    if not (pd.api.types.is_string_dtype(values.dtype) or values.dtype == object):
        return values
    text = values.astype("string[pyarrow]").str.strip()
    text = text.mask(text.isin(["", *missing]))
    if kind.startswith("datetime"):
        return pd.to_datetime(text, format="ISO8601", errors="coerce", utc=True).dt.tz_localize(None)
    if kind.startswith(("int", "float", "uint", "Int", "UInt", "Float")):
        return pd.to_numeric(text, errors="coerce")
    if kind.startswith("bool"):
        return text.str.lower().map(dict.fromkeys(TRUE, True) | dict.fromkeys(FALSE, False)).astype("boolean")
    return text

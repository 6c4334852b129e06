"""Readers that turn landed text into typed columns; a model folder's ``clean`` is built from them.

Belongs here: readers of one column, and typing a table by its contract. Does not belong here: which rows are refused
(``assets/lifecycle/data/cleaning.py``), which reader a table needs (the model folder).

Values that cannot be read become missing. The contract then refuses the row, or accepts it if the column is nullable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from assets.words import FALSE, TRUE
from resources.moments import moments

CURRENCIES = "$¢£¤¥֏؋৳฿៛₠-⃀﷼＄￠￡￥￦"
"""Currency signs, for use in a character class of a regular expression."""
_SPACES = r"\s" + "".join(map(chr, (0xA0, 0x2007, 0x2009, 0x202F)))
_BESIDE = (
    rf"[{_SPACES}{CURRENCIES}%‰％]|USD|EUR|GBP|CHF|JPY|CNY|RMB|INR|AUD|CAD|NZD|HKD|SGD|TWD|SEK|NOK|DKK|PLN|CZK|HUF|RON|"
    r"BGN|RUB|UAH|TRY|BRL|MXN|ARS|CLP|COP|ZAR|NGN|KES|EGP|ILS|AED|SAR|KRW|THB|IDR|MYR|PHP|VND|US\$|R\$|Rs\.?|kr\.?|"
    r"zł|Kč|Ft|lei|лв\.?|руб\.?|р\.|грн\.?|元|円|원"
)
"""What may stand next to the digits of an amount: blanks, currencies, percent signs."""
_GROUPED = r"[1-9]\d{{0,2}}(?:[{marks}]\d{{3}})+|[1-9]\d?(?:[{marks}]\d{{2}})+[{marks}]\d{{3}}"
POINTED = r"[-+]?\d*\.(?:\d{1,2}|\d{4,})|[-+]?\d*\.?\d+[eE][-+]?\d+"
"""Numbers whose point is certainly a decimal point, because it is not followed by exactly three digits."""
_INFINITE = r"inf(?:inity)?|∞"
_SCRIPTS = (0xFF10, 0x0660, 0x06F0, 0x0966, 0x09E6, 0x0E50)
"""Code points of the digit 0 in other scripts: full width, Arabic, Persian, Devanagari, Bengali, Thai."""
_TO_ASCII = {first + digit: str(digit) for first in _SCRIPTS for digit in range(10)} | {
    0x066B: ".", 0x066C: ",", 0xFF0E: ".", 0xFF0C: ",", 0xFF0D: "-",
}  # fmt: skip
_OTHER_DIGITS = "[" + "".join(f"{chr(first)}-{chr(first + 9)}" for first in _SCRIPTS) + "]"


def typed(raw: pd.DataFrame, contract: Any, *, missing: Sequence[str] = ()) -> pd.DataFrame:
    """Returns the contract's columns, typed. Leading and trailing blanks are ignored, and empty text is missing.

    Args:
        raw: text columns; a column that a reader below has already typed stays unchanged.
        contract: pandera model, or any object with its ``to_schema()``.
        missing: further words that stand for a missing value, e.g. ``["N/A", "?"]``.

    Raises:
        KeyError: a column of the contract is absent.
    """
    columns = {
        name: _typed(raw[name], str(column.dtype), missing) for name, column in contract.to_schema().columns.items()
    }
    return pd.DataFrame(columns, index=raw.index)


def number(text: pd.Series, *, decimal: str = ".", unit: str = "") -> pd.Series:
    """Returns amounts as plain number text ``[n]``; missing where the text is not an amount.

    Currency signs, percent signs and thousands separators are removed. Thousands separators are commas (points if
    ``decimal`` is a comma), blanks and apostrophes. ``(5)``, ``5-`` and ``−5`` are negative. Digits of other scripts
    are read as well. ``12,50`` is not an amount if ``decimal`` is a point, because it could mean 12.5 or 1250. ``12.5``
    is 12.5 in both cases, as programs write numbers, because its point cannot separate thousands.

    Args:
        text: text values ``[n]``.
        decimal: ``.`` or ``,``.
        unit: unit that may follow the number.
    """
    point, comma = (r"\.", ",") if decimal == "." else (",", r"\.")
    if text.str.contains(_OTHER_DIGITS).any():
        text = text.str.translate(_TO_ASCII).astype("string[pyarrow]")
    if unit:
        text = text.str.strip().str.removesuffix(unit)
    plain = text.str.replace(_BESIDE, "", regex=True).str.replace("[−–—]", "-", regex=True)
    plain = plain.str.replace("[.,]-+$", "", regex=True)  # 5.- means five francs
    negative = (plain.str.startswith("(") & plain.str.endswith(")")) | plain.str.fullmatch("[^-].*-")
    if negative.any():
        plain = plain.mask(negative.fillna(False).astype(bool), "-" + plain.str.strip("()-"))
    grouped = _GROUPED.format(marks=comma + "'’")
    fits = plain.str.fullmatch(
        rf"[-+]?(?:(?:{grouped})(?:{point}\d*)?|(?:\d+(?:{point}\d*)?|{point}\d+)(?:[eE][-+]?\d+)?|(?i:{_INFINITE}))"
    )
    read = plain.where(fits.fillna(False).astype(bool)).str.replace(f"[{comma}'’]", "", regex=True)
    if decimal == ".":
        return read
    pointed = plain.str.fullmatch(POINTED).fillna(False).astype(bool)
    return read.str.replace(decimal, ".", regex=False).mask(pointed, plain)


def hours(text: pd.Series) -> pd.Series:
    """Returns hours of times or durations, float64 ``[n]``: ``14:05`` is 14.08, ``2:05:09 PM`` is 14.09.

    Plain numbers such as ``14.5`` stay unchanged.
    """
    parts = text.str.strip().str.extract(r"^(\d{1,3}):([0-5]\d)(?::([0-5]\d(?:\.\d+)?))?\s*([AaPp]\.?[Mm]\.?)?$")
    hour, minute, second = (pd.to_numeric(parts[i], errors="coerce").astype("float64") for i in range(3))
    half = parts[3].str.lower().str[0]
    hour = hour.where(half.isna(), hour % 12 + 12 * (half == "p").astype("float64"))
    return (hour + minute / 60 + second.fillna(0) / 3600).fillna(pd.to_numeric(text, errors="coerce").astype("float64"))


def moment(text: pd.Series, form: str) -> pd.Series:
    """Returns datetime64 (UTC, naive) of text in the given form; see :func:`resources.moments.moments`."""
    return moments(text, form)


def row_key(raw: pd.DataFrame) -> pd.Series:
    """Returns a key for a table that has none: the hash of the row's text. Identical rows get the same key."""
    hashed = pd.util.hash_pandas_object(raw.astype("string").fillna(""), index=False)
    return pd.Series([f"{value:016x}" for value in hashed], index=raw.index, dtype="string[pyarrow]")


def _typed(values: pd.Series, kind: str, missing: Sequence[str]) -> pd.Series:
    if not (pd.api.types.is_string_dtype(values.dtype) or values.dtype == object):
        return values
    text = values.astype("string[pyarrow]").str.strip()
    text = text.mask(text.isin(["", *missing]))
    if kind.startswith("datetime"):
        return moments(text)
    if kind.startswith(("float", "Float")):
        numbers = pd.to_numeric(text, errors="coerce")
        return numbers.mask(numbers.abs() == float("inf"))
    if kind.startswith(("int", "uint", "Int", "UInt")):
        numbers = pd.to_numeric(text, errors="coerce")
        if not str(numbers.dtype).startswith("Int"):
            # Numbers with a fraction or beyond 64 bits become missing, because casting them would fail for all rows.
            numbers = numbers.mask((numbers % 1 != 0) | (numbers.abs() >= 2**63))
        return numbers
    if kind.startswith("bool"):
        return text.str.lower().map(dict.fromkeys(TRUE, True) | dict.fromkeys(FALSE, False)).astype("boolean")
    return text

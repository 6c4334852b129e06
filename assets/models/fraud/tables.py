"""The payments table: its contract, and the conversion of landed text to typed rows.

Belongs here: the definition of a clean payment. Does not belong here: handling of refused rows (the lifecycle), the
source of the rows (``simulator.py``).
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
import pyarrow.compute as pc
from pandera.typing.pandas import Series

from resources.moments import moments, plain_moments

MAX_AMOUNT = 10_000.0
"""Maximum amount of one payment with a card of this issuer."""
MAX_ENTITIES = 1_000_000
"""Upper bound, exclusive, of customer ids and terminal ids."""

_AMOUNT = r"-?(\d+|\d{1,3}(,\d{3})+)(\.\d+)?"  # "12,50" is refused, because it could mean 12.5 or 1250
_MOMENT = r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}(:?\d{2})?)?"


class Payments(pandera.DataFrameModel):
    """A card payment that can be scored and used for training. Moments are UTC, naive, whole seconds.

    The lifecycle refuses payments from the future, because it knows when a row landed.
    """

    transaction_id: Series[int] = pandera.Field(ge=0, description="Identifies the payment.")
    paid_at: Series[pd.Timestamp] = pandera.Field(description="When the card was used.")
    customer_id: Series[int] = pandera.Field(ge=0, lt=MAX_ENTITIES, description="Whose card it was.")
    terminal_id: Series[int] = pandera.Field(ge=0, lt=MAX_ENTITIES, description="Where the card was used.")
    amount: Series[float] = pandera.Field(gt=0, le=MAX_AMOUNT, description="Amount paid, two decimals.")
    arrived_at: Series[pd.Timestamp] = pandera.Field(description="When the row reached us.")


def clean(raw: pd.DataFrame) -> pd.DataFrame:
    """Types rows that landed as text; keeps the index and returns the contract's columns.

    Blanks around a value and thousands separators are accepted. Offsets of moments are converted to UTC, and fractions
    of a second are dropped. Values that cannot be read become missing, and the contract then refuses them with a
    reason. Ids are nullable ``Int64``, amounts float64, moments datetime64[ns].
    """
    typed: dict[str, pd.Series] = {}
    for name, column in Payments.to_schema().columns.items():
        text, kind = raw[name].astype("string[pyarrow]"), str(column.dtype)
        if kind == "int64":
            typed[name] = _read(text, _whole_numbers, _whole_numbers)
        elif kind == "float64":
            typed[name] = _read(text, _amounts, _amounts).round(2)
        else:
            typed[name] = _read(text, plain_moments, _moments)
    return pd.DataFrame(typed, index=raw.index)


_Reader = Callable[[pd.Series], pd.Series]


def _read(text: pd.Series, nearly_all: _Reader, others: _Reader) -> pd.Series:
    """Reads the texts as they are, and the few that cannot be read so without the blanks around them."""
    read = nearly_all(text)
    left = text[read.isna() & text.notna()]
    if len(left):
        read[left.index] = others(left.str.strip())
    return read


def _whole_numbers(text: pd.Series) -> pd.Series:
    """Whole numbers of at most 18 digits; other texts are missing."""
    values = pa.array(text, pa.large_string())
    whole = pc.and_(pc.ascii_is_decimal(values), pc.less_equal(pc.binary_length(values), 18))
    return text.where(pc.fill_null(whole, False).to_numpy(zero_copy_only=False)).astype("Int64")


def _amounts(text: pd.Series) -> pd.Series:
    number = _only(text, _AMOUNT)
    if number.str.contains(",", regex=False).any():
        number = number.str.replace(",", "", regex=False)
    read = pa.array(number, pa.large_string()).cast(pa.float64())
    return pd.Series(read.to_numpy(zero_copy_only=False), index=text.index)


def _moments(text: pd.Series) -> pd.Series:
    return moments(_only(text, _MOMENT)).dt.floor("s")


def _only(text: pd.Series, pattern: str) -> pd.Series:
    """Returns the texts that match the whole pattern; all others are missing."""
    return text.where(text.str.fullmatch(pattern).fillna(False).astype(bool))

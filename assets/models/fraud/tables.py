"""The payments table: its contract, and how rows that landed as text become typed rows.

Belongs here: what a clean payment is. Does not belong here: what happens to rows that are refused (the lifecycle), or
where they come from (``simulator.py``).
"""

from __future__ import annotations

import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

from resources.moments import moments

MAX_AMOUNT = 10_000.0
"""No card of this issuer can pay more at once."""
MAX_ENTITIES = 1_000_000
"""Ids of customers and of terminals are below this."""

_WHOLE_NUMBER = r"\d{1,18}"
_AMOUNT = r"-?(\d+|\d{1,3}(,\d{3})+)(\.\d+)?"  # "12,50" is refused: nobody knows whether it is 12.5 or 1250
_MOMENT = r"\d{4}-\d{2}-\d{2}[ T]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}(:?\d{2})?)?"


class Payments(pa.DataFrameModel):
    """A card payment that can be scored and learnt from. Moments are UTC, naive, whole seconds.

    Payments of the future are refused by the lifecycle, which knows when a row landed.
    """

    transaction_id: Series[int] = pa.Field(ge=0, description="Identifies the payment.")
    paid_at: Series[pd.Timestamp] = pa.Field(description="When the card was used.")
    customer_id: Series[int] = pa.Field(ge=0, lt=MAX_ENTITIES, description="Whose card it was.")
    terminal_id: Series[int] = pa.Field(ge=0, lt=MAX_ENTITIES, description="Where the card was used.")
    amount: Series[float] = pa.Field(gt=0, le=MAX_AMOUNT, description="Amount paid, two decimals.")
    arrived_at: Series[pd.Timestamp] = pa.Field(description="When the row reached us.")


def clean(raw: pd.DataFrame) -> pd.DataFrame:
    """Types rows that landed as text; same index, the contract's columns.

    Blanks around a value and thousands separators are harmless; of moments offsets are turned to UTC, and fractions of
    a second left out. What cannot be read becomes missing (ids are nullable
    ``Int64``, amounts float64, moments datetime64[ns]), which the contract then refuses with a reason.
    """
    typed: dict[str, pd.Series] = {}
    for name, column in Payments.to_schema().columns.items():
        text = raw[name].astype("string[pyarrow]").str.strip()
        kind = str(column.dtype)
        if kind == "int64":
            typed[name] = _only(text, _WHOLE_NUMBER).astype("Int64")
        elif kind == "float64":
            number = _only(text, _AMOUNT).str.replace(",", "", regex=False).astype("Float64")
            typed[name] = number.astype("float64").round(2)
        else:
            typed[name] = moments(_only(text, _MOMENT)).dt.floor("s")
    return pd.DataFrame(typed, index=raw.index)


def _only(text: pd.Series, pattern: str) -> pd.Series:
    """Texts that match as a whole; the others missing."""
    return text.where(text.str.fullmatch(pattern).fillna(False).astype(bool))

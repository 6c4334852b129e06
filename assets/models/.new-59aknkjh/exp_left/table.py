"""The table: what a clean row of t.csv is, and how text becomes one."""

import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

from assets.reading import typed


class T(pa.DataFrameModel):
    """A row of t.csv."""

    ticket_id: Series[int] = pa.Field(description="The key.")
    message: Series[str]
    months: Series[int] = pa.Field(ge=0, le=120)
    open_cases: Series[int] = pa.Field(ge=0, le=16)
    left: Series[bool]


def clean(raw: pd.DataFrame) -> pd.DataFrame:
    """Text as it landed to typed rows; what cannot be read becomes missing, which the contract may refuse."""
    return typed(raw, T)

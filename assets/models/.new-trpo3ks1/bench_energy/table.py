"""The table: what a clean row of energy.csv is, and how text becomes one."""

import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

from assets.reading import row_key, typed


class Energy(pa.DataFrameModel):
    """A row of energy.csv."""

    row: Series[str] = pa.Field(description="The key, made of the row's text.")
    area: Series[float] = pa.Field(ge=0, le=670)
    people: Series[int] = pa.Field(ge=0, le=11)
    outside: Series[float] = pa.Field(ge=-86, le=110)
    kind: Series[str] = pa.Field(isin=["detached", "flat", "terraced"])
    heat_pump: Series[bool]
    noise: Series[float] = pa.Field(ge=-11, le=11)
    use: Series[float] = pa.Field(ge=-7_700, le=15_000)


def clean(raw: pd.DataFrame) -> pd.DataFrame:
    """Text as it landed to typed rows; what cannot be read becomes missing, which the contract may refuse."""
    raw = raw.assign(row=row_key(raw))
    return typed(raw, Energy)

"""The table: what a clean row of t.csv is, and how text becomes one."""

import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

from assets.reading import moment, typed


class T(pa.DataFrameModel):
    """A row of t.csv."""

    machine_no: Series[str] = pa.Field(description="The key.")
    heat_c: Series[float] = pa.Field(ge=-150, le=270)
    load: Series[float] = pa.Field(ge=0, le=600, nullable=True)
    hours_since_service: Series[int] = pa.Field(ge=0, le=8_000)
    maker: Series[str] = pa.Field(isin=["Acme", "Borg", "Cyan", "Dolt", "Eden"])
    wet: Series[bool]
    installed: Series[pd.Timestamp]
    Failure: Series[str] = pa.Field(isin=["bearing", "belt", "motor", "none"])


def clean(raw: pd.DataFrame) -> pd.DataFrame:
    """Text as it landed to typed rows; what cannot be read becomes missing, which the contract may refuse."""
    raw = raw.rename(
        columns={
            "Machine No": "machine_no",
            "Heat (°C)": "heat_c",
            "Load %": "load",
            "Hours since service": "hours_since_service",
        }
    )
    raw = raw.assign(installed=moment(raw["installed"], "%d.%m.%Y"))
    return typed(raw, T)

"""Parcels: does one arrive late? The model ``returns`` asks something else of the same table."""

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.typing.pandas import Series

from assets.declaration import Gate, Model, Table, Training
from resources.sources import CsvFile

TRAINING = Training(ensemble=(), max_epochs=3, members=1, batch_size=64)
GATE = Gate(floor=0.5, calibration_error=None, mode="advise")


class Parcels(pa.DataFrameModel):
    """One parcel."""

    parcel_id: Series[int] = pa.Field(ge=0)
    weight: Series[float] = pa.Field(ge=0)
    distance: Series[float] = pa.Field(ge=0, description="Kilometres.")
    late: Series[bool]
    returned: Series[bool]


def parcels(rows: int = 600, seed: int = 0) -> pd.DataFrame:
    """Parcels: the farther, the later; the heavier, the likelier is its return."""
    rng = np.random.default_rng(seed)
    weight, distance = rng.uniform(0, 30, rows), rng.uniform(0, 900, rows)
    return pd.DataFrame({
        "parcel_id": np.arange(rows), "weight": weight, "distance": distance,
        "late": rng.random(rows) < distance / 1_200, "returned": rng.random(rows) < weight / 40,
    })  # fmt: skip


model = Model(
    name="parcels",
    table=Table(name="shipped", source=CsvFile(path="parcels.csv"), key="parcel_id", contract=Parcels),
    target="late",
    training=TRAINING,
    gate=GATE,
)

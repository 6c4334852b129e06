"""Is a parcel sent back? A second model on the table of ``parcels``, as a fork declares it."""

import pandera.pandas as pa
from pandera.typing.pandas import Series

from assets.declaration import Model, Table
from tests.declarations.parcels import GATE, TRAINING


class Shipped(pa.DataFrameModel):
    """One parcel, as the model `parcels` cleans it."""

    parcel_id: Series[int] = pa.Field(ge=0)
    weight: Series[float] = pa.Field(ge=0)
    distance: Series[float] = pa.Field(ge=0)
    late: Series[bool]
    returned: Series[bool]


model = Model(
    name="returns",
    table=Table(name="shipped", of="parcels", key="parcel_id", contract=Shipped),
    target="returned",
    training=TRAINING,
    gate=GATE,
)

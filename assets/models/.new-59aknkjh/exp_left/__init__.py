"""left of the rows of t.csv."""

from assets.declaration import Model, Table
from assets.models.exp_left.table import T, clean
from resources.sources import CsvFile

model = Model(
    name="exp_left",
    description="Predicts left from t.csv.",
    table=Table(
        name="t",
        source=CsvFile(path="/tmp/tmp_1c71oro/t.csv"),
        key="ticket_id",
        contract=T,
        clean=clean,
    ),
    target="left",
)

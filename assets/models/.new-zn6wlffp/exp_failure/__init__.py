"""Failure of the rows of t.csv."""

from assets.declaration import Model, Table
from assets.models.exp_failure.table import T, clean
from resources.sources import CsvFile

model = Model(
    name="exp_failure",
    description="Predicts Failure from t.csv.",
    table=Table(
        name="t",
        source=CsvFile(path="/tmp/tmpnobk2dlm/t.csv"),
        key="machine_no",
        contract=T,
        clean=clean,
    ),
    target="Failure",
)

"""use of the rows of energy.csv."""

from assets.declaration import Model, Table
from assets.models.bench_energy.table import Energy, clean
from resources.sources import CsvFile

model = Model(
    name="bench_energy",
    description="Predicts use from energy.csv.",
    table=Table(
        name="energy",
        source=CsvFile(path="/tmp/tmppqgv5bts/energy.csv"),
        key="row",
        contract=Energy,
        clean=clean,
    ),
    target="use",
)

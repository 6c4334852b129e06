"""Two models on one table: its assets are there once, and both declare the same table."""

from dataclasses import replace

import dagster as dg
import pandera.pandas as pa
import pytest
from pandera.typing.pandas import Series

from assets.build import build
from assets.declaration import DeclarationError, Model, Table
from assets.lifecycle.dry_run import dry_run
from assets.lifecycle.jobs import assets_of_jobs
from definitions import build_defs
from resources.sources import CsvFile, SourceError
from sensors.defaults import default_sensors
from tests.declarations.parcels import Parcels
from tests.declarations.parcels import model as parcels
from tests.declarations.readings import START, stream
from tests.declarations.returns import model as returns


class Later(pa.DataFrameModel):
    """The rows of the stream `meter`, for a second model."""

    reading_id: Series[int] = pa.Field(ge=0)
    read_at: Series[pa.Timestamp]
    site: Series[str] = pa.Field(isin=["north", "south", "east"])
    level: Series[float] = pa.Field(ge=0, le=100)


METER = stream()
SECOND = stream(name="second", table=replace(METER.table, source=None, of="meter", contract=Later))


def keys_of(*models: Model) -> set[str]:
    built, broken = build(models)
    assert broken == []
    return {key.to_user_string() for one in built for asset in one.assets for key in asset.keys}


def refusal(model: Model, *others: Model) -> str:
    """Why the model is broken beside the others."""
    _, broken = build([model, *others])
    assert [one.name for one in broken] == [model.name]
    assert "\n" not in broken[0].reason
    return broken[0].reason


def on(table: Table, **given) -> Model:
    return replace(returns, table=replace(table, **given))


def test_the_assets_of_the_table_are_there_once_under_the_keys_that_they_had():
    both, alone = keys_of(returns, parcels), keys_of(parcels)
    assert alone <= both
    assert {"parcels/raw_shipped", "parcels/shipped", "parcels/quarantine"} <= alone
    of_returns = {key for key in both if key.startswith("returns/")}
    assert both == alone | of_returns
    assert {"returns/labels", "returns/features", "returns/trained_model"} <= of_returns
    assert not {"returns/raw_shipped", "returns/shipped", "returns/quarantine"} & of_returns


def test_a_stream_has_one_landing_and_one_source():
    both = keys_of(METER, SECOND)
    assert {key for key in both if "raw_" in key} == {"meter/raw_readings", "meter/raw_labels"}
    defs = build_defs(models=[METER, SECOND])
    dg.Definitions.validate_loadable(defs)
    assert "second_source" not in defs.resources
    sensors = {sensor.name for sensor in default_sensors([METER, SECOND])}
    assert {"meter_arrivals", "second_missed_days", "second_retraining"} <= sensors
    assert "second_arrivals" not in sensors
    jobs = {job.name for job in defs.jobs or ()}
    assert {"meter_land", "meter_clean", "second_daily"} <= jobs
    assert not {"second_land", "second_clean"} & jobs
    assert "readings" not in assets_of_jobs(SECOND)["daily"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "sent"}, "table.name='sent' is invalid: 'parcels', whose table it is, declares 'shipped'"),
        ({"key": "weight"}, "table.key='weight' is invalid: 'parcels', whose table it is, declares 'parcel_id'"),
        ({"max_refused": 0.5}, "table.max_refused=0.5 is invalid: 'parcels', whose table it is, declares 0.05"),
        ({"of": "parcel"}, "table.of='parcel' is invalid: no such model is declared; did you mean 'parcels'?"),
        ({"contract": Parcels}, "table.contract='Parcels' is invalid: write the contract into the model's own folder"),
        ({"clean": lambda rows: rows}, "table.clean='<lambda>' is invalid: 'parcels' cleans its rows otherwise"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_declaration_of_the_table_is_refused(changed, message):
    assert message in refusal(on(returns.table, **changed), parcels)


def test_the_same_cleaning_is_written_twice():
    def clean(rows):
        return rows.assign(weight=rows["weight"])  # of the first model

    first = clean

    def clean(rows):
        return rows.assign(
            weight=rows["weight"],
        )

    def other(rows):
        return rows.assign(weight=0)

    owner = replace(parcels, table=replace(parcels.table, clean=first))
    assert build([owner, on(returns.table, clean=clean)])[1] == []
    assert "table.clean='other' is invalid: 'parcels' cleans its rows otherwise" in refusal(
        on(returns.table, clean=other), owner
    )
    assert "table.clean=None is invalid" in refusal(returns, owner)


def test_another_contract_is_refused():
    class Heavy(pa.DataFrameModel):
        parcel_id: Series[int] = pa.Field(ge=0)
        weight: Series[float] = pa.Field(ge=1)
        distance: Series[float] = pa.Field(ge=0)
        late: Series[bool]
        returned: Series[bool]

    class Short(pa.DataFrameModel):
        parcel_id: Series[int] = pa.Field(ge=0)
        returned: Series[bool]

    assert "column 'weight'='float64, required, greater_than_or_equal_to(min_value=1)'" in refusal(
        on(returns.table, contract=Heavy), parcels
    )
    assert "column 'distance'=False is invalid: 'parcels' declares other columns" in refusal(
        on(returns.table, contract=Short), parcels
    )


def test_labels_that_land_at_another_time_are_refused():
    assert "label_delay_days=9 is invalid: the labels of 'meter' land 7 days after their row" in refusal(
        replace(SECOND, label_delay_days=9), METER
    )


def test_a_table_of_a_broken_model_or_of_a_third_one_is_refused():
    assert build([replace(parcels, targets=("nowhere",)), returns], targets=["local"])[1][1].reason.endswith(
        "table.of='parcels' is invalid: that model is broken; mend it first"
    )
    third = replace(returns, name="third", table=replace(returns.table, of="returns"))
    assert "table.of='returns' is invalid: name the model that lands the table: 'parcels'" in refusal(
        third, parcels, returns
    )


def test_a_table_has_a_source_or_belongs_to_a_model():
    with pytest.raises(DeclarationError, match=r"table.source=None is invalid: say where the rows come from"):
        on(returns.table, of="")
    with pytest.raises(DeclarationError, match=r"table.source='CsvFile' is invalid: leave it out, .*'parcels' lands"):
        on(returns.table, source=CsvFile(path="parcels.csv"))
    with pytest.raises(DeclarationError, match=r"table.of='returns' is invalid: name the other model"):
        on(returns.table, of="returns")


def test_its_rows_are_given_to_a_dry_run():
    with pytest.raises(SourceError, match="the model 'meter' lands the rows of readings"):
        dry_run(SECOND)
    rows = METER.table.source.land(START)
    assert len(dry_run(SECOND, rows).accepted) == len(rows)

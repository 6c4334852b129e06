"""Two models on one table, from its rows to a trained version of each: the table lands and is cleaned once."""

from dataclasses import replace

import dagster as dg
import pytest

from assets.lifecycle.data.freshness import stale_days
from assets.lifecycle.jobs import LIFECYCLE
from resources.sources import CsvFile
from resources.tables import WHOLE
from runner import RunError, Runner
from tests.assets.test_shared_table import METER, SECOND
from tests.declarations.parcels import model as parcels
from tests.declarations.parcels import parcels as made
from tests.declarations.returns import model as returns

TRAINED = ("labels", "features", "training_set", "trained_model", "evaluation")


@pytest.fixture(scope="module")
def world(make_world, tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "parcels.csv"
    made().to_csv(path, index=False)
    owner = replace(parcels, table=replace(parcels.table, source=CsvFile(path=str(path))))
    return make_world(owner, tmp_path_factory.mktemp("parcels"))


def landings(world) -> int:
    records = world.instance.fetch_materializations(parcels.key("raw_shipped"), limit=100).records
    return len(records)


@pytest.mark.slow
def test_the_table_lands_once_and_both_train(world):
    second = Runner(returns, world.settings, world.instance, owner=world.model)
    second.make_shared_table()
    assert landings(world) == 1
    second.run(LIFECYCLE, only=TRAINED)
    first = Runner(world.model, world.settings, world.instance)
    first.run(LIFECYCLE, only=TRAINED)
    second.make_shared_table()
    assert landings(world) == 1
    tables = first.tables
    assert not tables.days(dg.AssetKey(["returns", "shipped"]))
    assert len(tables.read(parcels.key("shipped"))) == 600
    versions = {model.name: tables.read(model.key("trained_model"))["version"].iloc[0] for model in (parcels, returns)}
    assert versions == {"parcels": "1", "returns": "1"}
    trained = {model.target: tables.read(model.key("training_set")) for model in (parcels, returns)}
    assert "x_late" in trained["returned"], "what the first model predicts is a column of the second"
    assert "x_returned" in trained["late"]


@pytest.mark.slow
def test_a_table_that_landed_again_is_stale_for_both(world):
    first = Runner(world.model, world.settings, world.instance)
    made(seed=1).to_csv(world.model.table.source.path, index=False)
    first.run(LIFECYCLE, only=("raw_shipped", "shipped", "quarantine"))
    second = Runner(returns, world.settings, world.instance, owner=world.model)
    assert stale_days(first.assets["labels"], first.tables, [WHOLE])
    assert stale_days(second.assets["labels"], second.tables, [WHOLE])


def test_the_days_of_a_stream_land_once(make_world, tmp_path):
    world = make_world(METER, tmp_path)
    runner = Runner(SECOND, world.settings, world.instance, owner=METER)
    landed = [f"2026-01-{day:02}" for day in range(1, 11)]
    days = landed[:3]
    works = {"land": landed, "clean": landed, "label": days, "features": days}
    assert [runner.make(work, of_work) for work, of_work in works.items()] == [10, 10, 3, 3]
    alone = Runner(METER, world.settings, world.instance)
    assert [alone.make(work, of_work) for work, of_work in works.items()] == [0, 0, 3, 3]
    assert runner.tables.days(SECOND.key("features")) == days
    assert SECOND.key("readings") == METER.key("readings")


def test_a_model_that_is_not_declared_has_no_table_to_share(world):
    with pytest.raises(RunError, match="returns: no model 'parcels' is declared, whose table it shares"):
        Runner(returns, world.settings, world.instance)

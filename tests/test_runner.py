"""A model brought up to date in one call: a stream here, a plain table in ``e2e/test_plain_table.py``."""

import datetime as dt
from dataclasses import replace

import pytest

from assets.declaration import Gate
from assets.models.fraud.simulator import PaymentSimulator
from resources.sources import SourceUnavailable
from runner import RunError, Runner
from tests.declarations.readings import Feed, stream
from tests.payments import payments_model

UNTIL = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
DAYS = 52


@pytest.fixture(scope="module")
def world(make_world, tmp_path_factory):
    """A stream of which nothing has landed yet; the labels of its last week are not due."""
    model = payments_model(PaymentSimulator(customers=300, terminals=600, seed=2))
    model = replace(model, table=replace(model.table, start=UNTIL - dt.timedelta(days=DAYS - 1)))
    return make_world(model, tmp_path_factory.mktemp("runner"))


class Down(Feed):
    """Does not answer."""

    def landed_until(self) -> dt.date:
        raise SourceUnavailable("the meters' database refused the connection")


def test_a_source_that_does_not_answer_is_named_in_one_sentence(make_world, tmp_path):
    model = stream(table=replace(stream().table, source=Down()))
    down = make_world(model, tmp_path / "down")
    with pytest.raises(RunError, match=r"^meter: the source cannot be read: the meters' database refused the connec"):
        Runner(model, down.settings, down.instance).live(lambda line: None)


@pytest.mark.slow
def test_a_stream_is_landed_trained_deployed_and_scored_and_then_nothing_is_stale(world):
    strict = replace(world.model, gate=Gate(metric="average_precision", floor=0.99))
    refused: list[str] = []
    with pytest.raises(RunError, match=r"fraud_train failed: fraud/evaluation: gate: .* misses the floor 0.9900"):
        Runner(strict, world.settings, world.instance).live(refused.append)
    assert refused == ["land: 52 of 52 days were stale", "clean: 52 of 52 days were stale",
                       "label: 45 of 45 days were stale", "features: 52 of 52 days were stale"]  # fmt: skip
    assert world.ledger.champion("fraud") is None

    lines: list[str] = []
    Runner(world.model, world.settings, world.instance).live(lines.append)
    assert [line for line in lines if "were stale" in line] == [
        "land: 0 of 52 days were stale", "clean: 0 of 52 days were stale",
        "label: 0 of 45 days were stale", "features: 0 of 52 days were stale",
    ]  # fmt: skip
    assert lines[-1].startswith("version 1 of fraud is in production: average_precision ")
    assert world.tables.days(world.model.key("predictions")) == [str(UNTIL)]

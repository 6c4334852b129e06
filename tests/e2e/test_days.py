"""Days of the small stream from landing to features: alone, in a range, late, and when something is wrong with them."""

import datetime as dt
import hashlib
from dataclasses import replace
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from assets.lifecycle.data.features import features_of
from assets.lifecycle.data.freshness import stale_days
from assets.lifecycle.data.landing import LANDING_DAY
from assets.models.fraud import model as fraud
from assets.models.fraud.simulator import PaymentSimulator
from tests.payments import payments_model
from tests.worlds import FIRST, days, why

TABLES = ("raw_payments", "raw_labels", "payments", "quarantine", "labels", "features")


class Upstream(PaymentSimulator):
    """The small upstream with a fault: what it does to a day's landing is set on the class by a test."""

    fault: str = ""
    faulty_day: str = ""

    def land(self, day: dt.date) -> pd.DataFrame:
        rows = super().land(day)
        if str(day) != self.faulty_day:
            return rows
        if self.fault == "empty":
            return rows.iloc[:0]
        if self.fault == "renamed":
            return rows.rename(columns={"amount": "amount_eur"})
        if self.fault == "wrong types":
            return rows.assign(amount="twelve")
        if self.fault == "wrong values":
            return rows.assign(amount="-12")
        raise AssertionError(self.fault)


def upstream(fault: str = "", day: str = "") -> Upstream:
    return Upstream(customers=200, terminals=400, seed=1, late_share=0.02, fault=fault, faulty_day=day)


def made(world, first: int, last: int) -> None:
    """Everything from landing to features of these days, each kind of work as one run over all of them."""
    for work, until in {"land": last, "clean": last, "label": last - 7, "features": last}.items():
        if until >= first:
            result = world.run(work, days(first, until))
            assert result.success, (work, why(result))


@pytest.fixture(scope="module")
def ranged(make_world, tmp_path_factory):
    world = make_world(payments_model(upstream()), tmp_path_factory.mktemp("ranged"))
    made(world, 0, 11)
    return world


def fingerprints(world) -> dict[tuple[str, str], str]:
    key = world.model.key
    return {
        (name, day): hashlib.sha256(Path(world.tables.path(key(name), day)).read_bytes()).hexdigest()
        for name in TABLES
        for day in world.tables.days(key(name))
    }


@pytest.mark.slow
def test_a_range_in_one_run_and_each_day_alone_are_the_same_bytes(ranged, make_world, tmp_path):
    alone = make_world(ranged.model, tmp_path / "alone")
    for work, until in {"land": 11, "clean": 11, "label": 4, "features": 11}.items():
        for day in reversed(days(0, until)):  # whatever the order
            result = alone.run(work, [day])
            assert result.success, (work, why(result))
    expected = fingerprints(ranged)
    assert len(expected) == 4 * 12 + 12 + 5
    # Each day alone, newest first: an early day's account was drawn up when later days were clean and earlier not.
    assert alone.run("clean", days(0, 11)).success
    assert alone.run("features", days(0, 11)).success
    assert fingerprints(alone) == expected


def test_all_checks_have_a_verdict_on_each_day(ranged):
    key = ranged.model.key
    for name, check in {"payments": "contract", "quarantine": "one_fate", "features": "point_in_time"}.items():
        wanted = dg.AssetCheckKey(key(name), check)
        found = ranged.instance.event_log_storage.get_asset_check_execution_history(wanted, limit=100)
        passed = {record.partition for record in found if record.status.value == "SUCCEEDED"}
        assert passed == set(days(0, 11)), (name, check)


def test_every_landed_row_is_accounted_for(ranged):
    raw = ranged.tables.read(ranged.model.key("raw_payments"))
    records = ranged.instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=ranged.model.key("quarantine")), limit=100
    ).records
    row_outcomes = pd.DataFrame(
        [
            {n: int(r.asset_materialization.metadata[n].value)
             for n in ("landed", "clean", "duplicate", "quarantined", "pending")}
            for r in records
        ]
    ).sum()  # fmt: skip
    assert row_outcomes["landed"] == len(raw)
    assert row_outcomes["landed"] == row_outcomes[["clean", "duplicate", "quarantined", "pending"]].sum()
    assert row_outcomes["duplicate"] > 0
    assert row_outcomes["quarantined"] > 0


def test_a_late_row_reaches_its_own_day_and_makes_the_days_that_look_back_stale(make_world, tmp_path):
    world = make_world(payments_model(upstream()), tmp_path / "late")
    made(world, 0, 4)
    key, payments = world.model.key, world.defs.get_assets_def(fraud.key("payments"))
    features = world.defs.get_assets_def(fraud.key("features"))
    assert stale_days(payments, world.tables, days(0, 4)) == []
    assert stale_days(features, world.tables, days(0, 4)) == []

    assert world.run("land", days(5, 5)).success
    landed = world.tables.read(key("raw_payments"), days(5, 5))
    landed = landed[landed["paid_at"].str[:4] == "2026"]
    late = landed[pd.to_datetime(landed["paid_at"], errors="coerce") < landed[LANDING_DAY]]
    of_days = sorted(set(late["paid_at"].str[:10]))
    assert of_days, "the upstream sent nothing late; choose another seed"
    assert stale_days(payments, world.tables, days(0, 4)) == days(2, 4), "three days may still get rows"
    assert world.run("clean", days(2, 5)).success
    rebuilt = world.tables.read(key("payments"), of_days)
    ids = pd.to_numeric(late["transaction_id"], errors="coerce").dropna().astype("int64")
    assert rebuilt["transaction_id"].isin(ids).any()
    assert stale_days(features, world.tables, days(0, 5))[0] == of_days[0]
    assert stale_days(features, world.tables, days(0, 5))[-1] == days(5, 5)[0]


@pytest.mark.parametrize(
    ("fault", "work", "words"),
    [
        ("empty", "land", ["fraud/raw_payments", "returned no rows for", "check the upstream system"]),
        ("renamed", "land", ["no column 'amount' any more; is it 'amount_eur' now?", "owner of the source"]),
        ("wrong types", "land", ["'amount' held numbers and now holds text, for example 'twelve'", "accept_schema"]),
        ("wrong values", "clean", ["fraud/payments", "100.0%", "amount"]),
    ],
)
def test_a_faulty_day_is_refused_in_words_and_harms_no_other(make_world, tmp_path, fault, work, words):
    faulty = days(3, 3)[0]
    world = make_world(payments_model(upstream(fault, faulty)), tmp_path / "faulty")
    made(world, 0, 2)
    before = fingerprints(world)
    result = world.run("land", [faulty])
    if work == "clean":
        assert result.success, why(result)
        result = world.run("clean", days(2, 3))
    assert not result.success
    said = why(result)
    assert all(word in said for word in words), said
    after = fingerprints(world)
    assert {k: after[k] for k in before} == before, "the days of before are untouched"
    refused = "raw_payments" if work == "land" else "payments"
    assert faulty not in world.tables.days(world.model.key(refused)), "nothing half-written"

    mended = make_world(payments_model(upstream()), tmp_path / "faulty")
    made(mended, 3, 3)


def test_a_truncated_file_is_named_with_its_mend_and_the_mend_works(make_world, tmp_path):
    world = make_world(payments_model(upstream()), tmp_path / "truncated")
    made(world, 0, 2)
    before = fingerprints(world)
    path = Path(world.tables.path(world.model.key("raw_payments"), days(1, 1)[0]))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])

    result = world.run("clean", days(1, 1))
    assert not result.success
    assert f"{path} is damaged" in why(result)
    assert f"materialise fraud/raw_payments of {days(1, 1)[0]} again" in why(result)
    assert stale_days(world.defs.get_assets_def(fraud.key("payments")), world.tables, days(1, 1)) == days(1, 1)
    assert world.run("land", days(1, 1)).success
    assert world.run("clean", days(1, 1)).success
    assert fingerprints(world) == before


def test_a_day_that_is_not_over_does_not_land(make_world, tmp_path):
    world = make_world(payments_model(upstream()), tmp_path / "today")
    today = str(dt.datetime.now(dt.UTC).date())
    result = world.run("land", [str(dt.date.fromisoformat(today) - dt.timedelta(days=1))])
    assert result.success, why(result)
    partitions = world.defs.get_assets_def(fraud.key("raw_payments")).partitions_def
    assert partitions.get_last_partition_key() < today


def test_features_that_look_ahead_are_refused_and_nothing_is_written(make_world, tmp_path):
    honest = features_of(fraud)

    def peeking(events, wanted):
        made = honest.compute(events, wanted)
        order = np.argsort(events["paid_at"], kind="stable")
        later = np.empty(len(order))
        later[order] = np.append(events["amount"][order][1:], 0.0)
        return made | {"amount": later[wanted].astype(np.float32)}

    model = payments_model(upstream(), features=replace(honest, compute=peeking))
    world = make_world(model, tmp_path / "peeking")
    for work in ("land", "clean"):
        assert world.run(work, days(0, 9)).success
    assert world.run("label", days(0, 2)).success
    result = world.run("features", days(0, 9))
    assert not result.success
    assert "amount changed when rows after" in why(result)
    assert world.tables.days(model.key("features")) == []


def test_the_first_day_of_all_has_nothing_before_it(ranged):
    first = ranged.tables.read(ranged.model.key("features"), [str(FIRST)])
    assert len(first) > 300
    assert (first["customer_count_30d"] >= 0).all()

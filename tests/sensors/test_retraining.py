"""When training is due: on the declared cron, and when drift has labels of the new world; once for the same rows."""

import datetime as dt
from dataclasses import replace

import dagster as dg
import pandas as pd
import pytest

from assets.models.fraud import model as fraud
from resources.alerts import Alerts
from resources.tables import ParquetTables
from sensors.alerts import DRIFT_CAUSE, LOST_CAUSE
from sensors.retraining import declared_due, drifting_since, retraining_due, retraining_sensor
from tests.declarations.telco import model as telco

SINCE = dt.date(2026, 3, 1)  # test_days = 7: labels of March 7 fill the test window; cool-down: 14 days


def due(labelled: int | None, trained: dt.date | None, since: dt.date | None = SINCE):
    until = None if labelled is None else dt.date(2026, 3, labelled)
    return retraining_due(fraud, drifting_since=since, labelled_until=until, trained_as_of=trained)


@pytest.mark.parametrize(
    ("labelled", "trained", "expected", "words"),
    [
        (6, dt.date(2026, 2, 1), False, "labels up to 2026-03-07 are needed, but they end on 2026-03-06"),
        (7, dt.date(2026, 2, 1), True, "drift since 2026-03-01, labels up to 2026-03-07"),
        (7, None, True, "drift since"),
        (8, dt.date(2026, 3, 7), False, "the next training needs labels up to 2026-03-21"),
        (20, dt.date(2026, 3, 7), False, "the next training needs labels up to 2026-03-21"),
        (21, dt.date(2026, 3, 7), True, "drift since"),
        # A training on the declared schedule saw only part of the new world: the drift's own is still due.
        (7, dt.date(2026, 3, 4), True, "drift since"),
        (None, None, False, "no labels"),
    ],
)
def test_when_training_is_due(labelled, trained, expected, words):
    decision = due(labelled, trained)
    assert decision.due is expected, decision
    assert words in decision.reason


def test_without_a_page_nothing_is_due():
    assert not due(30, None, since=None).due


def test_the_tick_reads_the_alert_the_labels_and_the_training_set(tmp_path):
    alerts = Alerts(database_url=f"sqlite:///{tmp_path / 'a.db'}")
    tables = ParquetTables(root=str(tmp_path / "tables"))
    day = pd.DataFrame({"transaction_id": [1], "paid_at": pd.to_datetime(["2026-03-07"]), "is_fraud": [0]})
    tables.write(fraud.key("labels"), day, "2026-03-07")
    sensor = retraining_sensor(fraud)

    def tick():
        given = {"alerts": alerts, "tables": tables}
        with dg.DagsterInstance.ephemeral() as instance, dg.build_sensor_context(instance, resources=given) as context:
            return sensor.evaluate_tick(context)

    assert tick().skip_message.endswith("no page for drift is open")
    alerts.store.report("fraud", "run/fraud_train", severity="page", summary="another cause", day="2026-03-01")
    alerts.store.report("fraud", DRIFT_CAUSE, severity="warn", summary="a first window", day="2026-03-01")
    assert not tick().run_requests
    alerts.store.report("fraud", DRIFT_CAUSE, severity="page", summary="x", day="2026-03-02", since_day="2026-03-01")
    [request] = tick().run_requests
    assert request.run_key == "fraud-train-2026-03-07"
    assert request.tags["assetline/why"] == "drift since 2026-03-01, labels up to 2026-03-07"
    tables.write(fraud.key("training_set"), day)
    assert "the next training needs labels up to 2026-03-21" in tick().skip_message


def test_lost_performance_asks_too_and_the_alert_says_once_that_it_was_asked_for(tmp_path):
    alerts = Alerts(database_url=f"sqlite:///{tmp_path / 'a.db'}")
    tables = ParquetTables(root=str(tmp_path / "tables"))
    day = pd.DataFrame({"transaction_id": [1], "paid_at": pd.to_datetime(["2026-03-07"]), "is_fraud": [0]})
    tables.write(fraud.key("labels"), day, "2026-03-07")
    alert, _ = alerts.store.report("fraud", LOST_CAUSE, severity="page", summary="x", day="2026-03-01")
    for _ in range(2):
        given = {"alerts": alerts, "tables": tables}
        with dg.DagsterInstance.ephemeral() as instance, dg.build_sensor_context(instance, resources=given) as context:
            [request] = retraining_sensor(fraud).evaluate_tick(context).run_requests
    assert request.run_key == "fraud-train-2026-03-07"
    told = [event.message for event in alerts.store.history(alert.id) if event.change == "updated"]
    assert told == ["a training run is requested: drift since 2026-03-01, labels up to 2026-03-07"]


def checked(tables, *, table: str = "drift", **days: str) -> None:
    """Verdicts by day of March 2026, as ``version level since``."""
    for day, said in days.items():
        version, level, *since = said.split()
        row = {"day": pd.Timestamp(f"2026-03-{day[1:]}"), "version": version, "level": level, "since": "".join(since)}
        tables.write(fraud.key(table), pd.DataFrame([row]), f"2026-03-{day[1:]}")


@pytest.mark.parametrize("table", ["drift", "unknown_intents"])
@pytest.mark.parametrize(
    ("days", "fitted_until", "asked"),
    [
        # Promoted without a day of the new world.
        ({"d02": "1 warn 2026-03-02", "d03": "1 page 2026-03-02", "d04": "2 ok"}, "2026-02-20", True),
        # The candidate has learnt a day of it.
        ({"d02": "1 warn 2026-03-02", "d03": "1 page 2026-03-02", "d04": "2 ok"}, "2026-03-02", False),
        # It passed by itself.
        ({"d02": "1 warn 2026-03-02", "d03": "1 page 2026-03-02", "d04": "1 ok"}, "2026-02-20", False),
        # A warning is no drift yet.
        ({"d02": "1 warn 2026-03-02", "d04": "2 ok"}, "2026-02-20", False),
        # Another drift came and passed in between.
        ({"d03": "1 page 2026-03-02", "d04": "2 ok", "d09": "2 page 2026-03-08", "d10": "2 ok"}, "2026-02-20", True),
        ({}, "2026-02-20", False),
    ],
)
def test_a_drift_that_ended_with_a_promotion_asks_until_a_candidate_was_fitted_on_it(
    tmp_path, table, days, fitted_until, asked
):
    alerts = Alerts(database_url=f"sqlite:///{tmp_path / 'a.db'}")
    tables = ParquetTables(root=str(tmp_path / "tables"))
    checked(tables, table=table, **days)
    assert drifting_since(alerts, tables, fraud) is None, "nothing was trained yet"
    # A candidate is fitted up to the gap before its test days: 14 days before the last label it saw.
    as_of = dt.date.fromisoformat(fitted_until) + dt.timedelta(days=14)
    tables.write(fraud.key("training_set"), pd.DataFrame({"paid_at": [pd.Timestamp(as_of)]}))
    assert drifting_since(alerts, tables, fraud) == (dt.date(2026, 3, 2) if asked else None)


def test_of_a_page_and_an_unlearnt_drift_the_earlier_counts(tmp_path):
    alerts = Alerts(database_url=f"sqlite:///{tmp_path / 'a.db'}")
    tables = ParquetTables(root=str(tmp_path / "tables"))
    checked(tables, d02="1 warn 2026-03-02", d03="1 page 2026-03-02", d04="2 ok")
    tables.write(fraud.key("training_set"), pd.DataFrame({"paid_at": [pd.Timestamp("2026-03-06")]}))
    alerts.store.report("fraud", DRIFT_CAUSE, severity="page", summary="x", day="2026-03-09", since_day="2026-03-08")
    assert drifting_since(alerts, tables, fraud) == dt.date(2026, 3, 2)


def test_the_sensor_says_when_it_trains():
    weekly = replace(fraud, retrain="0 6 * * MON")
    assert retraining_sensor(weekly).description == (
        "Trains a challenger of fraud on the cron 0 6 * * MON (UTC) and once the days of a confirmed drift have labels."
    )
    assert retraining_sensor(replace(telco, retrain="0 6 * * MON")).description == (
        f"Trains a challenger of {telco.name} on the cron 0 6 * * MON (UTC)."
    )


# -- the declared cron -----------------------------------------------------------------------------------------------

MONDAYS = "0 6 * * MON"


def at(day: int, hour: int = 6, minute: int = 0) -> dt.datetime:
    return dt.datetime(2026, 3, day, hour, minute, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("handled_at", "now", "due"),
    [
        (at(8), at(9, 5, 59), False),  # the 9th is a Monday
        (at(8), at(9), True),
        (at(9), at(9, 6, 10), False),
        (at(9), at(16, 5, 59), False),
        (at(9), at(16), True),
        (at(1), at(25), True),  # nothing looked for three weeks
    ],
)
def test_each_tick_of_the_cron_is_due_once(handled_at, now, due):
    handled = declared_due(MONDAYS, None, handled_at)[1]
    decision, until = declared_due(MONDAYS, handled, now)
    assert decision.due is due
    assert declared_due(MONDAYS, until, now)[0].due is False, "it is handled now"


def test_what_was_declared_before_the_first_look_is_not_made_up_for():
    assert not declared_due(MONDAYS, None, at(9))[0].due


@pytest.fixture
def ticks(tmp_path):
    """Ticks a model's sensor with a cursor, as the daemon does."""
    alerts = Alerts(database_url=f"sqlite:///{tmp_path / 'a.db'}")
    tables = ParquetTables(root=str(tmp_path / "tables"))

    def tick(model, cursor):
        given = {"alerts": alerts, "tables": tables}
        with (
            dg.DagsterInstance.ephemeral() as instance,
            dg.build_sensor_context(instance, resources=given, cursor=cursor) as context,
        ):
            return retraining_sensor(model).evaluate_tick(context)

    tick.alerts, tick.tables = alerts, tables
    return tick


def labelled_on(tables, *days: str) -> None:
    for number, day in enumerate(days):
        rows = pd.DataFrame({"transaction_id": [number], "paid_at": pd.to_datetime([day]), "is_fraud": [0]})
        tables.write(fraud.key("labels"), rows, day)


def test_the_declared_training_is_requested_as_of_the_latest_labels(ticks):
    labelled_on(ticks.tables, "2026-03-07", "2026-03-08")
    first = ticks(fraud, None)
    assert not first.run_requests
    assert "has not ticked" in first.skip_message
    [request] = ticks(fraud, "2026-03-02T06:00").run_requests
    assert (request.run_key, request.tags["assetline/why"]) == (
        "fraud-train-2026-03-08", "due by the cron 0 6 * * MON (UTC)",
    )  # fmt: skip
    assert ticks(fraud, "2026-03-02T06:00").cursor == first.cursor
    assert not ticks(fraud, first.cursor).run_requests


def test_what_is_due_twice_is_one_run_with_both_reasons(ticks):
    labelled_on(ticks.tables, "2026-03-07")
    ticks.alerts.store.report("fraud", DRIFT_CAUSE, severity="page", summary="x", day="2026-03-01")
    [request] = ticks(fraud, "2026-03-02T06:00").run_requests
    why = request.tags["assetline/why"]
    assert why == "due by the cron 0 6 * * MON (UTC); drift since 2026-03-01, labels up to 2026-03-07"


def test_without_labels_the_run_itself_says_what_is_missing(ticks):
    [request] = ticks(fraud, "2026-03-02T06:00").run_requests
    assert request.run_key.startswith("fraud-train-20")


def test_a_table_without_days_trains_on_its_cron_whatever_its_alerts_say(ticks):
    declared = replace(telco, retrain=MONDAYS)
    ticks.alerts.store.report("churn", DRIFT_CAUSE, severity="page", summary="x", since_day="2026-03-01 10:00:00")
    first = ticks(declared, None)
    assert first.skip_message == "the cron 0 6 * * MON has not ticked"
    [request] = ticks(declared, "2026-03-02T06:00").run_requests
    assert request.run_key == f"churn-train-{first.cursor}"
    assert retraining_sensor(declared).job_name == "churn_train"


def test_nothing_is_declared_nothing_is_due(ticks):
    undeclared = replace(fraud, retrain=None)
    ticked = ticks(undeclared, None)
    assert (ticked.skip_message, ticked.cursor) == ("no page for drift is open", None)
    assert "cron" not in retraining_sensor(undeclared).description

"""Which days of the log become a table: each once it is over, and again after late lines."""

import datetime as dt

import dagster as dg
import pytest

from definitions import build_defs
from resources.request_log import RequestLog, RequestRecord
from sensors.requests import MOST_DAYS_A_TICK, new_days, requests_sensor
from tests.declarations.readings import plain, stream

MODEL = stream()
DEFS = build_defs(models=[MODEL, plain(name="other")])
NOW = dt.datetime.now(dt.UTC).replace(tzinfo=None)


def asked(log: RequestLog, days_ago: int, model: str = "meter") -> str:
    at = NOW - dt.timedelta(days=days_ago)
    log.append([RequestRecord(
        request_id="r", at=at, model=model, version="1", role="champion", key=1, entity=None, row={}, score=0.5,
        alert=None, latency_ms=1.0, outcome="ok",
    )])  # fmt: skip
    return str(at.date())


@pytest.fixture
def log(tmp_path) -> RequestLog:
    return RequestLog(folder=str(tmp_path))


def tick(log: RequestLog, cursor: str | None = None):
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(
            instance=instance, definitions=DEFS, resources={"request_log": log}, cursor=cursor
        ) as context,
    ):
        return requests_sensor(MODEL).evaluate_tick(context)


def test_a_model_that_nobody_asks_is_requested_never(log):
    assert tick(log).run_requests == []
    assert tick(log).skip_message == "the log has no more requests of days that are over"


def test_each_day_is_requested_once_it_is_over_and_again_after_a_late_line(log):
    old, yesterday = asked(log, 5), asked(log, 1)
    asked(log, -1)  # not over, whatever the clock says while this test runs
    asked(log, 2, "other")
    first = tick(log)
    assert [request.partition_key for request in first.run_requests] == [old, yesterday]
    assert tick(log, first.cursor).run_requests == []
    asked(log, 5)
    (again,) = tick(log, first.cursor).run_requests
    assert again.partition_key == old
    assert again.run_key not in [request.run_key for request in first.run_requests]


def test_a_long_log_is_requested_some_days_a_tick(log):
    for days_ago in range(1, MOST_DAYS_A_TICK + 5):
        asked(log, days_ago)
    first = tick(log)
    second = tick(log, first.cursor)
    assert [len(first.run_requests), len(second.run_requests)] == [MOST_DAYS_A_TICK, 4]


def test_days_are_new_by_their_state():
    found = {"2026-03-02": "y", "2026-03-01": "x", "2026-03-03": "z"}
    assert new_days(found, {"2026-03-01": "x", "2026-03-02": "w"}) == ["2026-03-02", "2026-03-03"]

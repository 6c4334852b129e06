"""What the processes of one service know of each other: health and metrics, through real files."""

import asyncio
import multiprocessing
import os
import socket

import pytest
from fastapi import FastAPI
from prometheus_client import values
from prometheus_client.parser import text_string_to_metric_families

from resources.settings import Settings
from serving.scoring.access import tokens_of
from serving.scoring.front import guarded
from serving.scoring.limits import make_buckets
from serving.scoring.metrics import ServiceMetrics
from serving.scoring.shared import Board, ProcessState, Seat, write_states


@pytest.fixture
def seats(tmp_path, monkeypatch):
    """Places of two processes that serve and one that starts."""
    monkeypatch.setattr(values, "ValueClass", values.ValueClass)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    states = [ProcessState(n, os.getpid(), state, n) for n, state in enumerate(("serving", "serving", "starting"))]
    write_states(tmp_path, states)
    return [Seat(n, tmp_path, socket.socket()) for n in range(3)]


def health(version: str, status: str = "ok", since: str = "2026-12-01T10:00:00+00:00") -> dict:
    return {"status": status, "version": version, "since": since, "problem": None}


def test_the_health_of_a_model_is_what_the_worst_process_says(seats):
    first, second, third = (Board(seat) for seat in seats)
    good, bad = {"m": health("2"), "n": health("1")}, {"m": health("1", "degraded"), "n": health("1")}
    assert first.health(good) == good, "the others have not said anything yet"
    second.publish(bad)
    assert first.health(good) == {"m": bad["m"], "n": good["n"]}
    assert second.health(bad) == bad
    third.publish({"m": health("0", "degraded")})
    assert first.health(good)["m"]["version"] == "1", "a process that does not serve yet does not count"


def test_a_new_version_is_named_once_every_process_serves_it(seats):
    first, second, _ = (Board(seat) for seat in seats)
    old, new = {"m": health("1")}, {"m": health("2", since="2026-12-01T10:00:01+00:00")}
    second.publish(old)
    assert first.health(new) == old
    second.publish({"m": health("2", since="2026-12-01T10:00:03+00:00")})
    assert first.health(new) == new


def shown(metrics: ServiceMetrics) -> dict[tuple, float]:
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(metrics.page().decode())
        for sample in family.samples
    }


def counts(seat: Seat, answered: int, pages) -> None:
    """A process of the service: answers, and is scraped at the end."""
    metrics = ServiceMetrics(seat)
    for _ in range(answered):
        metrics.answered("m", "1", "ok", 0.002, rows=3)
    metrics.refused("rate_limited")
    pages.put(shown(metrics))


def test_a_scrape_of_any_process_has_the_sums_of_all_and_a_restart_loses_none(seats):
    fork = multiprocessing.get_context("fork")
    pages, found = fork.SimpleQueue(), []
    for seat, answered in ((seats[0], 3), (seats[1], 2), (seats[0], 1)):  # the last one is the first one, restarted
        process = fork.Process(target=counts, args=(seat, answered, pages))
        process.start()
        process.join()
        found.append(pages.get())
    assert [page["assetline_requests_total", "1", "m", "ok"] for page in found] == [3, 5, 6]
    last = found[-1]
    assert last["assetline_scored_rows_total", "1", "m"] == 18
    assert last["assetline_refused_requests_total", "rate_limited"] == 3
    assert last["assetline_refused_requests_total", "unauthorized"] == 0
    assert last["assetline_request_seconds_count", "1", "m"] == 6
    assert last["assetline_request_seconds_sum", "1", "m"] == pytest.approx(0.012)
    assert last["assetline_request_seconds_bucket", "+Inf", "1", "m"] == 6


def test_memory_is_by_process_and_the_status_is_that_of_all(seats):
    metrics = ServiceMetrics(seats[0])
    metrics.status("m", "degraded")
    found = shown(metrics)
    assert found["process_resident_memory_bytes", "0"] > 10_000_000
    assert {key[1] for key in found if key[0] == "process_cpu_seconds_total"} == {"0", "1", "2"}
    statuses = {key[1:]: value for key, value in found.items() if key[0] == "assetline_endpoint_status"}
    assert statuses == {("m", "ok"): 0, ("m", "waiting"): 0, ("degraded", "m"): 1}
    assert found["assetline_service_processes",] == 2
    assert [found["assetline_service_restarts_total", str(n)] for n in range(3)] == [0, 1, 2]


def test_a_token_has_one_limit_over_all_processes(seats, tmp_path):
    make_buckets(seats[0].buckets)
    settings = Settings.from_env({"ASSETLINE_HOME": str(tmp_path / "home"), "ASSETLINE_RATE_LIMIT": "12",
                                  "ASSETLINE_ACCESS_LOG": "off"})  # fmt: skip
    (tmp_path / "home").mkdir()
    tokens, answers = tokens_of(settings, "127.0.0.1", staged=False), []
    header = (b"authorization", b"Bearer " + settings.first_service_token.read_bytes().strip())
    apps = [guarded(FastAPI(), settings, tokens, ServiceMetrics(), seat) for seat in seats[:2]]

    async def send(message) -> None:
        if message["type"] == "http.response.start":
            answers.append(message["status"])

    async def receive() -> dict:
        return {"type": "http.request", "body": b"", "more_body": False}

    for app in (*apps, apps[0]):  # two requests fill a bucket of ten seconds
        scope = {"type": "http", "method": "GET", "path": "/nowhere", "headers": [header], "query_string": b""}
        asyncio.run(app(scope, receive, send))
    assert answers == [404, 404, 429]

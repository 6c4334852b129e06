"""`POST /models/{model}/rank`: lists, events that count at once, and what is refused."""

import datetime as dt

import pandas as pd
import pytest
from fastapi.testclient import TestClient

from assets.lifecycle.ranking.bundle import RankingBundle
from assets.lifecycle.ranking.daily import log_of
from assets.lifecycle.ranking.fitting import fit_ranking
from resources.request_log import RequestLog
from resources.tables import ParquetTables
from serving.scoring.metrics import ServiceMetrics
from serving.scoring.probes import Readiness
from serving.scoring.service import Endpoint, Served, create_app
from tests.declarations.shelf import START, loans, model


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    folder = tmp_path_factory.mktemp("version") / "v"
    rows = pd.concat([loans(START + dt.timedelta(days=n)) for n in range(8)], ignore_index=True)
    items, past = log_of(rows, model)
    RankingBundle.write(folder, fit_ranking(past, items, model.ranking, seed=0, log=lambda _: None).ranker, model, {})
    return folder


def service(version, tmp_path) -> tuple[TestClient, RequestLog]:
    log = RequestLog(folder=str(tmp_path / "serving"))
    tables = ParquetTables(root=str(tmp_path / "tables"))
    served = Served.prepare("1", version, tables, log).try_out()
    endpoint = Endpoint("shelf", tables, log=log, served=served, has_started=True)
    return TestClient(create_app([endpoint], ServiceMetrics(None), Readiness([endpoint]))), log


@pytest.fixture
def client(version, tmp_path):
    with service(version, tmp_path)[0] as client:
        yield client


def rank(client, **body):
    return client.post("/models/shelf/rank", json=body)


def genres(answer) -> list[int]:
    return [int(one["item"][1:]) % 4 for one in answer.json()["items"] if one["reason"] != "explored"]


def test_an_unknown_user_gets_a_list_with_reasons(client):
    answer = rank(client, user="nobody")
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert len(said["items"]) == 5
    assert said["version"] == "1"
    assert all(one["reason"] and 0 < one["propensity"] <= 1 for one in said["items"])


def test_an_event_changes_the_next_list_also_without_being_sent_again(client):
    events = [{"item": f"b{i}", "event": "borrow"} for i in (1, 5, 9)]
    now = rank(client, user="me", events=events)
    assert set(genres(now)) == {1}
    again = rank(client, user="me")
    assert set(genres(again)) == {1}
    assert not {"b1", "b5", "b9"} & {one["item"] for one in again.json()["items"]}
    assert any("similar to" in one["reason"] for one in again.json()["items"]) or set(genres(again)) == {1}


def test_a_new_process_knows_the_events_from_the_log(version, tmp_path):
    with service(version, tmp_path)[0] as first:
        rank(first, user="me", events=[{"item": f"b{i}", "event": "borrow"} for i in (2, 6, 10)])
    with service(version, tmp_path)[0] as second:
        assert set(genres(rank(second, user="me"))) == {2}


def test_the_log_has_the_propensities(version, tmp_path):
    client, log = service(version, tmp_path)
    with client:
        answer = rank(client, user="me").json()
    row = log.day("shelf", str(dt.datetime.now(dt.UTC).date())).records.iloc[0]["row"]
    assert row["listed"] == [one["item"] for one in answer["items"]]
    assert row["propensity"] == [one["propensity"] for one in answer["items"]]


def test_only_candidates_are_listed_and_unknown_ones_are_named(client):
    said = rank(client, user="me", candidates=["b3", "b7", "gone"], k=100).json()
    assert {one["item"] for one in said["items"]} == {"b3", "b7"}
    assert said["unknown"] == ["gone"]
    assert rank(client, user="me", candidates=[]).json()["items"] == []


def test_duplicate_events_count_once(client):
    event = {"item": "b1", "event": "borrow", "at": "2026-01-05T10:00:00"}
    rank(client, user="once", events=[event])
    rank(client, user="twice", events=[event, event, event])
    once, twice = (rank(client, user=user, candidates=["b5", "b6", "b7"]).json()["items"] for user in ("once", "twice"))
    assert {one["item"]: one["score"] for one in once} == {one["item"]: one["score"] for one in twice}


@pytest.mark.parametrize(("body", "status", "said"), [
    ({}, 422, "user"),
    ({"user": ""}, 422, "user"),
    ({"user": "me", "k": 0}, 422, "k"),
    ({"user": "me", "k": 101}, 422, "k"),
    ({"user": "me", "events": [{"item": "b1"}]}, 422, "events.0.event"),
    ({"user": "me", "events": [{"item": "b1", "event": "borrow", "at": "soon"}]}, 422, "is no ISO time"),
    ({"user": "me", "events": [{"item": "b1", "event": "borrow", "at": "2999-01-01"}]}, 422, "in the future"),
    ({"user": "me", "what": 1}, 422, "what"),
    ({"user": "me", "events": [{"item": "b1", "event": "borrow"}] * 201}, 422, "events"),
])  # fmt: skip
def test_a_request_that_cannot_be_read_is_refused_with_its_reason(client, body, status, said):
    answer = rank(client, **body)
    assert answer.status_code == status
    assert said in answer.json()["detail"]


def test_rows_are_refused_with_the_right_path(client):
    answer = client.post("/models/shelf/predict", json={"book": "b1"})
    assert answer.status_code == 422
    assert "/models/shelf/rank" in answer.json()["detail"]


def test_openapi_describes_the_path(client):
    assert "/models/shelf/rank" in client.get("/openapi.json").json()["paths"]


def test_a_model_that_is_not_served_has_no_list(client):
    assert client.post("/models/other/rank", json={"user": "me"}).status_code == 404

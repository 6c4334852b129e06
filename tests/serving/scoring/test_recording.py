"""What the service logs of each request, whatever becomes of it."""

import datetime as dt

import pytest
from starlette.testclient import TestClient

from resources.request_log import LogError, RequestLog
from serving.scoring.recording import MOST_REFUSED_ROWS, Call
from serving.scoring.service import Endpoint, Served
from tests.serving.conftest import app_of, payment


@pytest.fixture
def log(tmp_path) -> RequestLog:
    return RequestLog(folder=str(tmp_path / "serving"))


@pytest.fixture
def endpoint(tables, bundles, log) -> Endpoint:
    return Endpoint("fraud", tables, None, log, Served.prepare("7", bundles["1"], tables, log))


@pytest.fixture
def client(endpoint):
    with TestClient(app_of(endpoint), raise_server_exceptions=False) as client:
        yield client


def logged(log: RequestLog):
    now = dt.datetime.now(dt.UTC)
    return RequestLog(folder=log.folder).read("fraud", now - dt.timedelta(days=1), now + dt.timedelta(days=1))


def test_an_answer_is_logged_row_by_row_with_what_was_sent_and_what_was_said(client, log):
    sent = [payment(1), payment(2, amount="9000", terminal_id=8)]
    answers = client.post("/models/fraud/predict", json=sent, headers={"X-Request-ID": "abc-1"}).json()
    found = logged(log)
    assert found["row"].tolist() == sent
    assert found["score"].tolist() == [answer["probability"] for answer in answers]
    assert found["alert"].tolist() == [answer["decision"] == "alert" for answer in answers]
    assert found["key"].tolist() == [10**15 + 1, 10**15 + 2]
    assert found["entity"].tolist() == [5, 5]
    assert found["request_id"].tolist() == ["abc-1"] * 2
    for name, value in {"version": "7", "role": "champion", "outcome": "ok", "problem": ""}.items():
        assert found[name].tolist() == [value] * 2, name
    assert (found["latency_ms"] > 0).all()


def test_ids_of_requests_differ_and_one_that_is_no_id_is_replaced(client, log):
    for headers in ({}, {}, {"X-Request-ID": "no id\twith blanks"}):
        client.post("/models/fraud/predict", json=payment(1), headers=headers)
    assert logged(log)["request_id"].nunique() == 3


def test_a_refused_request_is_logged_with_the_reason_of_each_row(client, log):
    assert client.post("/models/fraud/predict", json=[payment(1), payment(2, amount="lots")]).status_code == 422
    found = logged(log)
    assert found["outcome"].tolist() == ["refused"] * 2
    assert found["problem"].tolist() == ["another row of the request was refused", "amount='lots' cannot be read"]
    assert found["score"].tolist() == [None, None]
    assert found["row"][1]["amount"] == "lots"


def test_what_cannot_be_read_is_logged_without_a_row(client, log):
    headers = {"Content-Type": "application/json"}
    assert client.post("/models/fraud/predict", content=b"{", headers=headers).status_code == 422
    assert client.post("/models/fraud/predict", content=b"{}").status_code == 415
    found = logged(log)
    assert found["row"].tolist() == [None, None]
    assert found["outcome"].tolist() == ["refused"] * 2
    assert found["problem"].str.contains("cannot be read as JSON|send JSON").all()


def test_a_refused_request_takes_little_of_the_disk(client, log):
    rows = [{**payment(n), "amount": "x" * 10_000, "card": "4111"} for n in range(50)]
    assert client.post("/models/fraud/predict", json=rows).status_code == 422
    assert client.post("/models/fraud/predict", json={**payment(1), "amount": "x", "card": "4111"}).status_code == 422
    found = logged(log)
    assert len(found) == MOST_REFUSED_ROWS + 1
    assert found["problem"][MOST_REFUSED_ROWS - 1].endswith("(and 30 more rows)")
    assert found["row"][:MOST_REFUSED_ROWS].isna().all()
    assert set(found["row"][MOST_REFUSED_ROWS]) == set(payment(1)), "a column that the contract does not have"


def test_an_error_of_the_service_is_logged_as_one(client, log, monkeypatch):
    def broken(*_):
        raise RuntimeError("the network is gone")

    monkeypatch.setattr(Served, "features", broken)
    assert client.post("/models/fraud/predict", json=payment(1)).status_code == 500
    found = logged(log).iloc[0]
    assert (found["outcome"], found["problem"], found["version"]) == ("error", "the network is gone", "7")


def test_a_request_before_the_first_version_is_logged(tables, log):
    with TestClient(app_of(Endpoint("fraud", tables, None, log))) as client:
        assert client.post("/models/fraud/predict", json=payment(1)).status_code == 503
    found = logged(log).iloc[0]
    assert (found["outcome"], found["version"]) == ("error", "")
    assert found["problem"].startswith("no version of 'fraud' is deployed yet")


def test_what_cannot_be_logged_is_not_answered_does_not_count_and_shows_as_a_gap(client, endpoint, log, monkeypatch):
    assert client.post("/models/fraud/predict", json=payment(1)).status_code == 200
    rows = endpoint.served.entity_events.rows

    def full(*_):
        raise LogError("the log of requests cannot be written (disk full); nothing was recorded; send it again")

    with monkeypatch.context() as broken:
        broken.setattr(type(log.store), "write", full)
        answer = client.post("/models/fraud/predict", json=payment(2))
        assert (answer.status_code, "disk full" in answer.json()["detail"]) == (503, True)
        assert int(answer.headers["Retry-After"]) > 0
        assert endpoint.served.entity_events.rows == rows
    assert client.post("/models/fraud/predict", json=payment(2)).status_code == 200
    assert endpoint.served.entity_events.rows == rows + 1
    missing = [n for day in log.days("fraud") for n in log.day("fraud", day).missing.values()]
    assert sum(missing) == 2, "the score, and that there was none"


def test_two_services_on_one_folder_answer_as_one(tables, bundles, tmp_path):
    def service(folder: str) -> Served:
        return Served.prepare("7", bundles["1"], tables, RequestLog(folder=str(tmp_path / folder)))

    alone, both, apart = service("alone"), [service("shared") for _ in range(2)], [service("one"), service("two")]
    begin = dt.datetime.now(dt.UTC).replace(tzinfo=None, microsecond=0) - dt.timedelta(minutes=5)
    expected, shared, unshared = [], [], []
    for number in range(12):
        row = payment(number, paid_at=str(begin + dt.timedelta(seconds=number)), arrived_at=str(begin))
        expected.append(alone.score([row], Call())[0])
        shared.append(both[number % 2].score([row], Call())[0])
        unshared.append(apart[number % 2].score([row], Call())[0])
    assert shared == expected
    assert unshared != expected, "the answers do not depend on the past"


def test_features_alone_and_a_staged_bundle_are_not_logged(client, tables, bundles, log):
    assert client.post("/models/fraud/score", json={"features": []}).status_code == 200
    staged = Endpoint("fraud", tables, served=Served.prepare("staged", bundles["1"], tables, None))
    with TestClient(app_of(staged)) as other:
        assert other.post("/models/fraud/predict", json=payment(1)).status_code == 200
    assert log.days("fraud") == []

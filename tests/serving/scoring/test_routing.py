"""Which of two versions answers while a new one is rolled out, and what the log has of both."""

import datetime as dt
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from assets.declaration import Rollout
from assets.lifecycle.release.rollout import begin, progress_of, share_of, take
from assets.models.fraud import model
from resources.ledger import CHAMPION, Ledger
from resources.request_log import LogError, RequestLog
from resources.tables import ParquetTables
from serving.scoring.routing import Challenger
from serving.scoring.service import Endpoint, Served
from tests.serving.conftest import app_of, payment
from tests.serving.scoring.test_service import register, registry, saved


@pytest.fixture
def log(tmp_path) -> RequestLog:
    return RequestLog(folder=str(tmp_path / "serving"))


@pytest.fixture
def endpoint(tables, bundles, log) -> Endpoint:
    served = Served.prepare("7", bundles["1"], tables, log)
    new = Served.prepare("8", bundles["2"], tables, log, served)
    return Endpoint("fraud", tables, None, log, served, challenger=Challenger(new, 0.5))


@pytest.fixture
def client(endpoint):
    with TestClient(app_of(endpoint), raise_server_exceptions=False) as client:
        yield client


def logged(log: RequestLog):
    now = dt.datetime.now(dt.UTC)
    return RequestLog(folder=log.folder).read("fraud", now - dt.timedelta(days=1), now + dt.timedelta(days=1))


def ask(client, rows, **given):
    response = client.post("/models/fraud/predict", json=rows, **given)
    assert response.status_code == 200, response.text
    return response.json()


def customers(n):
    """Payments of ``n`` customers."""
    return [payment(i, customer_id=i) for i in range(n)]


def test_the_share_is_of_entities_and_each_stays_on_its_side(endpoint):
    challenger, entities = endpoint.challenger, range(4000)
    sides = {
        share: {e for e in entities if replace(challenger, share=share).answers(e)} for share in (0.05, 0.25, 0.5, 1)
    }
    for share, side in sides.items():
        assert len(side) == pytest.approx(share * 4000, abs=4 * (4000 * share * (1 - share)) ** 0.5)
    assert sides[0.05] < sides[0.25] < sides[0.5] < sides[1]
    other = Challenger(replace(challenger.served, version="9"), 0.5)
    assert {e for e in entities if other.answers(e)} != sides[0.5]
    assert not any(replace(challenger, share=0).answers(e) for e in entities)


def test_each_row_is_answered_by_the_version_of_its_customer_and_scored_by_both(client, endpoint, log):
    sent = customers(40)
    answers = ask(client, sent)
    assert [one["transaction_id"] for one in answers] == [one["transaction_id"] for one in sent]
    expected = ["8" if endpoint.challenger.answers(one["customer_id"]) else "7" for one in sent]
    assert [one["version"] for one in answers] == expected
    assert len(set(expected)) == 2
    found = logged(log)
    assert found.groupby("key").size().tolist() == [2] * 40
    for one in answers:
        of_row = found[found["key"] == one["transaction_id"]].set_index("version")
        assert of_row["role"].to_dict() == ({"7": "shadow", "8": "canary"} if one["version"] == "8" else
                                            {"7": "champion", "8": "shadow"})  # fmt: skip
        assert of_row.loc[one["version"], "score"] == one["probability"]
        assert of_row.loc["7", "score"] != of_row.loc["8", "score"]
    assert (found["outcome"] == "ok").all()
    assert client.get("/health").json()["models"]["fraud"]["rollout"] == {"version": "8", "share": 0.5}


def test_both_score_as_they_do_alone(client, endpoint, tables, bundles, log):
    sent = customers(12)
    ask(client, sent)
    found = logged(log)
    for version, bundle in (("7", "1"), ("8", "2")):
        alone = Endpoint("fraud", tables, None, None, Served.prepare(version, bundles[bundle], tables, None))
        with TestClient(app_of(alone)) as other:
            expected = [one["probability"] for one in ask(other, sent)]
        of_version = found[found["version"] == version].set_index("key")["score"]
        np.testing.assert_allclose(of_version[[one["transaction_id"] for one in sent]].tolist(), expected, atol=1e-12)


def test_a_shadow_answers_nobody_and_its_rows_are_no_history(client, endpoint, log):
    endpoint.challenger = replace(endpoint.challenger, share=0.0)
    before = endpoint.served.entity_events.rows
    assert {one["version"] for one in ask(client, customers(20))} == {"7"}
    assert endpoint.served.entity_events.rows == before + 20
    assert logged(log)["role"].value_counts().to_dict() == {"champion": 20, "shadow": 20}


class Fails(torch.nn.Module):
    """Has no finite score for the payments of these tests, whose amount is 12.5, and one for those of the tables."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where((torch.nan_to_num(x[:, 0]) - 12.5).abs() < 0.001, torch.nan, 0.1)


def test_the_version_in_production_answers_what_the_new_one_cannot_score(client, endpoint, log, tables, tmp_path):
    bad = Served.prepare("9", saved(tmp_path / "bad", Fails()), tables, log, endpoint.served)
    endpoint.challenger = Challenger(bad, 1.0)
    assert [one["version"] for one in ask(client, customers(5))] == ["7"] * 5
    found = logged(log)
    assert found.groupby(["version", "role", "outcome"]).size().to_dict() == {("7", "champion", "ok"): 5,
                                                                              ("9", "canary", "error"): 5}  # fmt: skip
    assert found[found["version"] == "9"]["problem"].str.contains("no finite score").all()
    endpoint.challenger = Challenger(bad, 0.0)
    ask(client, payment(100))
    last = logged(log).tail(2)[["version", "role", "outcome"]].to_numpy().tolist()
    assert last == [["7", "champion", "ok"], ["9", "shadow", "error"]]


def test_what_the_version_in_production_refuses_is_refused_once(client, log):
    assert client.post("/models/fraud/predict", json=payment(1, amount="lots")).status_code == 422
    twice = [payment(1, customer_id=i) for i in range(6)]
    response = client.post("/models/fraud/predict", json=twice)
    assert (response.status_code, "twice in the request" in response.json()["detail"]) == (422, True)
    assert set(logged(log)["role"]) == {"champion"}


def test_a_log_that_cannot_be_written_fails_the_request_and_nothing_is_compared(client, endpoint, log, monkeypatch):
    def full(*_):
        raise LogError("the disk is full")

    monkeypatch.setattr(RequestLog, "append", full)
    assert client.post("/models/fraud/predict", json=customers(4)).status_code == 503
    assert logged(log).empty


def test_the_comparison_fails_no_request_that_is_answered(client, endpoint, log, monkeypatch, caplog):
    append, calls = RequestLog.append, []

    def full_later(self, records):
        calls.append(records[0].role)
        if records[0].role == "shadow":
            raise LogError("the disk is full")
        return append(self, records)

    monkeypatch.setattr(RequestLog, "append", full_later)
    endpoint.challenger = replace(endpoint.challenger, share=0.0)
    ask(client, payment(1))
    assert calls == ["champion", "shadow"]
    assert "is not compared: the disk is full" in caplog.text


def test_an_explanation_is_that_of_the_version_that_answers(client, endpoint):
    answers = ask(client, customers(6), params={"explain": "true"})
    assert {one["version"] for one in answers} == {"7", "8"}
    for one in answers:
        parts = one["explanation"]
        assert set(parts) >= {"contributions"}


def test_a_new_version_without_explanations_leaves_explained_rows_to_the_other(client, endpoint, tmp_path, tables, log):
    folder = saved(tmp_path / "old", Fails())  # without rows to explain against
    endpoint.challenger = Challenger(Served.prepare("9", folder, tables, log, endpoint.served), 1.0)
    answer = ask(client, payment(1, amount=20), params={"explain": "true"})
    assert answer["version"] == "7"


class Clients:
    """Threads that ask for payments of many customers until they are stopped."""

    def __init__(self, service, threads: int = 3) -> None:
        self.failed: list[str] = []
        self.answers: list[tuple[int, str]] = []
        self._service, self._done = service, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(threads)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        i = number * 10**6
        while not self._done.is_set():
            i += 1
            answer = self._service.predict(payment(i, customer_id=i % 500))
            if answer.status_code == 200:
                self.answers.append((i % 500, answer.json()["version"]))
            else:
                self.failed.append(answer.text)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "arrives"), [("as good", True), ("other scores", False), ("fails", False)])
def test_under_load_a_good_version_arrives_and_a_bad_one_goes_back(home, bundles, serve, tmp_path, kind, arrives):
    declared = replace(model, rollout=Rollout(shadow_rows=200, steps=(0.2, 0.5), rows=300, minutes=0, errors=0.02,
                                              latency=4.0))  # fmt: skip
    mlflow = registry(home)
    ledger, log = Ledger(database_url=f"sqlite:///{home / 'assetline.db'}"), RequestLog(folder=str(home / "serving"))
    bundle = {"as good": bundles["1"], "other scores": bundles["2"]}.get(kind) or saved(tmp_path / "bad", Fails())
    first, second = register(mlflow, bundles["1"]), register(mlflow, bundle)
    facts = {"dagster_run": "", "who": "test"}
    ledger.promote("fraud", first, reason="the first", verdicts={}, **facts)
    mlflow.set_alias("fraud", CHAMPION, first)
    service = serve(home)
    service.until(lambda: service.health()["version"] == first)
    begin(ledger, declared, second, **facts)
    shares, tables = [], ParquetTables(root=str(home / "tables"))
    with Clients(service) as clients:
        service.until(lambda: service.health()["rollout"] is not None)

        def step() -> bool:
            """What the sensor and its run do."""
            now = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)
            progress = progress_of(declared, ledger, log, tables, now)
            if progress is None:
                return True
            entry = take(ledger, declared, progress, **facts)
            shares.append(share_of(entry))
            return entry.action == "abort" or share_of(entry) >= 1

        service.until(step, seconds=200)
        if arrives:
            service.until(lambda: service.health()["rollout"] == {"version": second, "share": 1.0})
            ledger.promote("fraud", second, reason="it arrived", verdicts={}, **facts)
            mlflow.set_alias("fraud", CHAMPION, second)
            service.until(lambda: service.health()["version"] == second)
        else:
            service.until(lambda: service.health()["rollout"] is None)
        since = len(clients.answers)
        service.until(lambda: len(clients.answers) > since + 50)
    assert clients.failed == []
    assert {version for _, version in clients.answers[since:]} == {second if arrives else first}
    last = [entry for entry in ledger.history("fraud") if entry.action in ("promote", "abort")][-1]
    assert (last.action, last.version) == ("promote" if arrives else "abort", second)
    if arrives:
        assert sorted(set(shares)) == [0, 0.2, 0.5, 1]
    else:
        said = {"other scores": "the mean score", "fails": "could not score"}[kind]
        assert said in last.reason
        assert all(version == first for _, version in clients.answers), "it went back before it answered anybody"

"""What the service records of scores: counts by token, address, model and request."""

import pytest
import sqlalchemy as sa
from fastapi import FastAPI, HTTPException, Request
from fastapi.testclient import TestClient

from resources.audit import AuditLog
from serving.scoring.score_audit import ScoreAudit


@pytest.fixture
def url(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'assetline.db'}"


@pytest.fixture
def counted(url) -> ScoreAudit:
    app = FastAPI()

    @app.post("/models/{name}/score")
    def score(name: str, request: Request) -> str:
        if name == "absent":
            raise HTTPException(404)
        return "answered"

    @app.get("/models/{name}")
    def model(name: str) -> str:
        return name

    return ScoreAudit(app, AuditLog(url), every_s=3600)


def lines(url: str) -> list[tuple]:
    found = [(line, line.to_json()["details"]) for line in AuditLog(url).lines()]
    return [(one.who, one.origin, one.action, one.subject, of["asked"], of["requests"]) for one, of in found]


def test_answers_are_counted_and_written_at_the_end(counted, url):
    with TestClient(counted, client=("10.0.0.7", 5000)) as client:
        for name in ("fraud", "fraud", "churn", "absent"):
            client.post(f"/models/{name}/score")
        client.get("/models/fraud")
        assert lines(url) == []
    here = "10.0.0.7 by the service"
    assert lines(url) == [
        ("no token", here, "score", "churn", "score", 1),
        ("no token", here, "score", "fraud", "score", 2),
    ]


def test_the_token_is_named_and_a_second_write_adds_no_line(counted, url):
    async def with_token(scope, receive, send):
        scope.setdefault("state", {})["token"] = "nightly"
        await counted(scope, receive, send)

    client = TestClient(with_token)
    client.post("/models/fraud/score")
    counted.write()
    counted.write()
    assert [one[0] for one in lines(url)] == ["nightly"]


def test_counts_wait_while_the_log_cannot_be_written(counted, url, caplog):
    client = TestClient(counted)
    client.post("/models/fraud/score")
    AuditLog(url).record("read", "x", who="ada")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE audit_log RENAME TO away")
    for _ in range(3):
        counted.write()
    assert sum("the audit log cannot be written" in one.message for one in caplog.records) == 1
    assert client.post("/models/fraud/score").status_code == 200
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO audit_log")
    counted.write()
    assert lines_of_scores(url) == [("fraud", 2)]


def lines_of_scores(url: str) -> list[tuple]:
    return [(one.subject, one.to_json()["details"]["requests"]) for one in AuditLog(url).latest(9, action="score")]


def test_many_addresses_do_not_fill_the_memory(counted, url, monkeypatch):
    monkeypatch.setattr("serving.scoring.score_audit._MOST_KEYS", 3)
    for n in range(6):
        TestClient(counted, client=(f"10.0.0.{n}", 1)).post("/models/fraud/score")
    counted.write()
    assert [(one[1].split(" by")[0], one[-1]) for one in lines(url)] == [
        ("10.0.0.0", 1), ("10.0.0.1", 1), ("10.0.0.2", 1), ("many addresses", 3),
    ]  # fmt: skip

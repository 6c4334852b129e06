"""What the pages of the watch record, and the page of the audit log."""

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from resources.alerts import AlertStore
from resources.audit import AuditLog
from serving.watch.alerts_page import create_app
from serving.watch.audit_page import Looks

TOKEN = "a-token-of-enough-letters"


@pytest.fixture
def url(tmp_path) -> str:
    return f"sqlite:///{tmp_path / 'assetline.db'}"


@pytest.fixture
def client(url) -> TestClient:
    store = AlertStore(url)
    store.report("fraud", "drift/drift", severity="page", summary="drifted")
    app = create_app(store, TOKEN, audit=AuditLog(url))
    return TestClient(app, follow_redirects=False, headers={"accept": "application/json"}, client=("10.0.0.7", 5000))


def lines(url: str) -> list[tuple[str, str, str, str]]:
    return [(one.who, one.origin, one.action, one.subject) for one in AuditLog(url).lines()]


def test_each_page_that_a_person_opens_is_a_line_once(client, url):
    client.post("/login", data={"token": TOKEN, "name": "Ada"})
    for _ in range(3):
        assert client.get("/alerts/1").status_code == 200
    assert client.get("/?text=secret@example.org").status_code == 200
    client.post("/alerts/1/silence", data={"comment": "known"})
    here = "10.0.0.7 by the alerts page"
    assert lines(url) == [
        ("Ada", here, "read", "page /alerts/1"),
        ("Ada", here, "read", "page /"),
        ("Ada", here, "silenced", "fraud/alerts"),
    ]
    page = client.get("/audit").text
    assert page.index("page /audit") < page.index("page /alerts/1")
    assert [one["who"] for one in client.get("/audit.json?action=silenced").json()] == ["Ada"]


def test_a_page_is_a_line_again_after_a_while(url):
    now = [0.0]
    looks = Looks(AuditLog(url), clock=lambda: now[0])
    request = type("Request", (), {"method": "GET", "url": sa.make_url("http://x"), "scope": {}})
    request.url = type("Url", (), {"path": "/alerts/1"})
    for at in (0.0, 599.0, 601.0):
        now[0] = at
        looks.looked(request, "ada")
    assert len(lines(url)) == 2


def test_a_wrong_token_is_recorded_once_an_address(client, url):
    for n in range(5):
        assert client.get(f"/alerts/{n}", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert client.post("/login", data={"token": "wrong"}).status_code == 401
    assert lines(url) == [("unknown", "10.0.0.7 by the alerts page", "denied", "page /alerts/0")]
    assert "wrong" not in str(list(AuditLog(url).lines()))


def test_a_page_whose_line_cannot_be_written_is_not_shown(client, url):
    with sa.create_engine(url).begin() as connection:
        connection.exec_driver_sql("DROP TABLE audit_log")
    response = client.get("/alerts/1", headers={"authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 503
    assert "the audit log cannot be written" in response.json()["detail"]
    assert "drifted" not in response.text


def test_without_a_log_there_is_no_page_of_it(url):
    client = TestClient(create_app(AlertStore(url), TOKEN), headers={"authorization": f"Bearer {TOKEN}"})
    assert client.get("/audit").status_code == 404
    assert "/audit" not in client.get("/").text

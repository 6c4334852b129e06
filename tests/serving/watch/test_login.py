"""Who may open which page: every route, by every role, and the limit to models."""

import datetime as dt

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from metadata.facts import Metadata
from resources.access import ROLES
from resources.alerts import AlertStore
from resources.audit import AuditLog
from resources.ledger import Ledger
from resources.service_tokens import TokenFile
from resources.settings import Settings
from resources.tables import ParquetTables
from serving.watch.alerts_page import create_app
from serving.watch.login import RIGHTS

TOKEN = "a-token-of-enough-letters"
OPEN = {"/login", "/logout", "/health"}
READERS, OPERATORS, APPROVERS = (
    {"reader", "operator", "approver", "admin"},
    {"operator", "admin"},
    {"approver", "admin"},
)
WHO = {"read": READERS, "operate": OPERATORS, "approve": APPROVERS, "administer": {"admin"}}


@pytest.fixture
def file(tmp_path) -> TokenFile:
    return TokenFile(tmp_path / "tokens.toml", tmp_path / "shown")


@pytest.fixture
def app(tmp_path, file):
    url = f"sqlite:///{tmp_path / 'assetline.db'}"
    settings = Settings.from_env({"ASSETLINE_HOME": str(tmp_path)})
    store = AlertStore(url)
    store.report("fraud", "drift/drift", severity="page", summary="fraud drifted")
    store.report("churn", "drift/drift", severity="page", summary="churn drifted")
    return create_app(
        store, TOKEN, reports=ParquetTables(root=str(tmp_path / "tables")), ledger=Ledger(database_url=url),
        audit=AuditLog(url), metadata=lambda: Metadata(settings, [], None),
        tokens=lambda: file.read() if file.path.exists() else {},
    )  # fmt: skip


def client(app, token: str = "", **headers: str) -> TestClient:
    given = {"accept": "application/json", **({"authorization": f"Bearer {token}"} if token else {}), **headers}
    return TestClient(app, follow_redirects=False, headers=given)


def routes(app) -> list[tuple[str, str]]:
    found = [(method, one.path) for one in app.routes if isinstance(one, APIRoute) for method in one.methods]
    return sorted(pair for pair in found if pair[1] not in OPEN)


def asked(one: TestClient, method: str, path: str) -> int:
    filled = path.format(number=1, what="acknowledge", name="fraud", decision="approve", model="fraud", view="models")
    return one.request(method, filled, json={}).status_code


def test_each_route_answers_the_roles_that_may_and_no_other(app, file):
    assert set(RIGHTS) <= set(routes(app))
    tokens = {role: file.create(role, role=role) for role in ROLES}
    for method, path in routes(app):
        right = RIGHTS.get((method, path), "read" if method == "GET" else "administer")
        refused = {role for role, token in tokens.items() if asked(client(app, token), method, path) == 403}
        assert refused == set(ROLES) - WHO[right], (method, path)
        assert asked(client(app), method, path) == 401


def test_a_limited_token_sees_its_model_and_no_other(app, file):
    one = client(app, file.create("risk", role="operator", models=["fraud"]))
    assert "churn drifted" not in one.get("/?model=fraud").text
    assert one.get("/").status_code == one.get("/?model=churn").status_code == one.get("/api/alerts").status_code == 403
    assert one.get("/alerts/1").status_code == 200
    for path in ("/alerts/2", "/api/alerts/2", "/alerts/2/report", "/alerts/99", "/alerts/2?model=fraud"):
        assert one.get(path).status_code == 403
        assert "churn drifted" not in one.get(path).text
    # There is no model yet: 404 is the answer to a token that may ask.
    assert [one.get(f"/compliance/{name}").status_code for name in ("fraud", "churn")] == [404, 403]
    assert one.post("/api/alerts/2/resolve?model=fraud", json={}).status_code == 403
    assert one.post("/api/alerts/1/acknowledge", json={"who": "somebody else"}).status_code == 200
    assert one.get("/api/alerts/1").json()["acknowledged_by"] == "risk"


def test_a_person_logs_in_with_a_named_token_until_it_is_revoked_or_expires(app, file):
    token = file.create("ada", role="reader", models=["fraud"])
    person = client(app)
    entered = person.post("/login", data={"token": token, "name": "Eve"})
    assert entered.headers["location"] == "/?model=fraud"
    assert token not in entered.headers["set-cookie"]
    assert person.get("/?model=fraud").status_code == 200
    assert [one.who for one in AuditLog(f"sqlite:///{file.path.parent / 'assetline.db'}").lines()] == ["ada"]
    cookie = person.cookies["assetline_watch"]
    for forged in (cookie.replace("|ada|", "||Eve"), cookie.replace("|ada|", "|other|"), f"{'0' * 64}|ada|", "x||"):
        assert client(app, cookie=f"assetline_watch={forged}").get("/?model=fraud").status_code == 401
    file.rotate("ada")
    assert person.get("/?model=fraud").status_code == 401
    file.revoke("ada")
    assert person.get("/?model=fraud").status_code == 401


def test_an_expired_token_opens_nothing(app, file):
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
    token = file.create("ada", soon, role="admin")
    person = client(app)
    assert person.post("/login", data={"token": token}).status_code == 303
    text = file.path.read_text()
    file.path.write_text(
        text.replace(f"expires = {soon.replace(microsecond=0).isoformat()}", "expires = 2020-01-01T00:00:00Z")
    )
    assert person.get("/").status_code == 401
    assert client(app, token).get("/").status_code == 401
    assert client(app).post("/login", data={"token": token}).status_code == 401

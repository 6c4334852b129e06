"""The alerts' page and its API: behind the token, filters, handling, history, report and runbook."""

import datetime as dt
import stat

import pytest
from fastapi.testclient import TestClient

from resources.alerts import AlertStore
from resources.settings import Settings
from resources.tables import ParquetTables
from serving.watch.alerts_page import create_app, select
from serving.watch.app import token_of

TOKEN = "a-token-of-enough-letters"


@pytest.fixture
def store(tmp_path) -> AlertStore:
    store = AlertStore(f"sqlite:///{tmp_path / 'alerts.db'}")
    reports = tmp_path / "tables" / "fraud" / "drift" / "reports"
    reports.mkdir(parents=True)
    (reports / "2026-03-02.html").write_text("<html><body>what Evidently drew</body></html>")
    store.report(
        "fraud", "drift/drift", severity="page", summary="4 of 12 columns <b>drifted</b>", owner="team:risk",
        day="2026-03-02", runbook="docs/architecture.md",
        links={"run": "/runs/r1", "report": str(reports / "2026-03-02.html")},
    )  # fmt: skip
    store.report("churn", "drift/quality", column="age", severity="warn", summary="a new category")
    return store


@pytest.fixture
def client(store, tmp_path) -> TestClient:
    app = create_app(store, TOKEN, reports=ParquetTables(root=str(tmp_path / "tables")), ui_url="http://dagster")
    return TestClient(app, follow_redirects=False, headers={"accept": "text/html"})


def logged_in(client: TestClient) -> TestClient:
    assert client.post("/login", data={"token": TOKEN, "name": "Ada <L>"}).headers["location"] == "/"
    return client


def test_without_the_token_there_is_nothing(client):
    assert client.get("/").headers["location"] == "/login"
    for path in ("/alerts/1", "/alerts/1/report", "/runbooks/drift"):
        assert client.get(path).status_code == 303
    for path in ("/api/alerts", "/api/alerts/1"):
        assert client.get(path, headers={"accept": "application/json"}).status_code == 401
    assert client.post("/alerts/1/resolve", headers={"accept": "application/json"}).status_code == 401
    assert client.post("/api/alerts/1/resolve", headers={"authorization": "Bearer wrong"}).status_code in (303, 401)
    assert client.get("/health").json()["open"] == 2


def test_a_wrong_token_is_told_and_the_cookie_does_not_hold_the_token(client):
    assert "The token is wrong" in client.post("/login", data={"token": "wrong"}).text
    assert "assetline_watch" not in client.cookies
    logged_in(client)
    assert TOKEN not in client.cookies["assetline_watch"]
    client.cookies.clear()
    assert client.get("/", headers={"cookie": f"assetline_watch={'0' * 64}|mallory"}).status_code == 303


def test_the_list_shows_and_filters(client):
    logged_in(client)
    page = client.get("/").text
    assert "4 of 12 columns &lt;b&gt;drifted&lt;/b&gt;" in page
    assert "drift/quality (age)" in page
    assert "drift/quality" not in client.get("/?severity=page").text
    assert "drift/drift" not in client.get("/?model=churn").text
    assert "No alerts found" in client.get("/?text=nosuchword").text


def test_handling_is_in_the_history_with_the_name(client, store):
    logged_in(client)
    client.post("/alerts/1/acknowledge", data={"comment": "looking"})
    client.post("/alerts/1/silence", data={"hours": "2", "comment": "known"})
    assert store.get(1).is_silenced()
    assert not store.get(1).is_silenced(dt.datetime.now(dt.UTC) + dt.timedelta(hours=3))
    client.post("/alerts/1/resolve", data={"comment": "upstream mended"})
    page = client.get("/alerts/1").text
    said = [(event.change, event.message, event.who) for event in store.history(1)][1:]
    assert said == [
        ("acknowledged", "looking", "Ada L"), ("silenced", "known", "Ada L"), ("resolved", "upstream mended", "Ada L"),
    ]  # fmt: skip
    assert "upstream mended" in page
    assert 'id="resolve"' not in page, "nothing is left to be done"
    again = client.post("/alerts/1/resolve").headers["location"]
    assert "was already resolved at" in client.get(again).text


def test_the_report_and_the_runbook_are_beside_it_and_no_other_file_is(client, store, tmp_path):
    logged_in(client)
    assert 'src="/alerts/1/report"' in client.get("/alerts/1").text
    report = client.get("/alerts/1/report")
    assert "what Evidently drew" in report.text
    assert report.headers["content-security-policy"] == "sandbox allow-scripts"
    assert "<pre>" not in client.get("/alerts/1").text, "not of the runbooks' folder"
    (tmp_path / "secret.html").write_text("secret")
    assert "# Drift: the champion" in client.get("/runbooks/drift").text
    for name in ("nosuch", "..%2f..%2fREADME", "../alerts"):
        assert client.get(f"/runbooks/{name}").status_code == 404
    (tmp_path / "tables" / "reports").mkdir()
    for path in (tmp_path / "secret.html", "/etc/passwd", tmp_path / "tables" / "reports" / ".." / ".." / "secret.html",
                 tmp_path / "tables" / "reports" / "gone.html"):  # fmt: skip
        alert, _ = store.report("fraud", f"x{path}", severity="warn", summary="x", links={"report": str(path)})
        assert client.get(f"/alerts/{alert.id}/report").status_code == 404
    store.report("fraud", "drift/x", severity="warn", summary="x", runbook="docs/runbooks/drift.md")
    assert "<pre># " in client.get(f"/alerts/{store.alerts()[-1].id}").text


def test_the_api_does_the_same(client, store):
    api = {"authorization": f"Bearer {TOKEN}", "accept": "application/json"}
    assert [a["id"] for a in client.get("/api/alerts", headers=api).json()] == [1, 2]
    done = client.post("/api/alerts/2/acknowledge", headers=api, json={"who": "ada", "comment": "mine"}).json()
    assert (done["state"], done["acknowledged_by"]) == ("acknowledged", "ada")
    assert client.get("/api/alerts/2", headers=api).json()["history"][-1]["message"] == "mine"
    assert client.post("/api/alerts/2/burn", headers=api).status_code == 409
    assert client.get("/api/alerts/9", headers=api).status_code == 404


def test_what_cannot_be_is_refused_and_any_name_is_kept(client, store):
    client.post("/login", data={"token": TOKEN, "name": "李 Ärzte"})
    for hours in ("-1", "inf", "nan", "1e9"):
        assert "failed=" in client.post("/alerts/1/silence", data={"hours": hours}).headers["location"]
    client.post("/alerts/1/acknowledge")
    assert store.get(1).acknowledged_by == "李 Ärzte"


def test_filters_know_the_states(store):
    store.acknowledge(1, who="ada")
    store.close(2, who="ada")
    ids = {state: [alert.id for alert in select(store, state=state, model="", severity="", text="")]
           for state in ("open", "acknowledged", "resolved", "silenced", "all")}  # fmt: skip
    assert ids == {"open": [1], "acknowledged": [1], "resolved": [2], "silenced": [], "all": [1, 2]}


def test_the_token_is_drawn_once_and_only_the_owner_reads_it(tmp_path):
    settings = Settings(home=tmp_path / "home", database_url="sqlite:///x")
    token = token_of(settings)
    assert len(token) == 32
    assert token_of(settings) == token
    assert stat.S_IMODE((tmp_path / "home" / "token").stat().st_mode) == 0o600
    assert token_of(Settings(home=tmp_path, database_url="sqlite:///x", token=TOKEN)) == TOKEN
    assert TOKEN not in repr(Settings(home=tmp_path, database_url="sqlite:///x", token=TOKEN))

"""The page of approvals: a person decides there under the name of the login, and what cannot be done is said."""

import pytest
from fastapi.testclient import TestClient

from assets.declaration import Approval
from resources.alerts import AlertStore
from resources.ledger import Ledger
from serving.watch.alerts_page import create_app
from tests.declarations.readings import plain

TOKEN = "a-token-of-enough-letters"
MODELS = [plain(approval=Approval(by="team:risk")), plain(name="other")]


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    ledger = Ledger(database_url=f"sqlite:///{tmp_path / 'assetline.db'}")
    verdicts = {"gate": {"passed": True, "reasons": ["roc_auc 0.8 meets the floor <b>0.6</b>"]}}
    ledger.record("request", "meter", "3", reason="r", verdicts=verdicts, dagster_run="run-1", who="ada")
    return ledger


@pytest.fixture
def client(ledger, tmp_path):
    """Logs in under a name."""

    def client(name: str = "bob") -> TestClient:
        store = AlertStore(f"sqlite:///{tmp_path / 'alerts.db'}")
        app = create_app(store, TOKEN, ui_url="http://dagster", ledger=ledger, models=MODELS)
        client = TestClient(app, headers={"accept": "text/html"})
        client.post("/login", data={"token": TOKEN, "name": name})
        return client

    return client


def test_without_the_token_nobody_decides(client, ledger):
    stranger = client()
    stranger.cookies.clear()
    bare = {"accept": "application/json"}
    assert stranger.get("/approvals", headers=bare).status_code == 401
    assert stranger.post("/approvals/meter/approve", data={"comment": "c"}, headers=bare).status_code == 401
    assert stranger.post("/api/approvals/meter/approve", json={"comment": "c"}, headers=bare).status_code == 401
    assert len(ledger.history()) == 1


def test_the_page_shows_what_waits_and_why_it_may_go_live(client):
    shown = client().get("/approvals").text
    assert 'meter, version 3 <span class="warn">waiting</span>' in shown
    assert "roc_auc 0.8 meets the floor &lt;b&gt;0.6&lt;/b&gt;" in shown
    assert "team:risk, but not ada, who trained it" in shown
    assert 'href="/approvals"' in client().get("/").text


@pytest.mark.parametrize(("decision", "status"), [("approve", "approved"), ("reject", "rejected")])
def test_a_decision_is_made_under_the_name_of_the_login(client, ledger, decision, status):
    shown = client().post(f"/approvals/meter/{decision}", data={"comment": "looked at it", "version": "3"}).text
    assert f"{status} by</dt><dd>bob: looked at it" in shown
    assert "Approve</button>" not in shown
    assert (ledger.history()[-1].action, ledger.history()[-1].who) == (decision, "bob")


def test_what_cannot_be_decided_is_said_and_changes_nothing(client, ledger):
    own = client("Ada")
    assert "Ada trained version 3 of meter" in own.post("/approvals/meter/approve", data={"comment": "mine"}).text
    assert "a decision needs a comment" in client().post("/approvals/meter/approve", data={}).text
    for path in ("/approvals/other/approve", "/approvals/meter/delete"):
        gone = client().post(path, data={"comment": "c"})
        assert (gone.status_code, "models that need approval: meter" in gone.text) == (404, True)
    assert len(ledger.history()) == 1


def test_programs_ask_and_decide_by_json(client, ledger):
    program = client()
    program.cookies.clear()
    program.headers = {"authorization": f"Bearer {TOKEN}", "accept": "application/json"}
    assert program.get("/api/approvals").json()["meter"]["status"] == "waiting"
    refused = program.post("/api/approvals/meter/approve", json={"who": "ada", "comment": "c"})
    assert (refused.status_code, "somebody else" in refused.json()["detail"]) == (409, True)
    made = program.post("/api/approvals/meter/approve", json={"who": "eve", "comment": "fine"})
    assert made.json() == {"message": "version 3 was approved by eve: fine"}


def test_with_nothing_to_decide_the_page_says_how_to_ask(tmp_path):
    app = create_app(AlertStore(f"sqlite:///{tmp_path / 'alerts.db'}"), TOKEN, models=[MODELS[1]],
                     ledger=Ledger(database_url=f"sqlite:///{tmp_path / 'assetline.db'}"))  # fmt: skip
    client = TestClient(app, headers={"accept": "text/html"})
    client.post("/login", data={"token": TOKEN})
    assert "no model declares <code>approval=</code>" in client.get("/approvals").text

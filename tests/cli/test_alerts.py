"""`assetline alerts …` from the command line: what it shows, what it changes, and how it refuses."""

import json

import pytest

from cli import main
from resources.alerts import Alerts, AlertStore
from resources.settings import Settings
from tests.resources.alerts.doubles import SLACK_PATH, Doubles


@pytest.fixture
def store(tmp_path, monkeypatch) -> AlertStore:
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))
    monkeypatch.setenv("ASSETLINE_PUBLIC_WATCH_URL", "https://alerts.example.org")
    store = AlertStore(Settings.from_env().database_url)
    store.report(
        "fraud", "drift/quality", column="amount", severity="warn", summary="40 % missing", day="2026-03-02",
        owner="team:risk", runbook="docs/runbooks/quality.md", links={"run": "/runs/1"},
    )  # fmt: skip
    store.report("churn", "run/features", severity="page", summary="out of cheese")
    return store


@pytest.fixture
def said(capsys):
    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["alerts", *arguments])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def test_the_list_has_pages_first_and_filters(store, said):
    code, out, _ = said("list")
    rows = [line.split() for line in out.splitlines()]
    assert code == 0
    assert rows[0][:5] == ["#", "severity", "state", "model", "cause"]
    assert [row[0] for row in rows[1:]] == ["2", "1"]
    assert "drift/quality (amount)" in out
    assert "out of cheese" not in said("list", "--model", "fraud")[1]
    assert json.loads(said("list", "--model", "fraud", "--json")[1])["column"] == "amount"
    store.close(1, who="ada")
    store.close(2, who="ada")
    assert said("list")[1] == "no alert is open\n"
    assert "resolved" in said("list", "--all")[1]


def test_one_is_shown_with_addresses_that_can_be_opened(store, said):
    _, out, _ = said("show", "1")
    assert out.splitlines()[:2] == ["warn [fraud] drift/quality (amount)", "40 % missing"]
    for words in (
        "seen            1 times, data of 2026-03-02 to 2026-03-02",
        "owner           team:risk",
        "runbook         https://alerts.example.org/runbooks/quality",
        "alert           https://alerts.example.org/alerts/1",
        "run             http://127.0.0.1:3000/runs/1",
    ):
        assert f"  {words}" in out.splitlines()


def test_handling_is_in_the_history_with_name_and_words(store, said):
    assert said("ack", "1", "2", "--who", "ada", "--comment", "looking")[1] == (
        "alert 1: acknowledged\nalert 2: acknowledged\n"
    )
    assert said("ack", "1")[1] == "alert 1: was already acknowledged\n"
    assert said("silence", "1", "--hours", "2", "--who", "ada")[1].startswith("alert 1: silenced until ")
    assert store.get(1).is_silenced()
    assert said("resolve", "1", "--who", "bob", "--comment", "mended")[1] == "alert 1: resolved\n"
    lines = said("history", "1")[1].splitlines()
    assert [line.split()[2] for line in lines] == ["opened", "acknowledged", "silenced", "resolved"]
    assert lines[1].endswith("looking (ada)")
    assert lines[3].endswith("mended (bob)")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "9"], "there is no alert 9"),
        (["history", "9"], "there is no alert 9"),
        (["ack", "9"], "there is no alert 9"),
        (["silence", "1", "--hours", "-1"], "is in the past; give a later time"),
        (["test", "nosuch"], "no channel nosuch; the channels are: none"),
    ],
)
def test_what_cannot_be_done_is_said_and_fails(store, said, arguments, words):
    code, _, err = said(*arguments)
    assert code == 1
    assert words in err


def test_by_hand_it_delivers_and_tries_a_channel_and_a_secret_that_is_absent_is_named(said, tmp_path, monkeypatch):
    doubles = Doubles()
    (tmp_path / "channels.toml").write_text('[risk]\nkind = "slack"\nwebhook_url = { env = "HOOK" }\ngroup_seconds = 0')
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))
    monkeypatch.setenv("ASSETLINE_CHANNELS", str(tmp_path / "channels.toml"))
    code, _, err = said("deliver")
    assert (code, "set the environment variable HOOK" in err) == (2, True)
    monkeypatch.setenv("HOOK", doubles.url + SLACK_PATH)
    assert said("test")[:2] == (0, "risk: sent\n")
    assert said("deliver")[:2] == (0, "risk: 0 delivered\n")
    alerts = Alerts.from_settings(Settings.from_env())
    alerts.store.report("fraud", "drift/drift", severity="page", summary="x")
    assert said("deliver")[:2] == (0, "risk: 1 delivered\n")
    assert [body["text"] for body in doubles.bodies(SLACK_PATH)][1] == "OPENED page [fraud] drift/drift"
    monkeypatch.setenv("HOOK", doubles.url + "/services/revoked")
    alerts.store.report("fraud", "drift/other", severity="page", summary="x")
    code, out, _ = said("deliver")
    assert (code, "risk: 0 delivered, 1 wait (404" in out) == (1, True)
    assert said("test")[0] == 1
    doubles.shutdown()

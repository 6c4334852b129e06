"""What is and was in production, on the command line."""

import datetime as dt
import json

import pytest

from assets.declaration import Approval, Rollout
from cli import main
from resources.ledger import Entry, Ledger
from resources.settings import Settings
from tests.declarations.readings import plain

FACTS = {"verdicts": {"gate": True}, "dagster_run": "run-1", "who": "ada"}


@pytest.fixture
def promoted(tmp_path, monkeypatch) -> list[Entry]:
    """Version 1, a refused version 2, and version 3 in its place."""
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))
    ledger = Ledger.from_settings(Settings.from_env())
    ledger.promote("fraud", "1", reason="the first", **FACTS)
    ledger.refuse("fraud", "2", reason="worse", **FACTS)
    ledger.promote("fraud", "3", reason="better by .01", **FACTS)
    ledger.refuse("churn", "1", reason="below the floor", **FACTS)
    return ledger.history("fraud")


@pytest.fixture
def run(capsys):
    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(arguments))
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def test_the_version_in_production_is_shown_with_its_reason(promoted, run):
    code, out, _ = run("which", "fraud")
    assert code == 0
    assert out.splitlines() == [
        f"version 3 of fraud is in production since {promoted[2].at:%Y-%m-%d %H:%M:%S} UTC",
        "  previous     version 1", "  promoted by  ada", "  run          run-1", "  reason       better by .01",
    ]  # fmt: skip


def test_of_a_time_the_version_of_that_time_is_shown(promoted, run):
    first, _, third = promoted
    between = (third.at - dt.timedelta(microseconds=1)).isoformat()
    assert run("which", "fraud", "--at", between)[1].startswith("version 1 of fraud was in production at ")
    assert f"until {third.at:%Y-%m-%d %H:%M:%S} UTC" in run("which", "fraud", "--at", between)[1]
    later = (third.at + dt.timedelta(days=1)).astimezone(dt.timezone(dt.timedelta(hours=2))).isoformat()
    assert " and still is" in run("which", "fraud", "--at", later)[1]
    assert json.loads(run("which", "fraud", "--at", third.at.isoformat(), "--json")[1])["version"] == "3"
    before = (first.at - dt.timedelta(days=1)).strftime("%Y-%m-%dT%H:%M")
    code, out, _ = run("which", "fraud", "--at", before)
    assert (code, out.startswith("no version of fraud was in production at ")) == (1, True)
    assert json.loads(run("which", "fraud", "--at", before, "--json")[1]) is None
    assert run("which", "churn")[:2] == (1, "no version of churn was in production yet\n")


def test_the_history_is_of_one_model_or_of_all_with_refusals(promoted, run):
    code, out, _ = run("history", "fraud")
    assert code == 0
    rows = [line.split() for line in out.splitlines()[1:]]
    assert [(row[4], row[5]) for row in rows] == [("promote", "1"), ("refuse", "2"), ("promote", "3")]
    assert len(run("history")[1].splitlines()) == 5
    found = json.loads(run("history", "fraud", "--json")[1])
    assert [entry["previous"] for entry in found] == [None, "1", "1"]
    assert found[1]["verdicts"] == {"gate": True}


@pytest.mark.parametrize("command", ["which", "history"])
def test_a_model_that_has_no_entry_is_named_with_those_that_have(promoted, run, command):
    code, out, err = run(command, "frad")
    assert (code, out) == (1, "")
    assert err == f"assetline {command}: the ledger has no entry of a model 'frad'; it has: churn, fraud\n"


def test_a_time_that_cannot_be_read_is_refused(promoted, run):
    code, _, err = run("which", "fraud", "--at", "yesterday")
    assert code == 2
    assert "'yesterday' is not a time; write it as 2026-10-03T12:00 (UTC)" in " ".join(err.replace("│", "").split())


def test_an_empty_ledger_says_so(tmp_path, monkeypatch, run):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))
    assert run("history")[:2] == (0, "the ledger is empty\n")


def test_a_rollback_that_cannot_be_made_says_why_and_changes_nothing(promoted, run, tmp_path):
    for arguments, message in (
        (["frad", "--why", "x"], "no version of 'frad' is in production; models in production: fraud"),
        (["fraud", "--why", "x", "--to", "2"], "version 2 of fraud was never in production"),
        (["fraud", "--why", "x"], "the files of version 1 of fraud cannot be read"),
    ):
        code, out, err = run("rollback", *arguments)
        assert (code, out) == (1, "")
        assert f"assetline rollback: {message}" in err
    assert Ledger.from_settings(Settings.from_env()).champion("fraud").version == "3"


@pytest.fixture
def waiting(tmp_path, monkeypatch) -> Ledger:
    """Version 4 of a model that needs approval waits for it."""
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))
    monkeypatch.setattr("assets.models.declared_models", lambda: [plain(approval=Approval(by="team:risk"))])
    ledger = Ledger.from_settings(Settings.from_env())
    ledger.record("request", "meter", "4", reason="r", **FACTS)
    return ledger


def test_a_waiting_version_is_listed_and_approved_by_name(waiting, run):
    code, out, _ = run("approvals")
    assert (code, out.startswith("meter: version 4 waits until ")) == (0, True)
    assert json.loads(run("approvals", "--json")[1])["meter"]["status"] == "waiting"
    code, out, _ = run("approve", "meter", "--comment", "looks right", "--who", "bob")
    assert (code, out.splitlines()[0]) == (0, "version 4 of meter is approved by bob")
    assert (waiting.history()[-1].action, waiting.history()[-1].who) == ("approve", "bob")
    assert run("approvals")[1] == "meter: version 4 was approved by bob: looks right\n"


def test_a_rejection(waiting, run):
    assert run("reject", "meter", "--comment", "no", "--who", "ada")[:2] == (
        0,
        "version 4 of meter is rejected by ada\n",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("meter", "--who", "ada"), "assetline approve: ada trained version 4 of meter"),
        (("meter", "--who", " "), "assetline approve: say who you are"),
        (("meter", "--who", "bob", "--version", "3"), "assetline approve: version 3 of meter does not wait"),
        (("fraud", "--who", "bob"), "assetline approve: no model 'fraud' is declared; there are: meter"),
    ],
)
def test_an_approval_that_cannot_be_given_is_one_sentence(waiting, run, arguments, message):
    code, out, err = run("approve", *arguments, "--comment", "c")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert err.startswith(message)
    assert len(waiting.history()) == 1


def test_no_approvals_yet(tmp_path, monkeypatch, run):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))
    assert run("approvals")[:2] == (0, "no version was put up for approval\n")


@pytest.fixture
def rolled_out(promoted, monkeypatch) -> Ledger:
    """Version 4 of a declared model gets a copy of the requests."""
    monkeypatch.setattr("assets.models.declared_models", lambda: [plain(name="fraud", rollout=Rollout())])
    ledger = Ledger.from_settings(Settings.from_env())
    ledger.record("shadow", "fraud", "4", reason="it gets a copy", **FACTS)
    return ledger


def test_how_far_a_rollout_has_come_is_shown(rolled_out, run):
    code, out, _ = run("rollout", "fraud")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("fraud: version 4 gets a copy of the requests since ")
    assert lines[1] == "  0 rows compared, of which it answered 0"
    assert [line.split()[0] for line in lines[2:]] == ["errors", "latency", "score_shift", "labels", "next:"]
    found = json.loads(run("rollout", "fraud", "--json")[1])
    assert (found["version"], found["share"], found["next"]) == ("4", 0.0, "wait")


def test_a_person_takes_the_steps_of_a_rollout(rolled_out, run):
    assert run("rollout", "fraud", "advance", "--why", "looks right", "--who", "bob")[1] == (
        "fraud: version 4 answers 5% of the entities\n"
    )
    assert run("rollout", "fraud", "abort", "--why", "complaints")[1] == "fraud: version 4 is taken back\n"
    assert run("rollout", "fraud")[1] == "fraud: no version is being rolled out\n"
    assert run("rollout", "fraud", "--json")[1] == "null\n"
    actions = [(entry.action, entry.who) for entry in rolled_out.history("fraud")][-2:]
    assert actions[0] == ("canary", "bob")
    code, _, err = run("rollout", "fraud", "abort", "--why", "again")
    assert (code, err) == (1, "assetline rollout: no version of fraud is being rolled out\n")
    assert "no model 'frad' is declared; there are: fraud" in run("rollout", "frad")[2]

"""Every command either writes a line of the audit log or has a reason not to; and the commands of the log."""

import json
import sqlite3
import string

import pytest
from typer.main import get_command

from cli import main
from cli.app import app
from resources.audit import AuditLog
from resources.settings import Settings

RECORD_THEMSELVES = {
    "alerts ack", "alerts resolve", "alerts silence",  # resources/alerts/store.py
    "approve", "reject", "rollback", "rollout", "undeploy", "pipeline promote",  # resources/ledger.py
    "audit export", "audit list", "forget", "restore", "sql",  # they call `record`
}  # fmt: skip
"""Commands whose line is written in the transaction of the change, or by the command."""
NOT_RECORDED = {
    "audit verify": "shows no line but the altered ones",
    "alerts deliver": "sends what is due, as the watch does",
    "alerts test": "sends a message without any content",
    "dev": "starts processes",
    "materialize": "its Dagster runs are kept",
    "new-model": "writes code, which git keeps",
    "pipeline compare": "writes a page of figures",
    "pipeline deploy": "builds files of a pipeline, whose provider keeps a log",
    "pipeline gate": "as above",
    "pipeline smoke": "as above",
    "pipeline tell-failure": "as above",
    "pipeline train": "as above",
    "remove-model": "changes code, which git keeps",
    "run": "its Dagster runs are kept",
    "settings": "shows no data and hides secrets",
    "tune": "its Dagster runs are kept",
    "update": "changes code, which git keeps",
}


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Settings:
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return Settings.from_env()


def commands(group=None, before: str = "") -> dict[str, object]:
    """All commands by what is typed, with their functions."""
    found = {}
    for name, command in (group or get_command(app)).commands.items():
        found |= commands(command, f"{before}{name} ") if hasattr(command, "commands") else {f"{before}{name}": command}
    return found


def test_each_command_is_recorded_or_has_a_reason_not_to_be():
    all_of_them = commands()
    audited = {name for name, one in all_of_them.items() if getattr(one.callback.__wrapped__, "audited", "")}
    assert audited | RECORD_THEMSELVES | set(NOT_RECORDED) == set(all_of_them)
    assert not audited & RECORD_THEMSELVES
    assert not audited & set(NOT_RECORDED)


WITHOUT_A_RIGHT = {
    "new-model", "remove-model", "update",  # they change code, which git and its host guard
    "settings",  # shows no data and hides secrets
}  # fmt: skip


def test_each_command_needs_a_right_or_is_named_here():
    right = {name: getattr(one.callback.__wrapped__, "right", None) for name, one in commands().items()}
    assert {name for name, needed in right.items() if needed is None} == WITHOUT_A_RIGHT
    assert {name for name, needed in right.items() if needed == "approve"} == {"approve", "reject"}
    assert {name for name, needed in right.items() if needed == "administer"} == {
        "audit export", "audit list", "audit verify", "backup", "forget", "prune", "rekey", "restore", "rows",
        "keys create", "keys list", "keys remove", "keys rewrite", "keys rotate",
        "token create", "token list", "token revoke", "token rotate",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("role", "models", "command", "said"),
    [
        ("reader", "", ["rollback", "fraud", "--why", "x"], "root has the role reader, which may not operate"),
        ("operator", "", ["approve", "fraud", "--comment", "x"], "root has the role operator, which may not approve"),
        ("approver", "", ["token", "create", "a"], "root has the role approver, which may not administer"),
        ("operator", "churn", ["which", "fraud"], "root is limited to churn, not fraud"),
        ("reader", "churn", ["models"], "root is limited to churn, so name one of them"),
        ("approver", "", ["approve", "fraud", "--comment", "x", "--who", "ada"], "root may not act for ada"),
        ("operator", "churn", ["pipeline", "train", "--model", "fraud"], "root is limited to churn, not fraud"),
    ],
)
def test_a_person_without_the_right_is_refused_and_that_is_recorded(
    settings, monkeypatch, capsys, role, models, command, said
):
    monkeypatch.setattr("getpass.getuser", lambda: "root")
    limit = f'models = ["{models}"]' if models else ""
    settings.service_tokens.write_text(f'[people.root]\nrole = "{role}"\n{limit}\n')
    before = settings.service_tokens.read_bytes()
    assert main(command) == 1
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.out == ""
    assert settings.service_tokens.read_bytes() == before
    assert [action for action, _ in lines(settings)] == ["denied"]


def test_a_user_who_is_none_of_the_people_is_refused_and_an_admin_is_not(settings, monkeypatch, capsys):
    settings.service_tokens.write_text('[people.ada]\nrole = "admin"\n')
    monkeypatch.setattr("getpass.getuser", lambda: "eve")
    assert main(["token", "list"]) == 1
    assert "the user eve is none of the people in " in capsys.readouterr().err
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    assert main(["token", "list"]) == 0
    settings.service_tokens.write_text('[people.ada]\nrole = "boss"\n')
    assert main(["token", "list"]) == 1
    assert "there is no role 'boss'" in capsys.readouterr().err


def lines(settings: Settings) -> list[tuple[str, str]]:
    return [(one.action, one.subject) for one in AuditLog(settings.database_url).lines()]


def test_a_command_writes_its_line_even_if_it_then_finds_nothing(settings, monkeypatch, capsys):
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    assert main(["history", "fraud"]) == 1
    assert main(["rows", "--version", "3", "--out", str(settings.home / "rows.parquet")]) == 1
    assert main(["token", "create", "nightly"]) == 0
    secret = capsys.readouterr().out.split()[-1]
    assert main(["prune"]) == 0
    assert main(["prune", "--yes"]) == 0
    assert lines(settings) == [
        ("read", "fraud/ledger"),
        ("export", "*/training_set"),
        ("create", "token"),
        ("read", "state folder"),
        ("delete", "state folder"),
    ]
    found = list(AuditLog(settings.database_url).lines())
    assert {one.who for one in found} == {"ada"}
    assert [one.to_json()["details"]["command"] for one in found[1:3]] == ["assetline rows", "assetline token create"]
    assert secret not in "".join(one.details for one in found)


def test_where_there_is_no_state_nothing_is_made(settings, capsys):
    settings.home.rmdir()
    assert main(["token", "list"]) == 1
    assert main(["audit", "list"]) == 1
    assert "there is no state folder" in capsys.readouterr().err
    assert not settings.home.exists()


def test_a_command_whose_line_cannot_be_written_does_nothing(settings, capsys):
    AuditLog(settings.database_url).record("read", "x", who="ada")
    with sqlite3.connect(settings.home / "assetline.db") as connection:
        connection.execute("DROP TABLE audit_log")
    assert main(["token", "create", "nightly"]) == 1
    shown = capsys.readouterr()
    assert "the audit log cannot be written" in shown.err
    assert shown.out == ""
    assert not settings.service_tokens.exists()


def test_list_verify_and_export(settings, capsys):
    log = AuditLog(settings.database_url)
    for n in range(3):
        log.record("read", f"fraud/{n}", who="ada", details={"rows": n})
    out = settings.home / "audit.jsonl"
    assert main(["audit", "export", "--out", str(out)]) == 0
    exported = out.read_bytes()
    assert [json.loads(line)["action"] for line in exported.splitlines()] == ["read", "read", "read", "export"]
    assert main(["audit", "export", "--out", str(out)]) == 1  # it replaces no file
    assert out.read_bytes() == exported
    assert main(["audit", "verify", "--against", str(out)]) == 0
    assert "5 lines, none altered or missing; the last digest is " in capsys.readouterr().out
    assert main(["audit", "list", "--subject", "fraud", "--last", "2", "--json"]) == 0
    assert [json.loads(line)["subject"] for line in capsys.readouterr().out.splitlines()] == ["fraud/1", "fraud/2"]
    assert main(["audit", "list", "--who", "ada"]) == 0
    assert "read    fraud/1  rows 1" in capsys.readouterr().out
    with sqlite3.connect(settings.home / "assetline.db") as connection:
        connection.executescript("DROP TRIGGER audit_log_no_update; UPDATE audit_log SET who = 'eve' WHERE number = 2")
    assert main(["audit", "verify"]) == 1
    assert capsys.readouterr().out == "line 2 was altered: its digest is not that of its content\n"
    out.write_text("{}\n")
    assert main(["audit", "verify", "--against", str(out)]) == 1
    assert "this is not a line of the audit log" in capsys.readouterr().err


def test_the_subject_of_a_command_names_only_arguments_that_it_has():
    for name, one in commands().items():
        function = one.callback.__wrapped__
        if subject := getattr(function, "audited", ""):
            named = {field for _, field, _, _ in string.Formatter().parse(subject) if field}
            assert named <= {parameter.name for parameter in one.params}, name

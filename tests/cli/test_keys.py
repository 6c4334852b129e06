"""``assetline keys``: its output, its refusals, and its lines in the audit log."""

import base64
import json

import pytest

from cli import main
from resources.audit import AuditLog
from resources.keys import KeyRing
from resources.settings import Settings


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["keys", *arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def test_create_rotate_and_list_show_no_secret_and_are_recorded(run):
    assert run("list")[1].startswith("there is no key in ")
    code, made, _ = run("create", "tables")
    assert code == 0
    assert "Copy the file to another place" in made
    assert run("rotate", "tables")[0] == 0
    code, listed, _ = run("list")
    old, new = KeyRing.of(Settings.from_env()).versions("tables")
    assert [line.split()[:4] for line in listed.splitlines()[1:]] == [
        ["tables", old.id, old.fingerprint, "old"], ["tables", new.id, new.fingerprint, "newest"],
    ]  # fmt: skip
    as_json = json.loads(run("list", "--json")[1])
    assert [(one["id"], one["newest"]) for one in as_json] == [(old.id, False), (new.id, True)]
    for key in (old, new):
        text = base64.b64encode(key.secret).decode()
        assert text not in made + listed + json.dumps(as_json)
    lines = [(one.action, one.details) for one in AuditLog(Settings.from_env().database_url).lines()]
    assert [action for action, _ in lines] == ["read", "create", "rotate", "read", "read"]
    assert '"purpose"' in lines[1][1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["create", "tabels"], "'tabels' is not a purpose of keys (did you mean tables?)"),
        (["rotate", "tables"], "tables has no key in "),
        (["create", "backups"], "ASSETLINE_KEY_BACKUPS holds the keys for backups, so the file is not used"),
    ],
)
def test_bad_input_is_one_sentence_and_makes_no_file(run, monkeypatch, arguments, said):
    monkeypatch.setenv("ASSETLINE_KEY_BACKUPS", base64.b64encode(b"\1" * 32).decode())
    code, out, err = run(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith(f"assetline keys {arguments[0]}: ")
    assert said in err
    assert not Settings.from_env().keys.exists()

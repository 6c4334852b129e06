"""``assetline rekey``: what it says, and when it refuses."""

from types import SimpleNamespace

import pytest
from filelock import FileLock
from typer.testing import CliRunner

import assets.models
from cli.app import app
from resources.keys import KeyRing
from resources.pseudonyms import in_force
from tests.assets.lifecycle.test_rekeying import Stored

SAID = "2 days of tables and 2 lines of the log of requests have the key"


@pytest.fixture
def stored(tmp_path, monkeypatch) -> Stored:
    made = Stored(tmp_path)
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))
    monkeypatch.setattr(assets.models, "read_folders", lambda: ([made.model], []))
    monkeypatch.setattr("serving.supervisor.refuse_taken_ports", lambda _: None)
    return made


def rekeyed(expected: int = 0) -> str:
    result = CliRunner().invoke(app, ["rekey"])
    assert result.exit_code == expected, result.output
    return result.output


def test_it_says_what_it_rewrote_and_that_the_older_keys_are_still_needed(stored):
    assert "nothing to do" in rekeyed()
    stored.file.rotate("pseudonyms")
    said = rekeyed()
    assert "members/raw_visits: 1 days\n" in said
    assert f"{SAID} {KeyRing.of(stored.settings).newest('pseudonyms').fingerprint}" in said
    assert "keep the older keys" in said
    stored.check()


def test_while_something_runs_or_a_model_is_broken_nothing_is_rewritten(stored, monkeypatch):
    stored.file.rotate("pseudonyms")
    before = in_force(stored.settings.tables)
    with FileLock(stored.settings.home / ".runner.lock"):
        assert "a job of this state folder is running" in rekeyed(1)
    broken = [SimpleNamespace(name="churn", reason="no such column")]
    monkeypatch.setattr(assets.models, "read_folders", lambda: ([], broken))
    assert "the model 'churn' is broken: no such column. Its declaration says which columns" in rekeyed(1)
    monkeypatch.undo()
    monkeypatch.setenv("ASSETLINE_HOME", str(stored.settings.home))
    from serving.supervisor import SupervisorError

    def taken(_: object) -> None:
        raise SupervisorError("port 8000 is taken; stop it")

    monkeypatch.setattr("serving.supervisor.refuse_taken_ports", taken)
    assert "port 8000 is taken: stop `assetline dev` and all scoring services" in rekeyed(1)
    assert in_force(stored.settings.tables) == before

"""What the commands of deployment targets print, and what they change."""

import json

import pytest

import assets.models
from cli import main
from resources.ledger import Ledger
from resources.settings import Settings
from tests.declarations.readings import plain

FACTS = {"reason": "r", "verdicts": {}, "dagster_run": "r", "who": "ada"}


@pytest.fixture
def ledger(tmp_path, monkeypatch) -> Ledger:
    """The model `meter` on the targets `batch` and `image`, with version 1 in production."""
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))
    monkeypatch.setattr(assets.models, "declared_models", lambda: [plain(targets=("batch", "image"))])
    ledger = Ledger(database_url=Settings.from_env({"ASSETLINE_HOME": str(tmp_path)}).database_url)
    ledger.promote("meter", "1", **FACTS)
    return ledger


def said(capsys, *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    ended = main([*arguments])
    captured = capsys.readouterr()
    assert ended == code, captured
    return captured.out if code == 0 else captured.err


def test_each_target_says_what_it_has(ledger, capsys):
    [head, batch, image] = said(capsys, "deployments").splitlines()
    assert head.split() == ["model", "target", "state", "version", "message"]
    assert batch.startswith("meter  batch   no endpoint  1        version 1 scores the days of meter since ")
    assert image.endswith("absent                no version of meter has an image in use")
    found = json.loads(said(capsys, "deployments", "meter", "--json"))
    assert [(one["target"], one["state"], one["version"]) for one in found] == [
        ("batch", "no endpoint", "1"), ("image", "absent", None),
    ]  # fmt: skip


def test_a_model_leaves_production_with_a_reason(ledger, capsys):
    words = said(capsys, "undeploy", "meter", "--why", "replaced", "--who", "bob")
    assert words == "meter is not in production any more; version 1 was withdrawn by bob\n"
    assert ledger.champion("meter") is None
    assert ledger.history()[-1].reason == "replaced"


@pytest.mark.parametrize("command", [("deployments", "metre"), ("undeploy", "metre", "--why", "w")])
def test_an_unknown_model_is_named(ledger, capsys, command):
    words = said(capsys, *command, code=1)
    assert words.endswith("no model 'metre' is declared; the declared models are: meter\n")
    assert ledger.champion("meter").version == "1"


def test_without_a_reason_nothing_changes(ledger, capsys):
    assert "needs a reason" in said(capsys, "undeploy", "meter", "--why", " ", code=1)
    assert ledger.champion("meter").version == "1"

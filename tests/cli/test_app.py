"""What a person types: exit codes and words."""

import subprocess
import sys

import pytest

from cli import main
from resources.settings import project_root


def test_an_unknown_model_is_named_with_those_there_are(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path / "home"))
    assert main(["materialize", "--model", "frad"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("assetline materialize: no model 'frad' is declared; the declared models are: ")
    assert not (tmp_path / "home").exists()


def test_a_search_of_what_cannot_be_searched_changes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path / "home"))
    for arguments, said in (
        (["frad"], "no model 'frad' is declared; the declared models are: "),
        (["fraud", "--minutes", "0"], "--minutes 0 is too few; give more than 0"),
    ):
        assert main(["tune", *arguments]) == 1
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"assetline tune: {said}")
    assert not (tmp_path / "home").exists()


def test_a_model_without_a_story_is_named_beside_those_that_have_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("story.__path__", [str(tmp_path)])
    assert main(["run"]) == 1
    assert "there is no story to play" in capsys.readouterr().err
    (tmp_path / "gardens.py").touch()
    (tmp_path / "playing.py").touch()
    assert main(["run", "--model", "fraud"]) == 1
    assert "--model fraud has no story; these have one: gardens" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


def test_a_mistyped_setting_is_named_before_anything_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ASSETLINE_HOEM", "/tmp")
    assert main(["run"]) == 2
    assert "ASSETLINE_HOEM" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Usage: assetline"),
        (["fly"], "No such command 'fly'"),
        (["materialise"], "Did you mean 'materialize'?"),
        (["materialize"], "Missing option '--model'"),
        (["run", "--until", "3.10.2026"], "'3.10.2026' does not match the formats '%Y-%m-%d'"),
        (["run", "--size", "huge"], "'huge' is not one of 'small', 'published'"),
    ],
)
def test_what_is_not_understood_is_named_beside_the_usage(arguments, message, capsys):
    assert main(arguments) == 2
    shown = capsys.readouterr()
    text = " ".join((shown.out + shown.err).replace("│", " ").split())
    assert "Usage: assetline" in text
    assert message in text


@pytest.mark.parametrize(
    "command",
    [
        ["run"],
        ["new-model"],
        ["tune"],
        ["update"],
        ["which"],
        ["history"],
        ["rollback"],
        ["alerts", "ack"],
        ["token", "create"],
        ["token", "rotate"],
        ["alerts", "silence"],
    ],
)
def test_help_has_an_example(command, capsys):
    assert main([*command, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"Example: assetline {' '.join(command)} " in text


def test_help_imports_nothing_heavy():
    code = """
import sys, cli
cli.main(["--help"])
heavy = {"dagster", "pandas", "torch", "mlflow", "sqlalchemy"} & set(sys.modules)
assert not heavy, heavy
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=project_root(), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr

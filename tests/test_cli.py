"""What a person types: exit codes and words."""

import pytest

from cli import main


def test_an_unknown_model_is_named_with_those_there_are(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path / "home"))
    assert main(["materialize", "--model", "frad"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("assetline materialize: no model 'frad' is declared; there are: ")
    assert not (tmp_path / "home").exists()


def test_a_mistyped_setting_is_named_before_anything_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ASSETLINE_HOEM", "/tmp")
    assert main(["run"]) == 2
    assert "ASSETLINE_HOEM" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("arguments", [[], ["fly"], ["materialize"]])
def test_what_is_not_understood_shows_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: assetline" in capsys.readouterr().err

"""The commands behind the make targets: exit codes and last words, which a provider shows."""

import json

import pytest

from cli import main
from pipeline import training
from pipeline.stages import Folder


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Runs a stage on an empty folder: exit code, output and the last line of the errors."""
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path / "home"))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["pipeline", *arguments])
        shown = capsys.readouterr()
        return code, shown.out, (shown.err.splitlines() or [""])[-1]

    return run


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (["gate"], "assetline pipeline gate: `make gate` needs `make train`, which has not run here: "),
        (["deploy", "--env", "staging"], "`make deploy ENV=staging` needs `make gate`, which has released nothing"),
        (["smoke", "--env", "staging"], "`make smoke ENV=staging` needs `make gate`, which has released nothing"),
        (["promote", "--env", "production"], "`make promote ENV=production` needs `make gate`, which has released"),
        (["train", "--model", "frad"], "no model 'frad' is declared; the declared models are: "),
        (["compare", "--base", "nowhere"], "BASE=nowhere is no commit that HEAD is based on"),
    ],
)
def test_a_stage_that_cannot_run_ends_with_one_sentence(command, tmp_path, stage, words):
    code, _, error = command(*stage, "--out", str(tmp_path / "build"))
    assert code == 1
    assert words in error
    assert not (tmp_path / "home").exists()


def test_an_environment_that_is_not_there_is_refused_beside_the_usage(command):
    assert command("deploy", "--env", "moon")[0] == 2


def test_a_refused_version_ends_the_command_with_1_after_its_figures_were_published(command, tmp_path, monkeypatch):
    def refusing(folder: Folder, declared, say) -> dict[str, str]:
        say("version 1 of churn is refused by the gate: too bad")
        stored = {"verdict": {"reasons": []}, "report": {"rows": 1, "models": {"torch": {}}}}
        folder.report("churn", "evaluation.json").write_text(json.dumps(stored))
        return {"churn": "too bad"}

    monkeypatch.setattr(training, "gate", refusing)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    code, output, _ = command("gate", "--out", str(tmp_path / "build"))
    assert code == 1
    assert output.splitlines()[0] == "version 1 of churn is refused by the gate: too bad"
    assert "### churn" in (tmp_path / "summary.md").read_text()
    monkeypatch.setattr(training, "gate", lambda folder, declared, say: {})
    assert command("gate", "--out", str(tmp_path / "build"))[0] == 0


@pytest.mark.parametrize("stage", ["train", "gate", "compare", "deploy", "smoke", "promote", "tell-failure"])
def test_help_has_an_example(stage, capsys):
    assert main(["pipeline", stage, "--help"]) == 0
    assert f"Example: assetline pipeline {stage}" in " ".join(capsys.readouterr().out.split())

"""The model card on the command line, from a real store of runs and the ledger."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from assets.lifecycle.model.details import details_of
from assets.lifecycle.model.gate import Reason, Verdict
from assets.lifecycle.model.metrics import evaluate
from assets.lifecycle.model.objectives import ScoreTransform
from assets.lifecycle.model.version.bundle import Bundle
from assets.models.fraud import model as fraud
from cli import main
from resources.ledger import Ledger
from resources.mlflow import MlflowTracking
from resources.settings import Settings

NAMES = fraud.features.names


class Line(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nan_to_num(x).sum(dim=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A state folder with one evaluated version in production."""
    home = tmp_path_factory.mktemp("card")
    settings = Settings.from_env({"ASSETLINE_HOME": str(home)})
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, len(NAMES))).astype(np.float32)
    y = (X.sum(axis=1) + rng.normal(size=400) > 2).astype(float)
    rows = pd.DataFrame({"transaction_id": np.arange(400), "customer_id": np.arange(400) // 2,
                         "amount": rng.uniform(1, 90, 400), "is_fraud": y})  # fmt: skip
    folder = home / "bundle"
    Bundle.save(folder, module=Line().eval(), model=fraud, feature_names=NAMES, head=ScoreTransform(offset=-2.0),
                threshold=0.5, fitted={"epochs": 1, "shares": {"network": 1.0}}, background=X[:16])  # fmt: skip
    bundle, small = Bundle.load(folder), replace(fraud.evaluation, slices=None)
    scores = bundle.predict(X)
    report = evaluate(rows, {"torch": scores}, small, target="is_fraud", resamples=20)
    details = details_of(bundle, rows, X, scores, replace(fraud, evaluation=small), None)
    verdict = Verdict((Reason("floor", "average_precision", 0.8, 0.6, True, "it meets the floor"),))
    mlflow = MlflowTracking.from_settings(settings)
    client = mlflow.client()
    run = client.create_run(client.create_experiment("fraud", artifact_location=f"{mlflow.artifact_location}/fraud"))
    client.set_tag(run.info.run_id, "git_commit", "0123abc")
    version = mlflow.register("fraud", run.info.run_id, folder)
    with mlflow.reopen(run.info.run_id) as log:
        log.log_dict(
            {"report": report.to_dict(), "verdict": verdict.to_dict(), "details": details.to_dict()}, "evaluation.json"
        )
    ledger = Ledger.from_settings(settings).process_config_and_initialize()
    ledger.promote("fraud", version, reason="it meets the floor", verdicts={}, dagster_run="r", who="ada")
    shutil.rmtree(folder)
    return home


@pytest.fixture
def run(home, monkeypatch, capsys):
    monkeypatch.setenv("ASSETLINE_HOME", str(home))

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["card", *arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def test_the_card_of_the_version_in_production_is_printed(run, monkeypatch):
    code, out, err = run("fraud")
    assert (code, err) == (0, "")
    assert out.startswith("# fraud, version 1: model card\n")
    for words in ("promoted by ada", "| Git commit | 0123abc |", "| floor | passed | it meets the floor |",
                  "above the review cost of 2.", "A risk team reviews"):  # fmt: skip
        assert words in out, words
    assert run("fraud", "--version", "1")[1] == out
    monkeypatch.setattr("assets.models.declared_models", lambda: [fraud])
    assert run()[1] == out, "the only model that is declared"


def test_the_card_is_written_as_text_or_as_a_page(run, tmp_path):
    code, out, _ = run("fraud", "--out", str(tmp_path / "card.md"))
    assert (code, out) == (0, f"wrote {tmp_path / 'card.md'}\n")
    assert (tmp_path / "card.md").read_text() == run("fraud")[1]
    assert run("fraud", "--out", str(tmp_path / "card.html"))[0] == 0
    assert re.search(r"<h1>fraud, version 1.*<img src=.data:image", (tmp_path / "card.html").read_text(), re.DOTALL)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fraud", "--version", "7"], "has no version 7 of the model fraud"),
        (["fruad"], "no model 'fruad' is declared; the declared models are: fraud"),
        (["fraud", "--out", "card.pdf"], "--out card.pdf: give a file that ends with .md or .html"),
        (["fraud", "--out", "/nowhere/card.md"], "No such file or directory"),
    ],
)
def test_what_cannot_be_written_is_one_line(run, arguments, said):
    code, out, err = run(*arguments)
    assert (code, out) == (1, "")
    assert said in err
    assert err.startswith("assetline card: ")
    assert err.count("\n") == 1


def test_before_a_promotion_there_is_no_card(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))
    assert main(["card", "fraud"]) == 1
    assert "no version of fraud is in production; name one with --version" in capsys.readouterr().err

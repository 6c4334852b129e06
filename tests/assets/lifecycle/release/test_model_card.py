"""The card says what was stored of a version, and of the declaration only the intended use and the limits."""

import re

import pandas as pd
import pytest

from assets.declaration import Card, Evaluation, Gate
from assets.lifecycle.release.model_card import html, markdown, read_facts
from tests.assets.lifecycle.model.test_evaluation import evaluated  # noqa: F401 - a fixture
from tests.declarations.readings import plain

GATE = Gate(metric="roc_auc", floor=0.55, baseline_margin=-0.2, calibration_error=None)
FACTS = {"verdicts": {"gate": True}, "dagster_run": "run-1", "who": "ada"}


@pytest.fixture(scope="module")
def judged(evaluated):  # noqa: F811
    """A world with an evaluated and promoted version, and the one before it."""
    stages, made = evaluated(GATE, Evaluation(groups=("site",)))
    assert made.success, made.why
    stages.ledger.promote("meter", "1", reason="better | by .01", **FACTS)
    return stages


def section(text: str, title: str) -> str:
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)[1]


def test_the_card_says_who_promoted_it_and_what_was_measured(judged):
    model = plain(card=Card(intended_use="Sends a fitter.", limits=("No new meters.", "a <b>|c"), contact="ada@x.org"))
    text = markdown(read_facts("meter", "1", judged.mlflow, judged.ledger), model)
    assert text.startswith("# meter, version 1: model card\n")
    assert re.search(r"\*\*In production since \d{4}-.* UTC\*\*, promoted by ada: better \\\| by \.01", text)
    assert section(text, "Intended use").strip() == "Sends a fitter."
    assert "- No new meters.\n- a &lt;b>\\|c" in section(text, "Limits")
    assert "Contact: ada@x.org" in text
    stored = judged.mlflow.logged["evaluation.json"]
    auc = stored["report"]["models"]["torch"]["roc_auc"]
    assert f"{auc['value']:.3f} ({auc['low']:.3f} to {auc['high']:.3f})" in section(text, "Performance")
    assert "| floor | passed | roc_auc 0." in section(text, "Gate")
    for title, words in {
        "Version": ["faulty, binary", "0123abc, with uncommitted changes", "20% of the rows", "| Features | "],
        "Calibration": ["| Rows | Predicted | Observed |"],
        "Threshold": ["a probability of 0.5 or more", "(in use)", "| F1 |"],
        "Fairness": ["| site | selection rate |", "north ", "south ", "true positive rate"],
        "Features": ["| level | "],
        "Ledger": ["| promote | ada |"],
        "Slices": ["not declared"],
    }.items():
        for word in words:
            assert word in section(text, title), (title, word, section(text, title))


def test_what_is_not_declared_is_said_to_be_so(judged):
    text = markdown(read_facts("meter", "1", judged.mlflow, judged.ledger), plain())
    assert section(text, "Intended use").strip() == "not declared"
    assert section(text, "Limits").startswith("\nnot declared")
    assert "Contact: team:models" in text


def test_the_page_is_the_card_with_pictures_and_fetches_nothing(judged):
    model = plain(card=Card(intended_use="<script>alert(1)</script> & more"))
    page = html(read_facts("meter", "1", judged.mlflow, judged.ledger), model)
    assert "<script>" not in page
    for name in ("Reliability", "Alerts by threshold", "Importance of features"):
        assert re.search(rf'<img src="data:image/png;base64,[^"]+" alt="{name}"', page), name
    assert not re.search(r"https?://(?!mlflow)", page)
    assert page.count("<table>") == markdown(read_facts("meter", "1", judged.mlflow, judged.ledger), model).count(
        "| --- |\n"
    )


def test_a_version_that_is_no_longer_in_production_says_since_when_it_was(judged):
    judged.ledger.promote("meter", "2", reason="better", **FACTS)
    text = markdown(read_facts("meter", "1", judged.mlflow, judged.ledger), plain())
    assert "**No longer in production; it was promoted on " in text
    judged.ledger.promote("meter", "1", reason="back", **FACTS)
    assert "**In production since" in markdown(read_facts("meter", "1", judged.mlflow, judged.ledger), plain())


def test_the_asset_stores_the_card_with_the_run(judged):
    made = judged.make("model_card")
    assert made.success, made.why
    assert made.check("written").passed
    assert judged.mlflow.logged["model_card.md"].startswith("# meter, version 1")
    assert judged.mlflow.logged["model_card.html"].startswith("<!doctype html>")
    assert judged.row("model_card")["card"] == judged.mlflow.logged["model_card.md"]


@pytest.mark.closes("model_card", "written")
def test_a_card_that_cannot_be_written_is_an_open_check_and_stops_nothing(judged, tmp_path):
    judged.put("trained_model", pd.DataFrame({
        "version": ["9"], "run_id": ["run-9"], "data_version": ["d"], "code": ["c"], "curves": ["{}"],
    }))  # fmt: skip
    judged.mlflow.folders["9"] = tmp_path
    made = judged.make("model_card")
    assert made.success, "promotion and predictions go on"
    written = made.check("written")
    assert not written.passed
    assert "the card of version 9 cannot be written" in written.description
    assert "assetline card meter --version 9" in written.description


def test_a_version_of_before_says_what_is_missing(judged):
    logged = judged.mlflow.logged.pop("evaluation.json")
    try:
        assert "This version was not evaluated." in markdown(
            read_facts("meter", "1", judged.mlflow, judged.ledger), plain()
        )
        judged.mlflow.logged["evaluation.json"] = {"report": logged["report"], "verdict": logged["verdict"]}
        text = markdown(read_facts("meter", "1", judged.mlflow, judged.ledger), plain())
        assert "This version was evaluated before the card showed them." in text
    finally:
        judged.mlflow.logged["evaluation.json"] = logged

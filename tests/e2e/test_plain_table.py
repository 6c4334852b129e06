"""The whole lifecycle of a real table without a clock, from a declaration as a fork writes it."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from assets.declaration import Gate
from runner import RunError, Runner
from tests.declarations.telco import CSV, model
from tests.serving.processes import Service
from tests.worlds import why

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CSV.exists(), reason="set ASSETLINE_TEST_DATA to the folder that holds telco_churn.csv"),
]


@pytest.fixture(scope="module")
def world(make_world, tmp_path_factory):
    return make_world(model, tmp_path_factory.mktemp("telco"))


@pytest.fixture(scope="module")
def lived(world):
    lines = []
    Runner(model, world.settings, world.instance).live(lines.append)
    assert lines[-1].startswith("version 1 of churn is in production: roc_auc 0.8")
    return world


def test_the_whole_table_is_clean_and_blank_charges_are_missing(lived):
    rows = lived.tables.read(model.key("customers"))
    assert len(rows) == 7043
    assert rows["TotalCharges"].isna().sum() == 11
    assert rows["Churn"].sum() == 1869


def test_a_held_out_fifth_is_told_apart(lived):
    report = json.loads(lived.row("evaluation")["report"])
    figures = {name: round(scores["roc_auc"]["value"], 4) for name, scores in report["models"].items()}
    assert report["rows"] == round(7043 * 0.2)
    assert set(figures) == {"torch", "xgboost", "linear"}
    assert figures["torch"] >= 0.83, figures


def test_the_recipe_holds_on_other_fifths(lived):
    result = lived.run("backtest", backtest={"weeks": 3})
    assert result.success, why(result)
    rounds = lived.tables.read(model.key("backtest"))
    mean = rounds.groupby("score")["roc_auc"].mean()
    assert rounds["round"].nunique() == 3
    assert mean["torch"] >= 0.83, mean
    assert mean["torch"] >= mean[["xgboost", "linear"]].max() - 0.01, mean


def test_it_is_deployed_scored_and_held_against_its_reference(lived):
    assert lived.ledger.champion("churn").version == "1"
    said = lived.tables.read(model.key("predictions"))
    assert len(said) == 7043
    truth = lived.tables.read(model.key("labels")).set_index("customerID")["Churn"]
    leavers = said.set_index("customerID")["probability"].groupby(truth).mean()
    assert leavers[1] > 2 * leavers[0]
    assert lived.row("drift")["level"] == "ok"


def test_a_refusal_says_why_in_its_last_words(lived):
    strict = replace(model, gate=Gate(metric="roc_auc", floor=0.99))
    with pytest.raises(RunError, match=r"churn_lifecycle failed: churn/evaluation: gate: roc_auc .* misses the floor"):
        Runner(strict, lived.settings, lived.instance).live(print)
    assert lived.mlflow.version_of_alias("churn", "champion") == "1"


def test_the_service_answers_a_customer_as_it_landed(lived):
    customer = pd.read_csv(CSV, dtype=str, keep_default_na=False).drop(columns="Churn").iloc[5].to_dict()
    expected = lived.tables.read(model.key("predictions")).set_index("customerID")["probability"]
    service = Service(lived.settings.home, "--bundle", str(lived.mlflow.download("churn", "1")))
    try:
        answer = service.client.post("/models/churn/predict", json=[customer]).json()[0]
        wrong = service.client.post("/models/churn/predict", json=[customer | {"Contract": "Weekly"}])
    finally:
        service.end()
    assert abs(answer["probability"] - expected[customer["customerID"]]) < 1e-5, answer
    assert wrong.status_code == 422
    assert "Contract" in wrong.text

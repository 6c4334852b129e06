"""The gate on models that were trained: each fault is refused for its own reason, and a good one is promoted."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from assets.declaration import Model
from assets.lifecycle.data.features import compute_features, events_of
from assets.lifecycle.model.candidate import fit_candidate
from assets.lifecycle.model.training_set import feature_column
from assets.lifecycle.model.training_set import test_rows as rows_of_test
from assets.lifecycle.model.version.bundle import Bundle
from tests.declarations import loans
from tests.stages import Stages

pytestmark = pytest.mark.slow
DECLARED = loans.model()


def frozen(rows: pd.DataFrame, model: Model = DECLARED) -> pd.DataFrame:
    values = compute_features(model.features, events_of(rows, None, model), np.arange(len(rows)))
    features = {feature_column(name): values[:, i] for i, name in enumerate(model.features.names)}
    return rows.assign(defaulted=rows["defaulted"].astype("int8"), **features)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Trains a candidate and writes it as a bundle; each declaration and training set once."""

    def train(model: Model, rows: pd.DataFrame, change=lambda network: network):
        folder = tmp_path_factory.mktemp("bundle") / "bundle"
        candidate = fit_candidate(rows, model, lambda _: None)
        Bundle.save(folder, module=change(candidate.network), model=model, feature_names=model.features.names,
                    head=candidate.head, threshold=candidate.selection.threshold, fitted={})  # fmt: skip
        return folder

    return train


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return frozen(loans.loans())


@pytest.fixture(scope="module")
def champion(trained, rows):
    return trained(DECLARED, rows)


@pytest.fixture
def judged(champion, rows, tmp_path):
    """Evaluates a challenger against the champion, on the same rows."""

    def evaluate(challenger, model: Model = DECLARED):
        stages = Stages(model, tmp_path)
        stages.mlflow.folders = {"1": champion, "2": challenger}
        stages.ledger.promote("loans", "1", reason="first", verdicts={}, dagster_run="", who="a test")
        stages.put("training_set", rows)
        stages.put("trained_model", pd.DataFrame({
            "version": ["2"], "run_id": ["run-2"], "data_version": ["d"], "code": ["c"], "curves": ["{}"],
        }))  # fmt: skip
        made = stages.make("evaluation")
        verdict = json.loads(stages.row("evaluation")["verdict"])
        failed = sorted({reason["rule"] for reason in verdict["reasons"] if not reason["passed"]})
        return SimpleNamespace(made=made, failed=failed, stages=stages)

    return evaluate


def test_an_equal_challenger_is_promoted(trained, rows, judged):
    equal = trained(replace(DECLARED, network=loans.network()), rows)
    found = judged(equal)
    assert (found.failed, found.made.success) == ([], True), found.made.why


def test_a_better_challenger_is_promoted_over_a_worse_champion(trained, rows, tmp_path):
    worse = trained(replace(DECLARED, network=loans.network(hide=("female", "debt"))), rows)
    stages = Stages(DECLARED, tmp_path)
    stages.mlflow.folders = {"1": worse, "2": trained(DECLARED, rows)}
    stages.ledger.promote("loans", "1", reason="first", verdicts={}, dagster_run="", who="a test")
    stages.put("training_set", rows)
    stages.put("trained_model", pd.DataFrame({
        "version": ["2"], "run_id": ["run-2"], "data_version": ["d"], "code": ["c"], "curves": ["{}"],
    }))  # fmt: skip
    made = stages.make("evaluation")
    assert made.success, made.why
    assert "gain +0." in made.check("gate").description


FAULTS = {
    "worse": (loans.network(hide=("female", "debt")), ["champion", "slices"]),
    "slice-breaking": (loans.network(blind_in_south=True), ["slices"]),
    "unfair": (loans.network(hide=()), ["fairness"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_challenger_with_one_fault_is_refused_for_it(fault, trained, rows, judged):
    network, rules = FAULTS[fault]
    found = judged(trained(replace(DECLARED, network=network), rows))
    assert found.failed == rules
    assert not found.made.success
    [_, refused] = found.stages.ledger.history("loans")
    assert refused.action == "refuse"


def test_a_slow_challenger_is_refused_as_such(trained, rows, judged):
    found = judged(trained(DECLARED, rows, loans.slowed))
    assert (found.failed, found.made.success) == (["latency"], False)


def test_a_challenger_fitted_on_rows_with_other_shares_is_refused_as_miscalibrated(trained, rows, judged):
    kept = rows_of_test(rows, DECLARED) | (rows["defaulted"] == 1) | (np.arange(len(rows)) % 5 == 0)
    balanced = rows[kept & ~rows_of_test(rows, DECLARED)].reset_index(drop=True)
    found = judged(trained(DECLARED, balanced))
    assert found.failed == ["calibration"]


@pytest.mark.closes("training_set", "leakage")
def test_a_leaky_challenger_does_not_get_as_far_as_the_gate(tmp_path):
    rows = loans.loans()
    leaky = rows.assign(income=np.where(rows["defaulted"], -1.0, 1.0) + rows["income"] / 1_000)
    stages = Stages(DECLARED, tmp_path)
    stages.put("loans", leaky)
    stages.put("labels", rows[["loan_id", "defaulted"]].astype({"defaulted": "int8"}))
    computed = compute_features(DECLARED.features, events_of(leaky, None, DECLARED), np.arange(len(leaky)))
    stages.put("features", leaky[["loan_id"]].assign(**dict(zip(DECLARED.features.names, computed.T, strict=True))))
    made = stages.make("training_set")
    assert not made.success
    assert "income" in made.check("leakage").description


def test_with_advice_only_a_worse_challenger_goes_on_and_the_check_warns(trained, rows, judged):
    model = replace(DECLARED, gate=replace(DECLARED.gate, mode="advise"))
    worse = trained(replace(DECLARED, network=loans.network(hide=("female", "debt"))), rows)
    found = judged(worse, model)
    assert found.made.success, found.made.why
    check = found.made.check("gate")
    assert (check.passed, check.severity.value, check.blocking) == (False, "WARN", False)
    verdict = found.stages.mlflow.verdict("2", "gate")
    assert verdict["passed"]
    assert all(reason.startswith("advice only: ") for reason in verdict["reasons"])

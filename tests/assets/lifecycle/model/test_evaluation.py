"""The gate as the check of the evaluation: it stops what comes after, and says why where promotion looks it up."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from assets.declaration import Evaluation, Gate
from assets.lifecycle.model.training_set import feature_column
from assets.lifecycle.model.version.bundle import Bundle
from tests.declarations.readings import plain, readings
from tests.stages import Stages, copied_bundle


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, toy_bundle):
    """Evaluates the toy candidate, which ranks by the level as the target does, under a gate."""

    def evaluate(gate: Gate, evaluation: Evaluation | None = None):
        folder = tmp_path_factory.mktemp("evaluation")
        stages = Stages(plain(gate=gate, evaluation=evaluation or Evaluation()), folder)
        names = Bundle.load(toy_bundle).facts.feature_names
        rows = readings(400)
        features = {feature_column(name): np.zeros(len(rows), np.float32) for name in names}
        features[feature_column("level")] = rows["level"].to_numpy(np.float32)
        stages.put("training_set", rows.assign(faulty=rows["faulty"].astype("int8"), **features))
        bundle = copied_bundle(toy_bundle, folder / "bundle")
        # The line's weight of the level may be of either sign: the better end is up.
        up = Bundle.load(bundle).predict(np.eye(len(names), dtype=np.float32)[:1] * 1000)
        down = Bundle.load(bundle).predict(np.zeros((1, len(names)), np.float32))
        facts = json.loads((bundle / "bundle.json").read_text())
        facts["head"]["slope"] = 1.0 if (up > down).all() else -1.0
        (bundle / "bundle.json").write_text(json.dumps(facts))
        stages.mlflow.folders["1"] = bundle
        stages.put("trained_model", pd.DataFrame({
            "version": ["1"], "run_id": ["run-1"], "data_version": ["d"], "code": ["c"], "curves": ["{}"],
        }))  # fmt: skip
        return stages, stages.make("evaluation")

    return evaluate


def test_a_candidate_within_all_limits_passes_the_gate(evaluated):
    stages, made = evaluated(Gate(metric="roc_auc", floor=0.55, baseline_margin=-0.2, calibration_error=None))
    assert made.success, made.why
    assert made.check("gate").passed
    verdict = stages.mlflow.verdict("1", "gate")
    assert verdict["passed"]
    assert re.match(r"roc_auc 0\.\d+ meets the floor 0.5500", verdict["reasons"][0])
    assert stages.row("evaluation")["passed"]
    assert stages.ledger.history() == []


@pytest.mark.closes("evaluation", "gate")
def test_a_candidate_below_the_floor_is_refused_reported_and_on_record(evaluated):
    stages, made = evaluated(Gate(metric="roc_auc", floor=0.99))
    assert not made.success
    assert not made.check("gate").passed
    assert "misses the floor 0.9900" in made.check("gate").description
    verdict = stages.mlflow.verdict("1", "gate")
    assert not verdict["passed"]
    assert "misses the floor 0.9900" in verdict["reasons"][0]
    [refused] = stages.ledger.history("meter")
    assert (refused.action, refused.version) == ("refuse", "1")
    assert "misses the floor 0.9900" in refused.reason
    row = stages.row("evaluation")
    assert not row["passed"], "the report on what was refused is there to be read"
    assert "roc_auc" in json.loads(row["report"])["models"]["torch"]

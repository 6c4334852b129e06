"""A candidate that does not start, answers wrongly or answers otherwise is not staged."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from assets.declaration import Gate
from assets.lifecycle.model.training_set import feature_column, matrix
from assets.lifecycle.model.training_set import test_rows as rows_of_test
from assets.lifecycle.model.version.bundle import Bundle
from assets.lifecycle.model.version.verdicts import record_verdict
from assets.lifecycle.release.staging import (
    PARITY_ROWS,
    PARITY_TOLERANCE,
    _in_one_line,
    largest_difference,
    parse_response,
    staged_asset,
)
from resources.mlflow import MlflowTracking
from resources.targets.base import STAGED, DeploymentError
from resources.targets.local_service import LocalService
from tests.assets.lifecycle.release.test_deployment import MODEL
from tests.declarations.readings import plain, readings, stream
from tests.stages import Stages, copied_bundle

HEALTHY = {"status": "ok", "models": {"meter": {"status": "ok", "version": STAGED}}}


@pytest.fixture
def stages(tmp_path, toy_bundle) -> Stages:
    """A candidate of version 3 with its training set, and a target that starts a process for it."""
    target = LocalService(
        mlflow=MlflowTracking(tracking_uri="sqlite:////none"),
        service="tests.resources.fake_service",
        start_timeout_s=20,
    )
    stages = Stages(MODEL, tmp_path, target_local=target)
    stages.mlflow.folders["3"] = copied_bundle(toy_bundle, tmp_path / "bundle")
    rng = np.random.default_rng(0)
    names = Bundle.load(toy_bundle).facts.feature_names
    features = {feature_column(name): rng.normal(size=200).astype(np.float32) for name in names}
    features[feature_column(names[0])][::7] = np.nan
    stages.put("training_set", readings(200).assign(**features))
    stages.put("trained_model", pd.DataFrame({"version": ["3"]}))
    return stages


def offline(stages: Stages) -> np.ndarray:
    """The scores of the test rows, without any service."""
    frozen = stages.tables.read(MODEL.key("training_set"))
    return Bundle.load(stages.mlflow.folders["3"]).predict(matrix(frozen[rows_of_test(frozen, MODEL)], MODEL))


def answering(stages: Stages, health=HEALTHY, status=200, **answer) -> Stages:
    """The stages with a service that answers so; by default as it should."""
    given = {"scores": offline(stages).tolist(), "version": STAGED, **answer}
    answers = {
        "GET /health": [200, json.dumps(health)],
        "POST /models/meter/score": [status, json.dumps(given)],
    }
    (stages.mlflow.folders["3"] / "answers.json").write_text(json.dumps(answers))
    return stages


def test_a_candidate_that_answers_as_it_does_offline_is_staged(stages):
    made = answering(stages).make("staged")
    assert made.success, made.why
    assert made.check("smoke").passed
    assert made.check("smoke").description == "healthy, and it scored 40 rows"
    assert made.check("parity").passed
    assert made.check("parity").metadata["rows"].value == 40
    assert stages.mlflow.verdict("3", "staging") == {
        "passed": True,
        "reasons": ["the scores of 40 rows over HTTP differ from the offline scores by at most 0.0e+00"],
    }  # fmt: skip
    assert stages.row("staged") == {"version": "3", "largest_difference": 0.0}
    assert made.check("parity").metadata["largest_difference"].value == 0.0
    event = stages.instance.get_latest_materialization_event(MODEL.key("staged")).asset_materialization
    assert event.metadata["version"].value == "3"


def test_our_own_machine_is_asked_without_a_proxy(stages, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nothing listens there
    made = answering(stages).make("staged")
    assert made.success, made.why


def test_it_has_no_days_and_comes_after_the_gate():
    asset = staged_asset(stream())
    assert asset.partitions_def is None
    assert asset.dependency_keys == {stream().key(name) for name in ("trained_model", "training_set", "evaluation")}


def refused_by_smoke(stages: Stages, words: str) -> None:
    """Staging fails with these words and without a traceback, and promotion refuses the version for them."""
    made = stages.make("staged")
    assert not made.success
    assert made.checks == ["smoke"]
    smoke = made.check("smoke")
    assert not smoke.passed
    assert words in smoke.description
    assert words in made.why
    assert "Traceback" not in made.why
    assert not stages.has("staged")
    verdict = stages.mlflow.verdict("3", "staging")
    assert not verdict["passed"]
    assert words in verdict["reasons"][0]

    record_verdict(stages.mlflow, MODEL, "3", "gate", True, ["good"])
    promoted = stages.make("deployment")
    assert not promoted.success
    assert words in promoted.why
    assert stages.ledger.champion("meter") is None


@pytest.mark.closes("staged", "smoke")
def test_a_process_that_does_not_start_fails_with_its_last_words(stages):
    (stages.mlflow.folders["3"] / "crash").touch()
    refused_by_smoke(stages, "exited with status 1 before it was healthy: network.pt2 is damaged")


@pytest.mark.closes("staged", "smoke")
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"health": {"models": {"meter": {"status": "degraded", "problem": "no past", "version": STAGED}}}},
         "the service is degraded: no past"),
        ({"health": {"models": {"other": {"status": "ok", "version": STAGED}}}}, "cannot be read (KeyError('meter'))"),
        ({"version": "2"}, "the service serves version 2, not 3"),
        ({"health": {"models": {"meter": {"status": "ok", "version": "2"}}}}, "serves version 2, not 3"),
        ({"status": 500}, "does not answer as it should: Server error '500 Internal Server Error'"),
        ({"scores": [0.5] * 39}, "the scores of 40 rows have shape (39,), expected (40,)"),
        ({"scores": [[0.5]] * 40}, "the scores of 40 rows have shape (40, 1), expected (40,)"),
        ({"scores": "fine"}, "cannot be read"),
        ({"scores": [math.nan] + [0.5] * 39}, "1 of 40 scores are not finite"),
        ({"scores": [None] * 40}, "40 of 40 scores are not finite"),
        ({"scores": [math.inf] + [0.5] * 39}, "1 of 40 scores are not finite"),
        ({"scores": [1.5] + [0.5] * 39}, "1 of 40 scores are not probabilities"),
        ({"scores": [-0.5] + [0.5] * 39}, "1 of 40 scores are not probabilities"),
    ],
)  # fmt: skip
def test_a_service_that_answers_wrongly_fails_with_the_reason(stages, answer, words):
    refused_by_smoke(answering(stages, **answer), words)


@pytest.mark.closes("staged", "smoke")
def test_an_answer_that_is_no_json_fails_with_the_reason(stages):
    answers = {"GET /health": [200, json.dumps(HEALTHY)], "POST /models/meter/score": [200, "<html>"]}
    (stages.mlflow.folders["3"] / "answers.json").write_text(json.dumps(answers))
    refused_by_smoke(stages, "does not answer as it should")


@pytest.mark.closes("staged", "smoke")
@pytest.mark.slow
def test_the_real_service_with_a_version_that_answers_nan_is_not_staged(stages):
    folder = stages.mlflow.folders["3"]
    facts = json.loads((folder / "bundle.json").read_text())
    facts["head"]["offset"] = math.nan
    (folder / "bundle.json").write_text(json.dumps(facts))
    target = LocalService(mlflow=MlflowTracking(tracking_uri="sqlite:////none"))
    real = Stages(MODEL, stages.folder, target_local=target)
    real.mlflow.folders["3"] = folder
    made = real.make("staged")
    assert not made.check("smoke").passed
    assert "Traceback" not in made.why
    assert not real.mlflow.verdict("3", "staging")["passed"]


@pytest.mark.closes("staged", "parity")
@pytest.mark.parametrize("apart", [2 * PARITY_TOLERANCE, -0.01])
def test_scores_over_http_that_are_other_ones_are_not_staged(stages, apart):
    scores = offline(stages)
    scores[-1] += apart
    made = answering(stages, scores=scores.tolist()).make("staged")
    assert made.check("smoke").passed
    assert not made.check("parity").passed
    assert "more than 1e-05; the exported network differs from the trained one, so do not promote it" in made.why
    assert not stages.has("staged")
    assert not stages.mlflow.verdict("3", "staging")["passed"]


def test_scores_that_differ_by_rounding_are_staged(stages):
    made = answering(stages, scores=(offline(stages) + PARITY_TOLERANCE / 2).tolist()).make("staged")
    assert made.success, made.why
    assert made.check("parity").passed


def test_no_more_rows_are_asked_about_than_a_request_may_hold(stages):
    frozen = stages.tables.read(MODEL.key("training_set"))
    many = pd.concat([frozen] * 15, ignore_index=True).assign(reading_id=range(3_000))
    stages.put("training_set", many)
    scores = offline(stages)
    assert len(scores) == 600
    made = answering(stages, scores=scores[:PARITY_ROWS].tolist()).make("staged")
    assert made.success, made.why
    assert made.check("parity").metadata["rows"].value == 500


CLASSES, MEASURED = plain(target="site", gate=Gate()), plain(target="level", gate=Gate())


def read(model, scores, version=STAGED):
    return parse_response(model, "3", 2, HEALTHY, {"scores": scores, "version": version})


@pytest.mark.parametrize(
    ("model", "scores"),
    [(MODEL, [0.0, 1.0]), (CLASSES, [[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]]), (MEASURED, [-7.5, 300.0])],
)
def test_a_right_answer_is_taken_whatever_the_kind_of_target(model, scores):
    for version in (STAGED, "3"):
        answer = read(model, scores, version)
        assert answer.fault == ""
        assert answer.scores.tolist() == scores


@pytest.mark.parametrize(
    ("model", "scores"),
    [(CLASSES, [0.2, 0.8]), (CLASSES, [[0.5, 0.5]] * 2), (CLASSES, [[0.2, 0.3, 1.5]] * 2), (MEASURED, [[1.0]] * 2),
     (MEASURED, [math.nan, 1.0])],
)  # fmt: skip
def test_a_wrong_one_is_told_whatever_the_kind_of_target(model, scores):
    answer = read(model, scores)
    assert answer.scores is None
    assert answer.fault


@pytest.mark.parametrize(("model", "expected"), [(MODEL, 0.5), (MEASURED, 0.5 / 50)])
def test_measured_values_may_differ_by_a_share_of_their_spread(model, expected):
    assert largest_difference(model, np.array([0.0, 100.0]), np.array([0.5, 100.0])) == pytest.approx(expected)


def test_values_that_do_not_vary_must_be_the_same():
    assert largest_difference(MEASURED, np.ones(3), np.ones(3)) == 0
    assert largest_difference(MEASURED, np.ones(3), np.ones(3) + 1e-6) > PARITY_TOLERANCE


@pytest.mark.parametrize(
    ("words", "line"), [("it is full", "it is full"), ("\n it ended \n at line 3\n disk full\n", "it ended disk full")]
)
def test_of_many_lines_the_first_and_the_last_are_told(words, line):
    assert _in_one_line(words) == line


def test_the_service_calls_a_staged_version_what_staging_expects():
    from serving.scoring.service import STAGED as SAID

    assert SAID == STAGED


class Elsewhere(LocalService):
    """A second target: its service answers 1 more than the candidate's, or is not healthy."""

    sick: bool = False

    def smoke_test(self, staged, model):
        if self.sick:
            raise DeploymentError("it is sick")
        return super().smoke_test(staged, model)

    def stage(self, bundle):
        answers = json.loads((bundle / "answers.json").read_text())
        status, body = answers["POST /models/meter/score"]
        said = json.loads(body)
        said["scores"] = [score * 0.5 for score in said["scores"]]
        other = copied_bundle(bundle, bundle.parent / "elsewhere")
        (other / "answers.json").write_text(
            json.dumps({**answers, "POST /models/meter/score": [status, json.dumps(said)]})
        )
        return super().stage(other)


@pytest.mark.parametrize(("sick", "check"), [(True, "smoke"), (False, "parity")])
def test_a_candidate_must_serve_on_each_of_its_targets(stages, tmp_path, sick, check):
    answering(stages)
    given = {"mlflow": MlflowTracking(tracking_uri="sqlite:////none"), "service": "tests.resources.fake_service"}
    targets = {"target_local": LocalService(**given), "target_image": Elsewhere(sick=sick, **given)}
    both = Stages(plain(targets=("local", "image")), tmp_path, **targets)
    both.mlflow.folders["3"] = stages.mlflow.folders["3"]
    made = both.make("staged")
    assert not made.check(check).passed
    assert not both.mlflow.verdict("3", "staging")["passed"]
    if sick:
        assert made.check("smoke").description == "image: it is sick"

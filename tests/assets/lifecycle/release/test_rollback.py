"""An earlier version comes back only if it still serves; who and why are on record."""

import json

import dagster as dg
import numpy as np
import pytest

from assets.lifecycle.model.version.bundle import Bundle
from assets.lifecycle.release.rollback import RollbackError, probe_rows, roll_back, rollback_job
from resources.mlflow import MlflowTracking, TrackingError
from resources.targets.base import STAGED
from resources.targets.local_service import LocalService
from tests.declarations.readings import plain
from tests.stages import Stages, copied_bundle

HEALTHY = {"status": "ok", "models": {"meter": {"status": "ok", "version": STAGED}}}
FACTS = {"verdicts": {}, "dagster_run": "r", "who": "ada"}


class Target(LocalService):
    """Starts the fake service, and notes what is promoted."""

    def promote(self, model: str, version: str) -> None:
        PROMOTED.append((model, version))


PROMOTED: list[tuple[str, str]] = []


@pytest.fixture
def stages(tmp_path, toy_bundle) -> Stages:
    """Version 3 in production, after 1 and 2; version 4 was refused."""
    PROMOTED.clear()
    target = Target(
        mlflow=MlflowTracking(tracking_uri="sqlite:////none"),
        service="tests.resources.fake_service",
        start_timeout_s=20,
    )
    stages = Stages(plain(), tmp_path, target_local=target)
    for version in ("1", "2", "3"):
        stages.mlflow.folders[version] = copied_bundle(toy_bundle, tmp_path / version)
        answer(stages, version)
        stages.ledger.promote("meter", version, reason="r", **FACTS)
    stages.ledger.refuse("meter", "4", reason="worse", **FACTS)
    return stages


def answer(stages: Stages, version: str, apart: float = 0.0, **health) -> None:
    """Lets the service of a version answer so; by default as it does offline."""
    folder = stages.mlflow.folders[version]
    bundle = Bundle.load(folder)
    scores = bundle.predict(probe_rows(len(bundle.facts.feature_names))) + apart
    answers = {
        "GET /health": [200, json.dumps({**HEALTHY, **health})],
        "POST /models/meter/score": [200, json.dumps({"scores": scores.tolist(), "version": STAGED})],
    }
    (folder / "answers.json").write_text(json.dumps(answers))


def back(stages: Stages, **given):
    arguments = {"why": "alerts doubled", "who": "bob", **given}
    targets = {"local": stages.resources["target_local"]}
    return roll_back("meter", mlflow=stages.mlflow, ledger=stages.ledger, targets=targets, **arguments)


def refused(stages: Stages, message: str, **given) -> None:
    before = stages.ledger.history()
    with pytest.raises(RollbackError, match=message):
        back(stages, **given)
    assert stages.ledger.history() == before
    assert PROMOTED == []


def test_the_version_before_comes_back_with_who_and_why_on_record(stages):
    entry = back(stages)
    assert (entry.version, entry.previous, entry.who) == ("2", "3", "bob")
    assert entry.reason == "rollback from version 3: alerts doubled"
    assert entry.verdicts["rollback"]["passed"]
    assert "scored 3 rows as it does offline" in entry.verdicts["rollback"]["reasons"][1]
    assert stages.ledger.champion("meter") == entry
    assert PROMOTED == [("meter", "2")]


def test_an_older_version_may_be_named(stages):
    assert back(stages, to="1").version == "1"
    assert back(stages, to="3").version == "3", "and forward again"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"to": "3"}, "version 3 of meter is in production already; versions that were in production before: 1, 2"),
        ({"to": "4"}, "version 4 of meter was never in production"),
        ({"to": "99"}, "version 99 of meter was never in production"),
        ({"why": "  "}, "a rollback needs a reason"),
    ],
)
def test_what_cannot_be_asked_changes_nothing(stages, given, message):
    refused(stages, message, **given)


def test_a_first_version_has_none_before_it_and_an_unknown_model_is_named(stages, tmp_path):
    stages.ledger.promote("churn", "1", reason="r", **FACTS)
    given = {"why": "w", "who": "bob", "mlflow": stages.mlflow, "ledger": stages.ledger, "targets": {}}
    with pytest.raises(RollbackError, match="version 1 of churn is the first in production"):
        roll_back("churn", **given)
    with pytest.raises(
        RollbackError, match="no version of 'metre' is in production; models in production: churn, meter"
    ):
        roll_back("metre", **given)


@pytest.mark.parametrize("apart", [1e-4, -0.01])
def test_a_version_that_scores_otherwise_than_it_did_stays_out(stages, apart):
    answer(stages, "2", apart=apart)
    refused(stages, "scores over HTTP differ from offline by .*; version 3 stays in production")


def test_a_version_that_is_not_healthy_stays_out(stages):
    answer(stages, "2", models={"meter": {"status": "degraded", "problem": "no past", "version": STAGED}})
    refused(stages, r"version 2 of meter does not serve \(the service is degraded: no past\)")


def test_a_version_whose_process_does_not_start_stays_out(stages):
    (stages.mlflow.folders["2"] / "crash").touch()
    refused(stages, "version 2 of meter does not serve .*; version 3 stays in production")


@pytest.mark.parametrize("error", [TrackingError("there is no version 2"), OSError("No such artifact")])
def test_a_version_whose_files_are_gone_stays_out(stages, monkeypatch, error):
    def gone(name, version):
        raise error

    monkeypatch.setattr(stages.mlflow, "download", gone)
    refused(stages, r"the files of version 2 of meter cannot be read \(.*\); version 3 stays in production")


def test_a_version_whose_files_are_damaged_stays_out(stages):
    (stages.mlflow.folders["2"] / "bundle.json").write_text("{")
    refused(stages, "the files of version 2 of meter cannot be read")


def test_the_job_does_the_same_from_the_launchpad(stages):
    given = {name: stages.resources[name] for name in ("mlflow", "ledger", "target_local")}
    job = rollback_job()

    def launched(**config):
        config = {"ops": {"rollback": {"config": {"model": "meter", "who": "eve", **config}}}}
        return job.execute_in_process(run_config=config, resources=given, raise_on_error=False)

    result = launched(why="noise")
    assert result.success
    champion = stages.ledger.champion("meter")
    assert (champion.version, champion.who, champion.dagster_run) == ("2", "eve", result.run_id)
    failed = launched(why="noise", to="9")
    assert not failed.success
    [event] = failed.get_step_failure_events()
    assert "version 9 of meter was never in production" in event.step_failure_data.user_failure_data.description
    assert isinstance(job, dg.JobDefinition)


def test_the_rows_it_is_asked_about_hold_values_and_none():
    rows = probe_rows(4)
    assert rows.shape == (3, 4)
    assert rows.dtype == np.float32
    assert np.isnan(rows[2]).all()

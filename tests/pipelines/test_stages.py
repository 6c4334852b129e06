"""The stages from training to production, with a stream that is trained in seconds and two environments."""

import datetime as dt
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assets.declaration import Approval, Rollout
from assets.lifecycle.data.features import features_of
from assets.lifecycle.model.windows import history_days
from assets.lifecycle.release.staging import StagedResponse
from pipeline import delivery
from pipeline.delivery import deploy, place_of, promote, smoke
from pipeline.release import read, releases_in
from pipeline.stages import STATE, TRAINED, Folder, StageError
from pipeline.training import gate, train
from resources.home import prepare
from resources.restore import RestoreError
from resources.settings import Settings
from runner import RunError
from tests.declarations.gauges import model

UNTIL = dt.date(2026, 1, 25)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """An empty state folder; MLflow migrates a new database for seconds, so each test begins with a copy."""
    home = tmp_path_factory.mktemp("prepared") / "home"
    before = os.environ.get("DAGSTER_HOME")
    prepare(Settings.from_env({"ASSETLINE_HOME": str(home)}))
    os.environ.pop("DAGSTER_HOME", None)
    if before is not None:
        os.environ["DAGSTER_HOME"] = before
    return home


@pytest.fixture(scope="module")
def made(prepared, tmp_path_factory) -> tuple[Folder, list[str]]:
    """A folder after the stages train and gate, and what they said. Tests copy it."""
    folder, said = Folder(tmp_path_factory.mktemp("made") / "build"), []
    shutil.copytree(prepared, folder.home)
    train(folder, [model], said.append, until=UNTIL)
    assert gate(folder, [model], said.append) == {}
    _committed(folder)
    return folder, said


def _committed(folder: Folder) -> None:
    """Releases as of a clean commit: the checkout of a test has changes that are not committed."""
    for path in releases_in(folder.releases):
        stored = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps({**stored, "dirty": False, "commit": "c0ffee" * 6 + "c0ff"}))


@pytest.fixture
def folder(made, tmp_path) -> Folder:
    """The records and releases alone, as a job gets them on a machine of its own."""
    from mlflow.tracking._tracking_service import utils

    for name in ("state", "releases"):
        shutil.copytree(made[0].root / name, tmp_path / "build" / name)
    # MLflow remembers in a process where the files of a run are; a job of a pipeline is a process of its own.
    utils._artifact_repos_cache.clear()
    return Folder(tmp_path / "build")


@pytest.fixture
def places(prepared, tmp_path, monkeypatch) -> Path:
    """Staging and production as empty state folders, and a commit that is on the protected branch."""

    def variables(name: str) -> dict[str, str | None]:
        home = tmp_path / "places" / name
        if not home.exists():
            shutil.copytree(prepared, home)
        return {"ASSETLINE_HOME": str(home), "ASSETLINE_DATABASE_URL": None}

    monkeypatch.setattr(delivery, "variables_of", variables)
    monkeypatch.setattr(delivery, "is_protected", lambda commit, branch: True)
    return tmp_path / "places"


@pytest.fixture
def answering(monkeypatch):
    """Lets a staged version answer with what it scores offline, changed by ``by``; without a process."""

    def answer(by: float = 0.0, fault: str = "") -> None:
        def respond(targets, directory, bundle, version, X):
            return StagedResponse(None, fault) if fault else StagedResponse(bundle.predict(X) + by)

        monkeypatch.setattr(delivery, "request_scores_of_all", respond)

    answer()
    return answer


def said_by(stage, *arguments) -> list[str]:
    lines: list[str] = []
    stage(*arguments, lines.append)
    return lines


def champion(name: str) -> str | None:
    with place_of(name) as place:
        entry = place.resources["ledger"].champion(model.name)
        assert place.resources["mlflow"].version_of_alias(model.name, "champion") == (entry and entry.version)
        return entry and entry.version


# -- train and gate --------------------------------------------------------------------------------------------------


def test_training_lands_only_the_days_that_it_needs_and_says_what_it_did(made):
    folder, said = made
    needed = history_days(model) + model.label_delay_days
    landed = needed + features_of(model).lookback_days
    assert landed < (UNTIL - model.table.start).days
    assert said[0] == f"gauge: land, {landed} of {landed} days were stale"
    assert said[3] == f"gauge: features, {needed} of {needed} days were stale", "days of lookback have no features"
    assert said[4].startswith("version 1 of gauge is trained, on rows ")
    assert said[5].startswith("version 1 of gauge passed the gate: roc_auc ")
    assert json.loads((folder.state / TRAINED).read_text())["models"]["gauge"]["until"] == "2026-01-25"


def test_the_reports_are_kept(made):
    reports = made[0].reports / "gauge"
    assert sorted(path.name for path in reports.iterdir()) == [
        "evaluation.html", "evaluation.json", "model_card.html", "model_card.md",
    ]  # fmt: skip
    assert "# gauge, version 1: model card" in (reports / "model_card.md").read_text()


def test_the_same_rows_train_nothing_again_and_what_came_after_is_forgotten(made, tmp_path):
    folder = Folder(tmp_path / "build")
    shutil.copytree(made[0].root, folder.root)
    lines: list[str] = []
    archive = (folder.state / STATE).stat().st_mtime_ns
    train(folder, [model], lines.append, until=UNTIL)
    assert lines[0].startswith("gauge: land, 0 of ")
    assert lines[4].startswith("version 1 of gauge is trained")
    assert (folder.state / STATE).stat().st_mtime_ns > archive, "the archive is of the latest call"
    assert releases_in(folder.releases) == [], "the gate has not judged it yet"


def test_a_gate_that_refuses_says_why_and_releases_nothing(folder, monkeypatch):
    # The state folder of a pipeline takes no database of its caller.
    monkeypatch.setenv("ASSETLINE_DATABASE_URL", "postgresql+psycopg://assetline:secret@nowhere.invalid/ledger")
    strict = replace(model, gate=replace(model.gate, floor=0.999))
    assert releases_in(folder.releases), "of an earlier run"
    lines: list[str] = []
    refused = gate(folder, [strict], lines.append)
    assert list(refused) == ["gauge"]
    assert "misses the floor 0.9990" in refused["gauge"]
    assert lines == [f"version 1 of gauge is refused by the gate: {refused['gauge']}"]
    assert releases_in(folder.releases) == []
    assert os.environ["ASSETLINE_DATABASE_URL"].endswith("/ledger")
    assert (folder.reports / "gauge" / "evaluation.html").stat().st_size > 10_000, "the report says why"


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (lambda folder: gate(folder, [model], print), "`make gate` needs `make train`, which has not run here: "),
        (
            lambda folder: deploy(folder, "staging", [], print),
            "`make deploy ENV=staging` needs `make gate`, which has ",
        ),
        (lambda folder: smoke(folder, "staging", [model], [], print), "`make smoke ENV=staging` needs `make gate`"),
        (lambda folder: promote(folder, "production", [model], [], "ada", print), "ENV=production` needs `make gate`"),
    ],
)
def test_a_stage_without_its_predecessor_says_so(tmp_path, stage, words):
    with pytest.raises(StageError) as caught:
        stage(Folder(tmp_path / "build"))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "build").exists()


def test_a_record_without_its_state_folder_is_refused(folder):
    (folder.state / STATE).unlink()
    with pytest.raises(StageError, match=r"state\.tar\.gz is missing; run `make train` first"):
        gate(folder, [model], print)


def test_a_cut_archive_is_refused_and_leaves_no_state_folder(folder):
    content = (folder.state / STATE).read_bytes()
    (folder.state / STATE).write_bytes(content[: len(content) // 2])
    with pytest.raises(RestoreError, match="is damaged"):
        gate(folder, [model], print)
    assert not folder.home.exists()


def test_a_damaged_record_is_named(folder):
    (folder.state / TRAINED).write_text("{")
    with pytest.raises(StageError, match=r"train\.json is damaged .*; run `make train` again"):
        gate(folder, [model], print)


def test_a_model_that_is_gone_is_named(folder):
    with pytest.raises(StageError, match="gauge was trained and is not declared any more"):
        gate(folder, [], print)


def test_a_version_of_another_state_folder_is_not_judged(made, folder):
    record = json.loads((folder.state / TRAINED).read_text())
    record["models"]["gauge"]["version"] = "7"
    (folder.state / TRAINED).write_text(json.dumps(record))
    with pytest.raises(StageError, match="does not hold version 7 of gauge; run `make train` again"):
        gate(folder, [model], print)


def test_training_without_models_or_labels_is_refused(tmp_path, prepared):
    with pytest.raises(StageError, match="no model is declared"):
        train(Folder(tmp_path), [], print)
    folder = Folder(tmp_path / "build")
    shutil.copytree(prepared, folder.home)
    with pytest.raises(StageError, match="its first day is 2026-01-01, so no day before 2026-01-01 has labels yet"):
        train(folder, [model], print, until=dt.date(2026, 1, 1))
    with pytest.raises(RunError, match=r"needs \d+ labelled days, but \d+ are missing"):
        train(folder, [model], print, until=dt.date(2026, 1, 4))
    assert not (folder.state / TRAINED).exists()


# -- releases --------------------------------------------------------------------------------------------------------


def test_a_release_holds_the_version_and_what_speaks_for_it(folder):
    release = read(folder.releases / "gauge")
    assert release.manifest.model == "gauge"
    assert len(release.manifest.lock) == 64
    assert {"network.pt2", "bundle.json", "rows.json"} <= {path.name for path in release.bundle.iterdir()}
    assert {"evaluation.json", "model_card.md", "run.json", "probe.npz"} <= {p.name for p in release.evidence.iterdir()}
    assert not (release.bundle / "MLmodel").exists()
    features, scores = release.probe
    assert features.shape == (180, 2)
    assert scores.shape == (180,)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: (folder / "bundle" / "bundle.json").write_text("{}"), r"bundle/bundle\.json is changed"),
        (lambda folder: (folder / "evidence" / "probe.npz").unlink(), r"evidence/probe\.npz is missing"),
        (lambda folder: (folder / "bundle" / "more.py").write_text(""), r"bundle/more\.py is not in the manifest"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "is no manifest of a release"),
        (lambda folder: _set(folder, format=2), "has the layout 2, and this project reads 1"),
    ],
)
def test_a_release_that_is_not_as_the_gate_left_it_goes_nowhere(folder, places, harm, words):
    harm(folder.releases / "gauge")
    with pytest.raises(StageError, match=words):
        deploy(folder, "staging", [], print)
    assert not places.exists()


def _set(folder: Path, **values) -> None:
    stored = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**stored, **values}))


# -- deploy, smoke, promote ------------------------------------------------------------------------------------------


def test_a_release_goes_to_staging_and_to_production(folder, places, answering):
    release = read(folder.releases / "gauge").id
    assert said_by(deploy, folder, "staging", []) == [f"release {release} of gauge is version 1 in staging"]
    assert champion("staging") is None, "nothing is live yet"
    [tested] = said_by(smoke, folder, "staging", [model], [])
    assert tested == (
        "version 1 of gauge passed its smoke test in staging: 180 rows score over HTTP as where the version was trained"
    )
    said = said_by(promote, folder, "production", [model], [], "ada")
    assert [line.partition(":")[0] for line in said] == [
        f"release {release} of gauge is version 1 in production",
        "version 1 of gauge passed its smoke test in production",
        "version 1 of gauge is promoted in production by ada",
    ]
    assert (champion("staging"), champion("production")) == (None, "1")
    with place_of("production") as place:
        entry = place.resources["ledger"].champion("gauge")
        assert entry.who == "ada"
        assert entry.reason.startswith(f"release {release}: roc_auc ")
        assert {name for name, one in entry.verdicts.items() if one["passed"]} == {"gate", "staging"}
        assert not list(places.glob("*/tables/*")), "the tables of an environment are its own"
        run_id = place.resources["mlflow"].run_of_version("gauge", "1")
        assert place.resources["mlflow"].read_json(run_id, "evaluation.json")["report"]["rows"] == 180
        tags, params = place.resources["mlflow"].run_facts(run_id)
        assert int(params["rows"]) > 600
        assert tags["git_commit"]


def test_the_stages_can_be_repeated(folder, places, answering):
    for _ in range(2):
        deploy(folder, "staging", [], print)
        smoke(folder, "staging", [model], [], print)
        promote(folder, "production", [model], [], "ada", print)
    said = said_by(promote, folder, "production", [model], [], "eve")
    assert said[0].endswith("is version 1 in production already")
    assert said[1].startswith("version 1 of gauge is live in production already: release ")
    with place_of("production") as place:
        assert [entry.who for entry in place.resources["ledger"].history("gauge")] == ["ada"]
        assert len(place.resources["mlflow"].versions()) == 1


def test_a_kill_in_the_middle_of_a_move_is_made_good(folder, places, answering, monkeypatch):
    from mlflow import MlflowClient

    with monkeypatch.context() as killed:
        killed.setattr(MlflowClient, "set_terminated", lambda *_: None)  # a killed process does not finish its run
        deploy(folder, "staging", [], print)
    [line] = said_by(deploy, folder, "staging", [])
    assert line.endswith("of gauge is version 2 in staging"), "the first was not complete"
    with place_of("staging") as place:
        assert [one.version for one in place.resources["mlflow"].versions()] == ["2"]


@pytest.mark.slow
def test_the_real_service_answers_as_where_the_version_was_trained(folder, places):
    deploy(folder, "staging", [], print)
    smoke(folder, "staging", [model], [], print)
    with place_of("staging") as place:
        verdict = json.loads(place.resources["mlflow"].version_tags("gauge", "1")["verdict.staging"])
    assert verdict["passed"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"fault": "the service is degraded: no past"}, "the service is degraded: no past"),
        ({"by": 1e-3}, "its scores over HTTP differ from the offline scores here by 1.0e-03, more than 1e-05"),
        ({"by": float("nan")}, "differ from the offline scores here by nan"),
    ],
)
def test_a_smoke_test_that_fails_stops_the_release(folder, places, answering, answer, words):
    deploy(folder, "staging", [], print)
    answering(**answer)
    with pytest.raises(StageError) as caught:
        smoke(folder, "staging", [model], [], print)
    assert str(caught.value).startswith("version 1 of gauge fails its smoke test in staging: ")
    assert words in str(caught.value)
    answering()
    with pytest.raises(StageError, match="needs `make smoke ENV=staging`, which has not run here"):
        promote(folder, "production", [model], [], "ada", print)
    assert not (places / "production").exists()


def test_scores_that_differ_from_those_of_the_training_fail(folder, places, answering):
    release = folder.releases / "gauge"
    with np.load(release / "evidence" / "probe.npz") as stored:
        features, scores = stored["features"], stored["scores"]
    np.savez(release / "evidence" / "probe.npz", features=features, scores=scores + 1e-3)
    from pipeline.release import _hashes

    _set(release, files=_hashes(release))
    deploy(folder, "staging", [], print)
    with pytest.raises(StageError, match=r"differ from the scores where it was trained by 1\.0e-03"):
        smoke(folder, "staging", [model], [], print)


def test_a_version_that_was_not_deployed_is_not_tested(folder, places, answering):
    with pytest.raises(StageError, match=r"of gauge is not in staging; run `make deploy ENV=staging` first"):
        smoke(folder, "staging", [model], [], print)


def test_production_takes_only_what_was_tested_in_staging(folder, places, answering):
    deploy(folder, "staging", [], print)
    smoke(folder, "staging", [model], [], print)
    _set(folder.releases / "gauge", version="2")  # a later release
    with pytest.raises(StageError, match="of gauge has not passed the smoke test in staging"):
        promote(folder, "production", [model], [], "ada", print)
    assert not (places / "production").exists()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"dirty": True}, r"was trained with changes that are not in commit c0ffeec0ff"),
        ({}, r"is of commit c0ffeec0ff, which is neither on the protected branch main nor tagged"),
    ],
)
def test_production_takes_only_the_protected_branch(folder, places, answering, monkeypatch, values, words):
    _set(folder.releases / "gauge", **values)
    deploy(folder, "staging", [], print)
    smoke(folder, "staging", [model], [], print)
    monkeypatch.setattr(delivery, "is_protected", lambda commit, branch: False)
    with pytest.raises(StageError, match=words):
        promote(folder, "production", [model], [], "ada", print)
    assert champion("production") is None
    promote(folder, "staging", [model], [], "ada", print)
    assert champion("staging") == "1", "staging takes any branch"


def test_a_verdict_against_a_version_is_in_the_ledger(folder, places, answering):
    deploy(folder, "staging", [], print)
    smoke(folder, "staging", [model], [], print)
    with place_of("staging") as place:
        place.resources["mlflow"].set_version_tag(
            "gauge", "1", "verdict.gate", json.dumps({"passed": False, "reasons": ["a later look"]})
        )
    with pytest.raises(StageError, match="version 1 of gauge is not promoted in staging: gate: a later look"):
        promote(folder, "staging", [model], [], "ada", print)
    with place_of("staging") as place:
        [entry] = place.resources["ledger"].history("gauge")
        assert (entry.action, entry.reason) == ("refuse", "gate: a later look")


def test_a_declared_approval_is_asked_for_and_waited_for(folder, places, answering):
    from assets.lifecycle.release.approval import decide

    waiting = replace(model, approval=Approval(by="team:risk"))
    deploy(folder, "staging", [], print)
    smoke(folder, "staging", [waiting], [], print)
    for _ in range(2):
        with pytest.raises(StageError, match=r"approval: version 1 waits until .* for the approval of team:risk"):
            promote(folder, "production", [waiting], [], "ada", print)
    with place_of("production") as place:
        ledger = place.resources["ledger"]
        assert [entry.action for entry in ledger.history("gauge")] == ["request"], "asked once, and not refused"
        decide(ledger, waiting, approve=True, who="eve", comment="better")
    promote(folder, "production", [waiting], [], "ada", print)
    assert champion("production") == "1"


def test_a_declared_rollout_is_begun_and_the_version_is_promoted_once_it_has_arrived(folder, places, answering):
    from assets.lifecycle.release.rollout import act

    careful = replace(model, rollout=Rollout(steps=(0.5,)))
    deploy(folder, "staging", [], print)
    smoke(folder, "staging", [careful], [], print)
    with place_of("production") as place:
        facts = {"verdicts": {}, "dagster_run": "", "who": "ada"}
        place.resources["ledger"].promote("gauge", "99", reason="the one before", **facts)
    for _ in range(2):
        said = said_by(promote, folder, "production", [careful], [], "ada")
        words = "gets a copy of the requests in production; `make promote` again once its rollout has arrived"
        assert said[-1] == (f"gauge: version 1 {words}")
    with place_of("production") as place:
        ledger = place.resources["ledger"]
        assert [entry.action for entry in ledger.history("gauge")] == ["promote", "shadow"]
        for _ in range(2):
            act(ledger, careful, "advance", who="eve", why="looks right")
    promote(folder, "production", [careful], [], "ada", print)
    assert champion("production") == "1"


def test_a_version_that_was_taken_back_is_not_promoted(folder, places, answering):
    from assets.lifecycle.release.rollout import act

    careful = replace(model, rollout=Rollout())
    deploy(folder, "staging", [], print)
    smoke(folder, "staging", [careful], [], print)
    with place_of("production") as place:
        ledger = place.resources["ledger"]
        ledger.promote("gauge", "99", reason="the one before", verdicts={}, dagster_run="", who="ada")
    promote(folder, "production", [careful], [], "ada", print)
    with place_of("production") as place:
        act(place.resources["ledger"], careful, "abort", who="eve", why="complaints")
    with pytest.raises(StageError, match="version 1 of gauge was taken back in production: complaints"):
        promote(folder, "production", [careful], [], "ada", print)


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (lambda folder: deploy(folder, "prod", [], print), "ENV=prod is not an environment; the environments are: "),
        (
            lambda folder: deploy(folder, "staging", ["fraud"], print),
            "no release of fraud; there are releases of: gauge",
        ),
        (lambda folder: smoke(folder, "staging", [], [], print), "the model 'gauge' of .* is not declared"),
    ],
)
def test_what_is_not_there_is_named(folder, places, stage, words):
    with pytest.raises(StageError, match=words):
        stage(folder)

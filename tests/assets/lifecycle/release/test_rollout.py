"""A version takes over step by step, and goes back by itself."""

import datetime as dt
from dataclasses import replace

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from assets.declaration import Approval, DeclarationError, Rollout
from assets.lifecycle.model.version.verdicts import VERDICTS, record_verdict
from assets.lifecycle.release.paired_answers import Figure
from assets.lifecycle.release.rollout import (
    RolloutError,
    act,
    begin,
    judge_step,
    progress_of,
    rollout_against,
    share_of,
)
from resources.alerts import Alerts
from resources.dagster_internals import check_evaluations
from resources.ledger import Ledger
from resources.request_log import RequestRecord
from sensors.alerts import handle_all
from sensors.rollouts import rollouts_sensor
from tests.declarations.readings import plain, stream
from tests.stages import Stages

DECLARED = Rollout(shadow_rows=100, steps=(0.2, 0.5), rows=400, minutes=0, errors=0.02)
MODEL = plain(rollout=DECLARED)
NOW = dt.datetime.now(dt.UTC)


class Target:
    """Notes what is promoted."""

    follows_ledger = True

    def __init__(self) -> None:
        self.promoted: list[tuple[str, str]] = []

    def promote(self, model: str, version: str) -> None:
        self.promoted.append((model, version))


@pytest.fixture
def stages(tmp_path) -> Stages:
    return release(tmp_path)


def release(tmp_path, model=MODEL) -> Stages:
    """Version 3 with good verdicts, and version 2 in production."""
    stages = Stages(model, tmp_path, target_local=Target())
    stages.put("trained_model", pd.DataFrame({"version": ["3"]}))
    stages.ledger.promote("meter", "2", reason="the first", verdicts={}, dagster_run="r", who="ada")
    for version in ("3", "4"):
        for name in VERDICTS:
            record_verdict(stages.mlflow, model, version, name, True, [f"{name} is fine"])
    return stages


def requests(stages: Stages, n: int, *, shift=0.0, errors=0, slower=1.0, version="3", role="shadow"):
    """Requests that both versions scored, now."""
    rng = np.random.default_rng(n)
    log, records = stages.resources["request_log"], []
    for i, score in enumerate(rng.beta(1, 5, n)):
        at = dt.datetime.now(dt.UTC).replace(tzinfo=None)
        same = {"request_id": f"{n}-{i}", "at": at, "model": "meter", "key": f"{n}-{i}", "entity": i, "row": {},
                "alert": False}  # fmt: skip
        lost = i < errors
        new = min(score + shift, 1.0)
        of_new = {
            "score": None if lost else new,
            "outcome": "error" if lost else "ok",
            "version": version,
            "role": role,
        }
        records += [
            RequestRecord(**same, **of_new, latency_ms=slower * rng.uniform(1, 1.1)),
            RequestRecord(
                **same, version="2", role="champion", score=score, latency_ms=rng.uniform(1, 1.1), outcome="ok"
            ),
        ]
    log.append(records)


def roll(stages: Stages):
    return stages.make("rollout", tags={"user": "ada"})


def steps(stages: Stages) -> list[tuple[str, str, float]]:
    """The entries after the first promotion."""
    return [(e.action, e.version, share_of(e)) for e in stages.ledger.history("meter")[1:]]


@pytest.mark.closes("rollout", "arrived")
def test_a_version_begins_with_a_copy_of_the_requests_and_its_run_does_not_wait(stages):
    made = roll(stages)
    assert made.success, made.why
    check = made.check("arrived")
    assert (check.passed, check.severity, check.blocking) == (False, dg.AssetCheckSeverity.WARN, False)
    assert "version 3 gets a copy of the requests: waits for 0 of 100 rows" in check.description
    assert steps(stages) == [("shadow", "3", 0)]
    assert not stages.has("rollout")
    observed = stages.instance.fetch_observations(MODEL.key("rollout"), limit=1).records[0].asset_observation
    assert "| errors |" in observed.metadata["comparison"].value


def test_a_good_version_goes_through_every_step_and_is_promoted(stages):
    seen = []
    for share in (0, 0.2, 0.5):
        roll(stages)
        assert share_of(stages.ledger.rollout("meter")) == share
        seen.append(stages.make("deployment").success)
        requests(stages, 400 + int(100 * share))
    made = roll(stages)
    assert made.check("arrived").passed
    assert seen == [False, False, False]
    assert set(stages.row("rollout")) >= {"version", "ledger_entry", "name", "value", "limit", "state"}
    made = stages.make("deployment")
    assert made.success, made.why
    actions = [(e.action, e.version, share_of(e)) for e in stages.ledger.history("meter") if e.action != "refuse"]
    assert actions == [("promote", "2", 0), ("shadow", "3", 0), ("canary", "3", 0.2), ("canary", "3", 0.5),
                       ("canary", "3", 1), ("promote", "3", 0)]  # fmt: skip
    assert stages.resources["target_local"].promoted == [("meter", "3")]
    assert stages.ledger.rollout("meter") is None
    assert roll(stages).check("arrived").passed


@pytest.mark.closes("deployment", "rollout")
@pytest.mark.parametrize("begun", [False, True])
def test_a_version_that_has_not_arrived_is_not_promoted(stages, begun):
    if begun:
        roll(stages)
    made = stages.make("deployment")
    assert not made.success
    assert ("gets a copy of the requests" if begun else "materialise rollout first") in made.why
    assert stages.ledger.champion("meter").version == "2"


@pytest.mark.closes("deployment", "rollout")
@pytest.mark.closes("rollout", "arrived")
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"shift": 0.3}, "the mean score of 400 rows differs by"),
        ({"errors": 40}, "it could not score 40 of 400 rows"),
        ({"slower": 4}, "times as much"),
    ],
)
def test_a_bad_version_goes_back_for_its_own_reason(stages, fault, words):
    roll(stages)
    requests(stages, 200)
    roll(stages)
    requests(stages, 400, role="canary", **fault)
    made = roll(stages)
    check = made.check("arrived")
    assert not check.passed
    assert words in check.description
    assert check.metadata["severity"].value == "page"
    assert steps(stages)[-1] == ("abort", "3", 0)
    assert stages.ledger.rollout("meter") is None
    assert "rollout: version 3 was taken back" in stages.make("deployment").why
    assert "was taken back" in roll(stages).check("arrived").description, "materialised again, it stays taken back"
    assert steps(stages)[-2:-1] == [("abort", "3", 0)]


def test_one_that_is_worse_on_known_labels_goes_back(stages):
    model = replace(MODEL, rollout=replace(DECLARED, score_shift=9.0, labelled_rows=300))
    stages = release(stages.folder / "labelled", model)
    roll(stages)
    rng, n = np.random.default_rng(0), 600
    y = rng.random(n) < 0.3
    at, log = dt.datetime.now(dt.UTC).replace(tzinfo=None), stages.resources["request_log"]
    same = [{"request_id": str(i), "at": at, "model": "meter", "key": i, "entity": i, "row": {}, "alert": None,
             "latency_ms": 1.0, "outcome": "ok"} for i in range(n)]  # fmt: skip
    log.append([RequestRecord(**one, version="2", role="champion", score=float(0.5 * y[i] + 0.5 * rng.random()))
                for i, one in enumerate(same)])  # fmt: skip
    log.append([RequestRecord(**one, version="3", role="shadow", score=float(rng.random())) for one in same])
    stages.put("labels", pd.DataFrame({"reading_id": range(n), "faulty": y.astype(int)}))
    made = roll(stages)
    assert "roc_auc on 600 rows with labels: gain -" in made.check("arrived").description
    assert made.check("arrived").metadata.get("severity") is None, "it has answered nobody"
    assert steps(stages)[-1][0] == "abort"


def test_the_first_version_has_nothing_to_be_compared_with(tmp_path):
    stages = Stages(MODEL, tmp_path, target_local=Target())
    stages.put("trained_model", pd.DataFrame({"version": ["3"]}))
    for name in VERDICTS:
        record_verdict(stages.mlflow, MODEL, "3", name, True, ["fine"])
    assert roll(stages).check("arrived").passed
    assert stages.make("deployment").success
    assert [e.action for e in stages.ledger.history("meter")] == ["promote"]


def test_a_newer_version_takes_the_place_of_the_one_under_way(stages):
    roll(stages)
    stages.put("trained_model", pd.DataFrame({"version": ["4"]}))
    roll(stages)
    assert steps(stages) == [("shadow", "3", 0), ("abort", "3", 0), ("shadow", "4", 0)]


def test_a_bad_verdict_or_a_missing_approval_begins_no_rollout(stages, tmp_path):
    record_verdict(stages.mlflow, MODEL, "3", "gate", False, ["too bad"])
    assert "version 3 of meter is not rolled out: gate: too bad" in roll(stages).why
    approved = release(tmp_path / "approved", plain(rollout=DECLARED, approval=Approval(by="team:risk")))
    assert "approval: version 3 waits for team:risk" in roll(approved).why
    assert steps(stages) == steps(approved) == []


def test_requests_before_the_step_and_of_other_versions_do_not_count(stages):
    requests(stages, 150)
    roll(stages)
    requests(stages, 120, version="9")
    assert progress_of(MODEL, stages.ledger, stages.resources["request_log"], stages.tables, later()).rows == 0


def later() -> dt.datetime:
    return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)


def figure(state, value=0.1) -> Figure:
    return Figure("errors", value, 0.0, 0.2, 0.01, state, f"it is {state}")


@pytest.mark.parametrize(
    ("rows", "states", "minutes", "action", "words"),
    [
        (400, ["within", "within"], 31, "advance", "it is within"),
        (399, ["within", "within"], 31, "wait", "399 of 400 rows"),
        (400, ["within", "unsure"], 31, "wait", "not sure yet: it is unsure"),
        (400, ["within", "within"], 29, "wait", "the step lasts 30 minutes"),
        (1, ["within", "beyond"], 0, "abort", "it is beyond"),
        (399, ["within", "within"], 121, "abort", "2 hours did not show that it is good enough: 399 of 400 rows"),
        (400, ["unsure", "within"], 121, "abort", "2 hours did not show"),
        (400, ["within", "within"], 121, "advance", "it is within"),
    ],
)
def test_what_a_comparison_means_for_a_step(tmp_path, rows, states, minutes, action, words):
    rollout = replace(DECLARED, minutes=30, hours=2)
    ledger = Ledger(database_url=f"sqlite:///{tmp_path / 'l.db'}")
    entry = ledger.record("canary", "meter", "3", reason="r", verdicts={"share": 0.2}, dagster_run="", who="ada")
    step = judge_step(rollout, entry, rows, [figure(one) for one in states], entry.at + dt.timedelta(minutes=minutes))
    assert step.action == action
    assert words in step.reason


def test_the_sensor_asks_for_a_run_only_if_a_step_follows(stages):
    sensor = rollouts_sensor([MODEL])
    given = {name: stages.resources[name] for name in ("ledger", "request_log", "tables")}

    def tick():
        return sensor.evaluate_tick(dg.build_sensor_context(instance=stages.instance, resources=given))

    assert tick().skip_message == "no version is being rolled out"
    roll(stages)
    assert (
        "meter: version 3 gets a copy of the requests: 0 rows compared; waits for 0 of 100 rows" in tick().skip_message
    )
    requests(stages, 400)
    [request] = tick().run_requests
    assert [key.path[1] for key in request.asset_selection] == ["rollout", "deployment", "model_card", "predictions",
                                                                "drift"]  # fmt: skip
    assert request.run_key.startswith("meter-rollout-2-advance-")


def test_the_sensor_itself_takes_the_steps_of_a_version_that_a_pipeline_brought(stages):
    stages.put("trained_model", pd.DataFrame({"version": ["1"]}))
    begin(stages.ledger, MODEL, "3", dagster_run="", who="ada")
    given = {name: stages.resources[name] for name in ("ledger", "request_log", "tables")}
    requests(stages, 400)
    sensor = rollouts_sensor([MODEL])
    tick = sensor.evaluate_tick(dg.build_sensor_context(instance=stages.instance, resources=given))
    assert not tick.run_requests
    assert steps(stages) == [("shadow", "3", 0), ("canary", "3", 0.2)]


def test_each_step_is_in_the_alerts_and_a_version_that_goes_back_pages(stages, tmp_path):
    alerts = Alerts(database_url=f"sqlite:///{tmp_path / 'alerts.db'}")
    position = 0

    def look():
        nonlocal position
        found = check_evaluations(stages.instance, after=position)
        handle_all(alerts, found, {"meter": "team:a"})
        position = found[-1].storage_id
        return alerts.store.alerts("meter")[-1]

    roll(stages)
    assert look().severity == "warn"
    requests(stages, 400)
    roll(stages)
    look()
    requests(stages, 401, role="canary", shift=0.3)
    roll(stages)
    alert = look()
    assert (alert.cause, alert.severity, alert.state) == ("rollout/arrived", "page", "open")
    assert alert.runbook == "docs/runbooks/rollout.md"
    messages = [event.message for event in alerts.store.history(alert.id)]
    assert ["gets a copy" in messages[0], "20% of the entities" in messages[1], "taken back" in messages[2]] == [
        True
    ] * 3


@pytest.mark.parametrize(
    ("action", "before", "words"),
    [
        ("advance", "", "no version of meter is being rolled out"),
        ("abort", "", "no version of meter is being rolled out"),
        ("restart", "", "no version of meter was taken back since the last promotion"),
        ("restart", "shadow", "version 3 gets a copy of the requests; advance or abort it"),
        ("advance", "whole", "version 3 answers 100% of the entities already"),
    ],
)
def test_an_action_that_cannot_be_taken_changes_nothing(stages, action, before, words):
    if before:
        roll(stages)
    if before == "whole":
        for _ in range(3):
            act(stages.ledger, MODEL, "advance", who="bob", why="trust me")
    entries = stages.ledger.history("meter")
    with pytest.raises(RolloutError, match=words):
        act(stages.ledger, MODEL, action, who="bob", why="because")
    assert stages.ledger.history("meter") == entries


@pytest.mark.parametrize(("who", "why"), [(" ", "because"), ("bob", "")])
def test_a_person_says_who_and_why(stages, who, why):
    roll(stages)
    with pytest.raises(RolloutError, match="needs a name and a reason"):
        act(stages.ledger, MODEL, "abort", who=who, why=why)
    with pytest.raises(RolloutError, match="meter declares no rollout"):
        act(stages.ledger, plain(), "abort", who="bob", why="because")


def test_a_person_aborts_restarts_and_advances(stages):
    roll(stages)
    act(stages.ledger, MODEL, "abort", who="bob", why="a holiday")
    assert rollout_against(stages.ledger, MODEL, "3") == ["rollout: version 3 was taken back: a holiday"]
    act(stages.ledger, MODEL, "restart", who="bob", why="the holiday is over")
    act(stages.ledger, MODEL, "advance", who="bob", why="looks right")
    assert steps(stages) == [("shadow", "3", 0), ("abort", "3", 0), ("shadow", "3", 0), ("canary", "3", 0.2)]
    assert stages.ledger.history("meter")[-1].who == "bob"


def test_a_rollback_ends_a_rollout(stages):
    roll(stages)
    stages.ledger.promote("meter", "1", reason="rollback", verdicts={}, dagster_run="", who="bob")
    assert stages.ledger.rollout("meter") is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"steps": (0.5, 0.2)}, "rollout.steps=.*ascending shares between 0 and 1"),
        ({"steps": (0.5, 1.0)}, "rollout.steps"),
        ({"steps": (), "shadow_rows": 0}, "give at least one share, or shadow_rows"),
        ({"rows": 0}, "rollout.rows=0"),
        ({"shadow_rows": -1}, "rollout.shadow_rows=-1"),
        ({"minutes": 300, "hours": 5}, "less than rollout.hours"),
        ({"errors": 0}, "rollout.errors=0"),
        ({"latency": 1.0}, "a multiple above 1"),
        ({"score_shift": 0.0}, "rollout.score_shift"),
        ({"margin": 0.1}, "rollout.margin=0.1.*0 or less"),
    ],
)
def test_a_rollout_that_cannot_work_is_refused(given, words):
    with pytest.raises(DeclarationError, match=words):
        stream(rollout=Rollout(**given))


def test_without_steps_a_shadow_goes_straight_to_all(tmp_path):
    stages = release(tmp_path, plain(rollout=replace(DECLARED, steps=())))
    roll(stages)
    requests(stages, 400)
    assert roll(stages).check("arrived").passed
    assert steps(stages) == [("shadow", "3", 0), ("canary", "3", 1)]

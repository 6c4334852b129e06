"""A candidate that needs a person's approval waits without holding anything, and goes live only with it."""

import datetime as dt
from dataclasses import replace

import dagster as dg
import pandas as pd
import pytest

from assets.declaration import Approval, DeclarationError
from assets.lifecycle.factory import lifecycle_assets
from assets.lifecycle.model.version.verdicts import VERDICTS, record_verdict
from assets.lifecycle.release.approval import ApprovalError, approval_job, decide, state_of
from resources.ledger import Ledger
from resources.release_policy import ReleasePolicy
from sensors.approvals import approvals_sensor
from tests.declarations.readings import plain
from tests.stages import Stages

MODEL = plain(approval=Approval(by="team:risk"))
NOW = dt.datetime.now(dt.UTC)


class Target:
    """Notes what is promoted."""

    follows_ledger = True

    def __init__(self) -> None:
        self.promoted: list[tuple[str, str]] = []

    def promote(self, model: str, version: str) -> None:
        self.promoted.append((model, version))


def release(tmp_path, model=MODEL) -> Stages:
    """Version 3 with good verdicts, and version 2 in production."""
    stages = Stages(model, tmp_path, target_local=Target())
    stages.put("trained_model", pd.DataFrame({"version": ["3"]}))
    stages.ledger.promote("meter", "2", reason="the first", verdicts={}, dagster_run="r", who="ada")
    for name in VERDICTS:
        record_verdict(stages.mlflow, model, "3", name, True, [f"{name} is fine"])
    return stages


@pytest.fixture
def stages(tmp_path) -> Stages:
    return release(tmp_path)


def ask(stages: Stages):
    return stages.make("approval", tags={"user": "ada"})


def say(stages: Stages, approve=True, model=MODEL, **given):
    return decide(stages.ledger, model, **{"approve": approve, "who": "bob", "comment": "looks right", **given})


@pytest.mark.closes("approval", "decided")
def test_a_candidate_waits_and_its_run_does_not(stages):
    made = ask(stages)
    assert made.success, made.why
    check = made.check("decided")
    assert (check.passed, check.severity, check.blocking) == (False, dg.AssetCheckSeverity.WARN, False)
    assert "version 3 waits until" in check.description
    assert not stages.has("approval")
    [_, request] = stages.ledger.history("meter")
    assert (request.action, request.version, request.who) == ("request", "3", "ada")
    assert request.verdicts["gate"]["passed"]
    observed = stages.instance.fetch_observations(MODEL.key("approval"), limit=1).records[0]
    assert "waits until" in observed.asset_observation.metadata["state"].value


def test_asking_twice_is_one_request(stages):
    ask(stages)
    ask(stages)
    assert [entry.action for entry in stages.ledger.history("meter")] == ["promote", "request"]


@pytest.mark.closes("deployment", "approval")
@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (None, "approval: version 3 waits until"),
        (False, "approval: version 3 was rejected by bob: not yet"),
    ],
)
def test_without_an_approval_nothing_is_promoted(stages, decision, words):
    ask(stages)
    if decision is not None:
        say(stages, decision, comment="not yet")
    made = stages.make("deployment")
    assert not made.success
    assert words in made.why
    assert stages.ledger.champion("meter").version == "2"


@pytest.mark.closes("deployment", "approval")
def test_a_version_that_was_never_put_up_for_approval_is_not_promoted(stages):
    assert "approval: version 3 waits for team:risk; materialise approval first" in stages.make("deployment").why


@pytest.mark.closes("deployment", "approval")
def test_the_approval_of_another_version_does_not_count(stages):
    ask(stages)
    say(stages)
    stages.put("trained_model", pd.DataFrame({"version": ["4"]}))
    for name in VERDICTS:
        record_verdict(stages.mlflow, MODEL, "4", name, True, ["fine"])
    assert "approval: version 4 waits for team:risk" in stages.make("deployment").why


def test_an_approved_version_is_promoted_and_all_of_it_is_on_record(stages):
    ask(stages)
    say(stages)
    assert ask(stages).check("decided").passed
    assert stages.row("approval") == {"version": "3", "approved_by": "bob", "comment": "looks right", "ledger_entry": 3}
    made = stages.make("deployment")
    assert made.success, made.why
    assert [(e.action, e.version, e.who) for e in stages.ledger.history("meter")] == [
        ("promote", "2", "ada"), ("request", "3", "ada"), ("approve", "3", "bob"), ("promote", "3", "dagster"),
    ]  # fmt: skip


def test_a_rejected_version_leaves_no_table_and_its_check_is_done(stages):
    ask(stages)
    say(stages, False)
    made = ask(stages)
    assert made.check("decided").passed
    assert not stages.has("approval")


def test_one_with_a_bad_verdict_is_not_put_up_for_approval(stages):
    record_verdict(stages.mlflow, MODEL, "3", "gate", False, ["too bad"])
    assert "version 3 of meter is not put up for approval: gate: too bad" in ask(stages).why
    assert len(stages.ledger.history("meter")) == 1


def test_a_version_of_another_branch_is_not_put_up_where_it_could_not_be_promoted(stages):
    protected = Stages(MODEL, stages.folder, target=Target(), release_policy=ReleasePolicy(protected_branch="main"))
    protected.mlflow.tags["3"] = {**stages.mlflow.tags["3"], "git_branch": "mine", "git_dirty": "false"}
    assert "version 3 of meter is not put up for approval: branch: version 3 was trained on" in ask(protected).why
    assert [entry.action for entry in protected.ledger.history("meter")] == ["promote"]
    protected.mlflow.tags["3"]["git_branch"] = "main"
    assert ask(protected).success


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"who": " "}, "say who you are to approve a version of meter"),
        ({"comment": ""}, "say why you approve this version of meter"),
        ({"version": "2"}, "version 2 of meter does not wait for approval; the latest request is for 3"),
        ({"who": " Ada "}, "Ada  trained version 3 of meter, so somebody else has to approve it"),
        ({"now": NOW + dt.timedelta(days=8)}, "the time to approve version 3 ended at"),
        ({"model": replace(MODEL, approval=None)}, "meter needs no approval"),
        ({"model": replace(MODEL, approval=Approval(by="eve@example.org"))}, "only eve@example.org may decide"),
    ],
)
def test_a_decision_that_cannot_be_made_changes_nothing(stages, given, words):
    ask(stages)
    with pytest.raises(ApprovalError, match=words):
        say(stages, **given)
    assert [entry.action for entry in stages.ledger.history("meter")] == ["promote", "request"]


def test_nothing_to_decide_on(stages):
    with pytest.raises(ApprovalError, match="no version of meter waits for approval"):
        say(stages)


def test_a_decision_is_made_once(stages):
    ask(stages)
    say(stages)
    with pytest.raises(ApprovalError, match="version 3 was approved by bob: looks right"):
        say(stages, False, who="eve")


def test_the_person_who_trained_may_reject_and_without_four_eyes_approve(stages):
    ask(stages)
    assert say(stages, False, who="ada").action == "reject"


def test_without_four_eyes_the_person_who_trained_may_approve(tmp_path):
    model = replace(MODEL, approval=Approval(by="team:risk", four_eyes=False))
    stages = release(tmp_path, model)
    ask(stages)
    assert say(stages, model=model, who="ada").action == "approve"


@pytest.mark.closes("deployment", "approval")
def test_an_expired_request_is_asked_again_and_an_old_approval_does_not_promote(tmp_path):
    brief = replace(MODEL, approval=Approval(by="team:risk", expires_days=1e-5))
    stages = release(tmp_path, brief)
    ask(stages)
    long = plain(approval=Approval(by="team:risk"))
    decide(stages.ledger, long, approve=True, who="bob", comment="fine")
    later = NOW + dt.timedelta(days=1)
    assert state_of(stages.ledger, "meter", brief.approval, later).status == "expired"
    while state_of(stages.ledger, "meter", brief.approval, dt.datetime.now(dt.UTC)).status != "expired":
        pass
    assert "the time to approve version 3 ended" in stages.make("deployment").why
    ask(stages)
    assert [entry.action for entry in stages.ledger.history("meter")][-1] == "request"


@pytest.mark.parametrize(
    ("approval", "words"),
    [
        (Approval(by=""), "approval.by='' is invalid: say who decides"),
        (Approval(by="team:"), "approval.by='team:' is invalid: say who decides"),
        (Approval(by="team:risk", expires_days=0), "approval.expires_days=0 is invalid: give more than 0 days"),
    ],
)
def test_an_approval_by_nobody_or_for_no_time_is_not_declared(approval, words):
    with pytest.raises(DeclarationError, match=words):
        plain(approval=approval)


def test_the_job_decides(stages):
    ask(stages)

    def run(**config):
        given = {"model": "meter", "decision": "approve", "who": "bob", "comment": "fine", **config}
        return approval_job([MODEL]).execute_in_process(
            run_config={"ops": {"decide_on_approval": {"config": given}}}, resources={"ledger": stages.ledger},
            raise_on_error=False,
        )  # fmt: skip

    for wrong in ({"who": "ada"}, {"model": "none"}):
        assert not run(**wrong).success
    assert run().success
    assert stages.ledger.history("meter")[-1].action == "approve"


def test_the_sensor_goes_on_after_a_decision_and_only_then(stages):
    sensor = approvals_sensor([MODEL, plain(name="other")])

    def tick():
        context = dg.build_sensor_context(resources={"ledger": stages.ledger})
        return sensor.evaluate_tick(context)

    assert tick().skip_message == "nothing was requested yet"
    ask(stages)
    assert "version 3 waits" in tick().skip_message
    say(stages)
    [request] = tick().run_requests
    assert request.asset_selection == [
        MODEL.key(name) for name in ("approval", "deployment", "model_card", "predictions", "drift")
    ]
    assert request.run_key == "meter-approval-3"


def test_the_first_decision_counts(tmp_path):
    ledger = Ledger(database_url=f"sqlite:///{tmp_path / 'assetline.db'}")
    facts = {"verdicts": {}, "dagster_run": "", "version": "1"}
    for action, who in (("request", "ada"), ("approve", "bob"), ("reject", "eve")):
        ledger.record(action, "meter", reason="r", who=who, **facts)
    state = state_of(ledger, "meter", Approval(by="team:risk"), NOW)
    assert (state.status, state.decision.who) == ("approved", "bob")


def test_a_staged_candidate_asks_for_approval_in_a_run_that_skips_the_deployment_and_ends_well(tmp_path):
    stages = release(tmp_path)
    instance, defs = stages.instance, dg.Definitions(assets=lifecycle_assets(MODEL), resources=stages.resources)

    def happened(name: str, *checks: str) -> None:
        instance.report_runless_asset_event(dg.AssetMaterialization(MODEL.key(name)))
        for check in checks:
            instance.report_runless_asset_event(
                dg.AssetCheckEvaluation(check_name=check, asset_key=MODEL.key(name), passed=True)
            )

    def requested(cursor):
        found = dg.evaluate_automation_conditions(defs, instance, cursor=cursor)
        return found.cursor, {name for name in ("approval", "deployment") if found.get_num_requested(MODEL.key(name))}

    happened("trained_model", "converged")
    happened("evaluation", "gate")
    happened("approval")
    happened("deployment")
    cursor, _ = requested(None)
    happened("staged", "smoke", "parity")
    cursor, asked = requested(cursor)
    assert asked == {"approval", "deployment"}
    run = defs.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, asset_selection=[MODEL.key(name) for name in asked], tags={"user": "ada"}
    )
    assert run.success
    assert not stages.has("deployment")
    cursor, asked = requested(cursor)
    assert asked == set()
    happened("approval")
    assert requested(cursor)[1] == {"deployment"}

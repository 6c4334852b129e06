"""Approval: a person agrees to a candidate before it goes live, where a model declares it.

The request and the decision are entries of the ledger. The asset ``approval`` produces its table only for an approved
version, so ``deployment`` is skipped until then and no worker waits. A sensor materialises both once the decision is
there (``sensors/approvals.py``).

Belongs here: requests, decisions and their conditions, the asset, the job for the launchpad. Does not belong here: the
promotion (``deployment.py``), the command (``cli/ledger.py``), the page (``serving/watch/approvals_page.py``).
"""

# No `from __future__ import annotations`: Dagster reads the annotations of the op.

import datetime as dt
import getpass
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import dagster as dg
import pandas as pd
from pydantic import Field

from assets.declaration import Approval, Model
from assets.lifecycle.model.version.verdicts import failures, verdicts_on
from assets.lifecycle.release.policy import policy_against
from assets.lifecycle.stage import Check, StageOutput, TableInput, eager, table_asset
from resources.dagster_internals import CheckResult
from resources.ledger import Entry, Ledger

DECIDED = Check(
    name="decided",
    description="A person has approved or rejected the candidate. A warning means that it waits, or that the time for "
    "a decision is over.",
    blocking=False,
)

Status = Literal["waiting", "approved", "rejected", "expired"]


class ApprovalError(Exception):
    """A decision that cannot be made. Nothing was changed; the message gives the reason and the fix."""


@dataclass(frozen=True)
class ApprovalState:
    """A request for approval and what became of it.

    Args:
        by: who decides.
        request: the ledger entry of the request.
        decision: the first decision on it; ``None`` if there is none yet.
        until: end of the time for a decision and for the promotion after it (UTC).
        status: ``waiting``, ``approved``, ``rejected``, or ``expired`` if ``until`` is over without a rejection.
    """

    by: str
    request: Entry
    decision: Entry | None
    until: dt.datetime
    status: Status

    @property
    def message(self) -> str:
        """The state in one sentence."""
        version, until = f"version {self.request.version}", f"{self.until:%Y-%m-%d %H:%M} UTC"
        if self.status == "waiting":
            return f"{version} waits until {until} for the approval of {self.by}"
        if self.status == "expired":
            return f"the time to approve {version} ended at {until}; materialise approval again to ask again"
        assert self.decision is not None
        return f"{version} was {self.status} by {self.decision.who}: {self.decision.reason}"


def state_of(ledger: Ledger, model: str, approval: Approval, now: dt.datetime) -> ApprovalState | None:
    """Returns the state of a model's latest request; ``None`` if nothing was ever requested.

    Args:
        ledger: the ledger.
        model: name of the model.
        approval: its declaration.
        now: current time, UTC with zone.
    """
    entries = ledger.history(model)
    request = next((entry for entry in reversed(entries) if entry.action == "request"), None)
    if request is None:
        return None
    decision = next((e for e in entries if e.number > request.number and e.action in ("approve", "reject")), None)
    until = request.at + dt.timedelta(days=approval.expires_days)
    status: Status = "waiting" if decision is None else "approved" if decision.action == "approve" else "rejected"
    if status != "rejected" and now > until:
        status = "expired"
    return ApprovalState(approval.by, request, decision, until, status)


def decide(
    ledger: Ledger,
    model: Model,
    *,
    approve: bool,
    who: str,
    comment: str,
    version: str = "",
    dagster_run: str = "",
    now: dt.datetime | None = None,
) -> Entry:
    """Records a decision on the candidate that waits.

    Args:
        ledger: the ledger.
        model: the declaration.
        approve: ``False`` rejects the candidate.
        who: name of the person who decides.
        comment: reason, for the ledger.
        version: version to decide on; default: the one that waits.
        dagster_run: id of the run, if a run does it.
        now: time of the decision, UTC with zone; default: the current time.

    Returns:
        The ledger entry.

    Raises:
        ApprovalError: the model needs no approval, no candidate waits, the time is over, or this person may not decide.
    """
    approval, name = model.approval, model.name
    if approval is None:
        raise ApprovalError(f"{name} needs no approval; declare Model(approval=Approval(by=…)) if it should")
    verb: Literal["approve", "reject"] = "approve" if approve else "reject"
    if not who.strip():
        raise ApprovalError(f"say who you are to {verb} a version of {name}; a decision needs a name")
    if not comment.strip():
        raise ApprovalError(f"say why you {verb} this version of {name}; a decision needs a comment")
    state = state_of(ledger, name, approval, now or dt.datetime.now(dt.UTC))
    if state is None:
        raise ApprovalError(f"no version of {name} waits for approval")
    waiting = state.request.version
    if version and version != waiting:
        raise ApprovalError(
            f"version {version} of {name} does not wait for approval; the latest request is for {waiting}"
        )
    if state.status != "waiting":
        raise ApprovalError(f"{name}: {state.message}")
    if approve and approval.four_eyes and _same(who, state.request.who):
        raise ApprovalError(
            f"{who} trained version {waiting} of {name}, so somebody else has to approve it (four_eyes is declared)"
        )
    if not approval.by.startswith("team:") and not _same(who, approval.by):
        raise ApprovalError(f"only {approval.by} may decide on versions of {name}, not {who}")
    return ledger.record(
        verb, name, waiting, reason=comment.strip(), verdicts={}, dagster_run=dagster_run, who=who.strip()
    )


def approval_against(ledger: Ledger, model: Model, version: str) -> list[str]:
    """Returns why a version lacks an approval; empty if it has one or needs none."""
    if model.approval is None:
        return []
    state = state_of(ledger, model.name, model.approval, dt.datetime.now(dt.UTC))
    if state is None or state.request.version != version:
        return [f"approval: version {version} waits for {model.approval.by}; materialise approval first"]
    return [] if state.status == "approved" else [f"approval: {state.message}"]


def request_approval(
    ledger: Ledger, model: Model, version: str, *, verdicts: Mapping[str, Any], dagster_run: str, who: str
) -> ApprovalState | None:
    """Puts a version up for approval if the model declares one and the version neither waits nor is in production.

    Args:
        ledger: the ledger.
        model: the declaration.
        version: version to put up.
        verdicts: verdicts on it, for the ledger.
        dagster_run: id of the run, if a run does it.
        who: who asks.

    Returns:
        The state of the latest request; ``None`` if there is none.
    """
    if model.approval is None:
        return None
    now = dt.datetime.now(dt.UTC)
    state = state_of(ledger, model.name, model.approval, now)
    asked = state is not None and state.request.version == version and state.status != "expired"
    champion = ledger.champion(model.name)
    if asked or (champion is not None and champion.version == version):
        return state
    until = now + dt.timedelta(days=model.approval.expires_days)
    ledger.record(
        "request", model.name, version, reason=f"{model.approval.by} decides until {until:%Y-%m-%d %H:%M} UTC",
        verdicts=verdicts, dagster_run=dagster_run, who=who,
    )  # fmt: skip
    return state_of(ledger, model.name, model.approval, now)


def waits_for_approval(ledger: Ledger, model: Model, version: str) -> bool:
    """Returns whether a version waits for the decision of a person."""
    if model.approval is None:
        return False
    state = state_of(ledger, model.name, model.approval, dt.datetime.now(dt.UTC))
    return state is not None and state.request.version == version and state.status == "waiting"


def requester_of(context: dg.AssetExecutionContext) -> str:
    """Returns who asks: the run's tag ``user``, or the user of the process."""
    return str(context.run.tags.get("user") or getpass.getuser())


def _same(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()


def approval_asset(model: Model) -> dg.AssetsDefinition | None:
    """Returns the asset ``approval``; ``None`` if the model needs none."""
    if model.approval is None:
        return None
    declared = model.approval

    def approval(context: dg.AssetExecutionContext, trained_model: pd.DataFrame) -> StageOutput:
        ledger, version = context.resources.ledger, str(trained_model["version"].iloc[0])
        verdicts = verdicts_on(context.resources.mlflow, model, version)
        if against := [*failures(verdicts), *policy_against(context.resources, model, version)]:
            raise dg.Failure(
                description=f"version {version} of {model.name} is not put up for approval: {' | '.join(against)}",
                allow_retries=False,
            )
        state = request_approval(
            ledger, model, version, verdicts=verdicts, dagster_run=context.run.run_id, who=requester_of(context)
        )
        if state is None:
            raise dg.Failure(
                description=f"version {version} of {model.name} is in production without a request for approval; train "
                "a new version",
                allow_retries=False,
            )
        result = CheckResult(
            check=DECIDED.name,
            passed=state.status in ("approved", "rejected"),
            description=state.message,
            severity=dg.AssetCheckSeverity.WARN,
        )
        metadata = {"version": version, "state": state.message}
        if state.status != "approved":
            return StageOutput(None, [result], metadata)
        assert state.decision is not None
        frame = pd.DataFrame(
            {
                "version": [version],
                "approved_by": [state.decision.who],
                "comment": [state.decision.reason],
                "ledger_entry": [state.decision.id],
            }
        )
        return StageOutput(frame, [result], metadata)

    return table_asset(
        model,
        "approval",
        approval,
        description=f"The approval of the candidate by {declared.by}. The deployment is skipped until it is given: "
        "`assetline approve`, the page of the alerts, or the job `model_approval`.",
        stage="release",
        kinds={"person"},
        inputs={"trained_model": TableInput(model.key("trained_model"))},
        deps=[model.key("staged"), model.key("evaluation")],
        checks=[DECIDED],
        automation=eager(None),
        resources={"mlflow", "ledger", "release_policy"},
        may_wait=True,
        by_day=False,
    )


def waiting_states(ledger: Ledger, models: Sequence[Model], now: dt.datetime) -> dict[str, ApprovalState]:
    """Returns the latest request of each model that needs approval, by name of the model."""
    states = {
        model.name: state_of(ledger, model.name, model.approval, now) for model in models if model.approval is not None
    }
    return {name: state for name, state in states.items() if state is not None}


class ApprovalConfig(dg.Config):
    """Config of the approval job."""

    model: str = Field(description="Name of the model.")
    version: str = Field(default="", description="Version to decide on; empty: the one that waits.")
    decision: Literal["approve", "reject"] = Field(description="approve or reject.")
    who: str = Field(description="Your name, for the ledger.")
    comment: str = Field(description="Reason, for the ledger.")


def approval_job(models: Sequence[Model]) -> dg.JobDefinition:
    """Returns ``model_approval``; the launchpad edits its config."""
    by_name: Mapping[str, Model] = {model.name: model for model in models}

    @dg.op(name="decide_on_approval")
    def deciding(context: dg.OpExecutionContext, config: ApprovalConfig, ledger: dg.ResourceParam[Ledger]) -> None:
        """Approves or rejects the candidate that waits."""
        try:
            if config.model not in by_name:
                raise ApprovalError(f"no model '{config.model}' is declared; there are: {', '.join(by_name) or 'none'}")
            entry = decide(
                ledger, by_name[config.model], approve=config.decision == "approve", who=config.who,
                comment=config.comment, version=config.version, dagster_run=context.run_id,
            )  # fmt: skip
        except ApprovalError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from error
        context.log.info(f"version {entry.version} of {entry.model}: {entry.action} by {entry.who}")

    @dg.job(name="model_approval", description="Approves or rejects the version of a model that waits for approval.")
    def approving() -> None:
        deciding()

    return approving

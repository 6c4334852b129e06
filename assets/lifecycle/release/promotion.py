"""A promotion on the targets that a model declares.

Some targets follow the ledger (the alias of the local service, the predictions of days): they are never ahead of it.
The others are changed first, in the declared order, so that the ledger's entry holds what they answered, such as the
digest of an image. If one of them fails, those before it are put back, the ledger gets a refusal that names the state
of each, and the version in production is the one from before on all targets. An entry before the first change says
where a version is about to go, so that the ledger also knows of a version that a killed run left behind.

Belongs here: the order, and what happens if a target fails. Does not belong here: whether a version may go live
(``deployment.py``, ``rollback.py``), the targets (``resources/targets``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from assets.declaration import Model
from resources.ledger import Entry, Ledger
from resources.targets.base import Answer, DeploymentTarget, resource_key


class PromotionError(Exception):
    """A target failed, and the version was not promoted. The message names the state of each target."""


class HasTargets(Protocol):
    """The resources of a step; each target is an attribute."""

    def __getattr__(self, name: str) -> Any: ...


def targets_of(resources: HasTargets, model: Model) -> dict[str, DeploymentTarget]:
    """The targets of a model by name, in the declared order."""
    return {name: getattr(resources, resource_key(name)) for name in model.targets}


def promote_on_all(
    targets: Mapping[str, DeploymentTarget],
    ledger: Ledger,
    model: str,
    version: str,
    *,
    reason: str,
    verdicts: Mapping[str, Any],
    dagster_run: str,
    who: str,
    back: bool = False,
) -> Entry:
    """Promotes a version on all targets and records it.

    Args:
        targets: the targets by name, in the declared order.
        ledger: the ledger.
        model, version: what to promote.
        reason, verdicts, dagster_run, who: for the ledger; what the targets answer is added to the verdicts.
        back: whether the version was in production before, so that a target puts back what it kept of it.

    Returns:
        The ledger entry of the promotion.

    Raises:
        PromotionError: a target failed; the targets before it were put back.
    """
    facts = {"dagster_run": dagster_run, "who": who}
    own = {name: target for name, target in targets.items() if not target.follows_ledger}
    answers: dict[str, Answer] = {}
    if own:
        ledger.record("deploy", model, version, reason=f"goes to {', '.join(targets)}", verdicts={}, **facts)
    for name, target in own.items():
        try:
            answers[name] = target.roll_back(model, version) if back else target.promote(model, version)
        except Exception as error:  # whatever a target raises, the others must not keep a version that is not promoted
            done = {other: own[other] for other in answers}
            said = {name: f"failed: {error}", **_put_back(done, model, ledger.champion(model))}
            words = f"it was not promoted: {'; '.join(f'{one} {state}' for one, state in said.items())}"
            found = {one: {"passed": False, "message": state} for one, state in said.items()}
            ledger.refuse(model, version, reason=words, verdicts={**verdicts, "targets": found}, **facts)
            raise PromotionError(f"version {version} of {model}: {words}") from error
    if answers:
        verdicts = {**verdicts, "targets": {name: answer.to_json() for name, answer in answers.items()}}
    before = ledger.champion(model)
    entry = ledger.promote(model, version, reason=reason, verdicts=verdicts, **facts)
    if answers and before is not None and before.id == entry.id:  # the entry is from before these answers
        words = "; ".join(f"{name}: {answer.message}" for name, answer in answers.items())
        ledger.record("deploy", model, version, reason=words, verdicts=verdicts, **facts)
    for target in targets.values():
        if target.follows_ledger:
            target.promote(model, version)
    return entry


def _put_back(done: Mapping[str, DeploymentTarget], model: str, before: Entry | None) -> dict[str, str]:
    """Puts the version from before back on targets that have the new one, last first; returns the state of each."""
    states = {}
    for name in reversed(list(done)):
        try:
            if before is None:
                done[name].undeploy(model)
                states[name] = "was cleared again, as there was no version before"
            else:
                done[name].roll_back(model, before.version)
                states[name] = f"was put back to version {before.version}"
        except Exception as error:  # the other targets must be put back all the same
            states[name] = f"still has the new version, because putting it back failed: {error}"
    return states


def withdraw_from_all(
    targets: Mapping[str, DeploymentTarget], ledger: Ledger, model: str, *, why: str, who: str, dagster_run: str = ""
) -> Entry:
    """Takes a model out of production on all targets: first in the ledger, then on each.

    Raises:
        PromotionError: no version is in production, there is no reason, or a target failed; repeat the call then.
    """
    if not why.strip():
        raise PromotionError("taking a model out of production needs a reason; say why")
    before = next((e for e in reversed(ledger.history(model)) if e.action in ("promote", "withdraw")), None)
    if before is None:
        raise PromotionError(f"no version of '{model}' is in production")
    entry = before
    if before.action == "promote":
        entry = ledger.record(
            "withdraw", model, before.version, reason=why.strip(), verdicts={}, dagster_run=dagster_run, who=who
        )
    failed = {}
    for name, target in targets.items():
        try:
            target.undeploy(model)
        except Exception as error:  # the model must leave the other targets all the same
            failed[name] = str(error)
    if failed:
        words = "; ".join(f"{name}: {error}" for name, error in failed.items())
        raise PromotionError(f"{model} is not in production any more, but these targets still have it: {words}")
    return entry

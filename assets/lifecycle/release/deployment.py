"""The asset ``deployment``: promotes the candidate, if it has all verdicts, all of them passed, and it is approved.

Belongs here: the refusal of a version with missing or failed verdicts, without the declared approval or rollout, or of
another branch than the protected one, and the ledger entry. Does not belong here: the rules of the gate
(``model/gate.py``), approvals (``approval.py``), rollouts (``rollout.py``), the rule of the environment
(``resources/release_policy.py``), deployment targets (``resources/targets``), their order (``promotion.py``).
"""

from __future__ import annotations

from typing import Any

import dagster as dg
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.model.version.verdicts import failures, verdicts_on
from assets.lifecycle.release.approval import approval_against
from assets.lifecycle.release.policy import policy_against
from assets.lifecycle.release.promotion import PromotionError, promote_on_all, targets_of
from assets.lifecycle.release.rollout import rollout_against
from assets.lifecycle.stage import StageOutput, TableInput, eager, table_asset
from resources.targets.base import resource_key


def deployment_asset(model: Model) -> dg.AssetsDefinition:
    """Returns the asset ``deployment``."""

    def deployment(context: dg.AssetExecutionContext, trained_model: pd.DataFrame) -> StageOutput:
        mlflow, ledger = context.resources.mlflow, context.resources.ledger
        version = str(trained_model["version"].iloc[0])
        verdicts = verdicts_on(mlflow, model, version)
        against = [
            *failures(verdicts),
            *approval_against(ledger, model, version),
            *rollout_against(ledger, model, version),
            *policy_against(context.resources, model, version),
        ]
        who = context.run.tags.get("user", "dagster")
        facts: dict[str, Any] = {"verdicts": verdicts, "dagster_run": context.run.run_id, "who": who}
        if against:
            ledger.refuse(model.name, version, reason=" | ".join(against), **facts)
            raise dg.Failure(
                description=f"version {version} of {model.name} is not promoted: {' | '.join(against)}. Materialise "
                "evaluation and staged for it; if the gate refuses it, train a better one",
                allow_retries=False,
            )
        before = ledger.champion(model.name)
        reason = "; ".join(verdicts["gate"]["reasons"])
        try:
            targets = targets_of(context.resources, model)
            entry = promote_on_all(targets, ledger, model.name, version, reason=reason, **facts)
        except PromotionError as error:
            raise dg.Failure(description=str(error), allow_retries=False) from error
        frame = pd.DataFrame({"version": [version], "previous": [entry.previous or ""], "ledger_entry": [entry.id]})
        return StageOutput(
            frame, [], {"version": version, "before": before.version if before else "none", "reason": reason}
        )

    waits = [*(["approval"] if model.approval else []), *(["rollout"] if model.rollout else [])]
    return table_asset(
        model,
        "deployment",
        deployment,
        description="The promotion: looks up the verdicts on this version, writes the ledger and promotes it on the "
        f"declared targets: {', '.join(model.targets)}. A version with a failed gate is refused, even if this asset is "
        "materialised alone.",
        stage="release",
        kinds={"mlflow"},
        inputs={"trained_model": TableInput(model.key("trained_model"))},
        deps=[model.key(name) for name in ("staged", "evaluation", *waits)],
        # With an approval or a rollout, both are requested in one run, which skips the deployment until then.
        automation=eager(None),
        resources={"mlflow", "ledger", "release_policy", *map(resource_key, model.targets)},
        by_day=False,
    )

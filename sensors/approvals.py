"""Goes on with a release once a person has decided on it.

Belongs here: the run that follows a decision. Does not belong here: requests and decisions
(``assets/lifecycle/release/approval.py``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import dagster as dg

from assets.declaration import Model
from assets.lifecycle.release.approval import waiting_states
from resources.git import BRANCH_OF_RUN, branch_of
from resources.settings import project_root


def approvals_sensor(models: Sequence[Model]) -> dg.SensorDefinition:
    """The sensor of approvals, for models that declare one.

    An approved version is deployed, and scores the rows of a table without days; days of a stream are scored as they
    land. After a rejection, ``approval`` is materialised to resolve its alert. It produces
    no table, so the deployment is skipped.
    """
    keys = {
        model.name: [
            model.key(name)
            for name in ("approval", "deployment", "model_card", *(() if model.is_stream else ("predictions", "drift")))
        ]
        for model in models
        if model.approval is not None
    }
    asked = [model for model in models if model.name in keys]

    @dg.sensor(
        name="approvals",
        target=dg.AssetSelection.assets(*(key for of_model in keys.values() for key in of_model)),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=15,
        required_resource_keys={"ledger"},
        description="Deploys a version once a person has approved it.",
    )
    def approvals(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        of_branch = {BRANCH_OF_RUN: branch} if (branch := branch_of(project_root())) else {}
        states = waiting_states(context.resources.ledger, asked, dt.datetime.now(dt.UTC))
        requests = [
            dg.RunRequest(
                run_key=f"{name}-approval-{state.decision.id}",
                asset_selection=keys[name],
                tags={"assetline/why": state.message, "user": state.decision.who, **of_branch},
            )
            for name, state in states.items()
            if state.decision is not None and state.status in ("approved", "rejected")
        ]
        if not requests:
            return dg.SkipReason("; ".join(state.message for state in states.values()) or "nothing was requested yet")
        return dg.SensorResult(run_requests=requests)

    return approvals

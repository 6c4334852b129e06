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


def approvals_sensor(models: Sequence[Model]) -> dg.SensorDefinition:
    """The sensor of approvals, for models that declare one.

    An approved version is deployed. After a rejection, ``approval`` is materialised to resolve its alert. It produces
    no table, so the deployment is skipped.
    """
    asked = [model for model in models if model.approval is not None]

    @dg.sensor(
        name="approvals",
        target=dg.AssetSelection.assets(*(model.key(name) for model in asked for name in ("approval", "deployment"))),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=15,
        required_resource_keys={"ledger"},
        description="Deploys a version once a person has approved it.",
    )
    def approvals(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        by_name = {model.name: model for model in asked}
        states = waiting_states(context.resources.ledger, asked, dt.datetime.now(dt.UTC))
        requests = [
            dg.RunRequest(
                run_key=f"{name}-approval-{state.decision.id}",
                asset_selection=[by_name[name].key("approval"), by_name[name].key("deployment")],
                tags={"assetline/why": state.message, "user": state.decision.who},
            )
            for name, state in states.items()
            if state.decision is not None and state.status in ("approved", "rejected")
        ]
        if not requests:
            return dg.SkipReason("; ".join(state.message for state in states.values()) or "nothing was requested yet")
        return dg.SensorResult(run_requests=requests)

    return approvals

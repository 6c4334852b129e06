"""The sensor that evaluates the automation conditions of all assets, which ``assets/lifecycle`` declares."""

from __future__ import annotations

import dagster as dg

from resources.git import BRANCH_OF_RUN, branch_of
from resources.settings import project_root

_BRANCH = branch_of(project_root())

automation_sensor = dg.AutomationConditionSensorDefinition(
    "automation",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    run_tags={BRANCH_OF_RUN: _BRANCH} if _BRANCH else None,
    description="Materialises each asset, from rows to drift checks, when its inputs are new and passed their checks.",
)

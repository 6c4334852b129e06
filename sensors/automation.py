"""The sensor that evaluates the automation conditions of all assets, which ``assets/lifecycle`` declares."""

from __future__ import annotations

import dagster as dg

automation_sensor = dg.AutomationConditionSensorDefinition(
    "automation",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="From landed rows to predictions and drift checks: each asset when its inputs are new and sound.",
)

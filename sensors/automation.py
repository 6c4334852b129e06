"""The sensor that evaluates the automation conditions of all assets, which ``assets/lifecycle`` declares."""

from __future__ import annotations

import dagster as dg

automation_sensor = dg.AutomationConditionSensorDefinition(
    "automation",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Materialises each asset, from rows to drift checks, when its inputs are new and passed their checks.",
)

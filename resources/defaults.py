"""The default resources by key: what `definitions.py` wires, and a test replaces one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resources.alerts import Alerts
from resources.deployment import Ledger, LocalTarget
from resources.mlflow import MlflowTracking
from resources.settings import Settings
from resources.tables import ParquetTables


def default_resources(settings: Settings, sources: Mapping[str, Any]) -> dict[str, Any]:
    """All resources by key, on the state folder of ``settings``, and the models' sources by theirs."""
    mlflow = MlflowTracking.from_settings(settings)
    alerts = Alerts.from_settings(settings)
    return {
        "tables": ParquetTables(root=str(settings.home / "tables")),
        "mlflow": mlflow,
        "ledger": Ledger.from_settings(settings),
        "target": LocalTarget(mlflow=mlflow),
        "alerts": alerts,
        **{f"channel_{name}": channel for name, channel in alerts.declared.items()},
        **sources,
    }

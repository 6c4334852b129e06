"""The default resources by key: what `definitions.py` wires, and a test replaces one by one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import dagster as dg

from resources.alerts import Alerts
from resources.deployment import Ledger, LocalTarget
from resources.mlflow import MlflowTracking
from resources.settings import Settings
from resources.tables import ParquetTables

if TYPE_CHECKING:
    from assets.declaration import Model


def default_resources(models: Iterable[Model], settings: Settings) -> dict[str, Any]:
    """All resources by key, on the state folder of ``settings``; each model's source under ``<model>_source``."""
    mlflow = MlflowTracking.from_settings(settings)
    sources = {
        f"{model.name}_source": model.table.source
        for model in models
        if not isinstance(model.table.source, dg.AssetKey)
    }
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

"""The default resources by key. `definitions.py` uses them; tests replace single ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resources.alerts import Alerts
from resources.deployment import LocalTarget
from resources.ledger import Ledger
from resources.mlflow import MlflowTracking
from resources.retention.periods import Retention
from resources.settings import Settings
from resources.studies import Studies
from resources.tables import ParquetTables


def default_resources(settings: Settings, sources: Mapping[str, Any]) -> dict[str, Any]:
    """All resources by key: the default ones on the state folder of ``settings``, and the models' ``sources``."""
    mlflow = MlflowTracking.from_settings(settings)
    alerts = Alerts.from_settings(settings)
    return {
        "tables": ParquetTables(root=str(settings.home / "tables")),
        "mlflow": mlflow,
        "ledger": Ledger.from_settings(settings),
        "studies": Studies.from_settings(settings),
        "target": LocalTarget(mlflow=mlflow),
        "alerts": alerts,
        **{f"channel_{name}": channel for name, channel in alerts.declared.items()},
        **sources,
    }


RETENTION = Retention()
"""How long state is kept, for `assetline prune` and the job ``retention``; a fork sets its own periods here."""

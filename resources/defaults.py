"""The default resources by key. `definitions.py` uses them; tests replace single ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resources.alerts import Alerts
from resources.compute.resource import Computing
from resources.ledger import Ledger
from resources.mlflow import MlflowTracking
from resources.release_policy import ReleasePolicy
from resources.request_log import RequestLog
from resources.retention.periods import Retention
from resources.settings import Settings
from resources.studies import Studies
from resources.tables import ParquetTables
from resources.targets.base import DeploymentTarget, resource_key
from resources.targets.batch_table import BatchTable
from resources.targets.container_image import ContainerImage
from resources.targets.kubernetes import Kubernetes
from resources.targets.local_service import LocalService


def default_resources(settings: Settings, sources: Mapping[str, Any], *, ready: bool = False) -> dict[str, Any]:
    """All resources by key: the default ones on the state folder of ``settings``, and the models' ``sources``.

    With ``ready``, they can be used outside of Dagster's runs, which otherwise read URLs with a password from their
    variables.
    """
    mlflow, alerts = MlflowTracking.from_settings(settings), Alerts.from_settings(settings)
    ledger, studies = Ledger.from_settings(settings), Studies.from_settings(settings)
    request_log = RequestLog.from_settings(settings)
    if ready:
        mlflow, alerts = mlflow.process_config_and_initialize(), alerts.process_config_and_initialize()
        ledger, studies = ledger.process_config_and_initialize(), studies.process_config_and_initialize()
        request_log = request_log.process_config_and_initialize()
    targets = default_targets(settings, mlflow, ledger)
    return {
        "tables": ParquetTables(root=settings.tables),
        "mlflow": mlflow,
        "ledger": ledger,
        "request_log": request_log,
        "studies": studies,
        "compute": Computing.from_settings(settings),
        **{resource_key(name): target for name, target in targets.items()},
        "release_policy": ReleasePolicy.from_settings(settings),
        "alerts": alerts,
        **{f"channel_{name}": channel for name, channel in alerts.declared.items()},
        **sources,
    }


def default_targets(settings: Settings, mlflow: MlflowTracking, ledger: Ledger) -> dict[str, DeploymentTarget]:
    """Deployment targets by the name that a declaration uses, ``Model(targets=("local",))``; a fork adds its own."""
    images = ContainerImage.from_settings(settings, mlflow)
    return {
        "local": LocalService(mlflow=mlflow),
        "batch": BatchTable(ledger=ledger),
        "image": images,
        "kubernetes": Kubernetes(
            images=images,
            namespace=settings.namespace,
            kubeconfig=str(settings.kubeconfig or ""),
            token_file=str(settings.home / "service-token"),
        ),
    }


RETENTION = Retention()
"""How long state is kept, for `assetline prune` and the job ``retention``; a fork sets its own periods here."""

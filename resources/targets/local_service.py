"""The target ``local``: the scoring service on this machine, which follows the alias ``champion``.

Belongs here: the alias as a deployment. Does not belong here: the service (``serving/``), a throw-away process
(``throwaway.py``).
"""

# No `from __future__ import annotations`: Dagster needs the evaluated annotations for ResourceDependency.
from contextlib import AbstractContextManager
from pathlib import Path

import dagster as dg
from pydantic import Field

from resources.ledger import CHAMPION
from resources.mlflow import MlflowTracking, TrackingError
from resources.targets.base import Answer, DeploymentError, DeploymentTarget, Staged, Status
from resources.targets.throwaway import SERVICE, throwaway_service


class LocalService(DeploymentTarget):
    """Runs model versions as processes on this machine; the scoring service follows the alias ``champion``."""

    follows_ledger = True

    mlflow: dg.ResourceDependency[MlflowTracking]
    service: str = Field(
        default=SERVICE,
        description="Module started as `python -m MODULE --bundle DIR --host 127.0.0.1 --port N` to stage a candidate.",
    )
    start_timeout_s: float = Field(default=180.0, gt=0, description="Seconds a staged candidate has to become healthy.")

    def stage(self, bundle: Path) -> AbstractContextManager[Staged]:
        """See :meth:`DeploymentTarget.stage`."""
        return throwaway_service(bundle, service=self.service, start_timeout_s=self.start_timeout_s)

    def promote(self, model: str, version: str) -> Answer:
        """See :meth:`DeploymentTarget.promote`."""
        try:
            self.mlflow.set_alias(model, CHAMPION, version)
        except TrackingError as error:
            raise DeploymentError(f"version {version} of {model} cannot get the alias '{CHAMPION}': {error}") from error
        return Answer(f"the alias '{CHAMPION}' points to version {version}; the service takes it over within seconds")

    def roll_back(self, model: str, version: str) -> Answer:
        """See :meth:`DeploymentTarget.roll_back`. MLflow keeps all versions, so this is the same as a promotion."""
        return self.promote(model, version)

    def status(self, model: str) -> Status:
        """See :meth:`DeploymentTarget.status`. It reads the alias, not the service, which may be stopped."""
        version = self.mlflow.version_of_alias(model, CHAMPION)
        if version is None:
            return Status("absent", None, f"no version of {model} has the alias '{CHAMPION}'")
        return Status("serving", version, f"the alias '{CHAMPION}' points to version {version}")

    def undeploy(self, model: str) -> Answer:
        """See :meth:`DeploymentTarget.undeploy`. A running service keeps its version until it is restarted."""
        self.mlflow.delete_alias(model, CHAMPION)
        return Answer(f"{model} has no alias '{CHAMPION}'; a running service keeps its version until it is restarted")

"""The target ``batch``: predictions in a table, and no endpoint.

Belongs here: what promotion means where a version only scores days. Does not belong here: the predictions
(``assets/lifecycle/monitoring``), which use the version that the ledger names.
"""

# No `from __future__ import annotations`: Dagster needs the evaluated annotations for ResourceDependency.
import datetime as dt
from contextlib import AbstractContextManager
from pathlib import Path

import dagster as dg
from pydantic import Field

from resources.ledger import Ledger
from resources.targets.base import Answer, DeploymentTarget, Staged, Status
from resources.targets.throwaway import SERVICE, throwaway_service


class BatchTable(DeploymentTarget):
    """Scores days into the table ``predictions``. There is no endpoint, so there is none to promote or remove."""

    follows_ledger = True

    ledger: dg.ResourceDependency[Ledger]
    service: str = Field(default=SERVICE, description="Module of the throw-away service that stages a candidate.")
    start_timeout_s: float = Field(default=180.0, gt=0, description="Seconds a staged candidate has to become healthy.")

    def stage(self, bundle: Path) -> AbstractContextManager[Staged]:
        """See :meth:`DeploymentTarget.stage`. The throw-away service runs the code that scores the days."""
        return throwaway_service(bundle, service=self.service, start_timeout_s=self.start_timeout_s)

    def promote(self, model: str, version: str) -> Answer:
        """See :meth:`DeploymentTarget.promote`."""
        return Answer(f"there is no endpoint; version {version} of {model} scores the days that are materialised next")

    def roll_back(self, model: str, version: str) -> Answer:
        """See :meth:`DeploymentTarget.roll_back`."""
        return self.promote(model, version)

    def status(self, model: str) -> Status:
        """See :meth:`DeploymentTarget.status`. The version is the one that the ledger names."""
        entry = self.ledger.champion(model)
        if entry is None:
            return Status("absent", None, f"no version of {model} scores days; there is no endpoint")
        since = f"{entry.at.astimezone(dt.UTC):%Y-%m-%d %H:%M} UTC"
        message = f"version {entry.version} scores the days of {model} since {since}; there is no endpoint"
        return Status("no endpoint", entry.version, message)

    def undeploy(self, model: str) -> Answer:
        """See :meth:`DeploymentTarget.undeploy`."""
        return Answer(f"there is no endpoint of {model} to remove; days are scored only while a version is promoted")

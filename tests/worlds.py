"""A state folder of its own for each world, as `make run` prepares one, and runs of jobs on it in this process."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from assets.declaration import Model
from assets.lifecycle.data.landing import source_resources
from assets.lifecycle.jobs import job_name
from definitions import build_defs
from resources.defaults import default_resources
from resources.settings import Settings
from runner import RANGE_END, RANGE_START

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class World:
    """One model on a state folder: its jobs, and what they wrote."""

    model: Model
    settings: Settings
    instance: dg.DagsterInstance
    overrides: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.defs = build_defs(models=[self.model], settings=self.settings, resource_overrides=self.overrides)
        self.resources = {**default_resources(self.settings, source_resources([self.model])), **self.overrides}
        self.tables, self.mlflow = self.resources["tables"], self.resources["mlflow"]
        self.ledger, self.alerts = self.resources["ledger"], self.resources["alerts"]

    def run(self, work: str, days: Sequence[str] = (), **op_config: Any) -> dg.ExecuteInProcessResult:
        """A job's run over consecutive days; ``op_config``: the config of the assets by name."""
        ops = {f"{self.model.name}__{name}": {"config": config} for name, config in op_config.items()}
        tags = {RANGE_START: days[0], RANGE_END: days[-1]} if days else {}
        return self.defs.resolve_job_def(job_name(self.model, work)).execute_in_process(
            instance=self.instance, run_config={**QUIET, "ops": ops}, tags=tags, raise_on_error=False
        )

    def materialize(self, *assets: str, day: str | None = None) -> dg.ExecuteInProcessResult:
        """Some assets alone, as the UI's Materialize button does."""
        job = self.defs.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            instance=self.instance, run_config=QUIET, partition_key=day, raise_on_error=False,
            asset_selection=[self.model.key(asset) for asset in assets],
        )  # fmt: skip

    def row(self, asset: str, day: str | None = None) -> dict[str, Any]:
        """The first row of one of the model's tables."""
        return self.tables.read(self.model.key(asset), [day] if day else None).iloc[0].to_dict()

    def path(self, asset: str, day: str) -> Path:
        """Where a day of a table lies."""
        return self.tables.path(self.model.key(asset), day)


def why(result: dg.ExecuteInProcessResult) -> str:
    """What the failed steps of a run say."""
    said = []
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            said.append(str(data.user_failure_data.description if data.user_failure_data else data.error))
    return "\n".join(said)


FIRST = dt.date(2026, 3, 2)
"""First day of the small streams, a Monday."""


def days(first: int, last: int) -> list[str]:
    """ISO days by their number from the first, both included."""
    return [str(FIRST + dt.timedelta(days=n)) for n in range(first, last + 1)]

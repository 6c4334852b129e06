"""The lineage of one version: the tables and days it was trained on, its code and recipe, and what became of it.

Belongs here: collecting the facts of one version from the views. Does not belong here: the views (``facts.py``), text
output (``cli/metadata.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from metadata.facts import Metadata
from metadata.views import DataVersionRow, DeploymentRow, VerdictRow, VersionRow


@dataclass(frozen=True)
class UpstreamTable:
    """A table that the training rows come from: its days, and those that have changed or are gone since."""

    table: str
    days: list[DataVersionRow]

    @property
    def first(self) -> str:
        """First day, or ``all``."""
        return self.days[0].day

    @property
    def last(self) -> str:
        """Last day, or ``all``."""
        return self.days[-1].day

    @property
    def changed(self) -> list[str]:
        """Days whose data version has changed."""
        return [one.day for one in self.days if one.changed]


@dataclass(frozen=True)
class Scored:
    """The days and rows that the version scored."""

    days: int
    first: str
    last: str
    rows: int


@dataclass(frozen=True)
class Lineage:
    """The lineage of a version. ``upstream`` is empty for a version without a record of its days."""

    version: VersionRow
    upstream: list[UpstreamTable]
    params: dict[str, str]
    verdicts: list[VerdictRow]
    deployments: list[DeploymentRow]
    predictions: Scored | None

    def to_json(self) -> dict[str, Any]:
        """The lineage for JSON."""
        return {
            "version": asdict(self.version),
            "upstream": {
                one.table: {
                    day.day: {"data_version": day.data_version, "now": day.now, "changed": day.changed}
                    for day in one.days
                }
                for one in self.upstream
            },
            "params": self.params,
            "verdicts": [asdict(one) for one in self.verdicts],
            "deployments": [asdict(one) for one in self.deployments],
            "predictions": asdict(self.predictions) if self.predictions else None,
        }


def lineage_of(metadata: Metadata, model: str, version: str) -> Lineage:
    """Returns the lineage of a version.

    Raises:
        UnknownError: there is no such model or version.
    """
    row = metadata.version(model, version)

    def of_version(rows: Sequence[Any]) -> list[Any]:
        return [one for one in rows if (one.model, one.version) == (row.model, row.version)]

    days = of_version(metadata.data_versions())
    scored = of_version(metadata.predictions())
    return Lineage(
        version=row,
        upstream=[
            UpstreamTable(table, [one for one in days if one.table_name == table])
            for table in dict.fromkeys(one.table_name for one in days)
        ],
        params={one.param: one.value for one in metadata.params() if one.mlflow_run_id == row.mlflow_run_id},
        verdicts=of_version(metadata.verdicts()),
        deployments=of_version(metadata.deployments()),
        predictions=Scored(len(scored), scored[0].day, scored[-1].day, sum(one.rows for one in scored))
        if scored
        else None,
    )

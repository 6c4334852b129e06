"""How long each kind of state is kept.

Belongs here: the periods, which are also the config of the job ``retention``. Does not belong here: what is removed
(the other modules of this folder). A fork sets its own periods in ``resources/defaults.py``.
"""

# No `from __future__ import annotations`: Dagster reads the annotations of a config.

import dagster as dg
from pydantic import Field


class Retention(dg.Config):
    """Periods in days, and how many of the latest stay at any age."""

    run_days: int = Field(default=90, ge=1, description="Days for runs of Dagster and their events.")
    latest_runs: int = Field(default=100, ge=1, description="The latest runs of Dagster that stay at any age.")
    version_days: int = Field(
        default=90, ge=1, description="Days for MLflow's versions and runs that the ledger does not name."
    )
    latest_versions: int = Field(
        default=3, ge=1, description="The latest versions of each model, and runs of each experiment, that stay."
    )
    alert_days: int = Field(default=365, ge=1, description="Days for resolved alerts and their history.")
    latest_alerts: int = Field(default=100, ge=1, description="The latest alerts that stay at any age.")
    delivery_days: int = Field(default=30, ge=1, description="Days for delivered messages in the outbox.")
    request_days: int = Field(
        default=30, ge=7, description="Days for the log of requests; only days that the table requests has."
    )
    table_days: dict[str, int] = Field(
        default={}, description="Days of data for tables by name, e.g. fraud/predictions: 400. Others stay."
    )

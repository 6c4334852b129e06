"""Requests the drift check of a day that automation missed (the daemon was down, say), once.

Belongs here: which days are scored and not checked. Does not belong here: the check (``assets/lifecycle/drift.py``);
importing Evidently alone takes longer than a sensor should.
"""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from assets.declaration import Model
from assets.lifecycle.jobs import DAILY, job_name

LOOK_BACK_DAYS = 14


def unchecked_days(scored: set[str], checked: set[str], held: set[str]) -> list[str]:
    """Days with features of the last weeks that were held but neither scored nor checked, oldest first.

    Args:
        scored, checked: days with predictions and with a drift verdict.
        held: days with features.
    """
    since = sorted(scored | checked)[-LOOK_BACK_DAYS:]
    return [] if not since else [day for day in sorted(held) if day >= since[0] and day not in checked]


def drift_sensor(model: Model) -> dg.SensorDefinition:
    """Looks for days that have features, after the first that were scored, and no drift verdict."""

    @dg.sensor(
        name=f"{model.name}_missed_days",
        job_name=job_name(model, DAILY),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=900,
        description="Checks for drift the days that automation missed.",
    )
    def missed_days(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        made = {
            name: set(context.instance.get_materialized_partitions(model.key(name)))
            for name in ("features", "predictions", "drift")
        }
        missing = unchecked_days(made["predictions"], made["drift"], made["features"])
        if not missing:
            yield dg.SkipReason("no scored day is without its drift check")
        for day in missing:
            yield dg.RunRequest(run_key=f"{model.name}-drift-{day}", partition_key=day)

    return missed_days

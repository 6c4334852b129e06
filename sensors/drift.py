"""Requests the days that automation has left behind (the daemon was down, say, or an upstream late), once each.

Belongs here: which days landed and were never checked for drift. Does not belong here: the days that automation still
makes, the latest of each table; asked for here, too, they would be made twice. What a day goes through is the job's
matter (``assets/lifecycle/jobs.py``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import dagster as dg

from assets.declaration import Model
from assets.lifecycle.jobs import DAILY, job_name

LOOK_BACK_DAYS = 14


def unchecked_days(landed: set[str], scored: set[str], checked: set[str], *, before: str) -> list[str]:
    """Days of the last weeks that landed and have no drift verdict, oldest first.

    Days before the first of the last :data:`LOOK_BACK_DAYS` that were scored or checked do not count: no model was in
    production, or a person decides.

    Args:
        landed: ISO days with raw rows.
        scored, checked: ISO days with predictions and with a drift verdict.
        before: first ISO day that automation still makes.
    """
    since = sorted(scored | checked)[-LOOK_BACK_DAYS:]
    return [day for day in sorted(landed) if since and since[0] <= day < before and day not in checked]


def first_day_of_automation(model: Model, today: dt.date) -> str:
    """First ISO day that the condition of the cleaned table covers: rows may land late for ``late_days``."""
    yesterday = today - dt.timedelta(days=1)
    return str(yesterday - dt.timedelta(days=model.table.late_days))


def drift_sensor(model: Model) -> dg.SensorDefinition:
    """Looks for days that landed after the first that was scored, that automation no longer makes, and no verdict."""

    @dg.sensor(
        name=f"{model.name}_missed_days",
        job_name=job_name(model, DAILY),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=900,
        description=f"Makes the days that automation missed: those more than {model.table.late_days} days old that "
        "landed and were not checked for drift.",
    )
    def missed_days(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        landed, scored, checked = (
            set(context.instance.get_materialized_partitions(model.key(name)))
            for name in (f"raw_{model.table.name}", "predictions", "drift")
        )
        before = first_day_of_automation(model, dt.datetime.now(dt.UTC).date())
        missing = unchecked_days(landed, scored, checked, before=before)
        if not missing:
            yield dg.SkipReason(f"each scored day before {before} has its drift check")
        for day in missing:
            yield dg.RunRequest(run_key=f"{model.name}-drift-{day}", partition_key=day)

    return missed_days

"""Requests the days that automation missed, once each (for example, the daemon was down or an upstream was late).

Belongs here: finding days that landed and were never checked for drift. Does not belong here: the latest days of each
table, which automation still materializes; a request here would materialize them twice. The job defines the steps of a
day (``assets/lifecycle/jobs.py``).
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

    Only the last :data:`LOOK_BACK_DAYS` scored or checked days are searched. Before them, no model was in production,
    or the decision is left to a person.

    Args:
        landed: ISO days with raw rows.
        scored, checked: ISO days with predictions and with a drift verdict.
        before: first ISO day that automation still materializes.
    """
    since = sorted(scored | checked)[-LOOK_BACK_DAYS:]
    return [day for day in sorted(landed) if since and since[0] <= day < before and day not in checked]


def first_day_of_automation(model: Model, today: dt.date) -> str:
    """First ISO day that the condition of the cleaned table covers: rows may land late for ``late_days``."""
    yesterday = today - dt.timedelta(days=1)
    return str(yesterday - dt.timedelta(days=model.table.late_days))


def drift_sensor(model: Model) -> dg.SensorDefinition:
    """The sensor of missed days: landed, without a drift verdict, and too old for automation.

    Where drift is judged on requests, the last step of a landed day are its predictions. A table of another model is
    cleaned by that model's jobs, so a day of it counts once it is clean.
    """
    landed_in = model.table.name if model.table.of else f"raw_{model.table.name}"
    last = "predictions" if model.drift.source == "requests" else "drift"

    @dg.sensor(
        name=f"{model.name}_missed_days",
        job_name=job_name(model, DAILY),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=900,
        description=f"Materialises the days that automation missed: those more than {model.table.late_days} days old "
        "that landed and were not checked for drift.",
    )
    def missed_days(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        landed, scored, checked = (
            set(context.instance.get_materialized_partitions(model.key(name)))
            for name in (landed_in, "predictions", last)
        )
        before = first_day_of_automation(model, dt.datetime.now(dt.UTC).date())
        missing = unchecked_days(landed, scored, checked, before=before)
        if not missing:
            yield dg.SkipReason(f"each scored day before {before} has its drift check")
        for day in missing:
            yield dg.RunRequest(run_key=f"{model.name}-drift-{day}", partition_key=day)

    return missed_days

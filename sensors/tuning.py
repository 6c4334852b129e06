"""Requests a search for a better recipe on the declared cron.

Belongs here: when to search. Does not belong here: when to train (``retraining.py``): a search starts no training, the
next one uses its result.
"""

from __future__ import annotations

import datetime as dt

import dagster as dg

from assets.declaration import Model
from assets.lifecycle.jobs import TUNE, job_name
from sensors.retraining import declared_due


def tuning_sensor(model: Model) -> dg.SensorDefinition:
    """The sensor that requests a search when ``Tuning.schedule`` is due."""
    cron = model.tuning.schedule
    assert cron is not None

    @dg.sensor(
        name=f"{model.name}_tuning",
        job_name=job_name(model, TUNE),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=600,
        description=f"Searches a better recipe of {model.name} on the cron {cron} (UTC).",
    )
    def tuning(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        decision, handled = declared_due(cron, context.cursor, dt.datetime.now(dt.UTC))
        if not decision.due:
            return dg.SensorResult(skip_reason=decision.reason, cursor=handled)
        request = dg.RunRequest(run_key=f"{model.name}-tune-{handled}", tags={"assetline/why": decision.reason})
        return dg.SensorResult(run_requests=[request], cursor=handled)

    return tuning

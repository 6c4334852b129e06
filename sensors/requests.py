"""Materialises the requests of a day once the day is over, and again if the log gets more of its lines.

Belongs here: which days. Does not belong here: the table (``assets/lifecycle/monitoring/requests.py``).

A model that nobody asks has no days in the log, so nothing is requested for it and nothing of it fails or is stale.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping

import dagster as dg

from assets.declaration import Model
from assets.lifecycle.jobs import REQUESTS, job_name
from assets.lifecycle.monitoring.requests import first_day_of_requests
from resources.request_log import RequestLog

MOST_DAYS_A_TICK = 31
"""Maximum number of runs that one tick requests; the others follow at the next."""


def requests_sensor(model: Model) -> dg.SensorDefinition:
    """The sensor of one model's requests. Its cursor has the state of each day in the log when it was requested."""

    @dg.sensor(
        name=f"{model.name}_requests",
        job_name=job_name(model, REQUESTS),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=300,
        required_resource_keys={"request_log"},
        description="Materialises the requests of each day once it is over, and again after late lines of the log.",
    )
    def requests(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        requested: dict[str, str] = json.loads(context.cursor or "{}")
        today = dt.datetime.now(dt.UTC).date()
        found = states_of(context.resources.request_log, model, first_day_of_requests(model), today)
        new = new_days(found, requested)[:MOST_DAYS_A_TICK]
        if not new:
            return dg.SkipReason("the log has no more requests of days that are over")
        # Days that retention has removed from the log are forgotten.
        kept = {day: state for day, state in requested.items() if day in found} | {day: found[day] for day in new}
        return dg.SensorResult(
            cursor=json.dumps(kept),
            run_requests=[
                dg.RunRequest(run_key=f"{model.name}-requests-{day}-{found[day]}", partition_key=day) for day in new
            ],
        )

    return requests


def states_of(log: RequestLog, model: Model, first: dt.date, today: dt.date) -> dict[str, str]:
    """The state of each day in the log from ``first`` to before ``today``, by ISO day."""
    days = [day for day in log.days(model.name) if str(first) <= day < str(today)]
    return {day: log.state(model.name, day) for day in days}


def new_days(found: Mapping[str, str], requested: Mapping[str, str]) -> list[str]:
    """Sorted days whose state was not requested yet."""
    return sorted(day for day, state in found.items() if requested.get(day) != state)

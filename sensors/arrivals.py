"""Requests the landing of days that are complete upstream and have not landed yet.

Belongs here: detecting new days. Does not belong here: the steps after a landing (automation conditions).

The sensor is the only trigger of landings. Dagster deduplicates run keys per sensor only, so an additional schedule
would land the same day again, whatever its run keys.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import dagster as dg

from assets.declaration import Model
from assets.lifecycle.data.landing import source_resource_key
from assets.lifecycle.jobs import LAND, job_name
from resources.sources import Stream

MOST_DAYS_A_TICK = 31
"""Maximum landings per tick: after a long pause, missing days land a month at a time, oldest first."""


def missing_days(present: set[str], first: dt.date, until: dt.date) -> list[dt.date]:
    """Days from the earliest present one (but not before ``first``) to ``until`` that are not present.

    Args:
        present: ISO days that have landed; if empty, only ``until`` is missing.
        first: first day of the table.
        until: latest day that is complete upstream.
    """
    begin = max(first, dt.date.fromisoformat(min(present))) if present else until
    days = [begin + dt.timedelta(days=n) for n in range((until - begin).days + 1)]
    return [day for day in days if day.isoformat() not in present]


def arrivals_sensor(model: Model) -> dg.SensorDefinition:
    """The sensor of landings of one stream; the run key ensures that each day is requested once."""
    raw, source_key = model.key(f"raw_{model.table.name}"), source_resource_key(model)

    @dg.sensor(
        name=f"{model.name}_arrivals",
        job_name=job_name(model, LAND),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=300,
        required_resource_keys={source_key},
        description=f"Lands each day of {model.table.name} once it is complete upstream.",
    )
    def arrivals(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        source: Stream = getattr(context.resources, source_key)
        start = model.table.start
        assert start is not None
        until = source.landed_until()
        missing = missing_days(set(context.instance.get_materialized_partitions(raw)), start, until)
        if not missing:
            yield dg.SkipReason(f"all days up to {until} have landed")
        for day in missing[:MOST_DAYS_A_TICK]:
            yield dg.RunRequest(run_key=f"{model.name}-land-{day}", partition_key=day.isoformat())

    return arrivals

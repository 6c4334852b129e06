"""Requests the landing of days that are complete upstream and have not landed yet.

Belongs here: detecting new days, requesting a day again whose source was unavailable, and the alert for a source that
stays unavailable. Does not belong here: the steps after a landing (automation conditions).

The sensor is the only trigger of landings. Dagster deduplicates run keys per sensor only, so an additional schedule
would land the same day again, whatever its run keys.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

import dagster as dg

from assets.declaration import Model
from assets.lifecycle.data.landing import UNAVAILABLE, source_resource_key
from assets.lifecycle.jobs import LAND, job_name
from resources.alerts import Alerts
from resources.alerts.causes import SOURCE
from resources.alerts.runbooks import runbook_of
from resources.sources import SourceUnavailable, Stream

MOST_DAYS_A_TICK = 31
"""Maximum landings per tick: after a long pause, missing days land a month at a time, oldest first."""

FIRST_PAUSE, LONGEST_PAUSE = dt.timedelta(minutes=5), dt.timedelta(hours=1)
"""Pause between the end of a run whose source was unavailable and the next one; it doubles with each run."""
ANSWERS = "answers"
"""Cursor while the source answers the sensor. Dagster keeps the old cursor where a sensor returns an empty one."""
_DAY_OF_RUN = "dagster/partition"


def utc_now() -> dt.datetime:
    """The current time in UTC; the tests move it."""
    return dt.datetime.now(dt.UTC)


def missing_days(present: set[str], first: dt.date, until: dt.date) -> list[dt.date]:
    """Days from the earliest present one (but not before ``first``) to ``until`` that are not present.

    Args:
        present: ISO days that have landed; if empty, only ``until`` is missing.
        first: first day of the table.
        until: latest day that is complete upstream.
    """
    begin = max(first, dt.date.fromisoformat(min(present)) if present else until)
    days = [begin + dt.timedelta(days=n) for n in range((until - begin).days + 1)]
    return [day for day in days if day.isoformat() not in present]


@dataclass(frozen=True)
class Failures:
    """The runs of one day that failed because its source was unavailable.

    Args:
        count: number of these runs.
        first, last: end of the first and of the last one, UTC.
    """

    count: int
    first: dt.datetime
    last: dt.datetime

    @property
    def next_at(self) -> dt.datetime:
        """Time of the next request, UTC."""
        return self.last + min(FIRST_PAUSE * 2 ** min(self.count - 1, 20), LONGEST_PAUSE)


def failures_by_day(records: Iterable[dg.RunRecord]) -> dict[str, Failures]:
    """Failures by ISO day, from the records of runs with the tag ``UNAVAILABLE``."""
    found: dict[str, Failures] = {}
    for record in records:
        day = record.dagster_run.tags.get(_DAY_OF_RUN, "")
        end = dt.datetime.fromtimestamp(record.end_time or record.update_timestamp.timestamp(), dt.UTC)
        before = found.get(day, Failures(0, end, end))
        found[day] = Failures(before.count + 1, min(before.first, end), max(before.last, end))
    return found


def arrivals_sensor(model: Model) -> dg.SensorDefinition:
    """The sensor of landings of one stream.

    The run key ensures that each day is requested once, and once more after each run whose source was unavailable. The
    cursor is the time since which the source does not answer the sensor itself, or :data:`ANSWERS`.
    """
    raw, source_key, job = model.key(f"raw_{model.table.name}"), source_resource_key(model), job_name(model, LAND)

    @dg.sensor(
        name=f"{model.name}_arrivals",
        job_name=job,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=300,
        required_resource_keys={source_key, "alerts"},
        description=f"Lands each day of {model.table.name} once it is complete upstream.",
    )
    def arrivals(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        source: Stream = getattr(context.resources, source_key)
        alerts: Alerts = context.resources.alerts
        now = utc_now()
        start = model.table.start
        assert start is not None
        records = context.instance.get_run_records(
            dg.RunsFilter(job_name=job, tags={UNAVAILABLE: "true"}, statuses=[dg.DagsterRunStatus.FAILURE])
        )
        by_day = failures_by_day(records)
        present = set(context.instance.get_materialized_partitions(raw))
        if model.label_delay_days:  # of such a day, the rows may have landed and the labels not
            labelled = context.instance.get_materialized_partitions(model.key("raw_labels"))
            present -= set(by_day) - set(labelled)
        try:
            until = source.landed_until()
        except SourceUnavailable as error:
            cursor = context.cursor or ANSWERS
            since = now if cursor == ANSWERS else dt.datetime.fromisoformat(cursor)
            _tell_it_is_down(alerts, model, str(error), since, now)
            message = f"the source has been unavailable since {since:%Y-%m-%d %H:%M} UTC: {error}"
            return dg.SensorResult(skip_reason=message, cursor=since.isoformat())
        missing = missing_days(present, start, until)
        if not missing:
            _tell_it_is_back(alerts, model)
            return dg.SensorResult(skip_reason=f"all days up to {until} have landed", cursor=ANSWERS)
        failed = {day: by_day[day.isoformat()] for day in missing if day.isoformat() in by_day}
        if failed:
            since = min(of_day.first for of_day in failed.values())
            days = ", ".join(str(day) for day in list(failed)[:3])
            _tell_it_is_down(alerts, model, f"the failed runs of {job} of {days} have the error", since, now)
        requests = [
            dg.RunRequest(run_key=f"{model.name}-land-{day}{_again(failed.get(day))}", partition_key=day.isoformat())
            for day in missing[:MOST_DAYS_A_TICK]
            if day not in failed or now >= failed[day].next_at
        ]
        if not requests:
            at = min(of_day.next_at for of_day in failed.values())
            return dg.SensorResult(
                skip_reason=f"the source was unavailable; {missing[0]} is requested again at {at:%H:%M} UTC", cursor=""
            )
        return dg.SensorResult(run_requests=requests, cursor=ANSWERS)

    return arrivals


def _again(failures: Failures | None) -> str:
    return f"-again-{failures.count}" if failures else ""


def _tell_it_is_down(alerts: Alerts, model: Model, error: str, since: dt.datetime, now: dt.datetime) -> None:
    """Opens the alert once the source has been unavailable for longer than declared."""
    hours = (now - since) / dt.timedelta(hours=1)
    if hours < model.table.source_down_hours or alerts.store.open_causes(model.name, SOURCE):
        return
    changed = alerts.store.report(
        model.name,
        SOURCE,
        severity="page",
        summary=f"the source of {model.table.name} has been unavailable since {since:%Y-%m-%d %H:%M} UTC: {error}",
        owner=model.owner,
        runbook=runbook_of(SOURCE),
    )
    alerts.tell(changed)


def _tell_it_is_back(alerts: Alerts, model: Model) -> None:
    if alerts.store.open_causes(model.name, SOURCE):
        alerts.tell(alerts.store.resolve(model.name, SOURCE, reason="all complete days have landed"))

"""Requests a training run: on the declared cron, and when confirmed drift has labels of its own.

Belongs here: when to train. Does not belong here: what becomes of the candidate (the gate, automation).

One sensor decides on both, and its run key is the day that the training sees labels of: on a day when the cron and a
drift both ask, there is one training. A schedule beside the sensor would ask for a second one of the same rows.
"""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass

import dagster as dg

from assets.declaration import Model
from assets.lifecycle.jobs import TRAIN, job_name
from assets.lifecycle.model.windows import windows_of
from resources.alerts import Alert, Alerts
from resources.tables import ParquetTables
from sensors.alerts import retraining_alerts


@dataclass(frozen=True)
class Retraining:
    """A decision: whether to train now, and the words for it."""

    due: bool
    reason: str


def retraining_due(
    model: Model, *, drifting_since: dt.date | None, labelled_until: dt.date | None, trained_as_of: dt.date | None
) -> Retraining:
    """Whether confirmed drift calls for training.

    It does once the days since the drift began that have labels fill the candidate's test window, so that champion and
    challenger meet on rows of the new world; and again after the cool-down, until a candidate has learnt the new world.

    Args:
        drifting_since: first day of a drift that still asks for training (:func:`drifting_since`).
        labelled_until: last day whose labels are here.
        trained_as_of: last labelled day that the latest candidate saw.
    """
    if drifting_since is None:
        return Retraining(False, "no drift is paged")
    if labelled_until is None:
        return Retraining(False, "there are no labels yet")
    enough = drifting_since + dt.timedelta(days=model.training.test_days - 1)
    if labelled_until < enough:
        return Retraining(
            False, f"drift since {drifting_since}; labels up to {enough} are needed, {labelled_until} is here"
        )
    if trained_as_of is not None:
        again = max(trained_as_of + dt.timedelta(days=model.retrain_cooldown_days), enough)
        if trained_as_of >= enough and labelled_until < again:
            return Retraining(
                False, f"a candidate saw labels up to {trained_as_of}; the next may be trained on {again}"
            )
    return Retraining(True, f"drift since {drifting_since}, labels up to {labelled_until}")


def cron_periods(cron: str) -> dg.TimeWindowPartitionsDefinition:
    """The times between two ticks of a cron (UTC), each named by the tick at which it begins."""
    return dg.TimeWindowPartitionsDefinition(
        cron_schedule=cron, start=dt.datetime(2020, 1, 1), fmt="%Y-%m-%dT%H:%M", timezone="UTC"
    )


def declared_due(cron: str, handled: str | None, now: dt.datetime) -> tuple[Retraining, str]:
    """Whether a tick of the declared cron has passed that was not handled yet, and what is handled from now on.

    Ticks that passed while nothing looked are one training; those before the first look are none.

    Args:
        cron: as declared, UTC.
        handled: the second value of the call before; ``None`` at the first look.
        now: time of the look.
    """
    with dg.partition_loading_context(effective_dt=now):
        complete = str(cron_periods(cron).get_last_partition_key())  # another one from the moment of each tick on
    due = handled is not None and handled < complete
    return Retraining(due, f"declared on the cron {cron} (UTC)" if due else f"the cron {cron} has not ticked"), complete


def retraining_sensor(model: Model) -> dg.SensorDefinition:
    """Trains when :func:`retraining_due` or :func:`declared_due` says so."""
    when = [f"on the cron {model.retrain} (UTC)"] if model.retrain else []
    when += ["once confirmed drift has labels of its own"] if model.is_stream else []

    @dg.sensor(
        name=f"{model.name}_retraining",
        job_name=job_name(model, TRAIN),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=600,
        required_resource_keys={"alerts", "tables"},
        description=f"Trains a challenger of {model.name} {' and '.join(when)}.",
    )
    def retraining(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        alerts, tables = context.resources.alerts, context.resources.tables
        handled = context.cursor
        decisions = []
        if model.retrain:
            declared, handled = declared_due(model.retrain, handled, dt.datetime.now(dt.UTC))
            decisions.append(declared)
        labelled = tables.days(model.key("labels")) if model.is_stream else []
        until = dt.date.fromisoformat(labelled[-1]) if labelled else None
        if model.is_stream:
            since, trained = drifting_since(alerts, tables, model), trained_as_of(tables, model)
            drift = retraining_due(model, drifting_since=since, labelled_until=until, trained_as_of=trained)
            decisions.append(drift)
            if drift.due:
                _say_it_was_asked_for(alerts, model, drift.reason)
        due = [decision.reason for decision in decisions if decision.due]
        if not due:
            return dg.SensorResult(skip_reason="; ".join(one.reason for one in decisions), cursor=handled)
        # Without labels there is no day to name; the run then says what is missing.
        key = f"{model.name}-train-{until or handled}"
        request = dg.RunRequest(run_key=key, tags={"assetline/why": "; ".join(due)})
        return dg.SensorResult(run_requests=[request], cursor=handled)

    return retraining


def _say_it_was_asked_for(alerts: Alerts, model: Model, reason: str) -> None:
    words = f"a training run is requested: {reason}"
    for alert in retraining_pages(alerts, model):
        # A tick that is repeated (its run key is known) does not say it twice.
        if all(event.words != words for event in alerts.store.history(alert.id)):
            alerts.store.update(alert.id, words)


def drifting_since(alerts: Alerts, tables: ParquetTables, model: Model) -> dt.date | None:
    """First day of what still asks for training: an open page, or a drift that no candidate was fitted on yet."""
    days = [alert.since_day for alert in retraining_pages(alerts, model)] + unlearnt_drifts(tables, model)
    return min((dt.date.fromisoformat(day) for day in days if day), default=None)


def retraining_pages(alerts: Alerts, model: Model) -> list[Alert]:
    """Open pages that ask for a training run: confirmed drift, lost performance."""
    return [alert for alert in retraining_alerts(alerts, model.name) if alert.severity == "page"]


def unlearnt_drifts(tables: ParquetTables, model: Model) -> list[str]:
    """First days of drifts that ended with a new version, while the latest candidate was fitted on no day of them.

    A version brings a reference profile of its own days, so its promotion ends a drift whether or not it was fitted on
    a day of the new world. The one that has learnt it is still to come.
    """
    as_of = trained_as_of(tables, model)
    if as_of is None:
        return []
    fitted_until = windows_of(as_of, model.training, model.label_delay_days).fit[1].isoformat()
    days = [day for day in tables.days(model.key("drift")) if day > fitted_until]
    rows = tables.read(model.key("drift"), days, ["version", "level", "since"]).to_dict("records") if days else []
    return [
        str(before["since"])
        for before, after in itertools.pairwise(rows)
        if before["level"] == "page" and before["version"] != after["version"] and before["since"] > fitted_until
    ]


def trained_as_of(tables: ParquetTables, model: Model) -> dt.date | None:
    """Last labelled day that the latest training set holds."""
    key = model.key("training_set")
    if model.table.time is None or tables.stamp(key) is None:
        return None
    return tables.read(key, columns=[model.table.time])[model.table.time].max().date()

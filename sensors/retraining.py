"""Requests a training run: on the declared cron, and when confirmed drift has labels of its own.

Belongs here: when to train. Does not belong here: what becomes of the candidate (the gate, automation).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import dagster as dg

from assets.declaration import Model
from assets.lifecycle.jobs import TRAIN, job_name
from assets.lifecycle.windows import windows_of
from resources.alerts import Alert, Alerts
from resources.tables import ParquetTables
from sensors.alerts import DRIFT_CAUSE, retraining_alerts


@dataclass(frozen=True)
class Retraining:
    """A decision: whether to train now, the words for it, and the key under which it happens once."""

    due: bool
    reason: str
    run_key: str = ""


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
    return Retraining(
        True,
        f"drift since {drifting_since}, labels up to {labelled_until}",
        f"{model.name}-retrain-{drifting_since}-{labelled_until}",
    )


def retraining_sensor(model: Model) -> dg.SensorDefinition:
    """Trains when :func:`retraining_due` says so."""

    @dg.sensor(
        name=f"{model.name}_retraining",
        job_name=job_name(model, TRAIN),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=600,
        required_resource_keys={"alerts", "tables"},
        description=f"Trains a challenger of {model.name} once confirmed drift has labels of its own.",
    )
    def retraining(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        tables = context.resources.tables
        labelled = tables.days(model.key("labels"))
        decision = retraining_due(
            model,
            drifting_since=drifting_since(context.resources.alerts, tables, model),
            labelled_until=dt.date.fromisoformat(labelled[-1]) if labelled else None,
            trained_as_of=trained_as_of(tables, model),
        )
        if not decision.due:
            return dg.SkipReason(decision.reason)
        words = f"a training run is requested: {decision.reason}"
        for alert in retraining_pages(context.resources.alerts, model):
            # A tick that is repeated (its run key is known) does not say it twice.
            if all(event.words != words for event in context.resources.alerts.store.history(alert.id)):
                context.resources.alerts.store.update(alert.id, words)
        return dg.RunRequest(run_key=decision.run_key, tags={"assetline/why": decision.reason})

    return retraining


def drifting_since(alerts: Alerts, tables: ParquetTables, model: Model) -> dt.date | None:
    """First day of what still asks for training: an open page, or a drift that no candidate was fitted on yet.

    A version brings a reference profile of its own days, so its promotion resolves a drift whether or not the version
    was fitted on a day of the new world. The one that has learnt it is still to come.
    """
    asking = retraining_pages(alerts, model) + unlearnt_drifts(alerts, tables, model)
    return min((dt.date.fromisoformat(alert.since_day) for alert in asking if alert.since_day), default=None)


def retraining_pages(alerts: Alerts, model: Model) -> list[Alert]:
    """Open pages that ask for a training run: confirmed drift, lost performance."""
    return [alert for alert in retraining_alerts(alerts, model.name) if alert.severity == "page"]


def unlearnt_drifts(alerts: Alerts, tables: ParquetTables, model: Model) -> list[Alert]:
    """Drifts that a promotion resolved, while the latest candidate was fitted on no day of them."""
    as_of = trained_as_of(tables, model)
    if as_of is None:
        return []
    fitted_until = windows_of(as_of, model.training, model.label_delay_days).fit[1].isoformat()

    def scored_by(day: str) -> str:
        key = model.key("drift")
        return str(tables.read(key, [day], ["version"])["version"].iloc[0]) if tables.stamp(key, day) else ""

    return [
        alert
        for alert in alerts.store.alerts(model.name)
        if alert.cause == DRIFT_CAUSE
        and alert.severity == "page"
        and alert.resolved_day
        and alert.since_day
        and alert.since_day > fitted_until
        and scored_by(alert.resolved_day) != scored_by(alert.since_day)
    ]


def trained_as_of(tables: ParquetTables, model: Model) -> dt.date | None:
    """Last labelled day that the latest training set holds."""
    key = model.key("training_set")
    if model.table.time is None or tables.stamp(key) is None:
        return None
    return tables.read(key, columns=[model.table.time])[model.table.time].max().date()


def retraining_schedule(model: Model) -> dg.ScheduleDefinition:
    """The declared retraining."""
    assert model.retrain is not None
    return dg.ScheduleDefinition(
        name=f"{model.name}_declared_retraining",
        job_name=job_name(model, TRAIN),
        cron_schedule=model.retrain,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"Trains a challenger of {model.name}, as declared.",
    )

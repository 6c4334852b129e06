"""Requests a training run: on the declared cron, and when the days of a confirmed drift have labels.

Belongs here: when to train. Does not belong here: the decision on the candidate (the gate, automation).

One sensor decides on both, and its run key is the latest labelled day. If the cron and a drift both request a training
run on the same day, there is one run. An additional schedule would request a second run on the same rows.
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
    """A decision whether to train now, and its reason in message."""

    due: bool
    reason: str


def retraining_due(
    model: Model, *, drifting_since: dt.date | None, labelled_until: dt.date | None, trained_as_of: dt.date | None
) -> Retraining:
    """Decides whether confirmed drift requires a training run.

    It does once the labelled days since the drift began fill the candidate's test window, so that champion and
    challenger are compared on rows after the drift. It does again after the cool-down, while the drift still requires
    training.

    Args:
        model: the declaration.
        drifting_since: first day of a drift that still requires training (:func:`drifting_since`); ``None`` if none.
        labelled_until: last day with labels; ``None`` if there are none.
        trained_as_of: last labelled day in the training set of the latest candidate; ``None`` if there is none.
    """
    if drifting_since is None:
        return Retraining(False, "no page for drift is open")
    if labelled_until is None:
        return Retraining(False, "there are no labels yet")
    enough = drifting_since + dt.timedelta(days=model.training.test_days - 1)
    if labelled_until < enough:
        return Retraining(
            False, f"drift since {drifting_since}; labels up to {enough} are needed, but they end on {labelled_until}"
        )
    if trained_as_of is not None:
        again = max(trained_as_of + dt.timedelta(days=model.retrain_cooldown_days), enough)
        if trained_as_of >= enough and labelled_until < again:
            return Retraining(
                False, f"a candidate has labels up to {trained_as_of}; the next training needs labels up to {again}"
            )
    return Retraining(True, f"drift since {drifting_since}, labels up to {labelled_until}")


def cron_periods(cron: str) -> dg.TimeWindowPartitionsDefinition:
    """The periods between two ticks of a cron (UTC), each named by the tick at which it begins."""
    return dg.TimeWindowPartitionsDefinition(
        cron_schedule=cron, start=dt.datetime(2020, 1, 1), fmt="%Y-%m-%dT%H:%M", timezone="UTC"
    )


def declared_due(cron: str, handled: str | None, now: dt.datetime) -> tuple[Retraining, str]:
    """Decides whether a tick of the declared cron is due, i.e. has passed and is not handled yet.

    Several ticks that passed since the last call request one training run. Ticks before the first call request none.

    Args:
        cron: the declared cron, UTC.
        handled: the second value that the previous call returned; ``None`` in the first call.
        now: time of the call.

    Returns:
        The decision, and the latest complete period, which counts as handled from now on.
    """
    with dg.partition_loading_context(effective_dt=now):
        complete = str(cron_periods(cron).get_last_partition_key())  # changes at each tick
    due = handled is not None and handled < complete
    return Retraining(due, f"due by the cron {cron} (UTC)" if due else f"the cron {cron} has not ticked"), complete


def retraining_sensor(model: Model) -> dg.SensorDefinition:
    """The sensor that requests training when :func:`retraining_due` or :func:`declared_due` decides so."""
    when = [f"on the cron {model.retrain} (UTC)"] if model.retrain else []
    when += ["once the days of a confirmed drift have labels"] if model.is_stream else []

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
        # Without labels, the key is the cron period; the run then fails with what is missing.
        key = f"{model.name}-train-{until or handled}"
        request = dg.RunRequest(run_key=key, tags={"assetline/why": "; ".join(due)})
        return dg.SensorResult(run_requests=[request], cursor=handled)

    return retraining


def _say_it_was_asked_for(alerts: Alerts, model: Model, reason: str) -> None:
    message = f"a training run is requested: {reason}"
    for alert in retraining_pages(alerts, model):
        # A repeated tick (with a known run key) does not add the same message again.
        if all(event.message != message for event in alerts.store.history(alert.id)):
            alerts.store.update(alert.id, message)


def drifting_since(alerts: Alerts, tables: ParquetTables, model: Model) -> dt.date | None:
    """First day of a drift or loss that requires training: an open page, or a drift that no candidate was fitted on."""
    days = [alert.since_day for alert in retraining_pages(alerts, model)] + unlearnt_drifts(tables, model)
    return min((dt.date.fromisoformat(day) for day in days if day), default=None)


def retraining_pages(alerts: Alerts, model: Model) -> list[Alert]:
    """Open pages that request a training run: confirmed drift, lost performance."""
    return [alert for alert in retraining_alerts(alerts, model.name) if alert.severity == "page"]


def unlearnt_drifts(tables: ParquetTables, model: Model) -> list[str]:
    """First days of drifts that ended with a new version, if the latest candidate was not fitted on any of their days.

    A version has a reference profile of its own days, so its promotion ends a drift even if it was not fitted on days
    after the drift began. A candidate fitted on those days is then still needed. The same holds for a topic that no
    version knows.
    """
    as_of = trained_as_of(tables, model)
    if as_of is None:
        return []
    fitted_until = windows_of(as_of, model.training, model.gap_days).fit[1].isoformat()
    found = []
    for name in ("drift", "unknown_intents"):
        days = [day for day in tables.days(model.key(name)) if day > fitted_until]
        rows = tables.read(model.key(name), days, ["version", "level", "since"]).to_dict("records") if days else []
        found += [
            str(before["since"])
            for before, after in itertools.pairwise(rows)
            if before["level"] == "page" and before["version"] != after["version"] and before["since"] > fitted_until
        ]
    return found


def trained_as_of(tables: ParquetTables, model: Model) -> dt.date | None:
    """Last labelled day of the latest training set; ``None`` without a training set or a time column."""
    key = model.key("training_set")
    if model.table.time is None or tables.stamp(key) is None:
        return None
    return tables.read(key, columns=[model.table.time])[model.table.time].max().date()

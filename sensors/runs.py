"""Opens an alert for an asset that a failed run did not make, and resolves it when a later run makes the asset.

Belongs here: which alert a failed run opens, and what resolves it. Does not belong here: failed checks (``alerts.py``).

The alert belongs to the asset whose step failed, not to the job, because all runs from automation and the UI's
Materialize button have the same job name, whatever the model.
"""

from collections.abc import Iterable, Mapping, Sequence

import dagster as dg

from assets.declaration import Model
from assets.lifecycle.jobs import TRAIN, job_name
from resources.alerts import Alerts
from resources.alerts.causes import RUN
from resources.alerts.runbooks import runbook_of
from resources.dagster_internals import Planned, planned_assets
from sensors.alerts import retraining_alerts

UNAVAILABLE_SOURCE = "SourceUnavailable"
"""Error of a landing whose source was unavailable; for a stream, the arrivals sensor requests the day and alerts."""
REFUSALS = ("DagsterAssetCheckFailedError", "Refused")
"""Errors of steps that failed because of a check; the check has its own alert."""
MOST_LETTERS = 300
"""Maximum length of an error in an alert, in characters; the run has the full text."""


def run_sensors(models: Sequence[Model]) -> list[dg.SensorDefinition]:
    """The sensors that open alerts for failed runs and resolve them."""
    owners = {model.name: model.owner for model in models}
    landings = {model.name: f"raw_{model.table.name}" for model in models if model.is_stream}
    trainings = {job_name(model, TRAIN): model.name for model in models}

    @dg.run_failure_sensor(
        name="failed_runs",
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Opens an alert for each asset that a failed run did not materialise.",
    )
    def failed_runs(context: dg.RunFailureSensorContext, alerts: dg.ResourceParam[Alerts]) -> None:
        run = context.dagster_run
        why = {event.step_key or "": _why(event) for event in context.get_step_failure_events()}
        planned = planned_assets(context.instance, run.run_id)
        for model, asset, day, step in _failed(planned, why, run.job_name):
            errors, message = why.get(step, ((), str(context.failure_event.message)))
            if run.job_name in trainings and asset != "evaluation":  # the ledger reports refusals by the gate
                for alert in retraining_alerts(alerts, model):
                    alerts.store.update(alert.id, f"retraining failed at {asset}: {message}")
            if any(name in REFUSALS for name in errors):
                continue
            if UNAVAILABLE_SOURCE in errors and asset in (landings.get(model), "raw_labels"):
                continue
            cause = f"{RUN}{asset}"
            changed = alerts.store.report(
                model if model in owners else "assetline",
                cause,
                severity="page",
                summary=f"{f'{day}: ' if day else ''}run {run.run_id[:8]} of {run.job_name} failed: {message}",
                owner=owners.get(model, ""),
                runbook=runbook_of(cause),
                day=day,
                links={"run": f"/runs/{run.run_id}"},
            )
            alerts.tell(changed)

    @dg.run_status_sensor(
        name="recovered_runs",
        run_status=dg.DagsterRunStatus.SUCCESS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Resolves the alert of an asset, or of a job without assets, once a run of it succeeds.",
    )
    def recovered_runs(context: dg.RunStatusSensorContext, alerts: dg.ResourceParam[Alerts]) -> None:
        run = context.dagster_run
        still_open = {(a.model, a.cause) for a in alerts.store.open_alerts() if a.cause.startswith(RUN)}
        if not still_open:
            return
        planned = planned_assets(context.instance, run.run_id)
        for model, asset, day, _ in _latest(planned) or [("assetline", run.job_name, None, "")]:
            owner = model if model in owners else "assetline"
            if (owner, f"{RUN}{asset}") in still_open:
                reason = f"run {run.run_id[:8]} succeeded"
                alerts.tell(alerts.store.resolve(owner, f"{RUN}{asset}", reason=reason, day=day))

    return [failed_runs, recovered_runs]


Failed = tuple[str, str, str | None, str]
"""Model, asset, latest day and step."""


def _failed(planned: Sequence[Planned], why: Mapping[str, tuple[Sequence[str], str]], job: str) -> list[Failed]:
    """The assets that a run did not make because their steps failed.

    If the run ended without a failed step (for example, its process was killed), the first asset that it did not make.
    """
    if not planned:
        return [("assetline", job, None, next(iter(why), ""))]
    if why:
        return _latest(one for one in planned if one.step in why)
    return _latest(one for one in planned if not one.made)[:1]


def _latest(planned: Iterable[Planned]) -> list[Failed]:
    """The planned assets in their order, each with its latest day."""
    days: dict[tuple[str, str, str], str | None] = {}
    for one in planned:
        model, *asset = one.asset_key.path
        step_of_asset = (model, "/".join(asset), one.step)
        days[step_of_asset] = max(filter(None, (days.get(step_of_asset), one.day)), default=None)
    return [(model, asset, day, step) for (model, asset, step), day in days.items()]


def _why(event: dg.DagsterEvent) -> tuple[Sequence[str], str]:
    """The names of the errors that caused a step failure, and the first line of the description or innermost error."""
    error = event.step_failure_data.error
    failure = event.step_failure_data.user_failure_data
    chain = []
    while error is not None:
        chain.append(error)
        error = error.cause
    message = (failure.description if failure else None) or (chain[-1].message if chain else "") or "no reason is given"
    return [one.cls_name or "" for one in chain], message.strip().splitlines()[0][:MOST_LETTERS]

"""Opens and resolves alerts from what Dagster saw: check evaluations and failed runs.

Belongs here: what deserves an alert. Does not belong here: what happens to one (``resources/alerts.py``). Dagster does
not fail a run for a failed check, so the checks are read from the event log.
"""

from collections.abc import Sequence

import dagster as dg

from assets.declaration import Model
from resources.alerts import Alerts, Seen
from resources.dagster_internals import Evaluation, check_evaluations

EVALUATIONS = "check_evaluations"
"""The stream of observations whose position the store keeps: a story and a daemon may take turns."""


def cause_of(asset: str, check: str) -> str:
    """Cause of an alert that a check of an asset raises, e.g. ``drift/drift``."""
    return f"{asset}/{check}"


DRIFT_CAUSE = cause_of("drift", "drift")


def alerts_sensor(models: Sequence[Model]) -> dg.SensorDefinition:
    """A check that fails with severity ERROR opens (or repeats) an alert; when it passes, the alert resolves.

    A failure with severity WARN shows in the UI and opens nothing.
    """
    names = {model.name for model in models}

    @dg.sensor(
        name="alerts",
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        required_resource_keys={"alerts"},
        target=dg.AssetSelection.all(),
        description="Opens and resolves alerts from check evaluations.",
    )
    def alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        resource: Alerts = context.resources.alerts
        found = check_evaluations(context.instance, after=resource.store.position(EVALUATIONS))
        for evaluation in found:
            if evaluation.asset_key.path[0] in names:
                handle(resource, evaluation)
            else:
                resource.store.advance(Seen(EVALUATIONS, evaluation.storage_id))
        return dg.SkipReason(f"{len(found)} check evaluations read")

    return alerts


def handle(alerts: Alerts, evaluation: Evaluation) -> None:
    """What one check evaluation means for the alerts."""
    model, *asset = evaluation.asset_key.path
    cause, seen = cause_of("/".join(asset), evaluation.check), Seen(EVALUATIONS, evaluation.storage_id)
    day = evaluation.day or ""
    if evaluation.passed:
        reason = f"the check passed{f' on {day}' if day else ''}: {evaluation.description}"
        alerts.tell(alerts.store.resolve(model, cause, reason=reason, day=evaluation.day, seen=seen))
    elif evaluation.severity == dg.AssetCheckSeverity.ERROR:
        since = evaluation.metadata.get("since")
        changed = alerts.store.report(
            model,
            cause,
            # A day's check is about what serves now. Others (a candidate that was refused) harm nobody yet.
            severity="page" if evaluation.day else "warn",
            summary=f"{day + ': ' if day else ''}{evaluation.description}",
            day=evaluation.day,
            since_day=str(since) if since else None,
            links={"run": f"/runs/{evaluation.run_id}", "asset": f"/assets/{evaluation.asset_key.to_user_string()}"},
            seen=seen,
        )
        alerts.tell(changed)
    else:
        alerts.store.advance(seen)


REFUSALS = ("DagsterAssetCheckFailedError", "Refused")
"""Errors of runs that a check failed: the check has an alert of its own."""


def run_sensors(models: Sequence[Model]) -> list[dg.SensorDefinition]:
    """A failed run opens an alert of its job, unless a check failed it; the job's next success resolves it."""

    def whose(job: str) -> str:
        return next((model.name for model in models if job.startswith(f"{model.name}_")), "assetline")

    @dg.run_failure_sensor(
        name="failed_runs",
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Opens an alert for a run that failed.",
    )
    def failed_runs(context: dg.RunFailureSensorContext, alerts: dg.ResourceParam[Alerts]) -> None:
        run = context.dagster_run
        errors = [event.step_failure_data.error for event in context.get_step_failure_events()]
        names = {cause.cls_name for error in errors if error for cause in (error, error.cause) if cause}
        if names & set(REFUSALS):
            return
        alerts.tell(
            alerts.store.report(
                whose(run.job_name),
                f"run/{run.job_name}",
                severity="page",
                summary=f"run {run.run_id[:8]} of {run.job_name} failed: {context.failure_event.message}",
                links={"run": f"/runs/{run.run_id}"},
            )
        )

    @dg.run_status_sensor(
        name="recovered_runs",
        run_status=dg.DagsterRunStatus.SUCCESS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Resolves the alert of a job that succeeds again.",
    )
    def recovered_runs(context: dg.RunStatusSensorContext, alerts: dg.ResourceParam[Alerts]) -> None:
        run = context.dagster_run
        reason = f"run {run.run_id[:8]} succeeded"
        alerts.tell(alerts.store.resolve(whose(run.job_name), f"run/{run.job_name}", reason=reason))

    return [failed_runs, recovered_runs]

"""Opens and resolves alerts from check evaluations, and adds the outcome of retraining to them.

Belongs here: which evaluations open an alert. Does not belong here: failed runs (``runs.py``); the handling of alerts
(``resources/alerts``); faults that only a process outside Dagster can see (``serving/watch/watchdog.py``). A failed
check does not fail its Dagster run, so checks are read from the event log.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from assets.alerts import KEY, alerts_materialization
from assets.declaration import Model
from resources.alerts import Alert, Alerts, Seen, Severity, fingerprint_of
from resources.alerts.runbooks import runbook_of
from resources.dagster_internals import Evaluation, check_evaluations
from resources.ledger import Ledger, action_in_words

EVALUATIONS, LEDGER = "check_evaluations", "promotions"
"""Event streams whose read position is in the store, so that a story run and a daemon can alternate."""


def cause_of(asset: str, check: str) -> str:
    """The cause of an alert that a check of an asset opens, e.g. ``drift/drift``."""
    return f"{asset}/{check}"


DRIFT_CAUSE = cause_of("drift", "drift")
LOST_CAUSE = cause_of("performance", "floor")
UNKNOWN_CAUSE = cause_of("unknown_intents", "new_topic")
RETRAINED_CAUSES = (DRIFT_CAUSE, LOST_CAUSE, UNKNOWN_CAUSE)
"""Causes whose pages request a training run, and whose alerts record its outcome."""


def alerts_sensor(models: Sequence[Model]) -> dg.SensorDefinition:
    """The sensor of alerts: a failed check opens (or repeats) an alert, and a passed check resolves it."""
    owners = {model.name: model.owner for model in models}

    @dg.sensor(
        name="alerts",
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        required_resource_keys={"alerts", "ledger"},
        target=dg.AssetSelection.assets(KEY),
        description="Opens and resolves alerts from check evaluations, and updates the table of alerts.",
    )
    def alerts(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        resource: Alerts = context.resources.alerts
        found = check_evaluations(context.instance, after=resource.store.position(EVALUATIONS))
        handle_all(resource, found, owners)
        tell_what_came_of_retraining(resource, context.resources.ledger)
        for changed in resource.store.tend():
            resource.tell(changed)
        message = f"{len(found)} check evaluations read"
        last = str(resource.store.last_event())
        if last == (context.cursor or "0"):
            return dg.SkipReason(message)
        # Changes, also those by a watchdog or a person, appear in the asset at once; they do not need a run.
        return dg.SensorResult(asset_events=[alerts_materialization(resource.store)], cursor=last, skip_reason=None)

    return alerts


def handle_all(alerts: Alerts, evaluations: Sequence[Evaluation], owners: Mapping[str, str]) -> None:
    """Updates the alerts from check evaluations, in their order.

    Most checks pass and have no open alert. They change nothing, so they are skipped without reading the store.

    Args:
        alerts: the store and the channels.
        evaluations: check evaluations, oldest first.
        owners: owner by model; evaluations of other models are skipped.
    """
    still_open = {(alert.model, alert.cause) for alert in alerts.store.open_alerts()}
    for evaluation in evaluations:
        model, *asset = evaluation.asset_key.path
        key = (model, cause_of("/".join(asset), evaluation.check))
        if model in owners and (not evaluation.passed or key in still_open):
            handle(alerts, evaluation, owner=owners[model])
            still_open.add(key)
    if evaluations:
        alerts.store.advance(Seen(EVALUATIONS, evaluations[-1].storage_id))


def handle(alerts: Alerts, evaluation: Evaluation, owner: str = "") -> None:
    """Updates the alerts from one check evaluation; one that was already handled changes nothing.

    A check with ``columns`` in its metadata (``{column: fault}``) has one alert per column. Their ``levels`` (``page``
    or ``warn``) and ``since`` may be given by column as well.
    """
    if alerts.store.position(EVALUATIONS) >= evaluation.storage_id:
        return
    model, *asset = evaluation.asset_key.path
    cause, seen = cause_of("/".join(asset), evaluation.check), Seen(EVALUATIONS, evaluation.storage_id)
    day = evaluation.day or ""
    wrong = _wrong(evaluation)
    passed = f"the check passed{f' on {day}' if day else ''}: {evaluation.description}"
    for alert in alerts.store.open_causes(model, cause):
        if alert.column not in wrong:
            over = passed if not wrong else f"{alert.column or 'it'} is back to normal{f' on {day}' if day else ''}"
            alerts.tell(alerts.store.resolve(model, cause, column=alert.column, reason=over, day=evaluation.day))
    for column, message in wrong.items():
        since = _of_column(evaluation, "since", column)
        changed = alerts.store.report(
            model,
            cause,
            column=column,
            severity=_severity(evaluation, column),
            summary=f"{day + ': ' if day else ''}{message}",
            owner=owner,
            runbook=runbook_of(cause),
            day=evaluation.day,
            since_day=str(since) if since else None,
            links=_links(evaluation),
            # Each alert has its own position, so that a kill in between repeats none of them.
            seen=Seen(f"{EVALUATIONS}/{fingerprint_of(model, cause, column)}", evaluation.storage_id),
        )
        alerts.tell(changed)
    alerts.store.advance(seen)


def _wrong(evaluation: Evaluation) -> Mapping[str, str]:
    """Faults by column; the empty name is for a fault of no column."""
    if evaluation.passed:
        return {}
    columns: Any = evaluation.metadata.get("columns")
    return columns if isinstance(columns, Mapping) and columns else {"": evaluation.description}


def _of_column(evaluation: Evaluation, name: str, column: str) -> Any:
    """A value of the metadata that may be given by column."""
    value: Any = evaluation.metadata.get(name)
    return value.get(column) if isinstance(value, Mapping) else value


def _severity(evaluation: Evaluation, column: str) -> Severity:
    if _of_column(evaluation, "levels", column) == "warn":
        return "warn"  # another column of the same check may page
    # A check of a day concerns the version in production. Other checks (a refused candidate) do no harm yet, unless
    # they say so: a version that was withdrawn after it had answered requests.
    in_production = evaluation.day and evaluation.severity == dg.AssetCheckSeverity.ERROR
    return "page" if in_production or evaluation.metadata.get("severity") == "page" else "warn"


def _links(evaluation: Evaluation) -> dict[str, str]:
    asset = evaluation.asset_key.to_user_string()
    links = {"run": f"/runs/{evaluation.run_id}", "check": f"/assets/{asset}?view=checks", "asset": f"/assets/{asset}"}
    if report := evaluation.metadata.get("report"):
        links["report"] = str(report)
    return links


def retraining_alerts(alerts: Alerts, model: str) -> list[Alert]:
    """Open alerts of a model that request a training run once they page: drift, lost performance."""
    return [alert for alert in alerts.store.open_alerts(model) if alert.cause in RETRAINED_CAUSES]


def tell_what_came_of_retraining(alerts: Alerts, ledger: Ledger) -> None:
    """Adds each new entry of the ledger to the open alerts that requested a training run."""
    position = alerts.store.position(LEDGER)
    for entry in ledger.history():
        if entry.id <= position:
            continue
        for alert in retraining_alerts(alerts, entry.model):
            if alert.opened_at <= entry.at:
                became = f"version {entry.version} was {action_in_words(entry.action)}"
                alerts.store.update(alert.id, f"retraining: {became}: {entry.reason}")
        alerts.store.advance(Seen(LEDGER, entry.id))

"""The alerts as an asset with a table for the UI, and jobs that handle alerts from the launchpad.

Belongs here: showing and handling alerts in Dagster. Does not belong here: the store (``resources/alerts``), the
conditions that open alerts (``sensors/alerts.py``).
"""

# No `from __future__ import annotations`, because Dagster reads the types of the ops' config.
import datetime as dt

import dagster as dg
from pydantic import Field

from resources.alerts import Alert, Alerts, AlertStore

KEY = dg.AssetKey(["assetline", "alerts"])
MOST_SHOWN = 50
COLUMNS = ("id", "state", "severity", "model", "cause", "column", "count", "since", "opened", "owner", "summary")


def alerts_materialization(store: AlertStore) -> dg.AssetMaterialization:
    """Returns the current alerts table as a materialization event that needs no run."""
    return dg.AssetMaterialization(KEY, metadata=_shown(store))


@dg.asset(
    key=KEY,
    group_name="assetline/monitoring",
    owners=["team:models"],
    kinds={"sqlalchemy"},
    code_version="1",
    description="All open alerts and the last resolved ones. The alerts sensor updates them with each change; "
    "`assetline alerts`, the jobs alerts_* and the watch's page manage them.",
)
def alerts_table(alerts: dg.ResourceParam[Alerts]) -> dg.MaterializeResult:
    """The alerts table; see the asset's description."""
    return dg.MaterializeResult(metadata=_shown(alerts.store))


def _shown(store: AlertStore) -> dict[str, dg.MetadataValue | int]:
    alerts = sorted(store.alerts(limit=500), key=lambda a: (a.state == "resolved", -a.id))
    records = [dg.TableRecord(_record(alert)) for alert in alerts[:MOST_SHOWN]]
    columns = [dg.TableColumn(name, "int" if name in ("id", "count") else "string") for name in COLUMNS]
    still_open = [alert for alert in alerts if alert.state != "resolved"]
    return {
        "open": len(still_open),
        "pages": sum(alert.severity == "page" for alert in still_open),
        "alerts": dg.MetadataValue.table(records, dg.TableSchema(columns)),
    }


def _record(alert: Alert) -> dict[str, str | int | float | bool | None]:
    return {
        "id": alert.id, "state": "silenced" if alert.is_silenced() else alert.state, "severity": alert.severity,
        "model": alert.model, "cause": alert.cause, "column": alert.column, "count": alert.count,
        "since": alert.since_day or "", "opened": f"{alert.opened_at:%Y-%m-%d %H:%M}", "owner": alert.owner,
        "summary": alert.summary[:200],
    }  # fmt: skip


class Handled(dg.Config):
    """Config of a job that handles alerts: which alerts, and who handles them."""

    ids: list[int] = Field(description="Numbers of the alerts, as in the table of assetline/alerts.")
    who: str = Field(description="Your name, for the history.")
    comment: str = Field(default="", description="Why, in a few words.")


class Silenced(Handled):
    """Config of the job that silences alerts: which alerts, by whom, and for how many hours."""

    hours: float = Field(default=8.0, gt=0, description="Hours without notifications, except a resolution.")


@dg.op
def acknowledge(context: dg.OpExecutionContext, config: Handled, alerts: dg.ResourceParam[Alerts]) -> None:
    """Acknowledges alerts: reminders stop, and PagerDuty and Alertmanager are notified."""
    for number in config.ids:
        changed = alerts.store.acknowledge(number, who=config.who, comment=config.comment)
        context.log.info(f"alert {number}: {'acknowledged' if changed else 'was acknowledged already'}")


@dg.op
def silence(context: dg.OpExecutionContext, config: Silenced, alerts: dg.ResourceParam[Alerts]) -> None:
    """Silences alerts: notifications other than the resolution stop for a number of hours."""
    until = dt.datetime.now(dt.UTC) + dt.timedelta(hours=config.hours)
    for number in config.ids:
        alerts.store.silence(number, until=until, who=config.who, comment=config.comment)
        context.log.info(f"alert {number}: silenced until {until:%Y-%m-%d %H:%M} UTC")


@dg.op
def resolve(context: dg.OpExecutionContext, config: Handled, alerts: dg.ResourceParam[Alerts]) -> None:
    """Resolves alerts; an alert reopens if its cause recurs soon."""
    for number in config.ids:
        alerts.store.close(number, who=config.who, comment=config.comment)
        context.log.info(f"alert {number}: resolved")


def alert_jobs() -> list[dg.JobDefinition]:
    """Returns ``alerts_acknowledge``, ``alerts_silence`` and ``alerts_resolve``; the launchpad edits their config."""

    @dg.job(name="alerts_acknowledge", description="Acknowledges alerts: somebody is working on them.")
    def acknowledging() -> None:
        acknowledge()

    @dg.job(name="alerts_silence", description="Silences alerts: no notifications for a while.")
    def silencing() -> None:
        silence()

    @dg.job(name="alerts_resolve", description="Resolves alerts.")
    def resolving() -> None:
        resolve()

    return [acknowledging, silencing, resolving]

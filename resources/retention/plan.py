"""The plan of what a prune removes, and carrying it out.

Belongs here: joining the rules, the order, and the lock. Does not belong here: the rules.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resources.retention.periods import Retention

if TYPE_CHECKING:
    import dagster as dg

    from resources.settings import Settings


class RetentionError(Exception):
    """A period or a table is wrong, or a prune runs already. Nothing was removed; the message gives the fix."""


@dataclass(frozen=True)
class Removal:
    """One thing that goes.

    Args:
        rule: the kind of state, e.g. ``runs``.
        what: the thing, for people.
        size: its size in bytes; for rows of a database, that of their text.
        remove: removes it.
    """

    rule: str
    what: str
    size: int
    remove: Callable[[], None]


def plan(
    settings: Settings, retention: Retention, instance: dg.DagsterInstance, now: dt.datetime | None = None
) -> list[Removal]:
    """Everything that a prune would remove now; changes nothing.

    Args:
        settings: the state folder and the project's own database.
        retention: the periods.
        instance: Dagster's instance on that folder.
        now: time from which the periods count back, with a zone; default: now.

    Raises:
        RetentionError: there is no state folder, or a declared table does not exist.
    """
    return list(_removals(settings, retention, instance, now or dt.datetime.now(dt.UTC)))


def prune(
    settings: Settings, retention: Retention, instance: dg.DagsterInstance, now: dt.datetime | None = None
) -> list[Removal]:
    """Removes what :func:`plan` lists, one thing after the other, and returns it. A kill leaves the rest to the next.

    Raises:
        RetentionError: as for :func:`plan`; or a backup or another prune is running.
    """
    from resources.backup import maintenance

    _refuse_missing(settings)
    with maintenance(settings, RetentionError):
        removals = plan(settings, retention, instance, now)
        for removal in removals:
            removal.remove()
    return removals


def _removals(
    settings: Settings, retention: Retention, instance: dg.DagsterInstance, now: dt.datetime
) -> Iterator[Removal]:
    from resources.ledger import Ledger
    from resources.mlflow import MlflowTracking
    from resources.request_log import RequestLog
    from resources.retention.alerts import alerts, deliveries
    from resources.retention.named import named
    from resources.retention.requests import logged_days
    from resources.retention.runs import runs
    from resources.retention.tables import table_days
    from resources.retention.versions import versions
    from resources.tables import ParquetTables

    _refuse_missing(settings)
    mlflow = MlflowTracking.from_settings(settings).process_config_and_initialize()
    ledger = Ledger(database_url=settings.database_url)
    kept = named(ledger, mlflow)
    # A wrong declaration is refused before anything else is looked for.
    tables = ParquetTables(root=settings.tables)
    yield from table_days(tables, retention, now)
    log = RequestLog(folder=str(settings.serving), url=settings.history_url)
    yield from logged_days(log, tables, retention, now)
    yield from runs(instance, settings, retention, kept, now)
    yield from versions(mlflow, ledger, settings, retention, kept, now)
    yield from deliveries(settings.database_url, retention, now)
    yield from alerts(settings.database_url, retention, now)


def _refuse_missing(settings: Settings) -> None:
    if not settings.home.is_dir():
        raise RetentionError(f"there is no state folder {settings.home}; ASSETLINE_HOME names another one")

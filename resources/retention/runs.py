"""Old runs of Dagster: what they said goes, the facts about assets stay.

Belongs here: which runs and events go. Does not belong here: Dagster's tables (``dagster_internals.py``).

Dagster's automation reads the latest materialization and check result of each day from the event log. If they went,
all old days would be made again. So a run that holds one of them keeps its row and these events, and loses the rest
(start and end of steps, log lines, inputs and outputs). A run that holds none of them goes as a whole, unless a sensor
asked for it: the sensor knows by the run's key that it need not ask again.
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from resources.dagster_internals import remove_chatter, runs_with_current_facts, size_of_events
from resources.retention.named import Named
from resources.retention.periods import Retention
from resources.retention.plan import Removal
from resources.settings import Settings

if TYPE_CHECKING:
    import dagster as dg

_RUN_KEY = "dagster/run_key"


def runs(
    instance: dg.DagsterInstance, settings: Settings, retention: Retention, kept: Named, now: dt.datetime
) -> Iterator[Removal]:
    """Removals of finished runs that ended longer ago than ``run_days``."""
    before = now - dt.timedelta(days=retention.run_days)
    records = instance.get_run_records()  # newest first
    old = [
        record
        for record in records[retention.latest_runs :]
        if record.dagster_run.is_finished
        and dt.datetime.fromtimestamp(record.end_time or record.create_timestamp.timestamp(), dt.UTC) < before
        and record.dagster_run.run_id not in kept.dagster_runs
    ]
    if not old:
        return
    current = runs_with_current_facts(instance)
    for record in old:
        run = record.dagster_run
        output = settings.dagster_home / "storage" / run.run_id
        when = f"{record.create_timestamp:%Y-%m-%d}"
        if run.run_id in current or _RUN_KEY in run.tags:
            size = size_of_events(instance, run.run_id, chatter_only=True) + folder_size(output)
            if size:
                what = f"events of run {run.run_id[:8]} ({run.job_name}, {when})"
                yield Removal("events", what, size, partial(_quieten, instance, run.run_id, output))
        else:
            size = size_of_events(instance, run.run_id, chatter_only=False) + folder_size(output)
            what = f"run {run.run_id[:8]} ({run.job_name}, {when})"
            yield Removal("runs", what, size, partial(_delete, instance, run.run_id, output))


def folder_size(folder: Path) -> int:
    """Size of all files in a folder, in bytes; 0 if there is no folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _quieten(instance: dg.DagsterInstance, run_id: str, output: Path) -> None:
    shutil.rmtree(output, ignore_errors=True)
    remove_chatter(instance, run_id)


def _delete(instance: dg.DagsterInstance, run_id: str, output: Path) -> None:
    shutil.rmtree(output, ignore_errors=True)
    instance.delete_run(run_id)

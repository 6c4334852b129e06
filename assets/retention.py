"""The job ``retention``: removes old state from the launchpad or by its schedule, as ``assetline prune`` does.

Belongs here: the config, the log, and the schedule, which is off until somebody switches it on. Does not belong here:
what is removed (``resources/retention``), the periods (``resources/defaults.py``).
"""

# No `from __future__ import annotations`: Dagster reads the annotations of the op.

import dagster as dg
from pydantic import Field

from resources.defaults import RETENTION
from resources.retention import Retention, RetentionError, plan, prune
from resources.settings import Settings


class Pruning(dg.Config):
    """Config of the job: the periods, and whether anything is removed."""

    periods: Retention = Field(default=RETENTION, description="How long each kind of state is kept.")
    remove: bool = Field(default=False, description="Remove it; otherwise only log what would go.")


@dg.op
def retain(context: dg.OpExecutionContext, config: Pruning) -> None:
    """Removes old state that nothing refers to, or logs what would go."""
    settings = Settings.from_env()
    try:
        removals = (prune if config.remove else plan)(settings, config.periods, context.instance)
    except RetentionError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error
    for removal in removals:
        context.log.info(f"{'removed' if config.remove else 'would go'}: {removal.what}, {removal.size:,} bytes")
    said = "removed" if config.remove else "would go; nothing was removed"
    context.log.info(f"{len(removals):,} things, {sum(removal.size for removal in removals):,} bytes: {said}")


def retention_job() -> dg.JobDefinition:
    """Returns ``retention``; the launchpad edits its config."""

    @dg.job(name="retention", description="Removes old state that nothing refers to; by default it only logs what.")
    def retaining() -> None:
        retain()

    return retaining


def retention_schedule() -> dg.ScheduleDefinition:
    """Returns the schedule that removes old state each night, off by default."""
    return dg.ScheduleDefinition(
        name="retention_nightly",
        job_name=retention_job().name,
        cron_schedule="30 3 * * *",
        run_config={"ops": {"retain": {"config": {"remove": True}}}},
        description="Removes old state that nothing refers to, each night at 03:30 UTC. Off until it is switched on.",
        default_status=dg.DefaultScheduleStatus.STOPPED,
    )

"""The Dagster code location: wires the models, resources and sensors of the folders.

Belongs here: building one ``Definitions`` from declarations, resources and sensors. Does not belong here: any logic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from resources.settings import (
    Settings,
    collect_garbage_seldom,
    give_memory_back,
    one_thread_each,
    quiet_telemetry,
)

quiet_telemetry()
one_thread_each()
give_memory_back()
collect_garbage_seldom()

from assets.alerts import alert_jobs, alerts_table  # noqa: E402 - telemetry is off before anything else is imported
from assets.build import broken_asset, build  # noqa: E402
from assets.declaration import Model  # noqa: E402
from assets.lifecycle.data.landing import source_resources  # noqa: E402
from assets.lifecycle.release.approval import approval_job  # noqa: E402
from assets.lifecycle.release.rollback import rollback_job  # noqa: E402
from assets.models import read_folders  # noqa: E402
from assets.retention import retention_job, retention_schedule  # noqa: E402
from resources.defaults import default_resources  # noqa: E402
from resources.targets.base import target_names  # noqa: E402
from sensors.defaults import default_sensors  # noqa: E402


def build_defs(
    *,
    models: Sequence[Model] | None = None,
    settings: Settings | None = None,
    resource_overrides: Mapping[str, Any] | None = None,
    executor: dg.ExecutorDefinition = dg.in_process_executor,
) -> dg.Definitions:
    """Builds everything that Dagster loads.

    Args:
        models: the declarations; default: those of the model folders. A broken one becomes an asset with the reason.
        settings: the settings; default: from the environment.
        resource_overrides: resources by key that replace the default ones (for example, a small source in a test).
        executor: where the steps of a run execute, for runs of the UI and the daemon. In the run's own process, a step
            starts at once; Dagster has executors for processes, Docker, Kubernetes and Celery.
    """
    found, broken = read_folders() if models is None else (list(models), [])
    settings = settings or Settings.from_env()
    resources = {**default_resources(settings, {}), **(resource_overrides or {})}
    built, unbuildable = build(found, targets=target_names(resources))
    broken = [*broken, *unbuildable]
    sound = [one.model for one in built]
    for one in broken:
        dg.get_dagster_logger().error(f"the model in assets/models/{one.name} is broken: {one.reason}")
    return dg.Definitions(
        assets=[*(asset for one in built for asset in one.assets), *map(broken_asset, broken), alerts_table],
        jobs=[
            *(job for one in built for job in one.jobs),
            *alert_jobs(),
            rollback_job(sound),
            approval_job(sound),
            retention_job(),
        ],
        schedules=[retention_schedule()],
        sensors=default_sensors(sound),
        resources={**source_resources(sound), **resources},
        executor=executor,
    )


defs = build_defs()

"""The code location: wiring only. What there is to wire, the folders offer.

Belongs here: from declarations, resources and sensors to one ``Definitions``. Does not belong here: anything that does
something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from resources.settings import Settings, quiet_telemetry

quiet_telemetry()

from assets.declaration import Model  # noqa: E402 - telemetry is off before anything else is imported
from assets.lifecycle.factory import lifecycle_assets  # noqa: E402
from assets.lifecycle.jobs import model_jobs  # noqa: E402
from assets.models import declared_models  # noqa: E402
from resources.defaults import default_resources  # noqa: E402
from sensors.defaults import default_schedules, default_sensors  # noqa: E402


def build_defs(
    *,
    models: Sequence[Model] | None = None,
    settings: Settings | None = None,
    resource_overrides: Mapping[str, Any] | None = None,
) -> dg.Definitions:
    """Everything that Dagster loads.

    Args:
        models: the declarations; default: those of the model folders.
        settings: default: from the environment.
        resource_overrides: resources by key that take the place of the default ones (a test's small source, say).
    """
    models = declared_models() if models is None else models
    settings = settings or Settings.from_env()
    return dg.Definitions(
        assets=[asset for model in models for asset in lifecycle_assets(model)],
        jobs=[job for model in models for job in model_jobs(model)],
        sensors=default_sensors(models),
        schedules=default_schedules(models),
        resources={**default_resources(models, settings), **(resource_overrides or {})},
        executor=dg.in_process_executor,
    )


defs = build_defs()

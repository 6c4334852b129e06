"""Goes on with a rollout when its next step is due, or takes the version back.

Belongs here: the run that takes a step. Does not belong here: what a comparison means
(``assets/lifecycle/release/rollout.py``).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import dagster as dg

from assets.declaration import Model
from assets.lifecycle.release.rollout import progress_of, take
from resources.tables import ParquetTables


def rollouts_sensor(models: Sequence[Model]) -> dg.SensorDefinition:
    """The sensor of rollouts, for models that declare one.

    It compares the versions at each tick and requests a run only if a step follows from it. After the last step, this
    run promotes the version, and scores the rows of a table without days.
    """
    declared = [model for model in models if model.rollout is not None]
    keys = {
        model.name: [
            model.key(name)
            for name in ("rollout", "deployment", "model_card", *(() if model.is_stream else ("predictions", "drift")))
        ]
        for model in declared
    }

    @dg.sensor(
        name="rollouts",
        target=dg.AssetSelection.assets(*(key for of_model in keys.values() for key in of_model)),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        required_resource_keys={"ledger", "request_log", "tables"},
        description="Takes the next step of a rollout, or takes the version back.",
    )
    def rollouts(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        resources, requests, messages = context.resources, list[dg.RunRequest](), list[str]()
        for model in declared:
            now = dt.datetime.now(dt.UTC)
            progress = progress_of(model, resources.ledger, resources.request_log, resources.tables, now)
            if progress is None:
                continue
            messages.append(f"{model.name}: {progress.message}")
            if progress.step.action != "wait" and not _is_trained_here(resources.tables, model, progress.entry.version):
                # A release of a pipeline: no asset here is of this version, and `make promote` promotes it.
                take(resources.ledger, model, progress, dagster_run="", who="dagster")
            elif progress.step.action != "wait":
                requests.append(
                    dg.RunRequest(
                        # A run that failed is requested again after a while: a bad version must not stay.
                        run_key=f"{model.name}-rollout-{progress.entry.id}-{progress.step.action}-{now:%Y%m%d%H%M}"[
                            :-1
                        ],
                        asset_selection=keys[model.name],
                        tags={"assetline/why": progress.message[:500]},
                    )
                )
        if not requests:
            return dg.SkipReason("; ".join(messages) or "no version is being rolled out")
        return dg.SensorResult(run_requests=requests)

    return rollouts


def _is_trained_here(tables: ParquetTables, model: Model, version: str) -> bool:
    """Whether a version is the latest that was trained with this state."""
    key = model.key("trained_model")
    return bool(tables.days(key)) and str(tables.read(key)["version"].iloc[0]) == version

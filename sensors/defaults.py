"""The sensors of all models, switched on; `definitions.py` wires them.

Each job has one trigger. The retraining sensor also handles the declared cron, so that one place decides whether to
request a training run. The only schedule is that of the job ``retention`` (``assets/retention.py``), off by default.
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from assets.declaration import Model
from resources.sources import Stream
from sensors.alerts import alerts_sensor
from sensors.approvals import approvals_sensor
from sensors.arrivals import arrivals_sensor
from sensors.automation import automation_sensor
from sensors.drift import drift_sensor
from sensors.knowledge import knowledge_sensor
from sensors.requests import requests_sensor
from sensors.retraining import retraining_sensor
from sensors.rollouts import rollouts_sensor
from sensors.runs import run_sensors
from sensors.tuning import tuning_sensor


def default_sensors(models: Sequence[Model]) -> list[dg.SensorDefinition]:
    """The sensors of all models, and of each model what its declaration asks for.

    All models: alerts and runs; approvals and rollouts where declared. Each model has one for automation and one for
    the requests of the scoring service. Per stream: arrivals, missed days, retraining. A table without days has a
    sensor for its declared retraining. A declared search for a better recipe has its own, and so has a
    knowledge base.
    """
    sensors: list[dg.SensorDefinition] = [alerts_sensor(models), *run_sensors(models)]
    if any(model.approval for model in models):
        sensors.append(approvals_sensor(models))
    if any(model.rollout for model in models):
        sensors.append(rollouts_sensor(models))
    for model in models:
        sensors += [automation_sensor(model), requests_sensor(model)]
        if isinstance(model.table.source, Stream):
            sensors.append(arrivals_sensor(model))
        if model.is_stream:
            sensors.append(drift_sensor(model))
        if model.is_stream or model.retrain:
            sensors.append(retraining_sensor(model))
        if model.answers:
            sensors.append(knowledge_sensor(model))
        if model.tuning.schedule:
            sensors.append(tuning_sensor(model))
    return sensors

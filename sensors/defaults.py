"""The sensors and schedules of all models, switched on: what `definitions.py` wires."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from assets.declaration import Model
from resources.sources import Stream
from sensors.alerts import alerts_sensor
from sensors.arrivals import arrivals_schedule, arrivals_sensor
from sensors.automation import automation_sensor
from sensors.drift import drift_sensor
from sensors.retraining import retraining_schedule, retraining_sensor
from sensors.runs import run_sensors


def default_sensors(models: Sequence[Model]) -> list[dg.SensorDefinition]:
    """One automation sensor, the alerts', and per stream: arrivals, missed drift checks, retraining."""
    sensors: list[dg.SensorDefinition] = [automation_sensor, alerts_sensor(models), *run_sensors(models)]
    for model in models:
        if isinstance(model.table.source, Stream):
            sensors.append(arrivals_sensor(model))
        if model.is_stream:
            sensors += [drift_sensor(model), retraining_sensor(model)]
    return sensors


def default_schedules(models: Sequence[Model]) -> list[dg.ScheduleDefinition]:
    """Per stream its daily arrivals; per model its declared retraining."""
    daily = [arrivals_schedule(model) for model in models if isinstance(model.table.source, Stream)]
    return [*daily, *(retraining_schedule(model) for model in models if model.retrain)]

"""Requests that the documents of a knowledge base are read again when a file of them has changed.

Belongs here: when. Does not belong here: reading them (``assets/lifecycle/retrieval/knowledge.py``).
"""

from __future__ import annotations

import dagster as dg

from assets.declaration import Model
from assets.lifecycle.jobs import KNOWLEDGE, job_name
from assets.lifecycle.retrieval.knowledge import digest_of


def knowledge_sensor(model: Model) -> dg.SensorDefinition:
    """The sensor that requests the job ``knowledge`` once per state of the files, after the first training run."""
    key = model.key("knowledge")

    @dg.sensor(
        name=f"{model.name}_knowledge",
        job_name=job_name(model, KNOWLEDGE),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=60,
        required_resource_keys={"tables"},
        description=f"Reads the knowledge base of {model.name} again when a document changes.",
    )
    def knowledge(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        if context.resources.tables.stamp(key) is None:
            return dg.SensorResult(skip_reason="the first training run reads the documents", cursor=context.cursor)
        digest = digest_of(model)
        if digest == context.cursor:
            return dg.SensorResult(skip_reason="no document has changed", cursor=digest)
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=f"{model.name}-knowledge-{digest}")], cursor=digest)

    return knowledge

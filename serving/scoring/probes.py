"""``/livez`` and ``/readyz``: what an orchestrator asks before it restarts a process or sends it requests.

Belongs here: when a process is alive, and when it is ready. Does not belong here: the status of each model, for people
and the watchdog (``/health``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fastapi import FastAPI, Request
from fastapi.responses import Response

from serving.scoring.errors import Json


class Loading(Protocol):
    """What a model's endpoint says about its start."""

    @property
    def name(self) -> str:
        """Name of the model."""

    @property
    def has_started(self) -> bool:
        """Whether a version serves, or the registry said that none is deployed yet."""

    @property
    def waiting_for(self) -> str:
        """The reason why no version serves yet."""


class Readiness:
    """Whether requests should come to this process.

    A process becomes ready once each of its models serves a version, or has none deployed yet: a model that waits for
    its first version must not keep the others away. It stays ready from then on, whatever happens to a model, because
    all replicas follow the same registry and would leave together. It is not ready any more once it is to stop.

    Args:
        endpoints: the endpoints of the served models.
    """

    def __init__(self, endpoints: Sequence[Loading]) -> None:
        self._endpoints, self._was_ready = endpoints, False
        self.stopping = False

    def reasons(self) -> list[str]:
        """Why no requests should come; empty if they should."""
        if self.stopping:
            return ["the process is stopping"]
        if self._was_ready:
            return []
        reasons = [f"{one.name}: {one.waiting_for}" for one in self._endpoints if not one.has_started]
        self._was_ready = not reasons
        return reasons


def add_probes(app: FastAPI, readiness: Readiness) -> None:
    """Adds the two paths. They are plain routes that read two flags, so they also answer under load."""

    async def alive(_: Request) -> Response:
        return Json({"status": "ok"})

    async def ready(_: Request) -> Response:
        reasons = readiness.reasons()
        return Json({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    app.add_route("/livez", alive, methods=["GET"])
    app.add_route("/readyz", ready, methods=["GET"])

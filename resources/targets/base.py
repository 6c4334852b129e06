"""The protocol of deployment targets.

Belongs here: what each target can do, and what its methods return. Does not belong here: a place (its own module), the
order in which a promotion visits several targets (``assets/lifecycle/release/promotion.py``).
"""

# No `from __future__ import annotations`: Dagster reads the annotations of a resource's fields.
import abc
import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import dagster as dg

STAGED = "staged"
"""Version reported by a staged process, which has a bundle folder but no version number."""

SMOKE_TIMEOUT_S = 30.0
"""Seconds that a staged service has to answer the smoke test."""


class DeploymentError(Exception):
    """A target cannot do what was asked. The message gives the version, the state of the target and the fix."""


@dataclass(frozen=True)
class Staged:
    """A bundle that answers in a temporary service.

    Args:
        url: base URL of the service.
        headers: headers that each request needs, such as a bearer token.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Answer:
    """What a target says after a change.

    Args:
        message: one sentence about the state of the target now.
        facts: what identifies the deployed version there, for example ``{"digest": "sha256:…"}``; goes to the ledger.
    """

    message: str
    facts: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The answer for the verdicts of a ledger entry."""
        return {"passed": True, "message": self.message, **self.facts}


State = Literal["serving", "deploying", "absent", "no endpoint", "unknown"]
"""A version serves; it is being rolled out or not all of it is ready; there is none; the target has no endpoint; the
target cannot be reached."""


@dataclass(frozen=True)
class Status:
    """State of a model on a target: its version there (``None`` if there is none), and one sentence."""

    state: State
    version: str | None
    message: str


def resource_key(name: str) -> str:
    """Key of the Dagster resource of a target, from its name in declarations."""
    return f"target_{name}"


def target_names(resources: Iterable[str]) -> list[str]:
    """Names of the targets among the keys of resources."""
    prefix = resource_key("")
    return [key.removeprefix(prefix) for key in resources if key.startswith(prefix)]


class DeploymentTarget(dg.ConfigurableResource, abc.ABC):
    """A place where model versions run.

    All methods can be repeated: a second call with the same arguments changes nothing. A promotion that raises leaves
    the version that served before.
    """

    follows_ledger: ClassVar[bool] = False
    """Whether the version on this target is derived from the ledger, so that it is changed after the ledger's entry."""

    @abc.abstractmethod
    def stage(self, bundle: Path) -> AbstractContextManager[Staged]:
        """Runs the bundle in a temporary service and yields its address; the service is removed after the block.

        Raises :class:`DeploymentError` if it does not become healthy.
        """

    def smoke_test(self, staged: Staged, model: str) -> Mapping[str, Any]:
        """Asks a staged service whether it serves the model; returns the JSON of its ``/health``.

        Raises :class:`DeploymentError` if there is no such answer, or the model is not ``ok``.
        """
        try:
            health = _read_json(f"{staged.url}/health", staged.headers)
            endpoint = health["models"][model]
            status, problem = endpoint["status"], endpoint.get("problem")
        except (KeyError, TypeError, AttributeError) as error:
            raise DeploymentError(f"the response of the service cannot be read ({error!r})") from error
        except (OSError, ValueError) as error:
            raise DeploymentError(f"the service does not answer as it should: {error}") from error
        if status != "ok":
            raise DeploymentError(f"the service is {status}: {problem}")
        return dict(health)

    @abc.abstractmethod
    def promote(self, model: str, version: str) -> Answer:
        """Makes this version the one that serves. Raises :class:`DeploymentError` if it cannot."""

    @abc.abstractmethod
    def roll_back(self, model: str, version: str) -> Answer:
        """Puts back a version that this target has served before, from what it kept of it."""

    @abc.abstractmethod
    def status(self, model: str) -> Status:
        """Reads the state of a model on this target. Changes nothing."""

    @abc.abstractmethod
    def undeploy(self, model: str) -> Answer:
        """Removes the model from this target. Versions and images are kept."""


def _read_json(url: str, headers: Mapping[str, str]) -> Any:
    # Ignore proxies from the environment: a service beside this process or in its cluster is not behind one.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, headers=dict(headers)), timeout=SMOKE_TIMEOUT_S) as response:
        return json.loads(response.read())

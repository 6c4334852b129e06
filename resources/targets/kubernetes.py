"""The target ``kubernetes``: each model as a Deployment with what belongs to it, through the official client.

A promotion applies the objects (server-side apply, so that fields of others, such as the autoscaler's number of
replicas, stay) and waits for the rolling update to the image's digest. If the new pods do not become ready, the objects
of the version before are applied again; its pods never stopped, because the update allows no unavailable pod.

Belongs here: requests to the cluster, waiting, and undoing. Does not belong here: the objects (``manifests.py``), the
image (``container_image.py``), the cluster.
"""

# No `from __future__ import annotations`: Dagster needs the evaluated annotations for ResourceDependency.
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from resources.targets.base import STAGED, Answer, DeploymentError, DeploymentTarget, Staged, Status
from resources.targets.container_image import ContainerImage, Image
from resources.targets.manifests import (
    MANAGER,
    PORT,
    VERSION,
    Manifest,
    Shape,
    labels_of,
    manifests_of,
    object_name,
    selector_of,
)

REQUEST_TIMEOUT_S = 30
"""Seconds that one request to the cluster may take."""
LONGEST_NAME = 63
"""Longest name of a Service in Kubernetes."""

_STAGED = "-staged"
_APPLY = "application/apply-patch+yaml"
_KINDS = {
    "NetworkPolicy": ("NetworkingV1Api", "network_policy"),
    "Service": ("CoreV1Api", "service"),
    "PodDisruptionBudget": ("PolicyV1Api", "pod_disruption_budget"),
    "HorizontalPodAutoscaler": ("AutoscalingV2Api", "horizontal_pod_autoscaler"),
    "Deployment": ("AppsV1Api", "deployment"),
    "Pod": ("CoreV1Api", "pod"),
}
"""Class of the client and name of the resource in its methods, by kind."""


class Kubernetes(DeploymentTarget):
    """Runs each model as pods of a cluster, behind a Service of the same name."""

    images: dg.ResourceDependency[ContainerImage]
    namespace: str = Field(default="default", description="Namespace of all objects.")
    kubeconfig: str = Field(default="", description="Path of a kubeconfig; empty: the account of the own pod.")
    context: str = Field(default="", description="Context of the kubeconfig; empty: the current one.")
    address: str = Field(
        default="http://{name}.{namespace}.svc:{port}",
        description="Address of a staged service as this process reaches it. The default works inside the cluster.",
    )
    token_file: str = Field(
        default="", description="File with a token of the service, for requests to a staged one; empty: none is sent."
    )
    rollout_timeout_s: int = Field(default=300, gt=0, description="Seconds that new pods have to become ready.")
    poll_s: float = Field(default=1.0, gt=0, description="Seconds between two looks at a rollout.")
    force: bool = Field(default=False, description="Take over fields that somebody else has set by hand.")
    min_replicas: int = Field(default=2, gt=0, description="Smallest number of pods.")
    max_replicas: int = Field(default=6, gt=0, description="Largest number of pods.")
    cpu: str = Field(default="250m", description="CPU that a pod requests.")
    cpu_limit: str = Field(default="1", description="CPU that a pod may use.")
    memory: str = Field(default="768Mi", description="Memory that a pod requests.")
    memory_limit: str = Field(default="1536Mi", description="Memory that a pod may use.")
    target_cpu_percent: int = Field(default=70, gt=0, description="Average CPU use, of the request, to scale to.")
    token_secret: str = Field(
        default="assetline-service-tokens", description="Secret with `service-tokens.toml`, which each pod mounts."
    )
    settings_secret: str = Field(
        default="assetline-settings", description="Secret with ASSETLINE_* variables of each pod; it may be missing."
    )
    pull_secret: str = Field(default="", description="Secret for pulling from the registry; empty: none is needed.")
    client_namespaces: list[str] = Field(
        default_factory=list, description="Further namespaces whose pods may send requests (ingress, Prometheus)."
    )
    egress_ports: list[int] = Field(default_factory=lambda: [5432], description="TCP ports that pods may connect to.")

    @contextlib.contextmanager
    def stage(self, bundle: Path) -> Iterator[Staged]:
        """See :meth:`DeploymentTarget.stage`. One pod with a Service of its own, beside the version that serves."""
        image = self._pushed(self.images.build(bundle), "the candidate")
        name = self._name(image.model, _STAGED)
        objects = manifests_of(image.model, STAGED, image.reference, self._shape(), _STAGED)
        try:
            for manifest in objects:
                self._apply(manifest, force=True)
            self._wait(image.model, STAGED, _STAGED)
            url = self.address.format(name=name, namespace=self.namespace, port=PORT)
            yield Staged(url, self._headers())
        finally:
            for manifest in reversed(objects):
                self._delete(manifest["kind"], name)

    def promote(self, model: str, version: str) -> Answer:
        """See :meth:`DeploymentTarget.promote`."""
        return self._roll_out(model, version, self._pushed(self.images.image_of(model, version), f"version {version}"))

    def roll_back(self, model: str, version: str) -> Answer:
        """See :meth:`DeploymentTarget.roll_back`. It rolls out the recorded digest."""
        return self._roll_out(model, version, self._pushed(self.images.recorded(model, version), f"version {version}"))

    def status(self, model: str) -> Status:
        """See :meth:`DeploymentTarget.status`."""
        name = self._name(model)
        try:
            found = self._read(name)
        except DeploymentError as error:
            return Status("unknown", None, str(error))
        if found is None:
            return Status("absent", None, f"there is no Deployment of {model} in namespace {self.namespace}")
        version = found["metadata"].get("annotations", {}).get(VERSION)
        ready, wanted = found.get("status", {}).get("availableReplicas") or 0, found["spec"].get("replicas", 1)
        state = f"{ready} of {wanted} pods of version {version} of {model} are available, image {_image_in(found)}"
        return Status("serving" if _is_complete(found) else "deploying", version, state)

    def undeploy(self, model: str) -> Answer:
        """See :meth:`DeploymentTarget.undeploy`. Images stay in the registry."""
        name = self._name(model)
        for manifest in reversed(manifests_of(model, "", "", self._shape())):
            self._delete(manifest["kind"], name)
        return Answer(f"namespace {self.namespace} has no objects of {model}")

    def _roll_out(self, model: str, version: str, image: Image) -> Answer:
        name = self._name(model)
        before = self._read(name)
        applied = False
        try:
            for manifest in manifests_of(model, version, image.reference, self._shape()):
                self._apply(manifest, force=self.force)
                applied = True
            self._wait(model, version)
        except DeploymentError as error:
            undone = self._undo(model, before) if applied else "nothing was changed"
            raise DeploymentError(f"version {version} of {model} was not rolled out: {error}; {undone}") from error
        after = self._read(name)
        pods = after["status"].get("availableReplicas", 0) if after else 0
        facts = {**image.facts, "namespace": self.namespace}
        return Answer(f"version {version} of {model} serves with {pods} pods of {image.reference}", facts)

    def _undo(self, model: str, before: Manifest | None) -> str:
        """Applies the objects of the version before; returns what became of it, as the end of a sentence."""
        try:
            if before is None:
                self.undeploy(model)
                return "its objects were removed again, as there was no version before"
            version = before["metadata"].get("annotations", {}).get(VERSION, "")
            for manifest in manifests_of(model, version, _image_in(before), self._shape()):
                self._apply(manifest, force=True)
            return f"the rollout was undone, and version {version} serves"
        except DeploymentError as error:
            return f"undoing the rollout failed as well: {error}"

    def _wait(self, model: str, version: str, suffix: str = "") -> None:
        """Returns once the rollout is complete; raises :class:`DeploymentError` with the reasons of the pods if not."""
        name = self._name(model, suffix)
        deadline = time.monotonic() + self.rollout_timeout_s
        while True:
            found = self._read(name)
            if found is None:
                raise DeploymentError(f"somebody deleted the Deployment {name} during the rollout")
            if _is_complete(found):
                return
            if _has_given_up(found) or time.monotonic() > deadline:
                reasons = "; ".join(self._reasons(model, version, suffix)) or "the cluster names no reason"
                raise DeploymentError(f"its pods are not ready after {self.rollout_timeout_s} s: {reasons}")
            time.sleep(self.poll_s)

    def _reasons(self, model: str, version: str, suffix: str) -> Iterator[str]:
        selector = ",".join(f"{key}={value}" for key, value in selector_of(labels_of(model, suffix)).items())
        pods = self._ask("list", "Pod", "", label_selector=selector)
        for pod in pods["items"] if pods else []:
            if pod["metadata"].get("annotations", {}).get(VERSION) == version:
                reason = _reason_of(pod)
                if reason:
                    yield f"pod {pod['metadata']['name']}: {reason}"

    def _apply(self, manifest: Manifest, *, force: bool) -> None:
        given = {"field_manager": MANAGER, "force": force, "field_validation": "Strict", "_content_type": _APPLY}
        self._ask("patch", manifest["kind"], manifest["metadata"]["name"], body=manifest, **given)

    def _read(self, name: str) -> Manifest | None:
        return self._ask("read", "Deployment", name)

    def _delete(self, kind: str, name: str) -> None:
        self._ask("delete", kind, name)

    def _ask(self, verb: str, kind: str, name: str, **given: Any) -> Manifest | None:
        """One request; returns the object, or ``None`` if it does not exist.

        Raises:
            DeploymentError: the cluster refuses it or does not answer; the message gives the reason and the fix.
        """
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        client = self._client()
        group, noun = _KINDS[kind]
        method = getattr(_api(group)(client), f"{verb}_namespaced_{noun}")
        where = (self.namespace,) if verb == "list" else (name, self.namespace)
        what = f"{verb} {kind} {name}".strip()
        try:
            # The raw answer, because a server may answer a deletion with a Status or with the object.
            answer = method(*where, _request_timeout=REQUEST_TIMEOUT_S, _preload_content=False, **given)
            found: Manifest = json.loads(answer.read())
        except ApiException as error:
            if error.status == 404 and verb in ("read", "delete"):
                return None
            raise DeploymentError(self._explained(what, error.status, error.reason, error.body)) from error
        except (HTTPError, OSError) as error:
            raise DeploymentError(f"the cluster does not answer to `{what}`: {error}") from error
        return found

    def _explained(self, what: str, status: int | None, reason: str | None, body: str | None) -> str:
        try:
            said = str(json.loads(body or "")["message"])
        except (ValueError, KeyError, TypeError):
            said = str(reason or "no reason given")
        fix = {
            401: "the credentials are not valid (any more); renew those of the kubeconfig",
            403: "give the account the role of deploy/kubernetes/role.yaml",
            409: "undo that change, or set force=True on the target to take the fields over",
            422: "correct the fields of the target in resources/defaults.py",
        }.get(status or 0, "try again, or ask who runs the cluster")
        return f"the cluster refuses `{what}` in namespace {self.namespace} ({status}: {said}); {fix}"

    def _client(self) -> Any:
        try:
            from kubernetes import client, config
        except ImportError as error:
            raise DeploymentError("the target needs the official client; pip install '.[kubernetes]'") from error
        settings = client.Configuration()
        try:
            if self.kubeconfig:
                config.load_kube_config(self.kubeconfig, self.context or None, settings)
            else:
                config.load_incluster_config(client_configuration=settings)
        except (config.ConfigException, OSError) as error:
            where = f"kubeconfig {self.kubeconfig}" if self.kubeconfig else "the account of this pod"
            mend = "set ASSETLINE_KUBECONFIG to a valid file, or run this inside the cluster"
            raise DeploymentError(f"{where} cannot be used: {error}; {mend}") from error
        settings.retries = False
        return client.ApiClient(settings)

    def _pushed(self, image: Image, what: str) -> Image:
        if not image.pushed:
            raise DeploymentError(
                f"{what} of {image.model} has no image in a registry that the cluster could pull; set "
                "ASSETLINE_IMAGE_TOOL and ASSETLINE_IMAGE_REPOSITORY"
            )
        return image

    def _headers(self) -> dict[str, str]:
        path = Path(self.token_file)
        if not self.token_file or not path.exists():
            return {}
        return {"Authorization": f"Bearer {path.read_text().strip()}"}

    def _name(self, model: str, suffix: str = "") -> str:
        name = object_name(model, suffix)
        if len(object_name(model, _STAGED)) > LONGEST_NAME:
            longest = LONGEST_NAME - len(object_name("", _STAGED))
            raise DeploymentError(f"the name '{model}' is too long for a Service; give at most {longest} characters")
        return name

    def _shape(self) -> Shape:
        return Shape(**{one.name: getattr(self, one.name) for one in fields(Shape)})


def _api(group: str) -> Any:
    from kubernetes import client

    return getattr(client, group)


def _image_in(deployment: Manifest) -> str:
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])


def _is_complete(deployment: Manifest) -> bool:
    """Whether all pods are of the latest template and available, as ``kubectl rollout status`` judges it."""
    status, wanted = deployment.get("status") or {}, deployment["spec"].get("replicas", 1)
    return (
        status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
        and status.get("updatedReplicas", 0) >= wanted
        and status.get("replicas", 0) == status.get("updatedReplicas", 0)
        and status.get("availableReplicas", 0) == status.get("updatedReplicas", 0)
    )


def _has_given_up(deployment: Manifest) -> bool:
    """Whether the cluster itself says that the rollout makes no progress."""
    status = deployment.get("status") or {}
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return False  # the conditions are those of the version before
    conditions = status.get("conditions") or []
    return any(one["type"] == "Progressing" and one["status"] == "False" for one in conditions)


def _reason_of(pod: Manifest) -> str:
    """Why a pod is not ready; empty if it is."""
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or []:
        if container.get("ready"):
            return ""
        ended = (container.get("lastState") or {}).get("terminated") or container.get("state", {}).get("terminated")
        waiting = (container.get("state") or {}).get("waiting")
        parts = []
        if waiting:
            parts.append(": ".join(filter(None, (waiting.get("reason"), waiting.get("message")))))
        if ended:
            said = (ended.get("message") or "").strip().splitlines()[-1:]
            parts.append(": ".join([f"its last run ended with status {ended.get('exitCode')}", *said]))
        return ", ".join(parts) or "it runs, but /readyz does not answer 200"
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return ": ".join(filter(None, (condition.get("reason"), condition.get("message"))))
    return f"it is {status.get('phase', 'unknown')}"

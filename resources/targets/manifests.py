"""The Kubernetes objects of one deployed model version, as plain dictionaries.

Belongs here: what the objects say. Does not belong here: requests to a cluster (``kubernetes.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]

PORT = 8000
USER = 10001
"""User and group of the service in its image (``deploy/images/service.Dockerfile``)."""

VERSION = "assetline/version"
MODEL = "assetline/model"
NAME = "app.kubernetes.io/name"
INSTANCE = "app.kubernetes.io/instance"
MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "assetline"

TOKENS = "/run/secrets/assetline"
"""Folder of the mounted Secret with ``service-tokens.toml``."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Size and surroundings of a deployed model; see the fields of ``Kubernetes`` for their meaning."""

    namespace: str
    min_replicas: int = 2
    max_replicas: int = 6
    cpu: str = "250m"
    cpu_limit: str = "1"
    memory: str = "768Mi"
    memory_limit: str = "1536Mi"
    target_cpu_percent: int = 70
    rollout_timeout_s: int = 300
    token_secret: str = "assetline-service-tokens"
    settings_secret: str = "assetline-settings"
    pull_secret: str = ""
    client_namespaces: Sequence[str] = ()
    egress_ports: Sequence[int] = (5432,)


def object_name(model: str, suffix: str = "") -> str:
    """Name of all objects of a model; a name in Kubernetes has no underscores."""
    return f"assetline-{model.replace('_', '-')}{suffix}"


def manifests_of(model: str, version: str, image: str, shape: Shape, suffix: str = "") -> list[Manifest]:
    """All objects of a model version, in the order in which they are applied; the Deployment is the last.

    Args:
        model: name of the model.
        version: its version, which the service reports.
        image: reference of the image, with its digest.
        shape: size and surroundings.
        suffix: ends the name, for a staged version beside the one that serves.
    """
    name = object_name(model, suffix)
    metadata = {"name": name, "namespace": shape.namespace, "labels": labels_of(model, suffix)}
    if suffix:
        return [_network_policy(metadata, shape), _service(metadata), _deployment(metadata, version, image, shape, 1)]
    return [
        _network_policy(metadata, shape),
        _service(metadata),
        _disruption_budget(metadata),
        _autoscaler(metadata, shape),
        _deployment(metadata, version, image, shape, None),
    ]


def labels_of(model: str, suffix: str = "") -> dict[str, str]:
    """Labels of all objects of a model; the first two select its pods."""
    return {NAME: "assetline", INSTANCE: object_name(model, suffix), MODEL: model, MANAGED_BY: MANAGER}


def selector_of(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels that select the pods of a model."""
    return {name: labels[name] for name in (NAME, INSTANCE)}


def _deployment(metadata: Manifest, version: str, image: str, shape: Shape, replicas: int | None) -> Manifest:
    selector = selector_of(metadata["labels"])
    probe = {"port": "http", "scheme": "HTTP"}
    container = {
        "name": "service",
        "image": image,
        "args": ["--version", version],
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        "env": [
            {"name": "ASSETLINE_HOME", "value": "/state"},
            {"name": "ASSETLINE_SERVICE_TOKENS", "value": f"{TOKENS}/service-tokens.toml"},
        ],
        # For example ASSETLINE_HISTORY_URL, so that all replicas know the same rows. It holds a password.
        "envFrom": [{"secretRef": {"name": shape.settings_secret, "optional": True}}],
        "resources": {
            "requests": {"cpu": shape.cpu, "memory": shape.memory},
            "limits": {"cpu": shape.cpu_limit, "memory": shape.memory_limit},
        },
        # Loading and warming up takes seconds. Until then, the other two probes are not asked.
        "startupProbe": {"httpGet": {"path": "/livez", **probe}, "periodSeconds": 2, "failureThreshold": 60},
        "livenessProbe": {"httpGet": {"path": "/livez", **probe}, "periodSeconds": 10, "timeoutSeconds": 3},
        "readinessProbe": {"httpGet": {"path": "/readyz", **probe}, "periodSeconds": 5, "timeoutSeconds": 3},
        # The last lines of the log become the pod's message, which a failed rollout then names.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        # The endpoint is removed while this sleeps, so that no request reaches a service that is about to stop.
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "state", "mountPath": "/state"},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "tokens", "mountPath": TOKENS, "readOnly": True},
        ],
    }
    pod = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 60,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector},
            }
        ],
        "containers": [container],
        "volumes": [
            {"name": "state", "emptyDir": {"sizeLimit": "1Gi"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
            {"name": "tokens", "secret": {"secretName": shape.token_secret, "defaultMode": 0o440}},
        ],
    }
    if shape.pull_secret:
        pod["imagePullSecrets"] = [{"name": shape.pull_secret}]
    labels = metadata["labels"]
    spec: Manifest = {
        "selector": {"matchLabels": selector},
        "revisionHistoryLimit": 5,
        "progressDeadlineSeconds": shape.rollout_timeout_s,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": {"metadata": {"labels": labels, "annotations": {VERSION: version}}, "spec": pod},
    }
    if replicas is not None:  # otherwise the autoscaler sets the number, and an update must not reset it
        spec["replicas"] = replicas
    annotated = {**metadata, "annotations": {VERSION: version}}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": annotated, "spec": spec}


def _service(metadata: Manifest) -> Manifest:
    ports = [{"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}]
    spec = {"type": "ClusterIP", "selector": selector_of(metadata["labels"]), "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def _autoscaler(metadata: Manifest, shape: Shape) -> Manifest:
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": shape.target_cpu_percent}}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": metadata["name"]},
        "minReplicas": shape.min_replicas,
        "maxReplicas": shape.max_replicas,
        "metrics": [{"type": "Resource", "resource": cpu}],
    }
    return {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata, "spec": spec}


def _disruption_budget(metadata: Manifest) -> Manifest:
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": selector_of(metadata["labels"])}}
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata, "spec": spec}


def _network_policy(metadata: Manifest, shape: Shape) -> Manifest:
    """Requests come from the own namespace and the named ones; out go names and the ports of the databases."""
    namespaces = [shape.namespace, *shape.client_namespaces]
    clients = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}} for name in namespaces]
    names = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    spec = {
        "podSelector": {"matchLabels": selector_of(metadata["labels"])},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": clients, "ports": [{"port": PORT, "protocol": "TCP"}]}],
        "egress": [
            {"ports": names},
            *({"ports": [{"port": port, "protocol": "TCP"}]} for port in shape.egress_ports),
        ],
    }
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}

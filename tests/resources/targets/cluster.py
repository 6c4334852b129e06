"""An API server of Kubernetes on the loopback interface, as far as the target uses it.

It is a double: there is no cluster here. It speaks the documented HTTP (paths, server-side apply with field managers,
`Status` objects for errors, `status` of a Deployment as the controller writes it, pods with container states) and
checks each applied object against the published schemas. A `kubelet` decides what becomes of the pods of an image: it
runs, or it has a reason why not.
"""

from __future__ import annotations

import copy
import http.server
import json
import re
import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate

TOKEN = "the-token-of-the-tests"
PATHS = {
    "networkpolicies": ("/apis/networking.k8s.io/v1", "NetworkPolicy"),
    "services": ("/api/v1", "Service"),
    "poddisruptionbudgets": ("/apis/policy/v1", "PodDisruptionBudget"),
    "horizontalpodautoscalers": ("/apis/autoscaling/v2", "HorizontalPodAutoscaler"),
    "deployments": ("/apis/apps/v1", "Deployment"),
    "pods": ("/api/v1", "Pod"),
}
READY: dict[str, Any] = {"state": {"running": {}}, "ready": True}

Kubelet = Callable[[dict[str, Any]], dict[str, Any] | None]
"""Takes a Deployment and returns the state of its container; ``None``: the pod is still starting."""


@dataclass
class Cluster:
    """Objects by kind and name, all requests, and what goes wrong.

    Args:
        refuse: answers by ``(verb, kind)``: a status and a message.
        kubelet: what becomes of the pods of a Deployment; by default they are ready at the second look.
        gone: told of each deleted object.
        schedulable: whether there is a node for a new pod.
        patient: whether the controller never gives up a rollout; by default it does at the fifth look at a failing pod.
    """

    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    refuse: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    kubelet: Kubelet = lambda _: READY
    gone: Callable[[dict[str, Any]], None] = lambda _: None
    schedulable: bool = True
    patient: bool = False
    looks: dict[str, int] = field(default_factory=dict)
    url: str = ""
    lock: Any = field(default_factory=threading.RLock)

    def kinds(self) -> list[str]:
        return sorted(kind for kind, _ in self.objects)

    def deployment(self, name: str) -> dict[str, Any]:
        return self.objects["Deployment", name]

    # -- what the API server does ------------------------------------------------------------------------------------

    def answer(self, verb: str, kind: str, name: str, query: dict[str, str], body: dict[str, Any] | None):
        self.requests.append((verb, kind, name))
        if (verb, kind) in self.refuse:
            return status(*self.refuse[verb, kind])
        if verb == "patch":
            return self._apply(kind, name, query, body or {})
        if verb == "list":
            return 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self._pods(query)}
        if (kind, name) not in self.objects:
            return status(404, f'{kind.lower()}s "{name}" not found')
        if verb == "delete":
            self.gone(self.objects.pop((kind, name)))
            return status(200, "deleted")
        found = self.objects[kind, name]
        if kind == "Deployment":
            self._reconcile(name)
        if (kind, name) not in self.objects:  # a test let somebody delete it
            return status(404, f'{kind.lower()}s "{name}" not found')
        return 200, copy.deepcopy(found)

    def _apply(self, kind: str, name: str, query: dict[str, str], body: dict[str, Any]):
        try:
            kubernetes_validate.validate(body, kubernetes_validate.latest_version().rpartition(".")[0], strict=True)
        except kubernetes_validate.ValidationError as error:
            return status(422, f'{kind} "{name}" is invalid: {error.message}')
        if kind == "HorizontalPodAutoscaler" and body["spec"]["maxReplicas"] < body["spec"]["minReplicas"]:
            return status(422, "spec.maxReplicas: Invalid value: must be greater than or equal to `minReplicas`")
        if (body["kind"], body["metadata"]["name"]) != (kind, name):
            return status(400, "the name of the object does not match the name on the URL")
        known = self.objects.get((kind, name))
        others = (known or {}).get("managers", {})
        if others and query.get("force") != "true":
            who, path = next(iter(others.items()))
            return status(409, f"Apply failed with 1 conflict: conflict with {who!r}: {path}")
        meta = {"uid": f"uid-{name}", "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}
        changed = known is None or known["spec"] != {**known["spec"], **body["spec"]}
        generation = (known["metadata"]["generation"] if known else 0) + changed
        spec = copy.deepcopy({**(known["spec"] if known else {}), **body["spec"]})
        made = {**copy.deepcopy(body), "spec": spec, "status": (known or {}).get("status", {})}
        made["metadata"] |= {**meta, "generation": generation, "namespace": "models"}
        if kind == "Deployment":
            spec.setdefault("replicas", 2)  # as the autoscaler would set it
            if changed:
                self.looks[name] = 0
        self.objects[kind, name] = made
        return (200 if known else 201), copy.deepcopy(made)

    # -- what the controllers and the nodes do -----------------------------------------------------------------------

    def _state(self, name: str) -> dict[str, Any] | None:
        if not self.schedulable or self.looks[name] < 2:
            return None
        return self.kubelet(self.objects["Deployment", name])

    def _reconcile(self, name: str) -> None:
        self.looks[name] += 1
        found = self.objects["Deployment", name]
        wanted, state = found["spec"]["replicas"], self._state(name)
        ready = state is not None and bool(state.get("ready"))
        if self.looks[name] == 1:  # the controller has not seen the new template yet: all looks as it was
            return
        old = found["status"].get("availableReplicas", 0) if not ready else 0
        progress = {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated"}
        failed = (state is not None or not self.schedulable) and not ready
        if failed and self.looks[name] >= 5 and not self.patient:
            progress |= {"status": "False", "reason": "ProgressDeadlineExceeded"}
        found["status"] = {
            "observedGeneration": found["metadata"]["generation"], "replicas": wanted if ready else old + 1,
            "updatedReplicas": wanted if ready else 1, "readyReplicas": wanted if ready else old,
            "availableReplicas": wanted if ready else old,
            "conditions": [progress],
        }  # fmt: skip

    def _pods(self, query: dict[str, str]) -> list[dict[str, Any]]:
        labels = dict(pair.split("=") for pair in query["labelSelector"].split(","))
        pods = []
        for (kind, name), found in self.objects.items():
            template = found["spec"].get("template", {}).get("metadata", {})
            if kind == "Deployment" and labels.items() <= template.get("labels", {}).items():
                pods.append(self._pod(f"{name}-7d9f-abcde", template, self._state(name)))
        return pods

    def _pod(self, name: str, template: dict[str, Any], state: dict[str, Any] | None) -> dict[str, Any]:
        said: dict[str, Any] = {"phase": "Pending"}
        if not self.schedulable:
            message = "0/3 nodes are available: 3 Insufficient memory."
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            said["conditions"] = [condition]
        elif state is not None:
            told = {"name": "service", "image": "i", "imageID": "", "restartCount": 0, "ready": False, **state}
            said["containerStatuses"] = [told]
        return {"metadata": {"name": name, **copy.deepcopy(template)}, "status": said}


def status(code: int, message: str) -> tuple[int, dict[str, Any]]:
    """A `Status`, which is what the API server answers instead of an object."""
    reasons = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 422: "Invalid"}
    said = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "message": message, "code": code}
    return code, {**said, "status": "Success" if code < 300 else "Failure", "reason": reasons.get(code, "")}


class Handler(http.server.BaseHTTPRequestHandler):
    """Reads a request of the API and lets the cluster answer it."""

    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def do_GET(self):
        self.reply()

    def do_PATCH(self):
        self.reply()

    def do_DELETE(self):
        self.reply()

    def reply(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        found = re.fullmatch(r"(/apis?(?:/[\w.]+)?/v\d)/namespaces/models/(\w+)(?:/([\w-]+))?", parts.path)
        with self.cluster.lock:
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                code, said = status(401, "Unauthorized")
            elif found is None or PATHS.get(found[2], ("",))[0] != found[1]:
                code, said = status(404, f"the server could not find the requested resource {parts.path}")
            else:
                verbs = {"PATCH": "patch", "DELETE": "delete", "GET": "read" if found[3] else "list"}
                query = {key: values[0].lower() if key == "force" else values[0]
                         for key, values in parse_qs(parts.query).items()}  # fmt: skip
                verb = verbs[self.command]
                if verb == "patch" and (
                    self.headers["Content-Type"] != "application/apply-patch+yaml" or not query.get("fieldManager")
                ):
                    code, said = status(415, "server-side apply needs its media type and a field manager")
                else:
                    body = json.loads(raw) if verb == "patch" else None
                    code, said = self.cluster.answer(verb, PATHS[found[2]][1], found[3] or "", query, body)
        sent = json.dumps(said).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_):
        pass


@contextmanager
def running_cluster():
    """The double, on a free port."""
    cluster = Cluster()
    handler = type("Bound", (Handler,), {"cluster": cluster})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    cluster.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield cluster
    server.shutdown()
    server.server_close()


def kubeconfig(folder: Path, url: str, token: str = TOKEN) -> str:
    """Writes a kubeconfig for the double and returns its path."""
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1", "kind": "Config", "current-context": "tests",
                "clusters": [{"name": "c", "cluster": {"server": url}}],
                "users": [{"name": "u", "user": {"token": token}}],
                "contexts": [{"name": "tests", "context": {"cluster": "c", "user": "u", "namespace": "models"}}],
            }
        )
    )  # fmt: skip
    return str(path)

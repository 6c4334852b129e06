"""The Ray cluster for KubeRay's operator, and the values with which Dagster's runs use it.

The schema of a RayCluster is 0.9 MB and is not part of this project. Here its pods are checked with Kubernetes' own
schemas, and the rest by name; against KubeRay's schema it was checked by hand (docs/scale.md).
"""

import re
from typing import Any

import kubernetes_validate
import pytest
import yaml

from resources.settings import Settings, project_root

FOLDER = project_root() / "deploy" / "kubernetes"
VERSION = kubernetes_validate.latest_version().rpartition(".")[0]
CLUSTER, POLICY = list(yaml.safe_load_all((FOLDER / "ray.yaml").read_text()))

KNOWN = {
    "": {"apiVersion", "kind", "metadata", "spec"},
    "spec": {"rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "authOptions", "headGroupSpec",
             "workerGroupSpecs"},
    "spec.autoscalerOptions": {"idleTimeoutSeconds"},
    "spec.authOptions": {"mode", "secretName"},
    "spec.headGroupSpec": {"rayStartParams", "template"},
    "spec.workerGroupSpecs": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
}  # fmt: skip
"""Fields of a RayCluster that this file uses, by the place where KubeRay has them."""


def unknown_fields(cluster: dict[str, Any]) -> list[str]:
    """Fields that are not where KubeRay has them."""
    found = []
    for place, known in KNOWN.items():
        at: Any = cluster
        for name in filter(None, place.split(".")):
            at = at[name]
        for part in at if isinstance(at, list) else [at]:
            found += [f"{place}.{name}".lstrip(".") for name in sorted(set(part) - known)]
    return found


def pods() -> list[dict[str, Any]]:
    spec = CLUSTER["spec"]
    return [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]


def test_the_cluster_has_only_fields_that_kuberay_knows():
    assert (CLUSTER["apiVersion"], CLUSTER["kind"]) == ("ray.io/v1", "RayCluster")
    assert unknown_fields(CLUSTER) == []
    assert unknown_fields({**CLUSTER, "sepc": {}}) == ["sepc"]
    for group in (CLUSTER["spec"]["headGroupSpec"], *CLUSTER["spec"]["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "KubeRay wants text"


@pytest.mark.parametrize("pod", pods())
def test_its_pods_fit_the_schema_and_have_no_rights(pod):
    manifest = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "ray"}, "template": pod}
    kubernetes_validate.validate(manifest, VERSION, strict=True)
    spec = pod["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    for container in spec["containers"]:
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert {one["name"] for one in container["volumeMounts"]} == {one["name"] for one in spec["volumes"]}
        wrong = {**container, "imagge": "x"}
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(
                {**manifest, "template": {"spec": {**spec, "containers": [wrong]}}}, VERSION, strict=True
            )


def test_only_pods_of_the_namespace_reach_it():
    kubernetes_validate.validate(POLICY, VERSION, strict=True)
    assert POLICY["spec"]["podSelector"]["matchLabels"] == {"ray.io/cluster": CLUSTER["metadata"]["name"]}
    assert POLICY["spec"]["ingress"] == [{"from": [{"podSelector": {}}]}]


def test_all_nodes_have_the_ray_and_the_packages_of_the_code_location():
    assert f"\nray=={CLUSTER['spec']['rayVersion']}\n" in (project_root() / "constraints.txt").read_text()
    values = yaml.safe_load((FOLDER / "dagster-values.yaml").read_text())
    [deployment] = values["dagster-user-deployments"]["deployments"]
    image = f"{deployment['image']['repository']}:{deployment['image']['tag']}"
    assert {container["image"] for pod in pods() for container in pod["spec"]["containers"]} == {image}
    installed = re.search(
        r"pyproject\.toml ([\w ]+) \\", (project_root() / "deploy/images/code.Dockerfile").read_text()
    )
    assert installed is not None
    assert "ray" in installed[1].split()


def test_the_values_let_a_run_join_the_cluster_with_its_token():
    values = yaml.safe_load((FOLDER / "dagster-values-ray.yaml").read_text())
    config = values["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
    container = {"name": "dagster", "image": "x", **config["containerConfig"]}
    pod = {"containers": [container], "restartPolicy": "Never", **config["podSpecConfig"]}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "run"}, "spec": pod}
    kubernetes_validate.validate(manifest, VERSION, strict=True)
    env = {one["name"]: one.get("value") for one in container["env"]}
    settings = Settings.from_env({name: value for name, value in env.items() if name.startswith("ASSETLINE_")})
    assert settings.ray == f"{CLUSTER['metadata']['name']}-head-svc:6379", "the Service that KubeRay makes for the head"
    assert env["RAY_AUTH_MODE"] == CLUSTER["spec"]["authOptions"]["mode"]
    [token] = [one["valueFrom"]["secretKeyRef"] for one in container["env"] if one["name"] == "RAY_AUTH_TOKEN"]
    assert token == {"name": CLUSTER["spec"]["authOptions"]["secretName"], "key": "auth_token"}

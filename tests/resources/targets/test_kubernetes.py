"""What is applied to a cluster, and what a promotion says and undoes if it is refused or the pods do not start."""

import itertools
from pathlib import Path

import dagster as dg
import kubernetes_validate
import pytest
import yaml

from resources.settings import project_root
from resources.targets.base import DeploymentError
from resources.targets.container_image import ContainerImage
from resources.targets.kubernetes import Kubernetes
from resources.targets.manifests import Shape, manifests_of, object_name
from tests.resources.targets.cases import bundle_of, fake_tools, registry
from tests.resources.targets.cluster import READY, Cluster, kubeconfig, running_cluster

DIGEST = "registry.test/models/toy@sha256:" + "a" * 64
NAME = "assetline-toy"
KINDS = ["Deployment", "HorizontalPodAutoscaler", "NetworkPolicy", "PodDisruptionBudget", "Service"]
VERSIONS = ("1.30", "1.33", kubernetes_validate.latest_version().rpartition(".")[0])
"""Versions of Kubernetes whose published schemas the objects must fit."""


@pytest.fixture
def cluster():
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def target(cluster, tmp_path) -> Kubernetes:
    with fake_tools(tmp_path):
        yield target_of(cluster, tmp_path)


def target_of(cluster: Cluster, folder: Path, **given) -> Kubernetes:
    images = ContainerImage(
        mlflow=registry(folder), folder=str(folder / "images"), tool="docker", repository="registry.test/models"
    )
    config = kubeconfig(folder, cluster.url)
    timing = {"poll_s": 0.02, "rollout_timeout_s": 120}
    return Kubernetes(images=images, namespace="models", kubeconfig=config, **{**timing, **given})


def container(cluster: Cluster, name: str = NAME) -> dict:
    return cluster.deployment(name)["spec"]["template"]["spec"]["containers"][0]


@pytest.mark.parametrize(("suffix", "version"), itertools.product(("", "-staged"), VERSIONS))
def test_the_objects_fit_the_published_schemas(suffix, version):
    shape = Shape(namespace="models", pull_secret="registry", client_namespaces=("monitoring",))
    for manifest in manifests_of("credit_risk", "3", DIGEST, shape, suffix):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_pods_run_without_rights_on_a_read_only_root_with_probes_and_limits():
    found = {one["kind"]: one for one in manifests_of("toy", "3", DIGEST, Shape(namespace="models"))}
    assert sorted(found) == KINDS
    assert [one["kind"] for one in manifests_of("toy", "3", DIGEST, Shape(namespace="models"))][-1] == "Deployment"
    spec = found["Deployment"]["spec"]
    pod = spec["template"]["spec"]
    [service] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert service["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert set(service["resources"]["requests"]) == set(service["resources"]["limits"]) == {"cpu", "memory"}
    paths = {probe: service[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert "replicas" not in spec, "the autoscaler sets it"
    assert service["image"].partition("@")[2].startswith("sha256:")
    tokens = next(one for one in pod["volumes"] if one["name"] == "tokens")
    assert tokens["secret"]["secretName"] == "assetline-service-tokens"
    policy = found["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    selector = found["Service"]["spec"]["selector"]
    assert selector.items() <= spec["template"]["metadata"]["labels"].items()
    assert policy["podSelector"]["matchLabels"] == selector
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == selector
    assert found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == NAME


def test_the_role_in_the_repository_allows_what_the_target_asks_and_no_more(target, cluster, tmp_path):
    with target.stage(bundle_of(tmp_path / "bundle", "other")):
        pass
    target.promote("toy", "1")
    cluster.kubelet = lambda _: {"state": {"waiting": {"reason": "ImagePullBackOff"}}}
    with pytest.raises(DeploymentError):
        target.promote("toy", "2")
    target.undeploy("toy")
    plural = {"NetworkPolicy": "networkpolicies"}
    asked = {
        (plural.get(kind, f"{kind.lower()}s"), {"read": "get"}.get(verb, verb)) for verb, kind, _ in cluster.requests
    }
    # Server-side apply of an object that is not there yet needs `create` as well.
    asked |= {(resource, "create") for resource, verb in asked if verb == "patch"}
    [role] = [
        one for one in yaml.safe_load_all((project_root() / "deploy/kubernetes/role.yaml").read_text())
        if one["kind"] == "Role"
    ]  # fmt: skip
    allowed = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert allowed == asked


@pytest.mark.parametrize("name", ["role.yaml", "state.yaml"])
def test_the_manifests_in_the_repository_fit_the_published_schemas(name):
    for manifest in yaml.safe_load_all((project_root() / "deploy/kubernetes" / name).read_text()):
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)


def test_a_promotion_applies_all_objects_and_waits_for_the_new_digest(target, cluster):
    answer = target.promote("toy", "1")
    assert cluster.kinds() == KINDS
    assert container(cluster)["args"] == ["--version", "1"]
    assert container(cluster)["image"] == answer.facts["image"]
    assert answer.facts["digest"].startswith("sha256:")
    assert answer.facts["namespace"] == "models"
    assert answer.message == f"version 1 of toy serves with 2 pods of {answer.facts['image']}"
    first = container(cluster)["image"]
    target.promote("toy", "2")
    assert container(cluster)["image"] != first
    looked = [kind for verb, kind, _ in cluster.requests if verb == "read"]
    assert len(looked) >= 6, "it waits for each of the two rollouts"


def test_a_repeated_promotion_starts_no_new_rollout(target, cluster):
    target.promote("toy", "1")
    generation = cluster.deployment(NAME)["metadata"]["generation"]
    target.promote("toy", "1")
    assert cluster.deployment(NAME)["metadata"]["generation"] == generation


def test_the_number_of_pods_that_the_autoscaler_chose_stays(target, cluster):
    target.promote("toy", "1")
    cluster.deployment(NAME)["spec"]["replicas"] = 5
    target.promote("toy", "2")
    assert cluster.deployment(NAME)["spec"]["replicas"] == 5


PULL = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x"'}}}
CRASH = {
    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
    "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "loading\nout of memory\n"}},
}
SLOW = {"state": {"running": {}}}


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (PULL, 'ImagePullBackOff: Back-off pulling image "x"'),
        (CRASH, "CrashLoopBackOff, its last run ended with status 137: out of memory"),
        (SLOW, "it runs, but /readyz does not answer 200"),
    ],
)
def test_pods_that_do_not_become_ready_undo_the_rollout_and_their_reason_is_told(target, cluster, state, reason):
    target.promote("toy", "1")
    before = container(cluster)
    cluster.kubelet = lambda found: READY if "1" in found["metadata"]["annotations"].values() else state
    with pytest.raises(DeploymentError) as refused:
        target.promote("toy", "2")
    assert str(refused.value) == (
        "version 2 of toy was not rolled out: its pods are not ready after 120 s: "
        f"pod {NAME}-7d9f-abcde: {reason}; the rollout was undone, and version 1 serves"
    )
    assert container(cluster) == before
    assert target.status("toy").version == "1"


def test_a_pod_without_a_node_is_named(target, cluster):
    cluster.schedulable = False
    with pytest.raises(DeploymentError, match=r"Unschedulable: 0/3 nodes are available: 3 Insufficient memory"):
        target.promote("toy", "1")


def test_a_first_version_that_does_not_start_leaves_nothing(target, cluster):
    cluster.kubelet = lambda _: PULL
    with pytest.raises(DeploymentError, match="its objects were removed again, as there was no version before"):
        target.promote("toy", "1")
    assert cluster.objects == {}
    assert target.status("toy").state == "absent"


def test_a_cluster_that_never_gives_up_is_given_up_after_the_time(cluster, tmp_path):
    cluster.patient, cluster.kubelet = True, lambda _: SLOW
    with (
        fake_tools(tmp_path),
        pytest.raises(DeploymentError, match=r"not ready after 1 s: pod .* /readyz does not answer"),
    ):
        target_of(cluster, tmp_path, rollout_timeout_s=1).promote("toy", "1")


def test_a_staged_version_leaves_nothing_even_if_it_does_not_start(target, cluster, tmp_path):
    target.promote("toy", "1")
    cluster.kubelet = lambda _: PULL
    bundle = bundle_of(tmp_path / "bundle", "other")
    with pytest.raises(DeploymentError, match="ImagePullBackOff"), target.stage(bundle):
        pytest.fail("it never serves")
    assert sorted({name for _, name in cluster.objects}) == [NAME]


def test_a_staged_version_has_an_address_in_the_cluster_and_the_token(cluster, tmp_path):
    (tmp_path / "token").write_text("secret-token\n")
    with fake_tools(tmp_path):
        target = target_of(cluster, tmp_path, token_file=str(tmp_path / "token"))
        with target.stage(bundle_of(tmp_path / "bundle")) as staged:
            assert staged.url == f"http://{NAME}-staged.models.svc:8000"
            assert dict(staged.headers) == {"Authorization": "Bearer secret-token"}
            assert "secret-token" not in repr(staged)
            assert cluster.deployment(f"{NAME}-staged")["spec"]["replicas"] == 1


@pytest.mark.parametrize(
    ("code", "said", "words"),
    [
        (401, "Unauthorized", r"\(401: Unauthorized\); the credentials are not valid \(any more\); renew those"),
        (403, "may not", r"\(403: may not\); give the account the role of deploy/kubernetes/role\.yaml"),
        (409, "conflict", r"\(409: conflict\); undo that change, or set force=True on the target"),
        (422, "invalid", r"\(422: invalid\); correct the fields of the target in resources/defaults\.py"),
        (500, "etcd", r"\(500: etcd\); try again, or ask who runs the cluster"),
    ],
)
def test_a_refusal_says_what_was_asked_why_not_and_the_fix(target, cluster, code, said, words):
    cluster.refuse["patch", "NetworkPolicy"] = (code, said)
    with pytest.raises(DeploymentError, match=f"refuses `patch NetworkPolicy {NAME}` in namespace models {words}"):
        target.promote("toy", "1")
    assert cluster.objects == {}


def test_a_refusal_before_the_first_change_says_that_nothing_was_changed(target, cluster):
    cluster.refuse["patch", "NetworkPolicy"] = (403, "no")
    with pytest.raises(DeploymentError, match=r"; nothing was changed$"):
        target.promote("toy", "1")


def test_a_refusal_in_the_middle_undoes_what_was_applied(target, cluster):
    target.promote("toy", "1")
    cluster.refuse["patch", "Deployment"] = (403, "no")
    with pytest.raises(
        DeploymentError, match="undoing the rollout failed as well: the cluster refuses `patch Deployment"
    ):
        target.promote("toy", "2")
    assert container(cluster)["args"] == ["--version", "1"]


def test_credentials_that_expired_are_named(cluster, tmp_path):
    with fake_tools(tmp_path):
        target = target_of(cluster, tmp_path)
        kubeconfig(tmp_path, cluster.url, token="expired")
        with pytest.raises(DeploymentError, match="401: Unauthorized"):
            target.promote("toy", "1")
        status = target.status("toy")
    assert (status.state, status.version) == ("unknown", None)
    assert "401" in status.message


def test_fields_that_somebody_set_by_hand_are_not_taken_over_unless_it_is_declared(cluster, tmp_path):
    with fake_tools(tmp_path):
        target = target_of(cluster, tmp_path)
        target.promote("toy", "1")
        cluster.deployment(NAME)["managers"] = {"kubectl-edit": ".spec.template.spec.containers"}
        with pytest.raises(DeploymentError, match="409: Apply failed with 1 conflict: conflict with 'kubectl-edit'"):
            target.promote("toy", "2")
        assert target_of(cluster, tmp_path, force=True).promote("toy", "2")


def test_an_object_that_the_cluster_finds_invalid_is_named(cluster, tmp_path):
    words = r"refuses `patch HorizontalPodAutoscaler assetline-toy`.*422: spec\.maxReplicas.*objects were removed again"
    with fake_tools(tmp_path), pytest.raises(DeploymentError, match=words):
        target_of(cluster, tmp_path, min_replicas=3, max_replicas=2).promote("toy", "1")
    assert cluster.objects == {}


def test_a_cluster_that_does_not_answer_is_named(cluster, tmp_path):
    with fake_tools(tmp_path):
        target = target_of(cluster, tmp_path)
        kubeconfig(tmp_path, "http://127.0.0.1:9")
        with pytest.raises(DeploymentError, match="the cluster does not answer to `read Deployment"):
            target.promote("toy", "1")


def test_a_deployment_that_somebody_deletes_during_the_rollout_is_named(target, cluster):
    def deleted(found):
        cluster.objects.pop(("Deployment", NAME))

    cluster.kubelet = deleted
    with pytest.raises(DeploymentError, match="somebody deleted the Deployment assetline-toy during the rollout"):
        target.promote("toy", "1")


@pytest.mark.parametrize("kubeconfig", ["", "/nowhere/config"])
def test_without_a_cluster_it_says_what_to_set(tmp_path, kubeconfig):
    with fake_tools(tmp_path):
        images = ContainerImage(
            mlflow=registry(tmp_path), folder=str(tmp_path / "i"), tool="docker", repository="registry.test/m"
        )
        target = Kubernetes(images=images, kubeconfig=kubeconfig)
        with pytest.raises(DeploymentError, match=r"cannot be used: .*; set ASSETLINE_KUBECONFIG to a valid file"):
            target.promote("toy", "1")


def test_an_image_that_no_cluster_could_pull_is_not_promoted(cluster, tmp_path):
    images = ContainerImage(mlflow=registry(tmp_path), folder=str(tmp_path / "images"))
    target = Kubernetes(images=images, namespace="models", kubeconfig=kubeconfig(tmp_path, cluster.url))
    with pytest.raises(
        DeploymentError, match=r"version 1 of toy has no image in a registry.*ASSETLINE_IMAGE_REPOSITORY"
    ):
        target.promote("toy", "1")
    assert cluster.requests == []


def test_a_rollback_needs_the_recorded_digest_and_builds_nothing(target, cluster, tmp_path):
    target.promote("toy", "1")
    first = container(cluster)["image"]
    target.promote("toy", "2")
    calls = (tmp_path / "registry" / "calls").read_text()
    target.roll_back("toy", "1")
    assert container(cluster)["image"] == first
    assert (tmp_path / "registry" / "calls").read_text() == calls
    with pytest.raises(DeploymentError, match=r"version 9 of toy has no image yet \(those with one: 1, 2\)"):
        target.roll_back("toy", "9")


def test_a_name_that_is_too_long_for_a_service_is_refused(target, cluster):
    with pytest.raises(
        DeploymentError, match=r"the name 'aaa.*' is too long for a Service; give at most 46 characters"
    ):
        target.status("a" * 47)
    assert target.status("a" * 46).state == "absent"
    assert len(object_name("a" * 46, "-staged")) == 63


def test_the_kubeconfig_is_what_the_settings_name(tmp_path, cluster):
    from resources.defaults import default_resources
    from resources.settings import Settings

    path = kubeconfig(tmp_path, cluster.url)
    env = {"ASSETLINE_HOME": str(tmp_path), "ASSETLINE_KUBECONFIG": path, "ASSETLINE_NAMESPACE": "models"}
    resources = default_resources(Settings.from_env(env), {})
    with dg.build_resources({"target": resources["target_kubernetes"]}) as built:
        assert built.target.status("toy").message == "there is no Deployment of toy in namespace models"

"""The images' files fit together, and the service needs no package that its image lacks."""

import contextlib
import itertools
import json
import re
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
import torch
import yaml

from assets.lifecycle.data.features import features_of
from assets.lifecycle.model.objectives import ScoreTransform
from assets.lifecycle.model.version.bundle import Bundle
from deploy.images.build import BuildError, command, pip_config, tool_of
from resources.ledger import Ledger
from resources.processes import free_port
from resources.settings import project_root
from tests.declarations.telco import model
from tests.deploy.only_service_packages import closure, hidden, named

ROOT = project_root()
IMAGES = ROOT / "deploy/images"
TRAINING = {"xgboost", "optuna", "evidently", "sklearn", "scipy", "fairlearn", "tabm", "rtdl_num_embeddings", "apprise"}
SERVERS = {"dagster_webserver", "dagster_graphql", "flask", "gunicorn"}


@contextlib.contextmanager
def service(without: str, bundle, home):
    port = free_port()
    arguments = ["--bundle", str(bundle), "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.deploy.only_service_packages", without, *arguments], cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "ASSETLINE_HOME": str(home), "PYTHONPATH": str(ROOT), "HOME": str(home)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    yield process, f"http://127.0.0.1:{port}"
    process.terminate()
    process.communicate()


def ask(url: str, body: dict | None = None) -> dict:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    data = json.dumps(body).encode() if body else None
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with opener.open(request, timeout=60) as answer:
        return json.load(answer)


@pytest.fixture
def churn(tmp_path):
    """A bundle of the model `churn` of tests/declarations/telco, never fitted, with rows for explanations."""

    class Line(torch.nn.Module):
        def __init__(self, inputs: int) -> None:
            super().__init__()
            self.line = torch.nn.Linear(inputs, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.line(torch.nan_to_num(x) / 100).squeeze(-1)

    names = features_of(model).names
    background = np.random.default_rng(0).normal(size=(32, len(names)))
    Bundle.save(tmp_path / "churn", module=Line(len(names)), model=model, feature_names=names, head=ScoreTransform(),
                threshold=0.5, fitted={}, background=background)  # fmt: skip
    return tmp_path / "churn"


def test_the_service_serves_with_the_packages_of_its_image_only(tmp_path, churn):
    bundle, names = churn, features_of(model).names
    with service("-", bundle, tmp_path) as (process, url):
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            assert process.poll() is None, process.stdout.read()
            with contextlib.suppress(OSError):
                assert ask(f"{url}/health")["models"]["churn"]["status"] == "ok"
                break
            time.sleep(0.1)
        assert len(ask(f"{url}/models/churn/score", {"features": [[1.0] * len(names)]})["scores"]) == 1
        explained = ask(f"{url}/models/churn/score?explain=true", {"features": [[1.0] * len(names)]})
        assert explained["explanations"]


def test_a_package_that_the_image_lacked_would_stop_it(tmp_path, toy_bundle):
    with service("pandera", toy_bundle, tmp_path) as (process, _):
        said, _ = process.communicate(timeout=120)
        assert process.returncode != 0
        assert "No module named 'pandera" in said


def test_nothing_of_training_gets_into_the_service_image():
    missing = hidden(closure(named((IMAGES / "service.txt").read_text())))
    assert missing >= TRAINING | SERVERS


def test_every_package_of_the_service_is_pinned():
    pinned = {re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower()
              for line in (ROOT / "constraints.txt").read_text().splitlines()}  # fmt: skip
    names = {name.partition("[")[0] for name in named((IMAGES / "service.txt").read_text())}
    assert names <= pinned


@pytest.mark.parametrize("kind", ["service", "code"])
def test_an_image_has_a_user_without_rights_a_health_check_labels_and_an_sbom(kind):
    text = (IMAGES / f"{kind}.Dockerfile").read_text()
    build, _, final = text.rpartition("FROM ${BASE}\n")
    assert text.index("ARG BASE=") < text.index("FROM")
    assert "--constraint /build/constraints.txt" in build
    assert "cyclonedx-py environment" in build
    assert re.search(r"^USER 10001:10001$", final, re.M)
    assert re.search(r"^HEALTHCHECK ", final, re.M)
    assert {"revision", "version", "title", "licenses"} <= set(re.findall(r"org\.opencontainers\.image\.(\w+)", final))
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", build, re.M)
    for name in (name for line in copied for name in line.split() if name != "."):
        assert (ROOT / name).exists(), name


def test_a_private_index_and_its_files_reach_the_build_but_no_file_of_the_project(tmp_path):
    (tmp_path / "index" / "simple").mkdir(parents=True)
    (tmp_path / "wheels").mkdir()
    listed = "\n".join(
        [
            f"global.extra-index-url='file://{tmp_path}/index/simple https://user:secret@pypi.example.org/simple'",
            f":env:.find-links='{tmp_path}/wheels'",
            "global.cert='/nowhere/ca.pem'",
            "freeze.user='true'",
        ]
    )
    text, mounts = pip_config(listed)
    assert f"find-links = {tmp_path}/wheels" in text
    assert "user:secret@pypi.example.org" in text
    assert "user = true" not in text
    assert mounts == [tmp_path / "index", tmp_path / "wheels"]
    given = {"base": "debian:12", "facts": {"COMMIT": "abc"}, "secret": tmp_path / "pip.conf", "mounts": mounts}
    made = command("buildah", "service", ["assetline-service:abc"], **given)
    assert "secret@" not in " ".join(made)
    assert f"id=pip,src={tmp_path}/pip.conf" in made
    assert f"{tmp_path}/wheels:{tmp_path}/wheels:ro" in made
    assert made[-5:] == ["--file", "deploy/images/service.Dockerfile", "--tag", "assetline-service:abc", "."]
    assert "BASE=debian:12" in made
    docker = command("docker", "code", ["n"], **given)
    assert docker[:2] == ["docker", "build"]
    assert "--volume" not in docker


def test_a_tool_that_is_not_there_is_named(monkeypatch):
    with pytest.raises(BuildError, match="TOOL=podman is not known; give docker or buildah"):
        tool_of("podman")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BuildError, match="TOOL=buildah is not installed"):
        tool_of("buildah")
    with pytest.raises(BuildError, match="there is neither a docker engine nor buildah"):
        tool_of()


def test_the_stack_has_every_part_and_each_container_of_ours_is_without_rights():
    stack = yaml.safe_load((ROOT / "compose.yaml").read_text())
    services = stack["services"]
    assert set(services) == {
        "net", "postgres", "prepare", "code", "webserver", "daemon", "mlflow", "service", "watch", "prometheus",
        "alertmanager", "grafana",
    }  # fmt: skip
    for name, one in services.items():
        if one["image"].startswith("assetline-"):
            assert one["read_only"] is True, name
            assert one["cap_drop"] == ["ALL"], name
        else:
            assert re.fullmatch(r"docker\.io/\S+:\S*\d\S*", one["image"]), f"{name} is pinned to a version"
        if name != "net":
            assert one["network_mode"] == "service:net", name
        for volume in one.get("volumes", []):
            source = volume.partition(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in stack["volumes"], volume
        command_of = one.get("command", [])
        for module in [after for before, after in itertools.pairwise(command_of) if before == "-m"]:
            path = ROOT / module.replace(".", "/")
            assert module == "mlflow" or path.with_suffix(".py").exists(), module
        for word in command_of:
            assert not word.startswith("deploy/") or (ROOT / word).exists(), word
    assert all(port.startswith("127.0.0.1:") for port in services["net"]["ports"])
    assert "PASSWORD:?" in services["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"]


def test_the_values_for_dagsters_chart_name_what_is_here():
    path = ROOT / "deploy/kubernetes/dagster-values.yaml"
    values = yaml.safe_load(path.read_text())
    [deployment] = values["dagster-user-deployments"]["deployments"]
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"][0]["python_module"]
    assert deployment["dagsterApiGrpcArgs"] == [
        "--module-name", workspace["module_name"], "--location-name", workspace["location_name"],
    ]  # fmt: skip
    accounts = [one["metadata"]["name"] for one in yaml.safe_load_all((path.parent / "role.yaml").read_text())]
    assert values["global"]["serviceAccountName"] in accounts
    from resources.settings import Settings

    given = {one["name"]: one["value"] for one in deployment["env"]}
    assert Settings.from_env(given).namespace == values["runLauncher"]["config"]["k8sRunLauncher"]["jobNamespace"]
    claims = [one["persistentVolumeClaim"]["claimName"] for one in deployment["volumes"] if "emptyDir" not in one]
    made = [one["metadata"]["name"] for one in yaml.safe_load_all((path.parent / "state.yaml").read_text())]
    assert claims == made
    coordinator = values["dagsterDaemon"]["runCoordinator"]["config"]["queuedRunCoordinator"]
    own = yaml.safe_load((ROOT / "deploy/dagster.yaml").read_text())
    assert coordinator["maxConcurrentRuns"] == own["concurrency"]["runs"]["max_concurrent_runs"]
    assert values["dagsterDaemon"]["runMonitoring"]["maxRuntimeSeconds"] == own["run_monitoring"]["max_runtime_seconds"]
    assert deployment["podSecurityContext"]["runAsNonRoot"] is True
    chart = re.search(r"chart (\d+\.\d+)\.x", path.read_text())[1]
    assert f"\ndagster=={chart}." in (ROOT / "constraints.txt").read_text()


def test_the_first_container_prepares_the_state(tmp_path):
    home = tmp_path / "state"
    env = {"PATH": "/usr/bin:/bin", "ASSETLINE_HOME": str(home), "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-m", "deploy.images.prepare"], cwd=ROOT, env=env, check=True)
    assert (home / "dagster" / "dagster.yaml").exists()
    assert (home / "mlflow" / "mlflow.db").exists()
    assert Ledger(database_url=f"sqlite:///{home / 'assetline.db'}").history() == []


@pytest.mark.slow
def test_the_files_pass_the_checks_of_others(tmp_path):
    from deploy.check import checks, run

    for what, tool in checks():
        done = run(tool)
        assert done.returncode == 0, f"{what}: {done.stdout}{done.stderr}"
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM debian\nRUN apt-get install curl\nMAINTAINER me\n")
    assert "DL3008" in run(["hadolint", str(bad)]).stdout
    worse = tmp_path / "compose.yaml"
    worse.write_text("services: {web: {imagee: debian}}\n")
    assert run(["check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(worse)]).returncode == 1

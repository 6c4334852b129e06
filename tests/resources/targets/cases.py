"""One case per target for the contract tests: the target on real parts, with two versions of the model `toy`."""

import contextlib
import functools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resources.ledger import Ledger
from resources.mlflow import MlflowTracking, TrackingError
from resources.processes import free_port
from resources.settings import project_root
from resources.targets.base import DeploymentTarget
from resources.targets.batch_table import BatchTable
from resources.targets.container_image import ContainerImage
from resources.targets.kubernetes import Kubernetes
from resources.targets.local_service import LocalService
from tests.resources.targets.cluster import READY, kubeconfig, running_cluster

SERVICE = "tests.resources.fake_service"
HEALTHY = {"status": "ok", "models": {"toy": {"status": "ok", "version": "staged"}}}
FACTS = {"verdicts": {}, "dagster_run": "r", "who": "ada"}


@dataclass
class Case:
    """A target, and how a promotion and an end of production reach it.

    Args:
        target: the target.
        ledger: a ledger; a target that follows it is changed after its entry, as in a real promotion.
        serves: the state that the target reports for a version that it has taken.
    """

    target: DeploymentTarget
    ledger: Ledger
    serves: str = "serving"

    def promote(self, version: str) -> str:
        if self.target.follows_ledger:
            self.ledger.promote("toy", version, reason=f"promote {version}", **FACTS)
        return self.target.promote("toy", version).message

    def roll_back(self, version: str) -> str:
        if self.target.follows_ledger:
            self.ledger.promote("toy", version, reason=f"back to {version}", **FACTS)
        return self.target.roll_back("toy", version).message

    def undeploy(self) -> str:
        if self.target.follows_ledger and (entry := self.ledger.champion("toy")):
            self.ledger.record("withdraw", "toy", entry.version, reason="no longer needed", **FACTS)
        return self.target.undeploy("toy").message


def bundle_of(folder: Path, content: str = "", **health: object) -> Path:
    """A folder that the fake service takes as a bundle; its health is given, its name is `toy`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bundle.json").write_text(json.dumps({"name": "toy", "feature_names": ["a"], "content": content}))
    answers = {"GET /health": [200, json.dumps({**HEALTHY, **health})]}
    (folder / "answers.json").write_text(json.dumps(answers))
    return folder


@contextmanager
def local(folder: Path, tracking) -> Iterator[Case]:
    tracking.delete_alias("toy", "champion")
    ledger = Ledger(database_url=f"sqlite:///{folder / 'assetline.db'}")
    yield Case(LocalService(mlflow=tracking, service=SERVICE, start_timeout_s=30), ledger)


@contextmanager
def batch(folder: Path, tracking) -> Iterator[Case]:
    ledger = Ledger(database_url=f"sqlite:///{folder / 'assetline.db'}")
    yield Case(BatchTable(ledger=ledger, service=SERVICE, start_timeout_s=30), ledger, serves="no endpoint")


class Registry(MlflowTracking):
    """Stands for MLflow where only the folder of a version is needed: `folder/1`, `folder/2`."""

    folder: str

    def download(self, name: str, version: str) -> Path:
        if not (path := Path(self.folder) / version).exists():
            raise TrackingError(f"there is no version {version} of {name}")
        return path


def registry(folder: Path) -> Registry:
    """Versions 1 and 2 of the model `toy`."""
    for version in ("1", "2"):
        bundle_of(folder / "versions" / version, version)
    return Registry(tracking_uri="sqlite:////none", folder=str(folder / "versions"))


@contextmanager
def fake_tools(folder: Path) -> Iterator[Path]:
    """Puts the doubles of docker and buildah first on the PATH; yields the folder of their registry."""
    bin_folder, store = folder / "bin", folder / "registry"
    bin_folder.mkdir()
    store.mkdir()
    for tool in ("docker", "buildah"):
        path = bin_folder / tool
        path.write_text(f"#!{sys.executable}\n" + (Path(__file__).parent / "fake_docker.py").read_text())
        path.chmod(0o755)
    before = dict(os.environ)
    os.environ |= {
        "PATH": f"{bin_folder}:{before['PATH']}", "FAKE_REGISTRY": str(store), "FAKE_PYTHON": sys.executable,
    }  # fmt: skip
    yield store
    os.environ.clear()
    os.environ |= before


@contextmanager
def context_only(folder: Path, tracking) -> Iterator[Case]:
    target = ContainerImage(mlflow=registry(folder), folder=str(folder / "images"), service=SERVICE)
    yield Case(target, Ledger(database_url=f"sqlite:///{folder / 'assetline.db'}"), serves="no endpoint")


@contextmanager
def built_by(tool: str, folder: Path, tracking) -> Iterator[Case]:
    with fake_tools(folder):
        given = {"tool": tool, "repository": "registry.test/models"}
        target = ContainerImage(mlflow=registry(folder), folder=str(folder / "images"), service=SERVICE, **given)
        yield Case(target, Ledger(database_url=f"sqlite:///{folder / 'assetline.db'}"), serves="no endpoint")


@contextmanager
def kubernetes(folder: Path, tracking) -> Iterator[Case]:
    """The double of a cluster; its kubelet starts the fake service for the pod of a staged version."""
    with fake_tools(folder), running_cluster() as cluster, contextlib.ExitStack() as processes:
        port = free_port()
        images = ContainerImage(
            mlflow=registry(folder), folder=str(folder / "images"), tool="docker", repository="registry.test/models"
        )
        target = Kubernetes(
            images=images, namespace="models", kubeconfig=kubeconfig(folder, cluster.url), poll_s=0.05,
            rollout_timeout_s=120, address=f"http://127.0.0.1:{port}",
        )  # fmt: skip
        cluster.kubelet = kubelet = Kubelet(folder / "images", port)
        cluster.gone = lambda found: kubelet.stop() if found["kind"] == "Deployment" else None
        processes.callback(kubelet.stop)
        yield Case(target, Ledger(database_url=f"sqlite:///{folder / 'assetline.db'}"))


class Kubelet:
    """Runs the pod of a staged version as a process, until its Deployment is deleted."""

    def __init__(self, images: Path, port: int) -> None:
        self.images, self.port = images, port
        self.process: subprocess.Popen[str] | None = None
        self.said = ""

    def __call__(self, deployment: dict[str, Any]) -> dict[str, Any] | None:
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        if container["args"] != ["--version", "staged"]:
            return READY
        if self.process is None:
            [bundle] = [
                path for path in self.images.glob("toy/*/bundle")
                if json.loads((path / "bundle.json").read_text())["content"] not in ("1", "2")
            ]  # fmt: skip
            address = ["--host", "127.0.0.1", "--port", str(self.port)]
            command = [sys.executable, "-m", SERVICE, "--bundle", str(bundle), *address]
            self.process = subprocess.Popen(
                command, cwd=project_root(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        if self.process.poll() is not None:
            self.said += self.process.stdout.read()
            ended = {"exitCode": self.process.returncode, "reason": "Error", "message": self.said}
            back_off = {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}
            return {"state": {"waiting": back_off}, "lastState": {"terminated": ended}}
        with socket.socket() as probe:
            return READY if probe.connect_ex(("127.0.0.1", self.port)) == 0 else None

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
            self.process.stdout.close()
            self.process = None


CASES: dict[str, Callable[..., AbstractContextManager[Case]]] = {
    "local": local,
    "batch": batch,
    "image": context_only,
    "image built by docker": functools.partial(built_by, "docker"),
    "image built by buildah": functools.partial(built_by, "buildah"),
    "kubernetes": kubernetes,
}

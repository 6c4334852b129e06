"""Builds the service's image from nothing and asks it for scores: ``make image-test``, as root on Debian.

No engine and no registry are needed: the base image is made by debootstrap, the images are built by buildah with chroot
isolation in a storage of their own, and the container is started by ``unshare`` and ``chroot`` as the image's user, on
a read-only root file system. All of it is removed at the end. What this cannot show: an engine's network and limits.

Belongs here: the steps and their figures. Does not belong here: how an image is built (``build.py``, the Dockerfiles).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deploy.images.build import ROOT, BuildError, build
from resources.processes import free_port
from resources.settings import Settings
from resources.targets.base import DeploymentError, Staged
from resources.targets.container_image import ContainerImage
from resources.targets.throwaway import running

SUITE = "bookworm"
"""Release of Debian with Python 3.11."""
ROWS = 20
TOLERANCE = 1e-5


class Steps:
    """Prints each step with its seconds."""

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Times a step."""
        began = time.monotonic()
        yield
        print(f"{time.monotonic() - began:7.1f} s  {what}", flush=True)  # noqa: T201 - it is a command


def rehearse(bundle: Path, base: str, *, start_timeout_s: float = 180.0) -> None:
    """Builds the images, starts a container and compares its scores with the offline ones.

    Args:
        bundle: folder of a bundle.
        base: base image that the local storage has; empty: one is made by debootstrap.
        start_timeout_s: seconds that the service has to become healthy.

    Raises:
        BuildError: a tool is missing or fails.
        DeploymentError: the service does not start or answers wrongly.
    """
    _refuse_missing_tools(base)
    steps = Steps()
    with tempfile.TemporaryDirectory(prefix="assetline-images-") as folder, _own_storage(Path(folder)):
        work = Path(folder)
        if not base:
            with steps.step(f"base image: {SUITE} with Python 3.11, by debootstrap"):
                base = _debootstrap(work)
        with steps.step("image of the service"):
            built = build("service", tool="buildah", base=base, name="assetline-service", sbom=work / "sbom.json")
        packages = len(json.loads(built.sbom.read_text())["components"])
        print(f"           {built.bytes / 1e6:,.0f} MB, {packages} packages in its SBOM")  # noqa: T201
        target = ContainerImage(
            mlflow=_no_mlflow(), folder=str(work / "contexts"), base="localhost/assetline-service", tool="buildah",
            start_timeout_s=start_timeout_s,
        )  # fmt: skip
        with steps.step("image of the version, by the target `image`"):
            image = target.build(bundle)
        with steps.step("the target `image` stages it: started, asked, removed"), target.stage(bundle) as staged:
            _compare(target, staged, image.model, bundle)
        with steps.step("started read-only, as the image's user"), _container(image.reference, work) as command:
            url = f"http://127.0.0.1:{command[1]}"
            with running(command[0], url, f"the container of {image.reference}", start_timeout_s) as staged:
                difference = _compare(target, staged, image.model, bundle)
        print(f"           {ROWS} scores of {image.model}; largest difference from offline {difference:.1e}")  # noqa: T201


def _refuse_missing_tools(base: str) -> None:
    if os.getuid() != 0:
        raise BuildError("make image-test needs root, for debootstrap, chroot and unshare")
    for tool in ("buildah", "unshare", *(() if base else ("debootstrap",))):
        if shutil.which(tool) is None:
            raise BuildError(f"{tool} is not installed; apt-get install buildah debootstrap util-linux")


@contextlib.contextmanager
def _own_storage(work: Path) -> Iterator[None]:
    """Lets buildah keep its images in ``work``, so that nothing of it stays."""
    driver = os.environ.get("STORAGE_DRIVER", "overlay")
    text = f'[storage]\ndriver = "{driver}"\ngraphroot = "{work}/storage"\nrunroot = "{work}/run"\n'
    (work / "storage.conf").write_text(text)
    before = dict(os.environ)
    os.environ |= {"CONTAINERS_STORAGE_CONF": str(work / "storage.conf"), "BUILDAH_ISOLATION": "chroot"}
    try:
        yield
    finally:
        subprocess.run(["buildah", "rm", "--all"], check=False, capture_output=True)
        subprocess.run(["umount", f"{work}/storage/{driver}"], check=False, capture_output=True)
        os.environ.clear()
        os.environ |= before


def _debootstrap(work: Path) -> str:
    include = "--include=python3,python3-venv,ca-certificates"
    _run(["debootstrap", "--variant=minbase", include, SUITE, str(work / "base")])
    container = _run(["buildah", "from", "scratch"])
    _run(["buildah", "copy", "--quiet", container, str(work / "base"), "/"])
    _run(["buildah", "commit", "--quiet", container, "assetline-base"])
    _run(["buildah", "rm", container])
    shutil.rmtree(work / "base")
    return "localhost/assetline-base"


@contextlib.contextmanager
def _container(reference: str, work: Path) -> Iterator[tuple[list[str], int]]:
    """The command that runs an image as its user says, on a read-only root, with /state and /tmp; and its port."""
    container = _run(["buildah", "from", "--pull-never", reference])
    try:
        root = _run(["buildah", "mount", container])
        said = json.loads(_run(["buildah", "inspect", "--type", "image", reference]))["Docker"]["config"]
        state, port = work / "state", free_port()
        state.mkdir(exist_ok=True)
        owner, _, group = said["User"].partition(":")
        os.chown(state, int(owner), int(group))
        service = [*said["Entrypoint"], *(said.get("Cmd") or []), "--host", "127.0.0.1", "--port", str(port)]
        inside = f"! touch /app/written 2>/dev/null || exit 77; cd /app && exec {shlex.join(service)}"
        enter = ["chroot", f"--userspec={said['User']}", root, "/usr/bin/env", "-i", *said["Env"], "sh", "-c", inside]
        script = "\n".join(
            [
                "set -e",
                f"mount --bind {root} {root}",
                f"mount -o remount,bind,ro {root}",
                f"mount -t tmpfs -o mode=1777 tmpfs {root}/tmp",
                f"mount -t proc proc {root}/proc",
                f"mount --bind {state} {root}/state",
                f"exec {shlex.join(enter)}",
            ]
        )
        yield ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script], port
    finally:
        _run(["buildah", "rm", container])


def _compare(target: ContainerImage, staged: Staged, model: str, bundle: Path) -> float:
    """Asks for scores of random features; returns the largest difference from the offline scores."""
    from assets.lifecycle.model.version.bundle import loaded

    target.smoke_test(staged, model)
    local = loaded(bundle)
    X = np.random.default_rng(0).normal(size=(ROWS, len(local.facts.feature_names))).astype(np.float32)
    body = json.dumps({"features": X.astype(float).tolist()}).encode()
    request = urllib.request.Request(
        f"{staged.url}/models/{model}/score", body, {**staged.headers, "Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as response:
        online = np.asarray(json.loads(response.read())["scores"])
    difference = float(np.abs(online - local.predict(X)).max())
    if not difference <= TOLERANCE:
        raise DeploymentError(f"the scores of the container differ from the offline ones by {difference:.1e}")
    return difference


def _no_mlflow() -> Any:
    from resources.mlflow import MlflowTracking

    return MlflowTracking(tracking_uri="sqlite:////none")


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        last = "\n".join(f"{done.stdout}\n{done.stderr}".strip().splitlines()[-10:])
        raise BuildError(f"`{shlex.join(command[:3])}` failed with status {done.returncode}:\n{last}")
    return done.stdout.strip()


def _champion(settings: Settings) -> Path:
    """The bundle of any version in production in the state folder."""
    from resources.ledger import Ledger
    from resources.mlflow import MlflowTracking

    ledger = Ledger(database_url=settings.database_url)
    for model in sorted({entry.model for entry in ledger.history()}):
        if entry := ledger.champion(model):
            return MlflowTracking.from_settings(settings).download(model, entry.version)
    raise BuildError("no version is in production in the state folder; run `make run` first, or give BUNDLE=folder")


def main() -> None:
    """Rehearses with a bundle of the command line, or with the version in production."""
    parser = argparse.ArgumentParser(prog="python -m deploy.images.rehearsal", description="Builds and tries an image.")
    parser.add_argument("--bundle", type=Path, help="folder of a bundle (default: the version in production)")
    parser.add_argument("--base", default="", help="base image with Python 3.11 (default: one made by debootstrap)")
    given = parser.parse_args()
    try:
        rehearse(given.bundle or _champion(Settings.from_env()), given.base)
    except (BuildError, DeploymentError) as error:
        raise SystemExit(f"make image-test: {error}") from error


if __name__ == "__main__":
    main()

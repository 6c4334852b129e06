"""The target ``image``: one container image for each model version.

The image is the image of the scoring service plus a layer with the bundle. A folder with a build context is written for
each bundle, named after its content. With a tool (docker or buildah) the image is built; with a repository it is also
pushed there, and is then known by the digest that the registry gave. Without a tool, a pipeline builds from the
context.

Belongs here: contexts, builds and their record. Does not belong here: the service's image (``deploy/images``), running
an image in a cluster (``kubernetes.py``).
"""

# No `from __future__ import annotations`: Dagster needs the evaluated annotations for ResourceDependency.
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import dagster as dg
from pydantic import Field

from resources.mlflow import MlflowTracking, TrackingError
from resources.processes import free_port
from resources.settings import Settings
from resources.targets.base import Answer, DeploymentError, DeploymentTarget, Staged, Status
from resources.targets.throwaway import SERVICE, running, throwaway_service

SERVICE_IMAGE = "assetline-service:latest"
"""Name of the scoring service's image, as ``make image WHAT=service`` tags it."""

_DOCKERFILE = """\
# One version of the model {model}: the scoring service and this bundle. Give its number when you start it:
#     docker run … IMAGE --version 3
ARG BASE={base}
FROM ${{BASE}}
LABEL org.opencontainers.image.title="assetline-{model}" assetline.model="{model}" assetline.bundle="sha256:{content}"
COPY --chown=0:0 bundle /bundle
ENTRYPOINT ["python", "-m", "serving.scoring.service", "--bundle", "/bundle", "--host", "0.0.0.0", "--port", "8000"]
"""


@dataclass(frozen=True)
class Image:
    """An image of a version.

    Args:
        model: name of the model.
        content: SHA-256 of the bundle.
        context: folder with the build context.
        reference: what to pull or run; empty if it was not built.
        digest: the registry's digest, or the tool's id of an image that was not pushed; empty if it was not built.
        pushed: whether ``reference`` can be pulled by others.
    """

    model: str
    content: str
    context: str
    reference: str = ""
    digest: str = ""
    pushed: bool = False

    @property
    def facts(self) -> dict[str, str]:
        """What the ledger records."""
        built = {"image": self.reference, "digest": self.digest} if self.digest else {"context": self.context}
        return {"bundle": f"sha256:{self.content}", **built}

    @property
    def message(self) -> str:
        """Where the image is, as the end of a sentence."""
        return f"is image {self.reference}" if self.digest else f"has the build context {self.context}"


class ContainerImage(DeploymentTarget):
    """Writes a build context for each version, and builds and pushes its image."""

    mlflow: dg.ResourceDependency[MlflowTracking]
    folder: str = Field(description="Folder of the build contexts and of the record of the versions.")
    base: str = Field(default=SERVICE_IMAGE, description="Image of the scoring service.")
    tool: Literal["", "docker", "buildah"] = Field(
        default="", description="What builds the image; empty: only the build context is written."
    )
    repository: str = Field(
        default="", description="Where images are pushed, without the model's name; empty: they stay on this machine."
    )
    service: str = Field(default=SERVICE, description="Module that serves the context's bundle when there is no tool.")
    start_timeout_s: float = Field(default=120.0, gt=0, description="Seconds a staged image has to become healthy.")

    @contextlib.contextmanager
    def stage(self, bundle: Path) -> Iterator[Staged]:
        """See :meth:`DeploymentTarget.stage`.

        With a tool, the built image runs, in the network of this machine; without one, the service runs in a process
        on the bundle of the build context.
        """
        image = self.build(bundle)
        if not self.tool:
            folder = Path(image.context) / "bundle"
            with throwaway_service(folder, service=self.service, start_timeout_s=self.start_timeout_s) as staged:
                yield staged
            return
        port = free_port()
        address = ["--host", "127.0.0.1", "--port", str(port)]
        url, what = f"http://127.0.0.1:{port}", f"image {image.reference}"
        with (
            self._container(image, address) as command,
            running(command, url, what, self.start_timeout_s) as staged,
        ):
            yield staged

    def promote(self, model: str, version: str) -> Answer:
        """See :meth:`DeploymentTarget.promote`. A version that was built before is not built again."""
        image = self.image_of(model, version)
        self._write(model, {**self._read(model), "current": version})
        return Answer(f"version {version} of {model} {image.message}", image.facts)

    def roll_back(self, model: str, version: str) -> Answer:
        """See :meth:`DeploymentTarget.roll_back`."""
        image = self.recorded(model, version)
        self._write(model, {**self._read(model), "current": version})
        return Answer(f"version {version} of {model} {image.message}", image.facts)

    def status(self, model: str) -> Status:
        """See :meth:`DeploymentTarget.status`. An image runs nowhere by itself, so there is no endpoint to ask."""
        version = self._read(model)["current"]
        if version is None:
            return Status("absent", None, f"no version of {model} has an image in use")
        message = f"version {version} of {model} {self.recorded(model, version).message}; it runs where you start it"
        return Status("no endpoint", version, message)

    def undeploy(self, model: str) -> Answer:
        """See :meth:`DeploymentTarget.undeploy`."""
        record = self._read(model)
        if record["current"] is not None:
            self._write(model, {**record, "current": None})
        return Answer(f"no image of {model} is in use; stop the containers that run one")

    def image_of(self, model: str, version: str) -> Image:
        """The image of a version; it is built if it was not built with these settings before.

        Raises:
            DeploymentError: MLflow does not have the version, or it cannot be built or pushed.
        """
        with contextlib.suppress(DeploymentError):
            known = self.recorded(model, version)
            if bool(known.digest) == bool(self.tool) and known.pushed == bool(self.tool and self.repository):
                return known
        try:
            bundle = self.mlflow.download(model, version)
        except (TrackingError, OSError) as error:
            raise DeploymentError(f"the files of version {version} of {model} cannot be read: {error}") from error
        image = self.build(bundle)
        record = self._read(model)
        self._write(model, {**record, "versions": {**record["versions"], version: asdict(image)}})
        return image

    def recorded(self, model: str, version: str) -> Image:
        """The image of a version that was built before. Raises :class:`DeploymentError` if there is none."""
        versions = self._read(model)["versions"]
        if version not in versions:
            known = ", ".join(versions) or "none"
            raise DeploymentError(
                f"version {version} of {model} has no image yet (those with one: {known}); promote it instead"
            )
        return Image(**versions[version])

    def build(self, bundle: Path) -> Image:
        """Writes the build context of a bundle, and builds and pushes the image if a tool and a repository are set.

        Raises:
            DeploymentError: the bundle cannot be read, or the tool fails; the message has its last output.
        """
        try:
            model = str(json.loads((bundle / "bundle.json").read_text())["name"])
        except (OSError, ValueError, KeyError) as error:
            raise DeploymentError(f"{bundle} is not a bundle: {error!r}") from error
        content = _content_of(bundle)
        key = hashlib.sha256(f"{content} {self.base}".encode()).hexdigest()[:12]
        context = self._context(model, content, key, bundle)
        if not self.tool:
            return Image(model, content, str(context))
        prefix = self.repository.rstrip("/") or "assetline"
        name = f"{prefix}/{model.replace('_', '-')}"
        tag = f"{name}:{key}"
        with tempfile.TemporaryDirectory() as folder:
            told = Path(folder) / "id"
            build = ["docker", "build"] if self.tool == "docker" else ["buildah", "bud", "--format", "docker"]
            self._run([*build, "--build-arg", f"BASE={self.base}", "--iidfile", str(told), "--tag", tag, str(context)])
            if not self.repository:
                return Image(model, content, str(context), tag, told.read_text().strip())
            digest = self._push(tag, Path(folder) / "digest")
        return Image(model, content, str(context), f"{name}@{digest}", digest, pushed=True)

    def _push(self, tag: str, told: Path) -> str:
        if self.tool == "buildah":
            self._run(["buildah", "push", "--digestfile", str(told), tag, f"docker://{tag}"])
            return told.read_text().strip()
        self._run(["docker", "push", tag])
        found = self._run(["docker", "image", "inspect", "--format", '{{join .RepoDigests " "}}', tag])
        repository = tag.rpartition(":")[0]
        return next(one.partition("@")[2] for one in found.split() if one.partition("@")[0] == repository)

    @contextlib.contextmanager
    def _container(self, image: Image, address: Sequence[str]) -> Iterator[list[str]]:
        """The command that runs an image in the network of this machine; its container is removed after the block."""
        if self.tool == "docker":
            limits = ["--read-only", "--tmpfs", "/tmp", "--tmpfs", "/state:uid=10001,gid=10001"]
            yield ["docker", "run", "--rm", "--network", "host", *limits, image.reference, *address]
            return
        container = self._run(["buildah", "from", "--pull-never", image.reference]).strip()
        try:
            serve = ["python", "-m", "serving.scoring.service", "--bundle", "/bundle", *address]
            yield ["buildah", "run", container, "--", *serve]
        finally:
            self._run(["buildah", "rm", container])

    def _run(self, command: Sequence[str]) -> str:
        try:
            done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True)
        except FileNotFoundError as error:
            raise DeploymentError(f"{command[0]} is not installed; install it, or set another tool") from error
        if done.returncode != 0:
            said = (done.stderr or done.stdout).decode(errors="replace")
            last = "\n".join(said.strip().splitlines()[-5:]) or "(no output)"
            raise DeploymentError(f"`{' '.join(command[:2])}` failed with status {done.returncode}: {last}")
        return done.stdout.decode(errors="replace")

    def _context(self, model: str, content: str, key: str, bundle: Path) -> Path:
        """Writes the build context in one step, so that a kill leaves no half of one."""
        context = Path(self.folder) / model / key
        if not context.exists():
            context.parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=".context-", dir=context.parent))
            try:
                shutil.copytree(bundle, scratch / "bundle", ignore=shutil.ignore_patterns("__pycache__"))
                for path in (scratch / "bundle").rglob("*"):  # another user reads it in the container
                    path.chmod(0o755 if path.is_dir() else 0o644)
                scratch.chmod(0o755)
                text = _DOCKERFILE.format(model=model, base=self.base, content=content)
                (scratch / "Dockerfile").write_text(text)
                with contextlib.suppress(FileExistsError):
                    os.rename(scratch, context)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        return context

    def _read(self, model: str) -> dict[str, Any]:
        path = Path(self.folder) / model / "versions.json"
        found: dict[str, Any] = {"current": None, "versions": {}}
        return found if not path.exists() else {**found, **json.loads(path.read_text())}

    def _write(self, model: str, record: dict[str, Any]) -> None:
        path = Path(self.folder) / model / "versions.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".versions.{os.getpid()}")
        scratch.write_text(json.dumps(record, indent=1))
        os.replace(scratch, path)

    @classmethod
    def from_settings(cls, settings: Settings, mlflow: MlflowTracking) -> "ContainerImage":
        """The target as the settings ``image_…`` describe it."""
        return cls(
            mlflow=mlflow,
            folder=str(settings.home / "images"),
            base=settings.image_base or SERVICE_IMAGE,
            tool=settings.image_tool,
            repository=settings.image_repository,
        )


def _content_of(folder: Path) -> str:
    """SHA-256 of the names and bytes of a folder's files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()

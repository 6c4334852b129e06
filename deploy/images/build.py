"""Builds an image of the project with docker or buildah: ``python -m deploy.images.build service``.

pip inside the build needs what pip outside it is configured with: a private index, a certificate, a folder of wheels
(such as one with the CPU build of torch). That configuration is passed as a build secret, so that no host or password
gets into a file of the project or a layer of the image. Local folders that it names are mounted (buildah only: docker
cannot).

Belongs here: the command line of the two tools. Does not belong here: the contents of an image (the Dockerfiles),
images of model versions (``resources/targets/container_image.py``).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("service", "code")


class BuildError(Exception):
    """The image cannot be built. The message gives the tool's last output or the fix."""


@dataclass(frozen=True)
class Built:
    """A built image: its name, size in bytes, the seconds it took and the file with its SBOM."""

    name: str
    bytes: int
    seconds: float
    sbom: Path


def tool_of(wanted: str = "") -> str:
    """The tool to build with: the wanted one, or docker if its engine answers, or buildah.

    Raises:
        BuildError: there is none.
    """
    if wanted:
        if wanted not in ("docker", "buildah"):
            raise BuildError(f"TOOL={wanted} is not known; give docker or buildah")
        if shutil.which(wanted) is None:
            raise BuildError(f"TOOL={wanted} is not installed; install it, or give the other of docker and buildah")
        return wanted
    if shutil.which("docker") and subprocess.run(["docker", "info"], check=False, capture_output=True).returncode == 0:
        return "docker"
    if shutil.which("buildah"):
        return "buildah"
    raise BuildError("there is neither a docker engine nor buildah; install one of them")


def pip_config(listed: str) -> tuple[str, list[Path]]:
    """Turns the output of ``pip config list`` into a ``pip.conf`` and the local files and folders that it names."""
    values: dict[str, str] = {}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.strip().rpartition(".")
        if section in ("global", "install", ":env:") and option:
            values[option] = value.strip().strip("'\"").replace("\\n", "\n")
    text = "\n".join(["[global]", *(f"{name} = {_indented(value)}" for name, value in sorted(values.items())), ""])
    words = " ".join(values.values()).split()
    # The pages of a local index link to files that lie beside the folder of the pages.
    named = [Path(word.removeprefix("file://")).parent for word in words if word.startswith("file://")]
    named += [Path(word) for word in words if word.startswith("/")]
    return text, sorted({path for path in named if path.exists()})


def _indented(value: str) -> str:
    return "\n    ".join(value.split("\n"))


def command(
    tool: str,
    kind: str,
    names: Sequence[str],
    *,
    base: str,
    facts: Mapping[str, str],
    secret: Path,
    mounts: Sequence[Path],
) -> list[str]:
    """The command that builds an image. A HEALTHCHECK needs docker's image format."""
    given = {**facts, **({"BASE": base} if base else {})}
    arguments = [part for key, value in given.items() for part in ("--build-arg", f"{key}={value}")]
    volumes = [part for path in mounts for part in ("--volume", f"{path}:{path}:ro")] if tool == "buildah" else []
    head = ["buildah", "bud", "--format", "docker"] if tool == "buildah" else ["docker", "build"]
    file = f"deploy/images/{kind}.Dockerfile"
    tags = [part for name in names for part in ("--tag", name)]
    return [*head, *arguments, *volumes, "--secret", f"id=pip,src={secret}", "--file", file, *tags, "."]


def build(kind: str, *, tool: str = "", base: str = "", name: str = "", sbom: Path | None = None) -> Built:
    """Builds an image and copies its SBOM out of it.

    Args:
        kind: ``service`` or ``code``.
        tool: ``docker`` or ``buildah``; default: what works here.
        base: base image with Python 3.11; default: the one of the Dockerfile.
        name: name of the image; default: ``assetline-KIND:COMMIT`` and ``assetline-KIND:latest``.
        sbom: file for the SBOM; default: ``var/images/KIND.sbom.json``.

    Raises:
        BuildError: there is no tool, or it fails; its output is above.
    """
    tool = tool_of(tool)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    commit = _output(["git", "rev-parse", "HEAD"]) or "unknown"
    facts = {"COMMIT": commit, "VERSION": str(project["version"])}
    names = [name] if name else [f"assetline-{kind}:{commit[:12]}", f"assetline-{kind}:latest"]
    name = names[0]
    sbom = sbom or ROOT / "var" / "images" / f"{kind}.sbom.json"
    listed = _output([sys.executable, "-m", "pip", "config", "list"])
    text, mounts = pip_config(listed)
    began = time.monotonic()
    with _secret(text) as secret:
        made = command(tool, kind, names, base=base, facts=facts, secret=secret, mounts=mounts)
        if subprocess.run(made, cwd=ROOT, check=False).returncode != 0:
            raise BuildError(f"{tool} could not build {name}; its output is above")
    seconds = time.monotonic() - began
    sbom.parent.mkdir(parents=True, exist_ok=True)
    sbom.write_bytes(_read(tool, name, "/app/sbom.json"))
    return Built(name, _size(tool, name), seconds, sbom)


@contextlib.contextmanager
def _secret(text: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # only this user can read it
        path = Path(folder) / "pip.conf"
        path.write_text(text)
        yield path


def _read(tool: str, name: str, path: str) -> bytes:
    """A file of an image."""
    if tool == "docker":
        entry = ["docker", "run", "--rm", "--entrypoint", "cat", name, path]
        return subprocess.run(entry, check=True, capture_output=True).stdout
    container = _output(["buildah", "from", "--pull-never", name])
    try:
        return (Path(_output(["buildah", "mount", container])) / path.lstrip("/")).read_bytes()
    finally:
        subprocess.run(["buildah", "rm", container], check=True, capture_output=True)


def _size(tool: str, name: str) -> int:
    if tool == "docker":
        return int(_output(["docker", "image", "inspect", "--format", "{{.Size}}", name]))
    container = _output(["buildah", "from", "--pull-never", name])
    try:
        return int(_output(["du", "-sb", _output(["buildah", "mount", container])]).split()[0])
    finally:
        subprocess.run(["buildah", "rm", container], check=True, capture_output=True)


def _output(entry: Sequence[str]) -> str:
    return subprocess.run(entry, cwd=ROOT, check=False, capture_output=True, text=True).stdout.strip()


def main(arguments: Sequence[str] | None = None) -> None:
    """Builds the image that is named on the command line and prints what it became."""
    parser = argparse.ArgumentParser(prog="python -m deploy.images.build", description="Builds an image.")
    parser.add_argument("kind", choices=KINDS, help="which image")
    parser.add_argument("--tool", default="", help="docker or buildah (default: what works here)")
    parser.add_argument("--base", default="", help="base image with Python 3.11 (default: that of the Dockerfile)")
    parser.add_argument("--name", default="", help="name of the image (default: assetline-KIND:COMMIT and :latest)")
    given = parser.parse_args(arguments)
    try:
        built = build(given.kind, tool=given.tool, base=given.base, name=given.name)
    except BuildError as error:
        raise SystemExit(f"make image: {error}") from error
    packages = len(json.loads(built.sbom.read_text())["components"])
    size = f"{built.bytes / 1e6:,.0f} MB"
    shown = built.sbom.relative_to(ROOT) if built.sbom.is_relative_to(ROOT) else built.sbom
    print(f"{built.name}: {size}, {packages} packages in {shown}, {built.seconds:.0f} s")  # noqa: T201


if __name__ == "__main__":
    main()

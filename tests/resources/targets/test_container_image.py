"""Build contexts, images and their record; buildah and a registry are real where they are installed."""

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from resources.processes import free_port
from resources.targets.base import DeploymentError
from resources.targets.container_image import ContainerImage
from tests.resources.targets.cases import SERVICE, bundle_of, fake_tools, registry


def target_of(folder: Path, **given) -> ContainerImage:
    return ContainerImage(mlflow=registry(folder), folder=str(folder / "images"), service=SERVICE, **given)


def calls(folder: Path) -> list[list[str]]:
    path = folder / "registry" / "calls"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_context_has_the_bundle_and_builds_on_the_service(tmp_path):
    target = target_of(tmp_path, base="registry.test/service:3")
    answer = target.promote("toy", "1")
    context = Path(answer.facts["context"])
    assert sorted(path.name for path in context.iterdir()) == ["Dockerfile", "bundle"]
    text = (context / "Dockerfile").read_text()
    assert "ARG BASE=registry.test/service:3" in text
    assert '"serving.scoring.service", "--bundle", "/bundle"' in text
    assert json.loads((context / "bundle/bundle.json").read_text())["content"] == "1"
    assert answer.facts["bundle"] == f"sha256:{answer.facts['bundle'].partition(':')[2]}"
    assert "digest" not in answer.facts, "nothing was built"


def test_equal_bundles_share_a_context_and_others_or_another_base_do_not(tmp_path):
    target = target_of(tmp_path)
    one = target.build(bundle_of(tmp_path / "a", "same"))
    assert target.build(bundle_of(tmp_path / "b", "same")) == one
    assert target.build(bundle_of(tmp_path / "c", "other")).context != one.context
    assert target_of(tmp_path, base="other:1").build(tmp_path / "a").context != one.context


def test_a_kill_while_a_context_is_written_leaves_none(tmp_path, monkeypatch):
    target = target_of(tmp_path)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            target.build(bundle_of(tmp_path / "a"))
    assert list((tmp_path / "images" / "toy").iterdir()) == []
    assert (Path(target.build(tmp_path / "a").context) / "Dockerfile").exists()


@pytest.mark.parametrize("tool", ["docker", "buildah"])
def test_an_image_is_pushed_and_known_by_the_registrys_digest(tmp_path, tool):
    with fake_tools(tmp_path):
        target = target_of(tmp_path, tool=tool, repository="registry.test/team/")
        image = target.image_of("toy", "1")
    assert image.reference == f"registry.test/team/toy@{image.digest}"
    assert (tmp_path / "registry/pushed").read_text().startswith("registry.test/team/toy:")
    assert image.pushed
    build = calls(tmp_path)[0]
    assert "BASE=assetline-service:latest" in build
    assert build[-1] == image.context


def test_without_a_repository_nothing_is_pushed(tmp_path):
    with fake_tools(tmp_path):
        image = target_of(tmp_path, tool="docker").image_of("toy", "1")
    assert not image.pushed
    assert image.reference.startswith("assetline/toy:")
    assert not (tmp_path / "registry/pushed").exists()


def test_a_version_is_built_once(tmp_path):
    with fake_tools(tmp_path):
        target = target_of(tmp_path, tool="docker", repository="registry.test/team")
        first = target.promote("toy", "1")
        known = calls(tmp_path)
        assert target.promote("toy", "1") == first
        assert target.roll_back("toy", "1") == first
        assert calls(tmp_path) == known


def test_a_version_that_was_recorded_without_an_image_is_built_when_there_is_a_tool(tmp_path):
    target_of(tmp_path).promote("toy", "1")
    with fake_tools(tmp_path):
        assert "digest" in target_of(tmp_path, tool="docker").promote("toy", "1").facts


@pytest.mark.parametrize(("tool", "step"), [("docker", "build"), ("docker", "push"), ("buildah", "push")])
def test_a_tool_that_fails_is_named_with_its_last_words_and_the_version_before_stays(tmp_path, tool, step):
    with fake_tools(tmp_path) as store:
        target = target_of(tmp_path, tool=tool, repository="registry.test/team")
        target.promote("toy", "1")
        (store / "broken").write_text(step)
        words = f"`{tool} {step}` failed with status 1: denied: {step} is not allowed"
        with pytest.raises(DeploymentError, match=words):
            target.promote("toy", "2")
    assert target.status("toy").version == "1"


def test_a_tool_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeploymentError, match="buildah is not installed; install it, or set another tool"):
        target_of(tmp_path, tool="buildah").promote("toy", "1")


def test_versions_and_bundles_that_are_not_there_are_named(tmp_path):
    target = target_of(tmp_path)
    with pytest.raises(DeploymentError, match="the files of version 9 of toy cannot be read: there is no version 9"):
        target.promote("toy", "9")
    with pytest.raises(DeploymentError, match=r"version 9 of toy has no image yet \(those with one: none\)"):
        target.roll_back("toy", "9")
    with pytest.raises(DeploymentError, match="is not a bundle"):
        target.build(tmp_path)


def test_a_container_that_is_staged_is_removed_whatever_happens(tmp_path):
    with fake_tools(tmp_path):
        target = target_of(tmp_path, tool="buildah")
        bundle = bundle_of(tmp_path / "bundle")
        (bundle / "crash").touch()
        with pytest.raises(DeploymentError, match=r"network\.pt2 is damaged"), target.stage(bundle):
            pytest.fail("it never serves")
    assert calls(tmp_path)[-1][:2] == ["buildah", "rm"]


needs_tools = pytest.mark.skipif(
    not (shutil.which("buildah") and shutil.which("docker-registry") and os.getuid() == 0),
    reason="needs root, buildah and docker-registry: apt-get install buildah docker-registry",
)


@pytest.fixture
def real_registry(tmp_path, monkeypatch):
    """A real registry on the loopback interface, and a storage of buildah of its own."""
    port = free_port()
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/store}}}}\n"
        f"http: {{addr: 127.0.0.1:{port}}}\n"
    )
    (tmp_path / "registries.conf").write_text(f'[[registry]]\nlocation = "127.0.0.1:{port}"\ninsecure = true\n')
    (tmp_path / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/graph"\nrunroot = "{tmp_path}/run"\n'
    )
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "registries.conf"))
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(tmp_path / "storage.conf"))
    monkeypatch.setenv("BUILDAH_ISOLATION", "chroot")
    monkeypatch.delenv("STORAGE_DRIVER", raising=False)
    server = subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            read(f"http://127.0.0.1:{port}/v2/")
            break
        time.sleep(0.1)
    yield f"127.0.0.1:{port}"
    server.terminate()
    server.wait()


def read(url: str, accept: str = "*/*"):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(urllib.request.Request(url, headers={"Accept": accept}), timeout=60)


@pytest.mark.slow
@needs_tools
def test_buildah_pushes_to_a_registry_which_then_has_the_digest(real_registry, tmp_path):
    def buildah(*arguments: str) -> str:
        return subprocess.run(["buildah", *arguments], check=True, capture_output=True, text=True).stdout.strip()

    container = buildah("from", "scratch")  # the base has nothing: this is about the layer, the push and the digest
    buildah("commit", "--quiet", container, "base")
    buildah("rm", container)
    target = target_of(tmp_path, tool="buildah", repository=f"{real_registry}/models", base="localhost/base")
    first = target.promote("toy", "1").facts
    second = target.promote("toy", "2").facts
    assert first["digest"] != second["digest"]
    for facts in (first, second):
        name, _, digest = facts["image"].partition("@")
        assert digest == facts["digest"]
        url = f"http://{real_registry}/v2/{name.partition('/')[2]}/manifests/{digest}"
        with read(url, "application/vnd.docker.distribution.manifest.v2+json") as answer:
            assert answer.headers["Docker-Content-Digest"] == digest
    assert target.roll_back("toy", "1").facts == first
    with pytest.raises(urllib.error.HTTPError):
        read(f"http://{real_registry}/v2/models/toy/manifests/sha256:{'0' * 64}")

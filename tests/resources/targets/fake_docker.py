#!/usr/bin/env python3
"""Stands for the commands `docker` and `buildah`: the same arguments, and a registry in the folder FAKE_REGISTRY.

An image is a build context. Running one starts the fake service on its bundle. Tests of the real buildah are slow.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

folder = Path(os.environ["FAKE_REGISTRY"])
tool, arguments = Path(sys.argv[0]).name, sys.argv[1:]
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps([tool, *arguments]) + "\n")
images = json.loads((folder / "images.json").read_text()) if (folder / "images.json").exists() else {}
broken = folder / "broken"


def given(flag: str) -> str:
    return arguments[arguments.index(flag) + 1]


def digest_of(tag: str) -> str:
    text = Path(images[tag], "bundle", "bundle.json").read_bytes()
    return "sha256:" + hashlib.sha256(tag.encode() + text).hexdigest()


if broken.exists() and broken.read_text() == arguments[0]:
    sys.exit(f"denied: {arguments[0]} is not allowed")
match (tool, arguments[0]):
    case ("docker", "build") | ("buildah", "bud"):
        images[given("--tag")] = arguments[-1]
        (folder / "images.json").write_text(json.dumps(images))
        Path(given("--iidfile")).write_text(digest_of(given("--tag")))
    case ("docker", "push"):
        (folder / "pushed").open("a").write(arguments[1] + "\n")
    case ("buildah", "push"):
        (folder / "pushed").open("a").write(arguments[-2] + "\n")
        Path(given("--digestfile")).write_text(digest_of(arguments[-2]))
    case ("docker", "image"):
        tag = arguments[-1]
        print("elsewhere/other@sha256:00", f"{tag.rpartition(':')[0]}@{digest_of(tag)}")
    case ("buildah", "from"):
        print(f"container-of-{arguments[-1]}")
    case ("buildah", "rm"):
        pass
    case (_, "run"):
        wanted = arguments[1].removeprefix("container-of-") if tool == "buildah" else None
        by_name = {f"{tag.rpartition(':')[0]}@{digest_of(tag)}": context for tag, context in images.items()} | images
        image = wanted or next(one for one in arguments if one in by_name)
        address = [given("--host"), "--port", given("--port")]
        bundle = str(Path(by_name[image], "bundle"))
        service = ["-m", "tests.resources.fake_service", "--bundle", bundle, "--host", *address]
        os.execv(os.environ["FAKE_PYTHON"], [os.environ["FAKE_PYTHON"], *service])
    case _:
        sys.exit(f"the double does not know {tool} {arguments}")

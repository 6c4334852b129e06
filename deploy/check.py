"""Checks the files of ``deploy/`` with the tools of others: ``make check-deploy``.

The tools live in an environment of their own (``deploy/checks.txt``), which uv creates once in its cache.

Belongs here: which tool checks which file. Does not belong here: tests of the project's own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / "deploy" / "checks.txt"


def checks() -> Iterator[tuple[str, list[str]]]:
    """Name and command of each check, without the environment."""
    dockerfiles = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "deploy/images").glob("*.Dockerfile"))
    yield "Dockerfiles: hadolint", ["hadolint", *dockerfiles]
    schema = ["check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
    yield "compose.yaml: schema of Compose", [*schema, "compose.yaml"]


def run(tool: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Runs a tool in the environment of the checks; its first use installs that."""
    uv = Path(sys.executable).with_name("uv")
    wanted = [part for line in TOOLS.read_text().splitlines() if line[:1] not in ("", "#") for part in ("--with", line)]
    command = [str(uv), "tool", "run", "--quiet", *wanted, "--from", _package(tool[0]), *tool]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


def _package(tool: str) -> str:
    names = [line for line in TOOLS.read_text().splitlines() if line.startswith(tool)]
    return names[0]


def main() -> None:
    """Runs all checks and exits with status 1 if one fails."""
    failed = False
    for what, tool in checks():
        done = run(tool)
        failed |= done.returncode != 0
        print(f"{'ok    ' if done.returncode == 0 else 'FAILED'}  {what}")  # noqa: T201
        if done.returncode != 0:
            print(f"{done.stdout}{done.stderr}".strip())  # noqa: T201
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

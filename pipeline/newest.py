"""`make newest`: tries the newest versions of the dependencies, and says what changed and what broke.

    python -m pipeline.newest [--out build] [tests …]

Belongs here: an environment of its own without ``constraints.txt``, the quick tests in it, and the report. Does not
belong here: changing a pinned version; a person does that, one line at a time (``CONTRIBUTING.md``).

Only torch keeps its pinned version: without a pin, any package that requires it could pull a build for a GPU.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.stages import write
from resources.settings import project_root

KEPT = ("torch",)
"""Packages that keep their pinned version."""
MOST_LINES = 3
"""Number of lines of a failure that the report shows."""


class NewestError(Exception):
    """The environment cannot be made. The message has the last words of the installer."""


def pinned(text: str) -> dict[str, str]:
    """Versions by package of ``constraints.txt`` or of ``pip freeze``, in the form ``name==version``."""
    pairs = (line.split("==", 1) for line in text.splitlines() if "==" in line and not line.startswith("#"))
    return {_normal(name): version.strip().partition("+")[0] for name, version in pairs}  # "+cpu" names a build


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """The packages whose version differs, as (name, pinned, installed); a version is empty where there is none."""
    names = sorted(before.keys() | now.keys())
    return [
        (name, before.get(name, ""), now.get(name, "")) for name in names if before.get(name, "") != now.get(name, "")
    ]


def failures(junit: Path) -> list[tuple[str, str]]:
    """The tests that failed in a JUnit file, with the first lines of what they say; errors of the collection, too.

    Raises:
        NewestError: there is no such file, because the tests did not start.
    """
    if not junit.is_file():
        raise NewestError(f"{junit} is missing, so the tests did not start; read the output above")
    found = []
    for case in ET.parse(junit).iter("testcase"):
        for kind in ("failure", "error"):
            fault = case.find(kind)
            if fault is not None:
                lines = (fault.get("message") or fault.text or "").splitlines()[:MOST_LINES]
                found.append((f"{case.get('classname')}::{case.get('name')}", " ".join(lines)))
    return found


def text_of(changed: Sequence[tuple[str, str, str]], broken: Sequence[tuple[str, str]], tests: int) -> str:
    """The report as Markdown."""
    parts = ["# The newest versions of the dependencies"]
    verdict = f"{len(broken)} of {tests} tests fail" if broken else f"all {tests} tests pass"
    parts.append(f"{len(changed)} packages differ from `constraints.txt`; {verdict}.")
    if broken:
        lines = [f"| `{name}` | {message.replace('|', chr(92) + '|')} |" for name, message in broken]
        parts.append("\n".join(["| test that fails | what it says |", "|---|---|", *lines]))
    if changed:
        lines = [f"| {name} | {old or 'not there'} | {new or 'not there'} |" for name, old, new in changed]
        parts.append("\n".join(["| package | pinned | installed now |", "|---|---|---|", *lines]))
    return "\n\n".join(parts) + "\n"


def install(venv: Path, root: Path) -> str:
    """Makes an environment with the newest versions and returns what ``pip freeze`` says of it.

    Raises:
        NewestError: an installer failed.
    """
    constraints = root / "constraints.txt"
    versions = pinned(constraints.read_text(encoding="utf-8"))
    shutil.rmtree(venv, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(venv)], root)
    python = str(venv / "bin" / "python")
    own = venv / "kept.txt"
    own.write_text("".join(f"{name}=={versions[name]}\n" for name in KEPT), encoding="utf-8")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "-c", str(own)]
    _run([*pip, *KEPT, "uv"], root)
    uv = [str(venv / "bin" / "uv"), "pip", "install", "--quiet", "--python", python, "-c", str(own), "-e", ".[dev]"]
    if subprocess.run(uv, cwd=root, check=False).returncode:  # pip's configuration may know an index that uv does not
        _run([*pip, "-e", ".[dev]"], root)
    return _run([python, "-m", "pip", "freeze", "--exclude-editable", "--disable-pip-version-check"], root)


def _run(command: Sequence[str], root: Path) -> str:
    ran = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if ran.returncode:
        last = "\n".join((ran.stderr or ran.stdout).splitlines()[-5:])
        raise NewestError(f"{Path(command[0]).name} {' '.join(command[1:4])} … failed:\n{last}")
    return ran.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Installs, tests and reports; returns the number of tests that fail, at most 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build"), help="folder of the environment and the report")
    parser.add_argument("tests", nargs="*", help="paths of tests (default: all quick tests)")
    chosen = parser.parse_args(arguments)
    root = project_root()
    out = (root / chosen.out).resolve()
    venv, junit = out / "newest", out / "reports" / "newest.xml"
    try:
        print("installing the newest versions", flush=True)
        before = pinned((root / "constraints.txt").read_text(encoding="utf-8"))
        changed = changes(before, pinned(install(venv, root)))
        junit.unlink(missing_ok=True)
        tests = ["-m", "pytest", "-q", "-m", "not slow", "-n", "2", "--dist", "loadfile", f"--junitxml={junit}"]
        subprocess.run([str(venv / "bin" / "python"), *tests, *chosen.tests], cwd=root, check=False)
        broken = failures(junit)
        count = sum(1 for _ in ET.parse(junit).iter("testcase"))
    except NewestError as error:
        print(f"make newest: {error}", file=sys.stderr)
        return 1
    text = text_of(changed, broken, count)
    write(out / "reports" / "newest.md", text)
    print(f"\n{text}\nnewest: {out / 'reports' / 'newest.md'}", flush=True)
    return 1 if broken or not count else 0


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).strip().lower()


if __name__ == "__main__":
    sys.exit(main())

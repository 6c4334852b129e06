"""Runs the scoring service as its image does: with the packages of `deploy/images/service.txt`, and no others.

What the file names and what that requires can be imported; every other distribution of this environment is hidden.
"""

import importlib.abc
import importlib.machinery
import importlib.metadata
import re
import runpy
import sys
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]


def named(text: str) -> set[str]:
    """Names of the packages of a requirements file, with their extras as further names."""
    found = set()
    for line in text.splitlines():
        if wanted := line.partition("#")[0].strip():
            requirement = Requirement(wanted)
            found.add(_canonical(requirement.name))
            found |= {f"{_canonical(requirement.name)}[{extra}]" for extra in requirement.extras}
    return found


def closure(names: set[str]) -> set[str]:
    """The distributions that installing ``names`` would install."""
    seen: set[str] = set()
    left = set(names)
    while left:
        name = left.pop()
        seen.add(name)
        base, _, extra = name.rstrip("]").partition("[")
        try:
            needs = importlib.metadata.requires(base) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform or version of Python
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                more = {_canonical(need.name), *(f"{_canonical(need.name)}[{one}]" for one in need.extras)}
                left |= more - seen
    return {name.partition("[")[0] for name in seen}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


class Visible(importlib.abc.MetaPathFinder):
    """Finds what Python finds, except for hidden modules, which are then as absent as if they were not installed."""

    def __init__(self, without: set[str]) -> None:
        self.without = without

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.without:
            return None
        return importlib.machinery.PathFinder.find_spec(name, path, target)


def hidden(allowed: set[str]) -> set[str]:
    """Top-level modules that belong to other distributions than ``allowed`` only."""
    owners = importlib.metadata.packages_distributions()
    return {module for module, names in owners.items() if not {_canonical(name) for name in names} & allowed}


if __name__ == "__main__":
    text = (ROOT / "deploy/images/service.txt").read_text()
    without = sys.argv.pop(1)  # a name that the test leaves out, or `-`
    absent = hidden(closure(named(text) - {without})) - {"serving", "resources", "assets"}
    at = sys.meta_path.index(importlib.machinery.PathFinder)
    sys.meta_path = [*sys.meta_path[:at], Visible(absent)]  # an editable install has finders behind it
    sys.path.insert(0, str(ROOT))
    runpy.run_module("serving.scoring.service", run_name="__main__")

"""Prints the dependencies of a ``pyproject.toml`` and of some of its extras, one per line, without installing it.

The image runs the sources in their folder, because settings and sources are relative to it.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path(sys.argv[1]).read_text())["project"]
extras = [name for extra in sys.argv[2:] for name in project["optional-dependencies"][extra]]
print(*project["dependencies"], *extras, sep="\n")  # noqa: T201 - its only output

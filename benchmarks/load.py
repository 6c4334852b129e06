"""The code location: what it costs to load, beside what `import dagster` alone costs on the same machine.

Belongs here: that figure. Does not belong here: what is imported at load (ruff's TID253 holds that).
"""

from __future__ import annotations

import subprocess
import sys

from resources.settings import project_root

MOST_SECONDS = 2.0
"""CPU seconds for the whole code location."""


def cpu_seconds(code: str) -> float:
    """CPU seconds of a fresh Python that runs ``code``, the best of three."""
    program = f"import time\n{code}\nprint(time.process_time())"
    return min(
        float(
            subprocess.run([sys.executable, "-c", program], cwd=project_root(), capture_output=True, check=True).stdout
        )
        for _ in range(3)
    )


def main() -> bool:
    """Prints the figures; whether the claim holds."""
    ours, dagster, heavy = (cpu_seconds(f"import {name}") for name in ("definitions", "dagster", "torch, mlflow"))
    print(f"import definitions {ours:.2f} CPU s (at most {MOST_SECONDS}), {ours / dagster:.2f} times `import dagster`, "
          f"{dagster:.2f} s; torch and mlflow, which it leaves alone, would take {heavy:.2f} s")  # fmt: skip
    return ours <= MOST_SECONDS


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)

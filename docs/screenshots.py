"""`make screenshots`: the README's pictures, taken from a running `make dev` with headless Chromium.

Belongs here: which pages, and how a browser is asked for them. Does not belong here: starting the servers.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from resources.settings import Settings

FOLDER = Path(__file__).parent / "images"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--window-size=1500,950",
    "--virtual-time-budget=25000",
)  # fmt: skip


def pages(settings: Settings) -> dict[str, str]:
    """Address of each picture, by its name."""
    ui = settings.ui_url
    return {
        "lineage": f"{ui}/assets/fraud/drift?view=lineage&lineageScope=upstream&lineageDepth=5",
        "evaluation": f"{ui}/assets/fraud/evaluation",
        "drift": f"{ui}/assets/fraud/drift?view=checks",
        "mlflow": f"{settings.mlflow_url}/#/models/fraud",
    }


def main(names: list[str]) -> int:
    """Takes the named pictures, or all."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        print("screenshots need Chromium: install the Debian package chromium", file=sys.stderr)
        return 2
    FOLDER.mkdir(exist_ok=True)
    for name, address in pages(Settings.from_env()).items():
        if names and name not in names:
            continue
        with tempfile.TemporaryDirectory() as profile:
            picture = FOLDER / f"{name}.png"
            subprocess.run(
                [browser, *FLAGS, f"--user-data-dir={profile}", f"--screenshot={picture}", address],
                check=True, timeout=120, capture_output=True,
            )  # fmt: skip
        print(f"{picture}: {address}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

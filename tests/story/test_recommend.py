"""`assetline run --model recommend`, as a user plays it, on another last day and seed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import assets.models.recommend  # noqa: F401 - what is played: goes with the example
from resources.settings import project_root

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_tastes_turn_and_the_story_ends_well(tmp_path: Path):
    pytest.importorskip("implicit", reason="the baseline ALS needs `pip install 'assetline[ranking]'`")
    played = subprocess.run(
        [sys.executable, "-m", "cli", "run", "--model", "recommend", "--until", "2026-10-03", "--seed", "1"],
        env={**os.environ, "ASSETLINE_HOME": str(tmp_path / "home")}, cwd=project_root(), text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    assert played.returncode == 0, played.stdout[-3_000:] + played.stderr[-3_000:]
    assert "Every step happened" in played.stdout

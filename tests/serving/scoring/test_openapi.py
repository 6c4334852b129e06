"""The service does what its OpenAPI document says, and nothing else: schemathesis makes the requests."""

import os
import subprocess
import sys

import pytest

from resources.settings import project_root


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_schemathesis_finds_nothing_with_all_its_checks(staged, tmp_path):
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{staged.client.base_url}/openapi.json"]
    options = ["--checks", "all", "--phases", "examples,coverage,fuzzing", "--max-examples", "60", "--seed", "1"]
    hooks = {"SCHEMATHESIS_HOOKS": "tests.serving.schemathesis_hooks", "PYTHONPATH": str(project_root())}
    done = subprocess.run(
        [*command, *options, "--no-color"], env={**os.environ, **hooks}, cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "6 selected / 6 total" in done.stdout, done.stdout[:2000]

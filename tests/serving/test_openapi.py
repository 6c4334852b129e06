"""The service does what its OpenAPI document says, and nothing else: schemathesis makes the requests."""

import os
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_schemathesis_finds_nothing_with_all_its_checks(staged, tmp_path):
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{staged.client.base_url}/openapi.json"]
    options = ["--checks", "all", "--phases", "examples,coverage,fuzzing", "--max-examples", "60", "--seed", "1"]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "tests.serving.schemathesis_hooks", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [*command, *options, "--no-color"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "6 selected / 6 total" in done.stdout, done.stdout[:2000]

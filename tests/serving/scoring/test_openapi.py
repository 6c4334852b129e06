"""The service does what its OpenAPI document says, and nothing else: schemathesis makes the requests."""

import os
import shutil
import subprocess
import sys

import pytest

from resources.settings import project_root


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_schemathesis_finds_nothing_with_all_its_checks(world, bundles, serve, tmp_path):
    # On an interface that others can reach, a bundle needs a token, too; so the check of ignored tokens has one.
    shutil.copytree(world / "tables", tmp_path / "home" / "tables")
    service = serve(
        tmp_path / "home", "--bundle", str(bundles["2"]), "--host", "0.0.0.0", ASSETLINE_RATE_LIMIT="999999999"
    )
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{service.client.base_url}/openapi.json"]
    token = ["--header", f"Authorization: {service.client.headers['Authorization']}"]
    options = ["--checks", "all", "--phases", "examples,coverage,fuzzing", "--max-examples", "60", "--seed", "1"]
    hooks = {"SCHEMATHESIS_HOOKS": "tests.serving.schemathesis_hooks", "PYTHONPATH": str(project_root())}
    done = subprocess.run(
        [*command, *token, *options, "--no-color"], env={**os.environ, **hooks}, cwd=tmp_path, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "8 selected / 8 total" in done.stdout, done.stdout[:2000]

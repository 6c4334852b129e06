"""The providers' files against the published schemas, by check-jsonschema in an environment of its own."""

import subprocess
from pathlib import Path

import pytest

from resources.settings import project_root
from tests.pipelines.tools import NO_SCHEMAS, SCHEMAS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not SCHEMAS.exists(), reason=NO_SCHEMAS)]

FILES = {
    ".gitlab-ci.yml": "vendor.gitlab-ci",
    ".travis.yml": "vendor.travis",
    **{
        f".github/workflows/{path.name}": "vendor.github-workflows"
        for path in sorted((project_root() / ".github" / "workflows").glob("*.yml"))
    },
}


def check(path: Path, schema: str) -> subprocess.CompletedProcess[str]:
    command = [str(SCHEMAS), "--builtin-schema", schema, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_the_form_that_its_provider_publishes(name):
    ran = check(project_root() / name, FILES[name])
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (".gitlab-ci.yml", "allow_failure: false", "allow_failure: perhaps"),
        (".travis.yml", "os: linux", "os: amiga"),
        (".github/workflows/ci.yml", "runs-on: ubuntu-24.04", "runs_on: ubuntu-24.04"),
    ],
)
def test_a_mistake_is_found(tmp_path, name, old, new):
    text = (project_root() / name).read_text()
    assert old in text
    (tmp_path / "file.yml").write_text(text.replace(old, new, 1))
    assert check(tmp_path / "file.yml", FILES[name]).returncode == 1

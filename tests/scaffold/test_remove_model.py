"""Removing models one after the other, in a small project that git knows."""

import subprocess
from pathlib import Path

import pytest

from scaffold.remove_model import remove_model
from scaffold.tables import ScaffoldError


@pytest.fixture
def project(tmp_path) -> Path:
    files = {
        "assets/models/one/__init__.py": "",
        "assets/models/two/__init__.py": "",
        "tests/assets/models/two/test_both.py": "import assets.models.one\nimport assets.models.two\n",
        "tests/assets/models/two/test_two.py": "import assets.models.two\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    who = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
    for command in (["init", "--quiet"], ["add", "-A"], [*who, "commit", "--quiet", "-m", "all"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


def test_a_test_of_two_models_goes_with_the_first_and_does_not_hold_the_second(project):
    assert Path("tests/assets/models/two/test_both.py") in remove_model(project, "one")
    assert (project / "tests/assets/models/two/test_two.py").exists()
    remove_model(project, "two")
    assert not [path for path in project.rglob("*.py") if "two" in path.parts]


def test_a_file_that_git_cannot_restore_holds_the_removal(project):
    (project / "tests/assets/models/two/test_two.py").write_text("import assets.models.two\n# new\n")
    with pytest.raises(ScaffoldError, match=r"git cannot restore tests/assets/models/two/test_two.py; commit first"):
        remove_model(project, "two")
    assert (project / "assets/models/two/__init__.py").exists()

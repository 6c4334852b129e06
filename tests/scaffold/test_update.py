"""A newer template comes into a fork by real git; the fork's own models stay as they are, byte for byte."""

import os
import subprocess
from pathlib import Path

import pytest

from resources.settings import project_root
from scaffold.update import MARK, UpdateError, format_update, update

WHO = {
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@localhost", "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@localhost", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null",
}  # fmt: skip


@pytest.fixture(autouse=True)
def identity(monkeypatch):
    for name, value in WHO.items():
        monkeypatch.setenv(name, value)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def write(folder: Path, **files: str | bytes | None) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.unlink()
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content)


def commit(folder: Path, what: str) -> str:
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "-m", what)
    return git(folder, "rev-parse", "HEAD")


LINES = "".join(f"line {n}\n" for n in range(40))


@pytest.fixture
def template(tmp_path) -> Path:
    """An older template: a lifecycle, an example, a picture."""
    folder = tmp_path / "template"
    folder.mkdir()
    git(folder, "init", "--quiet", "-b", "main")
    write(folder, **{
        "assets/lifecycle/model/fitting.py": LINES, "assets/lifecycle/old.py": "old\n",
        "assets/lifecycle/named.py": LINES + "n",
        "assets/models/fraud/__init__.py": "fraud = 1\n", "tests/assets/models/fraud/test_it.py": "assert 1\n",
        "assets/models/weather/__init__.py": "weather = 1\n", "docs/picture.png": bytes(range(256)),
        "Makefile": "run:\n",
    })  # fmt: skip
    commit(folder, "older")
    return folder


@pytest.fixture
def fork(template, tmp_path) -> Path:
    """A clone with a model of its own, an edited example, and a setting changed in the lifecycle."""
    folder = tmp_path / "fork"
    git(tmp_path, "clone", "--quiet", str(template), str(folder))
    write(folder, **{
        "assets/models/churn/__init__.py": "churn = 1\n", "assets/models/churn/table.py": "table = 1\n",
        "assets/models/fraud/__init__.py": "fraud = 'ours'\n",
        "assets/lifecycle/model/fitting.py": LINES.replace("line 35\n", "line 35, ours\n"),
    })  # fmt: skip
    commit(folder, "ours")
    return folder


def newer(template: Path) -> str:
    write(template, **{
        "assets/lifecycle/model/fitting.py": LINES.replace("line 3\n", "line 3, newer\n"),
        "assets/lifecycle/old.py": None, "assets/lifecycle/new.py": "new\n",
        "assets/models/fraud/__init__.py": "fraud = 2\n",
        "assets/models/fraud/more.py": "more\n", "assets/models/weather/__init__.py": "weather = 2\n",
        "tests/assets/models/fraud/test_it.py": "assert 2\n", "docs/picture.png": bytes(reversed(range(256))),
    })  # fmt: skip
    git(template, "mv", "assets/lifecycle/named.py", "assets/lifecycle/renamed.py")
    (template / "Makefile").chmod(0o755)
    return commit(template, "newer")


def own(fork: Path) -> dict[Path, bytes]:
    folders = [fork / "assets" / "models" / name for name in ("churn", "fraud")]
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def test_what_is_newer_comes_and_the_fork_s_models_stay(template, fork):
    before, new = own(fork), newer(template)
    done = update(fork, str(template))
    assert (done.new, done.conflicts) == (new, [])
    assert own(fork) == before
    assert (fork / "tests/assets/models/fraud/test_it.py").read_text() == "assert 1\n"
    assert (fork / "assets/models/weather/__init__.py").read_text() == "weather = 2\n", (
        "an untouched example is brought up"
    )
    fitting = (fork / "assets/lifecycle/model/fitting.py").read_text()
    assert "line 3, newer\n" in fitting
    assert "line 35, ours\n" in fitting
    assert (fork / "assets/lifecycle/new.py").exists()
    assert not (fork / "assets/lifecycle/old.py").exists()
    assert (fork / "assets/lifecycle/renamed.py").exists()
    assert not (fork / "assets/lifecycle/named.py").exists()
    assert (fork / "docs/picture.png").read_bytes() == bytes(reversed(range(256)))
    assert os.access(fork / "Makefile", os.X_OK)
    assert git(fork, "status", "--porcelain") == ""
    assert new in (fork / MARK).read_text()
    said = format_update(done)
    assert "assets/models/fraud: left alone, the fork changed it" in said
    assert "churn" not in said
    assert format_update(update(fork)).startswith("Nothing to do"), "where the template lies is known now"


def test_a_second_update_goes_on_from_the_first(template, fork):
    newer(template)
    update(fork, str(template))
    write(template, **{"assets/lifecycle/new.py": "new\nnewest\n"})
    commit(template, "newest")
    assert update(fork).conflicts == []
    assert (fork / "assets/lifecycle/new.py").read_text() == "new\nnewest\n"


def test_an_example_that_was_removed_stays_removed_with_its_tests(template, fork):
    git(fork, "rm", "-rq", "assets/models/fraud", "tests/assets/models/fraud")
    commit(fork, "without the example")
    newer(template)
    done = update(fork, str(template))
    assert not (fork / "assets/models/fraud").exists()
    assert not (fork / "tests/assets/models/fraud").exists()
    assert done.left_alone["assets/models/fraud"] == "the fork removed it"


def test_a_model_of_the_template_s_name_is_the_fork_s(template, fork):
    write(template, **{"assets/models/churn/__init__.py": "theirs = 1\n"})
    commit(template, "a churn of its own")
    done = update(fork, str(template))
    assert (fork / "assets/models/churn/__init__.py").read_text() == "churn = 1\n"
    assert done.left_alone["assets/models/churn"] == "the fork has a model of this name"


def test_a_conflict_is_shown_with_the_way_on_and_the_way_back(template, fork):
    newer(template)
    write(fork, **{"assets/lifecycle/model/fitting.py": LINES.replace("line 3\n", "line 3, ours\n")})
    ours = commit(fork, "the same line")
    before = own(fork)
    done = update(fork, str(template))
    assert done.conflicts == ["assets/lifecycle/model/fitting.py"]
    assert "<<<<<<<" in (fork / "assets/lifecycle/model/fitting.py").read_text()
    assert "git reset --hard" in format_update(done)
    assert own(fork) == before
    assert git(fork, "rev-parse", "HEAD") == ours
    git(fork, "reset", "--hard", "--quiet")
    assert git(fork, "status", "--porcelain") == ""


def test_changes_that_are_not_committed_are_not_touched(template, fork):
    newer(template)
    write(fork, Makefile="mine:\n")
    with pytest.raises(UpdateError, match=r"the work tree has changes \(Makefile\); commit or stash them first"):
        update(fork, str(template))
    assert (fork / "Makefile").read_text() == "mine:\n"


def test_a_file_in_the_way_stops_it_with_nothing_touched(template, fork):
    newer(template)
    write(fork, **{"assets/lifecycle/new.py": "mine, and not in git\n"})
    head = git(fork, "rev-parse", "HEAD")
    with pytest.raises(UpdateError, match="in the way"):
        update(fork, str(template))
    assert (fork / "assets/lifecycle/new.py").read_text() == "mine, and not in git\n"
    assert git(fork, "rev-parse", "HEAD") == head
    assert git(fork, "status", "--porcelain", "--untracked-files=no") == ""


def test_a_copy_without_history_says_once_what_it_was_made_of(template, tmp_path):
    made_of = git(template, "rev-parse", "HEAD")
    copy = tmp_path / "copy"
    copy.mkdir()
    git(template, "archive", "--format=tar", "-o", str(tmp_path / "t.tar"), "HEAD")
    subprocess.run(["tar", "-xf", str(tmp_path / "t.tar"), "-C", str(copy)], check=True)
    git(copy, "init", "--quiet", "-b", "main")
    commit(copy, "made of the template")
    newer(template)
    with pytest.raises(UpdateError, match="share no history; give once the template commit"):
        update(copy, str(template))
    with pytest.raises(UpdateError, match="has no commit 1234567"):
        update(copy, str(template), base="1234567")
    assert update(copy, str(template), base=made_of).conflicts == []
    assert (copy / "assets/lifecycle/new.py").exists()


def test_where_the_template_lies_must_be_said_once(fork):
    with pytest.raises(UpdateError, match="the template's location is not known yet"):
        update(fork)
    with pytest.raises(UpdateError, match="cannot be fetched from /nowhere"):
        update(fork, "/nowhere")


def test_the_project_itself_is_brought_up_with_a_model_added_and_the_example_removed(tmp_path):
    """The rehearsal: this very project as the older state, a fork that lives, a newer lifecycle."""
    if not (project_root() / ".git").exists():
        pytest.skip("this is no git checkout: there is no older state to begin from")
    older, fork = tmp_path / "older", tmp_path / "fork"
    git(tmp_path, "clone", "--quiet", "--no-hardlinks", str(project_root()), str(older))
    git(older, "checkout", "--quiet", "-B", "main")
    git(tmp_path, "clone", "--quiet", str(older), str(fork))
    write(fork, **{"assets/models/churn/__init__.py": "model = 1\n"})
    git(fork, "rm", "-rq", "assets/models/fraud")
    commit(fork, "our models")
    stage = older / "assets/lifecycle/data/landing.py"
    stage.write_text(stage.read_text().replace('"""First stage:', '"""The first stage:'))
    example = older / "assets/models/fraud/tables.py"
    example.write_text(example.read_text() + "\n# newer\n")
    commit(older, "newer")
    done = update(fork, str(older))
    assert done.conflicts == []
    assert (fork / "assets/lifecycle/data/landing.py").read_bytes() == stage.read_bytes()
    assert (fork / "assets/models/churn/__init__.py").read_text() == "model = 1\n"
    assert not (fork / "assets/models/fraud").exists()

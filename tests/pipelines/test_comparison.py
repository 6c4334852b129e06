"""Before and after, for a change to a model: which models it touches, and both sides on the same rows."""

import subprocess
from dataclasses import replace

import pytest

from metadata.comparison import ALL_ROWS, Figure, Pair
from pipeline import comparison
from pipeline.comparison import Change, Compared, change_since, compare, default_base, text_of
from pipeline.delivery import is_protected
from pipeline.stages import Folder, StageError
from tests.declarations.readings import plain
from tests.pipelines.project import NAME, Project

BASE = "0123456789abcdef"


@pytest.fixture
def repository(tmp_path):
    """A repository with two commits on main, and a branch from the first; a function that runs git in it."""
    folder = tmp_path / "repository"
    (folder / "assets" / "models" / "churn").mkdir(parents=True)

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=ada", "-c", "user.email=ada@localhost"]
        command = ["git", "-C", str(folder), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(path: str, text: str) -> str:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
        git("add", "-A")
        git("commit", "--quiet", "-m", path)
        return git("rev-parse", "HEAD")

    git("init", "--quiet", "--initial-branch=main")
    first = commit("assets/models/churn/__init__.py", "one")
    git("branch", "idea")
    commit("resources/tables.py", "of others")
    git("checkout", "--quiet", "idea")
    return folder, git, commit, first


# -- what changed ----------------------------------------------------------------------------------------------------


def test_changes_are_those_since_the_commit_that_both_share(repository):
    folder, _, commit, first = repository
    commit("assets/models/churn/__init__.py", "two")
    commit("docs/page.md", "words")
    commit("assets/models/churn/test_churn.py", "a test")
    (folder / "assets" / "models" / "churn" / "new.py").write_text("not committed yet")
    change = change_since("main", folder)
    assert (change.base, change.ref) == (first, "main")
    assert change.paths == ("assets/models/churn/__init__.py", "assets/models/churn/new.py")


def test_the_first_commit_has_nothing_before_it(repository):
    folder, git, _, first = repository
    assert change_since("HEAD~1", folder) == Change("the first commit", first, ())
    git("checkout", "--quiet", "main")
    assert change_since("HEAD~1", folder).paths == ("resources/tables.py",)


def test_a_base_that_is_not_there_or_too_far_back_is_named(repository, tmp_path):
    folder, git, *_ = repository
    with pytest.raises(StageError, match=r"BASE=nowhere is no commit that HEAD is based on; .* \(no shallow clone\)"):
        change_since("nowhere", folder)
    git("checkout", "--quiet", "main")
    shallow = tmp_path / "shallow"
    git("clone", "--quiet", "--depth", "1", f"file://{folder}", str(shallow))
    with pytest.raises(StageError, match="BASE=HEAD~1 is no commit"):
        change_since("HEAD~1", shallow)


@pytest.mark.parametrize(
    ("env", "base"),
    [
        ({"CI_MERGE_REQUEST_DIFF_BASE_SHA": "c0ffee"}, "c0ffee"),
        ({"GITHUB_BASE_REF": "main"}, "origin/main"),
        ({"GITHUB_BASE_REF": ""}, "HEAD~1"),
        ({"CHANGE_TARGET": "main"}, "origin/main"),
        ({}, "HEAD~1"),
    ],
)
def test_the_provider_names_the_base(env, base):
    assert default_base(env) == base


def test_a_change_touches_the_models_of_its_folder_or_all(monkeypatch):
    model = plain()
    monkeypatch.setattr(comparison, "package_of", lambda model: "assets.models.meter")
    for path, touched in (
        ("assets/models/meter/features.py", True), ("assets/models/churn/features.py", False),
        ("assets/models/meter_two/features.py", False), ("assets/lifecycle/model/fitting.py", True),
    ):  # fmt: skip
        assert Change("main", BASE, (path,)).touches(model) == touched, path
    assert not Change("main", BASE, ()).touches(model)


def test_the_protected_branch_is_that_of_the_remote_if_there_is_one(repository, tmp_path):
    folder, git, commit, first = repository
    mine = commit("assets/x.py", "x")
    assert is_protected(first, "main", folder)
    assert not is_protected(mine, "main", folder)
    assert not is_protected(first, "release", folder), "no such branch"
    assert not is_protected("unknown (git is not installed)", "main", folder)
    clone = tmp_path / "clone"
    git("clone", "--quiet", "--branch", "idea", str(folder), str(clone))
    subprocess.run(["git", "-C", str(clone), "branch", "main", mine], check=True)  # a local one of that name
    assert is_protected(first, "main", clone)
    assert not is_protected(mine, "main", clone)
    git("tag", "v1", mine)
    assert is_protected(mine, "main", folder), "a tag is a decision of its own"


# -- the text --------------------------------------------------------------------------------------------------------


def test_only_differences_beyond_chance_are_bold():
    figure = Figure(0.8, 0.7, 0.9)
    pairs = [
        Pair(ALL_ROWS, "roc_auc", figure, figure, Figure(-0.05, -0.07, -0.03)),
        Pair(ALL_ROWS, "brier", figure, figure, Figure(0.01, -0.01, 0.03)),
        Pair("night", "roc_auc", figure, None),
    ]
    text = text_of([Compared("churn", 1234, pairs, relabelled=3)], Change("origin/main", BASE, ("assets/x.py",)))
    assert "Before: commit `0123456789` (origin/main)" in text
    assert "1,234 test rows." in text
    assert "The target differs on 3 of them" in text
    assert "| 0.8 [0.7, 0.9] | 0.8 [0.7, 0.9] | **-0.05 [-0.07, -0.03]** |" in text
    assert "| 0.8 [0.7, 0.9] | 0.8 [0.7, 0.9] | +0.01 [-0.01, +0.03] |" in text
    assert "| night |" in text
    assert "- `assets/x.py`" in text


def test_what_cannot_be_compared_says_why():
    change = Change("origin/main", BASE, ("assets/x.py",))
    assert "Not compared: no such model." in text_of([Compared("churn", why="no such model")], change)
    assert "Nothing that trains a model differs from commit `0123456789` (v1)" in text_of([], Change("v1", BASE, ()))


def test_a_comparison_needs_a_trained_model(tmp_path):
    with pytest.raises(StageError, match="`make compare` needs `make train`"):
        compare(Folder(tmp_path), [plain()], Change("main", BASE, ("assets/x.py",)), print)


def test_nothing_is_trained_if_nothing_differs(tmp_path):
    folder = Folder(tmp_path)
    folder.record("train.json", {"models": {"meter": {"version": "1"}}})
    assert compare(folder, [plain()], Change("main", BASE, ()), print) == []
    assert compare(folder, [replace(plain(), name="other")], Change("main", BASE, ("runner.py",)), print) == []


# -- both sides, trained ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_a_worse_features_function_shows_on_the_same_rows(tmp_path):
    project = Project(tmp_path / "compared", "real")

    def stage(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([str(project.venv / "bin" / "assetline"), "pipeline", *arguments], cwd=project.folder,
                              env=project.variables, capture_output=True, text=True, check=False)  # fmt: skip

    model = f"assets/models/{NAME}/__init__.py"
    project.replace(model, "model = Model(", "SEEN = ('area', 'people', 'outside')\n\n\ndef numbers(events, wanted):\n"
                    "    return {name: events[name][wanted].astype(np.float32) for name in SEEN}\n\n\nmodel = Model(\n"
                    "    features=Features(compute=numbers, lookback_days=0, names=SEEN),")  # fmt: skip
    project.replace(model, "import Model", "import Features, Model")
    project.replace(model, "from assets.declaration", "import numpy as np\n\nfrom assets.declaration")
    base = project.commit("three columns")
    project.replace(model, "'area', 'people', 'outside'", "'people', 'outside'")
    project.commit("without the area, on which most depends")
    for arguments in (["train", "--model", NAME], ["compare", "--base", "HEAD~1"]):
        ran = stage(*arguments)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"{NAME}: both sides scored 120 rows" in ran.stdout
    text = (project.folder / "build" / "reports" / "comparison.md").read_text()
    assert f"Before: commit `{base[:10]}` (HEAD~1)" in text
    [line] = [line for line in text.splitlines() if line.startswith("| R²")]
    before, after, difference = (cell.strip() for cell in line.split("|")[2:5])
    assert float(after.split()[0]) < float(before.split()[0])
    assert difference.startswith("**-")
    assert project.git("worktree", "list").count("\n") == 1, "the worktree of the base is gone"
    assert not project.git("status", "--porcelain")

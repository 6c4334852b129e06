"""The stage ``compare``: the models of this commit and of the one it is based on, on the same rows.

Belongs here: the worktree of the base, training it on the rows that landed for this commit, and the text. Does not
belong here: the figures (``metadata/comparison.py``), where the text is shown (``publishing.py``).

The base is trained by its own code, in a process of its own, on the raw rows that this commit landed: cleaning,
features and recipe may differ, the rows do not. Both versions are scored on the rows that are in the test rows of both,
so neither was fitted on a row that it is measured on.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assets.declaration import Model
from assets.lifecycle.model.evaluation import known_entities
from assets.lifecycle.model.training_set import feature_column, test_rows
from assets.lifecycle.model.version.bundle import Bundle, BundleError, loaded, package_of
from assets.metrics import METRICS
from metadata.comparison import ALL_ROWS, Figure, Pair, pairs_on
from metadata.wording import figure_in_words
from pipeline.stages import TRAINED, Folder, StageError
from pipeline.training import at_home, unpack
from resources.mlflow import MlflowTracking
from resources.settings import project_root
from resources.tables import ParquetTables

Say = Callable[[str], None]

TRAINS = ("assets", "metadata", "pipeline", "resources", "definitions.py", "runner.py")
"""Paths whose changes may change a version."""
MODELS = "assets/models/"
OF_PROVIDERS = {
    "CI_MERGE_REQUEST_DIFF_BASE_SHA": "{}",
    "GITHUB_BASE_REF": "origin/{}",
    "CHANGE_TARGET": "origin/{}",
}
"""Variables of GitLab, GitHub and Jenkins that name what a merge or pull request goes into."""
BEFORE = "HEAD~1"
FEWEST_ROWS = 50
"""Minimum number of test rows that both sides have."""


@dataclass(frozen=True)
class Compared:
    """A model on both sides.

    Args:
        model: name of the model.
        rows: number of rows that both were scored on.
        pairs: figures of base (``a``) and this commit (``b``); empty if they cannot be compared.
        why: why they cannot be compared; empty if they were.
        relabelled: number of these rows whose target differs between the sides.
    """

    model: str
    rows: int = 0
    pairs: list[Pair] = field(default_factory=list)
    why: str = ""
    relabelled: int = 0


@dataclass(frozen=True)
class Change:
    """What this commit, with the files that are not committed yet, changes against its base.

    Args:
        ref: what was asked for, e.g. ``origin/main``.
        base: commit that it is based on.
        paths: changed paths that may change a version.
    """

    ref: str
    base: str
    paths: tuple[str, ...]

    def touches(self, model: Model) -> bool:
        """Whether a version of the model may change: its folder did, or code that all models share."""
        own = MODELS + package_of(model).removeprefix("assets.models.").replace(".", "/") + "/"
        return any(path.startswith(own) or not path.startswith(MODELS) for path in self.paths)


def default_base(env: Mapping[str, str]) -> str:
    """The target of the merge or pull request that the provider's variables name; without one, the commit before."""
    return next((form.format(env[name]) for name, form in OF_PROVIDERS.items() if env.get(name)), BEFORE)


def change_since(ref: str, root: Path | None = None) -> Change:
    """Returns what changed since the commit of ``ref`` that HEAD is based on.

    Raises:
        StageError: there is no such commit, or the history of the checkout does not reach it.
    """
    root = root or project_root()
    if ref == BEFORE and _is_first_commit(root):
        return Change("the first commit", _git(root, "rev-parse", "HEAD").stdout.strip(), ())
    found = _git(root, "merge-base", ref, "HEAD")
    if found.returncode:
        raise StageError(
            f"BASE={ref} is no commit that HEAD is based on; give a branch, tag or commit, and fetch its history "
            "(no shallow clone)"
        )
    base = found.stdout.strip()
    changed = _git(root, "diff", "--name-only", base, "--", *TRAINS).stdout.splitlines()
    new = _git(root, "ls-files", "--others", "--exclude-standard", "--", *TRAINS).stdout.splitlines()
    tests = [path for path in (*changed, *new) if Path(path).name.startswith("test_")]
    return Change(ref, base, tuple(sorted({*changed, *new} - set(tests))))


def _is_first_commit(root: Path) -> bool:
    """Whether no commit is before HEAD; a shallow clone does not know."""
    shallow = _git(root, "rev-parse", "--is-shallow-repository").stdout.strip()
    return shallow == "false" and " " not in _git(root, "rev-list", "--parents", "-1", "HEAD").stdout.strip()


def compare(folder: Folder, declared: Sequence[Model], change: Change, say: Say) -> list[Compared]:
    """Trains the base on the rows of the stage ``train`` and compares each model that the change may affect.

    Args:
        folder: the folder of the pipeline; the stage ``train`` has run in it.
        declared: the declarations to compare.
        change: what changed.
        say: called with one line for each step.

    Raises:
        StageError: ``train`` has not run, or the base cannot be trained.
    """
    trained = folder.recorded(TRAINED, stage="make compare", needs="make train")["models"]
    affected = [model for model in declared if model.name in trained and change.touches(model)]
    if not affected:
        return []
    unpack(folder)
    with _worktree(change.base) as tree:
        there = _declared_in(tree)
        both = [model for model in affected if model.name in there]
        base = Folder(folder.root / "base")
        if both:
            shutil.rmtree(base.root, ignore_errors=True)
            _copy_landed(folder.home, base.home, both)
            untils = {trained[model.name].get("until") or "" for model in both}
            for until in sorted(untils):
                names = [model.name for model in both if (trained[model.name].get("until") or "") == until]
                say(f"training {', '.join(names)} as of commit {change.base[:10]}")
                _train_in(tree, base, names, until)
        found = []
        for model in affected:
            if model in both:
                found.append(_compared(folder, base, model))
            else:
                found.append(Compared(model.name, why=f"commit {change.base[:10]} does not declare it"))
            one = found[-1]
            say(f"{model.name}: {one.why or f'both sides scored {one.rows:,} rows'}")
    return found


def text_of(found: Sequence[Compared], change: Change) -> str:
    """The comparison as Markdown."""
    parts = [
        "## Before and after",
        f"Before: commit `{change.base[:10]}` ({change.ref}). After: this commit. Both are trained on the same raw "
        "rows and score the same test rows. The difference is *after* minus *before*, with its paired 95 % interval; "
        "**bold** if the interval excludes 0.",
    ]
    if not found:
        parts = [parts[0], f"Nothing that trains a model differs from commit `{change.base[:10]}` ({change.ref})."]
    for one in found:
        parts.append(f"### {one.model}")
        if one.why:
            parts.append(f"Not compared: {one.why}.")
            continue
        parts.append(f"{one.rows:,} test rows.")
        if one.relabelled:
            parts.append(f"The target differs on {one.relabelled:,} of them; the labels of this commit are used.")
        parts.append(_table([pair for pair in one.pairs if pair.slice == ALL_ROWS]))
        slices = [pair for pair in one.pairs if pair.slice != ALL_ROWS]
        if slices:
            parts.append("<details><summary>Slices</summary>\n\n" + _slices(slices) + "\n\n</details>")
    if change.paths:
        listed = "\n".join(f"- `{path}`" for path in change.paths)
        parts.append(f"<details><summary>{len(change.paths)} changed files</summary>\n\n{listed}\n\n</details>")
    return "\n\n".join(parts) + "\n"


def _compared(head: Folder, base: Folder, model: Model) -> Compared:
    """Scores both versions on the test rows that both sides have."""
    name, key = model.name, model.table.key
    after, before = _side(head, model), _side(base, model)
    try:
        model_before = before.bundle.model
    except BundleError as error:
        return Compared(name, why=str(error))
    if model_before.table.key != key or model_before.task != model.task:
        return Compared(name, why="the two sides have another key or another kind of target")
    mask_after, mask_before = test_rows(after.frozen, model), test_rows(before.frozen, model_before)
    tested_before = before.frozen[mask_before].set_index(key)
    rows = after.frozen[mask_after]
    common = rows[key].isin(tested_before.index).to_numpy()
    if common.sum() < FEWEST_ROWS:
        return Compared(name, why=f"only {common.sum()} test rows are in the test rows of both sides")
    known = known_entities(after.frozen, mask_after, model)
    rows = rows[common].reset_index(drop=True)
    matched = tested_before.loc[rows[key]]
    a = before.bundle.predict(_matrix(matched, before.bundle))
    b = after.bundle.predict(_matrix(rows, after.bundle))
    relabelled = 0
    if model_before.target in matched:
        relabelled = int((matched[model_before.target].to_numpy() != rows[model.target].to_numpy()).sum())
    try:
        pairs = pairs_on(rows, a, b, model, None if known is None else known[common])
    except ValueError as error:  # e.g. the rows that are left have one value of the target
        return Compared(name, why=str(error))
    return Compared(name, len(rows), pairs, relabelled=relabelled)


@dataclass(frozen=True)
class _Side:
    frozen: Any
    bundle: Bundle


def _side(folder: Folder, model: Model) -> _Side:
    """The training set and the version of one side."""
    version = folder.recorded(TRAINED, stage="make compare", needs="make train")["models"][model.name]["version"]
    with at_home(folder) as settings:
        tables = ParquetTables(root=settings.tables)
        mlflow = MlflowTracking.from_settings(settings)
        return _Side(tables.read(model.key("training_set")), loaded(mlflow.download(model.name, str(version))))


def _matrix(rows: Any, bundle: Bundle) -> Any:
    """The features of a version, float32 ``[n, n_features]``, from a training set of its own side."""
    return rows[[feature_column(name) for name in bundle.facts.feature_names]].to_numpy(dtype="float32")


def _copy_landed(home: Path, to: Path, models: Sequence[Model]) -> None:
    """Copies the raw tables, and the files of sources in the state folder, e.g. the example's world."""
    to.mkdir(parents=True)
    for path in home.iterdir():
        if path.is_file() and not path.name.startswith(".") and path.suffix == ".json":
            shutil.copy2(path, to / path.name)
    for model in models:
        for name in (f"raw_{model.table.name}", "raw_labels"):
            source = Path(ParquetTables(root=str(home / "tables")).path(model.key(name))).parent
            if source.is_dir():
                shutil.copytree(source, to / source.relative_to(home))


@contextlib.contextmanager
def _worktree(commit: str) -> Iterator[Path]:
    """Yields a worktree of a commit, which is removed afterwards."""
    root = project_root()
    with tempfile.TemporaryDirectory(prefix="assetline-base-") as scratch:
        tree = Path(scratch) / "tree"
        made = _git(root, "worktree", "add", "--detach", "--quiet", str(tree), commit)
        if made.returncode:
            raise StageError(f"git cannot make a worktree of commit {commit[:10]}: {_last_line(made.stderr)}")
        try:
            yield tree
        finally:
            _git(root, "worktree", "remove", "--force", str(tree))


_LIST = "import json; from assets.models import declared_models; print(json.dumps([m.name for m in declared_models()]))"


def _declared_in(tree: Path) -> list[str]:
    """Names of the models that a checkout declares."""
    ran = _python(tree, "-W", "ignore", "-c", _LIST)
    if ran.returncode:
        raise StageError(f"the models of the base cannot be read: {_last_line(ran.stderr)}")
    return list(json.loads(ran.stdout.splitlines()[-1]))


def _train_in(tree: Path, base: Folder, names: Sequence[str], until: str) -> None:
    """Runs the stage ``train`` of the base on rows that have landed already."""
    command = ["-m", "cli", "pipeline", "train", "--landed", "--out", str(base.root)]
    command += [*(part for name in names for part in ("--model", name)), *(["--until", until] if until else [])]
    ran = _python(tree, *command)
    if ran.returncode == 2:
        raise StageError("the base has no `assetline pipeline train --landed`; compare with a later commit")
    if ran.returncode:
        raise StageError(f"the base cannot be trained: {_last_line(ran.stderr)}")


def _python(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python in a checkout, with the packages of this one."""
    kept = {name: value for name, value in os.environ.items() if name not in ("DAGSTER_HOME", "ASSETLINE_HOME")}
    return subprocess.run(
        [sys.executable, *arguments], cwd=tree, env={**kept, "PYTHONPATH": str(tree)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no reason was given")


def _table(pairs: Sequence[Pair]) -> str:
    lines = ["| metric | before | after | difference |", "|---|---|---|---|"]
    lines += [
        f"| {_name(pair)} | {_cell(pair.a)} | {_cell(pair.b)} | {_difference(pair.difference)} |" for pair in pairs
    ]
    return "\n".join(lines)


def _slices(pairs: Sequence[Pair]) -> str:
    lines = ["| slice | metric | before | after |", "|---|---|---|---|"]
    lines += [f"| {pair.slice} | {_name(pair)} | {_cell(pair.a)} | {_cell(pair.b)} |" for pair in pairs]
    return "\n".join(lines)


def _name(pair: Pair) -> str:
    return METRICS[pair.metric].label if pair.metric in METRICS else pair.metric


def _cell(figure: Figure | None, *, signed: bool = False) -> str:
    if figure is None:
        return ""
    value, low, high = (
        None if one is None else figure_in_words(one, signed=signed) for one in (figure.value, figure.low, figure.high)
    )
    return f"{value}" if low is None else f"{value} [{low}, {high}]"


def _difference(figure: Figure | None) -> str:
    text = _cell(figure, signed=True)
    if figure is None or figure.low is None or figure.high is None or figure.low <= 0 <= figure.high:
        return text
    return f"**{text}**"

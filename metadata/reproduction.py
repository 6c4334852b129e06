"""Reproduces a version: trains it again from its commit and its rows, and compares weights and figures.

The training runs in a git worktree of the version's commit, in a process of its own, so that the code is that of the
commit. Nothing is registered, and the worktree is removed.

Belongs here: the worktree, the process, the comparison. Does not belong here: fitting (``cli/refit.py`` and
``assets/lifecycle/model/refit.py``), finding the rows (``version/training_rows.py``), text output.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assets.lifecycle.model.evaluation import known_entities
from assets.lifecycle.model.metrics import evaluate
from assets.lifecycle.model.refit import RECIPE
from assets.lifecycle.model.training_set import matrix, test_rows
from assets.lifecycle.model.version.bundle import NETWORK, Bundle, BundleError, Facts
from assets.lifecycle.model.version.training_rows import FoundRows, RowsError, find_rows
from metadata.comparison import CodeDifference, code_differences, how_evaluated
from metadata.facts import Metadata
from metadata.views import VersionRow
from resources.git import UNKNOWN
from resources.runtime import Runtime, threads_variables
from resources.settings import PREFIX, project_root

_REFIT = "cli.refit"
"""Module that fits, in the version's commit."""
_NOT_COMPARED = ("rows", "tuned", "study")
"""Parameters that are not compared: the rows are proven by their hash, and each tuned setting is a parameter itself."""


class ReproductionError(Exception):
    """A version cannot be reproduced. Nothing was changed; the message gives the reason and what can be done."""


@dataclass(frozen=True)
class WeightDifference:
    """A tensor that differs: its largest absolute difference; ``None`` if it has none.

    It has none if only one network has the tensor, the shapes differ, or a number is missing in one of them.
    """

    tensor: str
    largest: float | None


@dataclass(frozen=True)
class FigurePair:
    """A figure of the version and of its reproduction; ``None`` where one does not have it."""

    figure: str
    then: float | None
    now: float | None

    @property
    def difference(self) -> float:
        """Absolute difference; infinite if only one has the figure, or only one is undefined."""
        if self.then is None or self.now is None or math.isnan(self.then) != math.isnan(self.now):
            return math.inf
        return 0.0 if self.then == self.now or math.isnan(self.then) else abs(self.now - self.then)


@dataclass(frozen=True)
class Reproduction:
    """What became of a reproduction.

    Args:
        version: the version.
        rows: number of training rows, proven by their data version.
        runtime: packages, Python and processor that differ, a phrase each; ``None`` if the version has no record.
        code: modules of the model folder that differ.
        recipe: ``(then, now)`` by parameter that differs.
        tensors: number of tensors.
        weights: number of weights in them.
        different: tensors that differ.
        figures: all figures.
        not_scored: why the test figures are missing; empty if they are there.
    """

    version: VersionRow
    rows: int
    runtime: list[str] | None
    code: list[CodeDifference]
    recipe: dict[str, tuple[str | None, str | None]]
    tensors: int
    weights: int
    different: list[WeightDifference]
    figures: list[FigurePair]
    not_scored: str = ""

    @property
    def largest_weight_difference(self) -> float:
        """Over all tensors; infinite if shapes differ or a tensor is missing."""
        return max((math.inf if one.largest is None else one.largest for one in self.different), default=0.0)

    @property
    def largest_figure_difference(self) -> float:
        """Over all figures."""
        return max((one.difference for one in self.figures), default=0.0)

    @property
    def equal(self) -> bool:
        """Whether weights have equal bytes, and all figures are equal."""
        return not self.different and self.largest_figure_difference == 0 and not self.not_scored

    def within(self, tolerance: float) -> bool:
        """Whether no weight and no figure differs by more than ``tolerance``."""
        largest = max(self.largest_weight_difference, self.largest_figure_difference)
        return self.equal or (largest <= tolerance and not self.not_scored)

    def to_json(self) -> dict[str, Any]:
        """The reproduction for JSON; infinite differences are ``null``."""
        largest = {
            "largest_weight_difference": _finite(self.largest_weight_difference),
            "largest_figure_difference": _finite(self.largest_figure_difference),
        }
        return {"equal": self.equal, **largest, **asdict(self)}


def reproduce(
    metadata: Metadata,
    model: str,
    number: str,
    *,
    repository: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Reproduction:
    """Trains a version again and compares the result.

    Args:
        metadata: the facts.
        model: name of the model.
        number: number of the version.
        repository: root of the project in its git repository; default: this project.
        say: called with a line of progress per step.

    Raises:
        UnknownError: there is no such model or version.
        ReproductionError: the commit is unknown, had changes or is gone, the rows cannot be found again, or the commit
            cannot fit them.
    """
    root = repository or project_root()
    version = metadata.version(model, number)
    _refuse(version, root)
    folder = metadata.folder(version)
    try:
        bundle, recorded = Bundle.load(folder), Runtime.read(folder)
        found = find_rows(metadata.tables, bundle, number)
    except (RowsError, BundleError, ValueError, TypeError) as error:
        raise ReproductionError(f"{error}. {_still(version)}") from error
    say(f"{found.stamp.rows:,} rows, data version {found.stamp.data_version}")
    with tempfile.TemporaryDirectory(prefix="assetline-reproduce-") as scratch:
        tables, out = Path(scratch) / "tables", Path(scratch) / "out"
        file = tables / model / "training_set" / "all.parquet"
        file.parent.mkdir(parents=True)
        file.write_bytes(found.encoded)
        with _worktree(root, version, Path(scratch) / "tree") as tree:
            say(f"training version {number} of {model} at commit {version.git_commit[:10]}")
            _fit(metadata, version, tree, tables, folder, out, recorded)
        return _compared(metadata, version, bundle, found, out, recorded)


def _refuse(version: VersionRow, root: Path) -> None:
    name, commit = f"version {version.version} of {version.model}", version.git_commit
    if not commit or commit.startswith(UNKNOWN) or version.git_dirty is None:
        why = f": {commit}" if commit else ""
        raise ReproductionError(f"the commit of {name} is not recorded{why}. {_still(version)}")
    if version.git_dirty:
        raise ReproductionError(
            f"{name} was trained with changes that are not in commit {commit[:10]}, so its code cannot be restored "
            f"completely. {_still(version)}"
        )
    if _git(root, "cat-file", "-e", f"{commit}^{{commit}}").returncode:
        raise ReproductionError(
            f"commit {commit[:10]} of {name} is not in this repository; fetch it (git fetch origin {commit}) if "
            f"another one has it. {_still(version)}"
        )


def _still(version: VersionRow) -> str:
    """What can be done with a version that cannot be reproduced."""
    of = f"--model {version.model} --version {version.version}"
    return (
        f"Still possible: `assetline rows {of} --out rows.parquet` writes its rows, `assetline compare` scores it "
        f"beside another version, and `assetline lineage {of}` shows what it was made of; its files hold the code of "
        "the model folder"
    )


@contextlib.contextmanager
def _worktree(root: Path, version: VersionRow, tree: Path) -> Iterator[Path]:
    """Yields the project's folder at the version's commit; the worktree is removed after the block."""
    # A hook of the repository must not run for a folder that is removed again.
    added = _git(root, "-c", "core.hooksPath=/dev/null", "worktree", "add", "--quiet", "--detach", str(tree),
                 version.git_commit)  # fmt: skip
    if added.returncode:
        raise ReproductionError(f"git cannot check out commit {version.git_commit[:10]}: {added.stderr.strip()}")
    try:
        inside = _git(root, "rev-parse", "--show-prefix").stdout.strip()
        yield tree / inside
    finally:
        _git(root, "worktree", "remove", "--force", str(tree))
        shutil.rmtree(tree, ignore_errors=True)


def _fit(
    metadata: Metadata,
    version: VersionRow,
    tree: Path,
    tables: Path,
    folder: Path,
    out: Path,
    recorded: Runtime | None,
) -> None:
    """Runs the commit's own module in a process of its own."""
    if not (tree / f"{_REFIT.replace('.', '/')}.py").exists():
        raise ReproductionError(
            f"commit {version.git_commit[:10]} is from before versions could be reproduced. {_still(version)}"
        )
    # An older commit may not know today's settings. It needs only the state folder, which a source may read.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    environment |= {
        f"{PREFIX}HOME": str(metadata.settings.home),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(tree), os.environ.get("PYTHONPATH")])),
        **threads_variables(recorded.threads if recorded else 1),
    }
    arguments = ["--model", version.model, "--tables", tables, "--bundle", folder, "--out", out]
    command = [sys.executable, "-W", "ignore", "-m", _REFIT, *map(str, arguments)]
    ended = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        said = (ended.stderr.strip().splitlines() or [f"status {ended.returncode}"])[-1]
        raise ReproductionError(f"commit {version.git_commit[:10]} cannot fit these rows: {said}. {_still(version)}")


def _compared(
    metadata: Metadata, version: VersionRow, bundle: Bundle, found: FoundRows, out: Path, recorded: Runtime | None
) -> Reproduction:
    again = Bundle.load(out)
    now = Runtime.read(out)
    assert now is not None
    tensors, weights, different = compared_weights(bundle.directory, out)
    test_figures, not_scored = _test_figures(bundle, again, found)
    fitted = {row.param: row.value for row in metadata.params() if row.mlflow_run_id == version.mlflow_run_id}
    fitted = {name: value for name, value in fitted.items() if name not in _NOT_COMPARED}
    refitted: dict[str, str] = json.loads((out / RECIPE).read_text(encoding="utf-8"))
    return Reproduction(
        version=version,
        rows=found.stamp.rows,
        runtime=recorded.differences(now) if recorded else None,
        code=code_differences(bundle.directory, out),
        recipe={
            name: (fitted.get(name), refitted.get(name))
            for name in sorted(fitted.keys() | refitted.keys())
            if fitted.get(name) != refitted.get(name)
        },
        tensors=tensors,
        weights=weights,
        different=different,
        figures=[*_pairs(_selected(bundle.facts), _selected(again.facts)), *test_figures],
        not_scored=not_scored,
    )


def compared_weights(then: Path, now: Path) -> tuple[int, int, list[WeightDifference]]:
    """Compares the networks in the folders of two versions.

    Returns:
        The number of tensors and of weights of the first, and the tensors whose bytes differ.
    """
    mine, other = _tensors(then), _tensors(now)
    different = []
    for name in sorted(mine.keys() | other.keys()):
        a, b = mine.get(name), other.get(name)
        if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
            different.append(WeightDifference(name, None))
        elif a.tobytes() != b.tobytes():
            gap = np.abs(a.astype(np.float64) - b.astype(np.float64))
            gap[np.isnan(a) & np.isnan(b)] = 0
            different.append(WeightDifference(name, None if np.isnan(gap).any() else float(gap.max())))
    return len(mine), sum(tensor.size for tensor in mine.values()), different


def _tensors(folder: Path) -> dict[str, np.ndarray]:
    """The network's parameters, buffers and constants by name."""
    import torch

    program = torch.export.load(folder / NETWORK)
    named = {**program.state_dict, **program.constants}
    return {
        name: tensor.detach().cpu().contiguous().numpy()
        for name, tensor in named.items()
        if isinstance(tensor, torch.Tensor)
    }


def _selected(facts: Facts) -> dict[str, float]:
    """The figures of the selection on the folds, and the numbers of the head."""
    fitted = facts.fitted
    figures: dict[str, float] = {name: fitted[name] for name in ("folds_score", "chance", "epochs") if name in fitted}
    figures |= {f"share.{part}": share for part, share in fitted.get("shares", {}).items()}
    for name, value in facts.head.items():
        for n, one in enumerate(value if isinstance(value, list) else [value]):
            if isinstance(one, int | float):
                figures[f"head.{name}" + (f".{n}" if isinstance(value, list) else "")] = one
    return {name: float(value) for name, value in {**figures, "threshold": facts.threshold}.items()}


def _test_figures(bundle: Bundle, again: Bundle, found: FoundRows) -> tuple[list[FigurePair], str]:
    """The metrics of both on the version's test rows, by today's evaluation; or why there are none."""
    if bundle.facts.feature_names != again.facts.feature_names:
        both = set(bundle.facts.feature_names) ^ set(again.facts.feature_names)
        return [], f"the features differ: {', '.join(sorted(both)) or 'their order'}"
    model = bundle.model
    test = test_rows(found.frame, model)
    rows, X = found.frame[test].reset_index(drop=True), matrix(found.frame[test], model)
    how = how_evaluated(model, known_entities(found.frame, test, model))
    then, now = bundle.predict(X), again.predict(X)
    of_then = _metrics(evaluate(rows, {"torch": then}, **how).to_dict())
    same = then.tobytes() == now.tobytes()
    of_now = of_then if same else _metrics(evaluate(rows, {"torch": now}, **how).to_dict())
    return _pairs(of_then, of_now), ""


def _metrics(report: Mapping[str, Any]) -> dict[str, float]:
    figures = {f"test.{name}": one["value"] for name, one in report["models"]["torch"].items()}
    for part, found in report["slices"].items():
        figures |= {f"test.{name} of {part}": one["value"] for name, one in found["figures"].items()}
    return figures


def _pairs(then: Mapping[str, float], now: Mapping[str, float]) -> list[FigurePair]:
    return [FigurePair(name, then.get(name), now.get(name)) for name in dict.fromkeys([*then, *now])]


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A finished git command; a large repository may take its time."""
    try:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ReproductionError(
            "git is not installed; install it, because the version's code comes from git"
        ) from error


def _finite(value: float) -> float | None:
    return value if value != math.inf else None

"""A model version as a folder: the files that scoring needs, and the code of its training run.

    bundle.json      names, classes, head, threshold, training facts
    network.pt2      the exported network with its preprocessing: raw float32 [n, n_features], NaN allowed -> outputs
    contract.json    the table's contract, for readers without this project's code
    tokenizer.json   the tokenizer, if the model declares a language model
    code/            the model folder's modules at training time; used if today's differ, so a rollback restores them
    reference/       the reference profile of the drift checks
    background.npy   some rows of features, float32 [n, n_features], with which an explanation compares a row; versions
                     made before there were explanations do not have it
    runtime.json     packages, Python and processor of the training (``resources/runtime.py``)
    rows.json        data versions of the training rows and of the days they come from (``training_rows.py``)
    trees.ubj        XGBoost's own file of the trees, if the ensemble has trees and rows are not weighted; the
                     evaluation reuses them as its baseline, because rows and settings are the same

Belongs here: writing and reading that folder, and scoring. Does not belong here: the storage of versions
(``resources/mlflow.py``).
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import json
import shutil
import sys
import threading
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from assets.declaration import Model
from assets.lifecycle.data.forecasting import SPREAD
from assets.lifecycle.data.word_pieces import TOKENIZER, LanguageFiles
from assets.lifecycle.model.conformal import Intervals
from assets.lifecycle.model.fitting import PREDICT_ROWS
from assets.lifecycle.model.objectives import ScoreTransform
from assets.lifecycle.model.version.torch_internals import standing_alone
from assets.task import Task

if TYPE_CHECKING:
    import torch

NETWORK, FACTS, CODE, CONTRACT, REFERENCE = "network.pt2", "bundle.json", "code", "contract.json", "reference"
TREES_FILE, BACKGROUND = "trees.ubj", "background.npy"


TESTS = "test_*.py"
"""Test files in a model folder; they are excluded from the bundle and the code hash, because the model does not use
them."""


class BundleError(Exception):
    """A bundle cannot be used; the message names the cause and the fix."""


@dataclass(frozen=True)
class Facts:
    """The contents of ``bundle.json``.

    Args:
        name: name of the model.
        package: package of the model's code, e.g. ``assets.models.fraud``.
        feature_names: names in the order of the network's input.
        head: maps outputs to scores: kind of target, slope and offset; see
            :class:`~assets.lifecycle.model.objectives.ScoreTransform`.
        classes: class names in the order of their codes; empty for measured values.
        threshold: rows without an amount are alerted at or above this probability.
        review_cost: rows with an amount are alerted if probability · amount is above this; ``None`` without an amount.
        code: hash of the model folder's modules.
        fitted: facts about the training run, e.g. windows, epochs, seed and versions.
    """

    name: str
    package: str
    feature_names: tuple[str, ...]
    head: dict[str, Any]
    classes: tuple[str, ...]
    threshold: float
    review_cost: float | None
    code: str
    fitted: dict[str, Any]

    @classmethod
    def read(cls, directory: Path) -> Facts:
        """Reads the facts of a bundle's folder. Raises :class:`BundleError` if the file is absent or damaged."""
        try:
            stored = json.loads((directory / FACTS).read_text(encoding="utf-8"))
            return cls(**{**stored, **{name: tuple(stored[name]) for name in ("feature_names", "classes")}})
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise _damaged(directory / FACTS, error) from error


@dataclass
class Bundle:
    """A loaded model version."""

    directory: Path
    facts: Facts
    network: torch.nn.Module

    @staticmethod
    def save(
        directory: Path,
        *,
        module: torch.nn.Module,
        model: Model,
        feature_names: tuple[str, ...],
        head: ScoreTransform,
        threshold: float,
        fitted: Mapping[str, Any],
        background: np.ndarray | None = None,
    ) -> None:
        """Writes the folder; the caller adds ``reference/``, ``rows.json``, ``runtime.json`` and ``trees.ubj``.

        ``background``: rows of features for explanations, float32 ``[n, n_features]``.

        Raises:
            BundleError: the network cannot be exported for a variable number of rows.
        """
        import torch

        directory.mkdir(parents=True, exist_ok=True)
        example = torch.zeros(2, len(feature_names))
        for tensor in (*module.parameters(), *module.buffers()):
            if not tensor.numel():
                # torch.export treats an empty view of a larger tensor as if it had that tensor's size, and fails.
                tensor.data = torch.empty_like(tensor)
        try:
            # Dim.DYNAMIC, because with a named Dim some layers silently fix the number of rows.
            dynamic = ({0: torch.export.Dim.DYNAMIC},)
            program = torch.export.export(module.eval(), (example,), dynamic_shapes=dynamic)
        except RuntimeError as error:  # the base class of the errors of torch.export
            raise BundleError(
                f"the network of {model.name} cannot be exported for a variable number of rows; its forward() must not "
                f"depend on that number: {str(error).splitlines()[0]}"
            ) from error
        torch.export.save(program, directory / NETWORK)
        package = keep_code(directory, model)
        if model.language:
            (directory / TOKENIZER).write_bytes(LanguageFiles.of(model.language.model).read(TOKENIZER))
        facts = Facts(
            name=model.name,
            package=package.__name__,
            feature_names=feature_names,
            head=asdict(head),
            classes=model.task.names,
            threshold=threshold,
            review_cost=model.review_cost if model.evaluation.amount else None,
            code=model_code(model),
            fitted=dict(fitted),
        )
        (directory / FACTS).write_text(json.dumps(asdict(facts), indent=1), encoding="utf-8")
        if background is not None:
            np.save(directory / BACKGROUND, background.astype(np.float32), allow_pickle=False)

    @classmethod
    def load(cls, directory: Path) -> Bundle:
        """Reads the folder. Raises :class:`BundleError`, which names the file that is absent or damaged."""
        import torch

        facts = Facts.read(directory)
        if facts.head["kind"] == "ranking":
            from assets.lifecycle.ranking.bundle import RankingBundle

            return RankingBundle.read(directory, facts)
        try:
            network = torch.export.load(directory / NETWORK).module()
        except Exception as error:  # torch passes on any error of its zip and pickle readers
            raise _damaged(directory / NETWORK, error) from error
        return cls(directory, facts, network)

    def traced(self) -> Bundle:
        """Returns the same version with a traced and frozen network, which scores one row in a quarter of the time.

        A trace may fix the number of rows that it was made with. Its outputs are therefore compared bit by bit with
        those of the exported network on other numbers of rows. If they differ, this bundle itself is returned.
        """
        import torch

        rng = np.random.default_rng(0)
        rows = [
            torch.from_numpy(rng.normal(0, 100, (n, len(self.facts.feature_names))).astype(np.float32)) for n in _TRIED
        ]
        for some in rows:
            some[torch.rand(some.shape, generator=torch.Generator().manual_seed(0)) < 0.2] = torch.nan
        try:
            # torch.jit is deprecated. Its replacement, torch.compile, needs a C compiler and takes a minute.
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                traced = torch.jit.freeze(torch.jit.trace(self.network, (rows[0],), check_trace=False).eval())
            network = standing_alone(traced)
            with torch.inference_mode():
                same = all(torch.equal(_bits(network(some)), _bits(self.network(some))) for some in rows * 2)
        except RuntimeError:  # the network cannot be traced, or the trace fails for other numbers of rows
            same = False
        return replace(self, network=network) if same else self

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.facts.name

    @property
    def task(self) -> Task:
        """Kind of target, with the names of the classes."""
        return Task(self.facts.head["kind"], self.facts.classes)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Scores raw features float32 ``[n, n_features]``; missing values are NaN.

        Returns:
            float64 probabilities ``[n]`` or ``[n, classes]``, or predicted values ``[n]``.

        Raises:
            BundleError: the number of features is wrong.
        """
        import torch

        if X.ndim != 2 or X.shape[1] != len(self.facts.feature_names):
            raise BundleError(
                f"{self.facts.name} expects {len(self.facts.feature_names)} features per row "
                f"({', '.join(self.facts.feature_names[:4])}, …), got an array of shape {X.shape}"
            )
        if len(X) == 0:
            return np.empty((0, len(self.facts.classes)) if self.facts.head["kind"] == "multiclass" else 0)
        return self.head(self.outputs(torch.from_numpy(np.ascontiguousarray(X, dtype=np.float32))).numpy())

    def outputs(self, rows: torch.Tensor, at_once: int = PREDICT_ROWS) -> torch.Tensor:
        """Returns the network's outputs ``[n]`` or ``[n, classes]`` for float32 ``[n, n_features]``, n at least 1.

        ``at_once``: maximum number of rows of one forward pass.
        """
        import torch

        with torch.inference_mode():
            few = len(rows) <= at_once
            return self.network(rows) if few else torch.cat([self.network(part) for part in rows.split(at_once)])

    def alerts(self, probability: np.ndarray, amount: np.ndarray | None) -> np.ndarray:
        """Returns bool ``[n]``: whether a row is alerted, by expected amount above review cost, or by threshold.

        Args:
            probability: ``[n]``.
            amount: ``[n]``; ``None`` alerts at or above the threshold.
        """
        if amount is None or self.facts.review_cost is None:
            return probability >= self.facts.threshold
        return probability * amount > self.facts.review_cost

    @cached_property
    def intervals(self) -> Intervals | None:
        """What the intervals of a forecast are computed from; ``None`` for other models."""
        stored = self.facts.fitted.get("intervals")
        return Intervals(**stored) if stored else None

    def ends(self, X: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the ends of each row's interval, ``low`` and ``high``, float64 ``[n]``; empty for other models.

        Args:
            X: features ``[n, n_features]``.
            predicted: their predictions, ``[n]``.
        """
        if self.intervals is None:
            return {}
        spread = X[:, self.facts.feature_names.index(SPREAD)].astype(np.float64)
        return dict(zip(("low", "high"), self.intervals.ends(predicted, spread), strict=True))

    @cached_property
    def head(self) -> ScoreTransform:
        """Maps the network's outputs to scores."""
        return ScoreTransform(**self.facts.head)

    @cached_property
    def background(self) -> np.ndarray | None:
        """The rows with which an explanation compares a row, float32 ``[n, n_features]``; ``None``: there are none.

        Raises:
            BundleError: the file is damaged.
        """
        path = self.directory / BACKGROUND
        if not path.exists():
            return None
        try:
            return np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise _damaged(path, error) from error

    @cached_property
    def model(self) -> Model:
        """The declaration at training time, with its features, contract and cleaning.

        Raises:
            BundleError: today's code differs and the bundle holds no code.
        """
        differing = self.code_difference()
        package = (
            _snapshot(self.directory / CODE, self.facts.package, self.facts.code)
            if differing
            else _today(self.facts.package)
        )
        assert package is not None
        declared: Model = package.model
        tokenizer = self.directory / TOKENIZER
        if declared.language is None or not tokenizer.exists():
            return declared
        return replace(declared, language=replace(declared.language, tokenizer=tokenizer))

    def code_difference(self) -> list[str]:
        """Returns the files of the model folder that differ between training time and today; empty if none do."""
        package = _today(self.facts.package)
        now = _files(_folder(package)) if package is not None else {}
        then = _files(self.directory / CODE)
        return sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))


_TRIED = (2, 1, 33)
"""Numbers of rows on which a trace is compared with the exported network; the trace is made with the first."""


def _bits(outputs: torch.Tensor) -> torch.Tensor:
    """The bits of the numbers, so that NaN equals NaN."""
    import torch

    return outputs.contiguous().view(torch.int32)


@functools.lru_cache(maxsize=4)
def loaded(directory: Path) -> Bundle:
    """Cached :meth:`Bundle.load`: a version never changes, and loading one takes a second."""
    return Bundle.load(directory)


def keep_code(directory: Path, model: Model) -> ModuleType:
    """Copies the model folder's modules and the contract into a version's folder; returns the model's package."""
    package = sys.modules[package_of(model)]
    shutil.copytree(_folder(package), directory / CODE, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", TESTS))
    (directory / CONTRACT).write_text(model.table.contract.to_schema().to_json(), encoding="utf-8")
    return package


def damaged(path: Path, error: Exception) -> BundleError:
    """The error for a file of a version that is absent or cannot be read."""
    return _damaged(path, error)


def package_of(model: Model) -> str:
    """Returns the name of the package that holds a declaration's code: the package of its contract."""
    module = model.table.contract.__module__
    return module if hasattr(sys.modules[module], "__path__") else module.rpartition(".")[0]


def model_code(model: Model) -> str:
    """Returns the hash of the modules in a declaration's folder today."""
    return code_hash(_folder(sys.modules[package_of(model)]))


def code_hash(folder: Path) -> str:
    """Returns the hash of the modules in a folder, without tests."""
    return hashlib.blake2b(json.dumps(_files(folder), sort_keys=True).encode(), digest_size=8).hexdigest()


def code_files(directory: Path) -> dict[str, str]:
    """Returns the hash of each module of the model folder that a version's folder holds, by its path."""
    return _files(directory / CODE)


def _files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
        for path in sorted(folder.rglob("*.py"))
        if not path.match(TESTS)
    }


def _folder(package: ModuleType) -> Path:
    return Path(next(iter(package.__path__)))


def _today(package: str) -> ModuleType | None:
    """The model's package as it is today; ``None`` if its folder was removed."""
    if package in sys.modules:
        return sys.modules[package]
    if importlib.util.find_spec(package) is None:
        return None
    return importlib.import_module(package)


_snapshots: dict[tuple[str, str], ModuleType] = {}
_loading = threading.Lock()


def _snapshot(folder: Path, package: str, code: str) -> ModuleType:
    """Loads the model's package as it was at training time; today's package stays imported.

    Its modules import one another by the package's name. The snapshot is therefore loaded under that name while today's
    modules are removed temporarily. Imports inside its functions, which run later, use today's modules.

    Raises:
        BundleError: the bundle holds no code.
    """
    with _loading:
        if (package, code) in _snapshots:
            return _snapshots[package, code]
        first = folder / "__init__.py"
        spec = importlib.util.spec_from_file_location(package, first, submodule_search_locations=[str(folder)])
        if spec is None or spec.loader is None or not first.exists():
            raise BundleError(f"{first}: no such file, because the version was saved without its code; train it again")
        parent, _, name = package.rpartition(".")
        aside = _take_out(package)
        module = importlib.util.module_from_spec(spec)
        sys.modules[package] = module
        try:
            spec.loader.exec_module(module)
        finally:
            _take_out(package)
            sys.modules.update(aside)
            if parent and package in aside:
                setattr(sys.modules[parent], name, aside[package])
        _snapshots[package, code] = module
        return module


def _take_out(package: str) -> dict[str, ModuleType]:
    """Removes a package and its modules from ``sys.modules`` and returns them."""
    names = [name for name in sys.modules if name == package or name.startswith(f"{package}.")]
    return {name: sys.modules.pop(name) for name in names}


def _damaged(path: Path, error: Exception) -> BundleError:
    what = "no such file" if isinstance(error, FileNotFoundError) else f"damaged ({str(error).splitlines()[0]})"
    return BundleError(f"{path}: {what}; download the version's files from MLflow again, or train the model again")


class _Pyfunc:
    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def predict(self, X: Any, params: Mapping[str, Any] | None = None) -> np.ndarray:
        names = list(self.bundle.facts.feature_names)
        return self.bundle.predict(np.asarray(X[names] if hasattr(X, "columns") else X, dtype=np.float32))


def _load_pyfunc(path: str) -> _Pyfunc:
    """Entry point for ``mlflow.pyfunc.load_model``: returns an object that predicts scores from a table of features."""
    return _Pyfunc(Bundle.load(Path(path)))

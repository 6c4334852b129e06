"""A model version as a folder: everything that scoring needs, and the code it was trained with.

    bundle.json      names, classes, head, threshold, how it was fitted
    network.pt2      the exported network with its preprocessing: raw float32 [n, n_features], NaN allowed -> outputs
    contract.json    the table's contract, for whoever reads without our code
    code/            the model folder's modules as they were; used when today's differ: a rollback is a rollback
    reference/       the reference profile of the drift checks
    trees.ubj        XGBoost's own file of the trees, where the mixture has some and rows are not weighed: the
                     evaluation's baseline is fitted on the same rows with the same settings, so it is these

Belongs here: writing and reading that folder, and scoring. Does not belong here: where versions are kept
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
from assets.lifecycle.model.fitting import PREDICT_ROWS, Head

if TYPE_CHECKING:
    import torch

NETWORK, FACTS, CODE, CONTRACT, REFERENCE = "network.pt2", "bundle.json", "code", "contract.json", "reference"
TREES_FILE = "trees.ubj"


TESTS = "test_*.py"
"""A model folder may hold its tests; what they say does not change what the model does."""


class BundleError(Exception):
    """A bundle that cannot be used; the message names the file and the mend."""


@dataclass(frozen=True)
class Facts:
    """What ``bundle.json`` holds.

    Args:
        name: of the model.
        package: of the model's code, e.g. ``assets.models.fraud``.
        feature_names: in the order in which the network gets them.
        head: from outputs to scores: kind of target, slope and offset (:class:`~assets.lifecycle.model.fitting.Head`).
        classes: names of the classes, in the order of their codes; empty for measured values.
        threshold: alert at or above it, where rows have no amount.
        review_cost: alert where probability · amount is above it, where they have; ``None``: they have none.
        code: hash of the model folder's modules.
        fitted: how it came about: windows, epochs, seed, versions; for people.
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
        """Those of a bundle's folder. Raises :class:`BundleError` where the file is absent or damaged."""
        try:
            said = json.loads((directory / FACTS).read_text(encoding="utf-8"))
            return cls(**{**said, **{name: tuple(said[name]) for name in ("feature_names", "classes")}})
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
        head: Head,
        threshold: float,
        fitted: Mapping[str, Any],
    ) -> None:
        """Writes the folder (all but ``reference/``, which the reference profile writes itself).

        Raises :class:`BundleError` when the exported network is fixed to one number of rows.
        """
        import torch

        directory.mkdir(parents=True, exist_ok=True)
        example = torch.zeros(2, len(feature_names))
        for tensor in (*module.parameters(), *module.buffers()):
            if not tensor.numel():
                # torch.export takes an empty part of a larger tensor for one of its size, and fails on it.
                tensor.data = torch.empty_like(tensor)
        try:
            # Dim.DYNAMIC: with a named Dim some layers silently fix the number of rows.
            dynamic = ({0: torch.export.Dim.DYNAMIC},)
            program = torch.export.export(module.eval(), (example,), dynamic_shapes=dynamic)
        except torch._dynamo.exc.UserError as error:
            raise BundleError(
                f"the network of {model.name} cannot be exported for any number of rows; its forward() must not depend "
                f"on how many it gets: {str(error).splitlines()[0]}"
            ) from error
        torch.export.save(program, directory / NETWORK)
        package = sys.modules[package_of(model)]
        shutil.copytree(
            _folder(package), directory / CODE, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", TESTS)
        )
        (directory / CONTRACT).write_text(model.table.contract.to_schema().to_json(), encoding="utf-8")
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

    @classmethod
    def load(cls, directory: Path) -> Bundle:
        """Reads the folder. Raises :class:`BundleError` naming the file that is absent or damaged."""
        import torch

        facts = Facts.read(directory)
        try:
            network = torch.export.load(directory / NETWORK).module()
        except Exception as error:  # torch raises whatever its zip and pickle readers raise
            raise _damaged(directory / NETWORK, error) from error
        return cls(directory, facts, network)

    def traced(self) -> Bundle:
        """The same version with its network traced and frozen: one row costs a quarter of what it does as exported.

        A trace may hold on to the number of rows it was made with. So it is held against the exported network on other
        numbers of rows, bit by bit; where it differs, this bundle itself is returned.
        """
        import torch

        rng = np.random.default_rng(0)
        rows = [
            torch.from_numpy(rng.normal(0, 100, (n, len(self.facts.feature_names))).astype(np.float32)) for n in _TRIED
        ]
        for some in rows:
            some[torch.rand(some.shape, generator=torch.Generator().manual_seed(0)) < 0.2] = torch.nan
        try:
            # torch calls it deprecated. What replaces it, torch.compile, wants a C compiler and a minute.
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                network = torch.jit.freeze(torch.jit.trace(self.network, (rows[0],), check_trace=False).eval())
            with torch.inference_mode():
                same = all(torch.equal(_bits(network(some)), _bits(self.network(some))) for some in rows * 2)
        except RuntimeError:  # what a trace cannot hold, or what it does for another number of rows
            same = False
        return replace(self, network=network) if same else self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """float64 scores of raw features float32 ``[n, n_features]`` (NaN: missing): probabilities ``[n]`` or
        ``[n, classes]``, or predicted values ``[n]``.

        Raises :class:`BundleError` for another number of features.
        """
        import torch

        if X.ndim != 2 or X.shape[1] != len(self.facts.feature_names):
            raise BundleError(
                f"{self.facts.name} takes {len(self.facts.feature_names)} features a row "
                f"({', '.join(self.facts.feature_names[:4])}, …), got an array of shape {X.shape}"
            )
        if len(X) == 0:
            return np.empty((0, len(self.facts.classes)) if self.facts.head["kind"] == "multiclass" else 0)
        rows = torch.from_numpy(np.ascontiguousarray(X, dtype=np.float32))
        with torch.inference_mode():
            few = len(rows) <= PREDICT_ROWS
            outputs = self.network(rows) if few else torch.cat([self.network(p) for p in rows.split(PREDICT_ROWS)])
        return self._head(outputs.numpy())

    def alerts(self, probability: np.ndarray, amount: np.ndarray | None) -> np.ndarray:
        """Boolean ``[n]``: whether looking at the row is worth it (``amount`` known) or it is above the threshold."""
        if amount is None or self.facts.review_cost is None:
            return probability >= self.facts.threshold
        return probability * amount > self.facts.review_cost

    @cached_property
    def _head(self) -> Head:
        return Head(**self.facts.head)

    @cached_property
    def model(self) -> Model:
        """The declaration whose features, contract and cleaning this version was trained with."""
        differing = self.code_difference()
        package = (
            _snapshot(self.directory / CODE, self.facts.package, self.facts.code)
            if differing
            else _today(self.facts.package)
        )
        assert package is not None
        declared: Model = package.model
        return declared

    def code_difference(self) -> list[str]:
        """Files of the model folder that are not today what they were; empty when the code is the same."""
        package = _today(self.facts.package)
        now = _files(_folder(package)) if package is not None else {}
        then = _files(self.directory / CODE)
        return sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))


_TRIED = (2, 1, 33)
"""Numbers of rows a trace is held against; it is made with the first."""


def _bits(outputs: torch.Tensor) -> torch.Tensor:
    """The numbers' own bits: NaN is NaN."""
    import torch

    return outputs.contiguous().view(torch.int32)


@functools.lru_cache(maxsize=4)
def loaded(directory: Path) -> Bundle:
    """:meth:`Bundle.load`, once for each folder: a version never changes, and to load one takes a second."""
    return Bundle.load(directory)


def package_of(model: Model) -> str:
    """Name of the package that holds a declaration's code: that of its contract's module."""
    module = model.table.contract.__module__
    return module if hasattr(sys.modules[module], "__path__") else module.rpartition(".")[0]


def model_code(model: Model) -> str:
    """Hash of the modules of a declaration's folder as they are today."""
    return code_hash(_folder(sys.modules[package_of(model)]))


def code_hash(folder: Path) -> str:
    """Hash of the modules in a folder."""
    return hashlib.blake2b(json.dumps(_files(folder), sort_keys=True).encode(), digest_size=8).hexdigest()


def _files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
        for path in sorted(folder.rglob("*.py"))
        if not path.match(TESTS)
    }


def _folder(package: ModuleType) -> Path:
    return Path(next(iter(package.__path__)))


def _today(package: str) -> ModuleType | None:
    """The model's package as it is now; ``None`` when its folder was removed."""
    if package in sys.modules:
        return sys.modules[package]
    if importlib.util.find_spec(package) is None:
        return None
    return importlib.import_module(package)


_snapshots: dict[tuple[str, str], ModuleType] = {}
_loading = threading.Lock()


def _snapshot(folder: Path, package: str, code: str) -> ModuleType:
    """The model's package as it was, beside today's.

    Its modules import one another by the package's name. So the snapshot is loaded under that name while today's
    modules stand aside, and they are put back; what it imports only later, inside a function, is today's.
    """
    with _loading:
        if (package, code) in _snapshots:
            return _snapshots[package, code]
        first = folder / "__init__.py"
        spec = importlib.util.spec_from_file_location(package, first, submodule_search_locations=[str(folder)])
        if spec is None or spec.loader is None or not first.exists():
            raise BundleError(f"{first}: no such file; the version was saved without its code: train it again")
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
    """Removes a package and its modules from those that are imported, and returns them."""
    names = [name for name in sys.modules if name == package or name.startswith(f"{package}.")]
    return {name: sys.modules.pop(name) for name in names}


def _damaged(path: Path, error: Exception) -> BundleError:
    what = "no such file" if isinstance(error, FileNotFoundError) else f"damaged ({str(error).splitlines()[0]})"
    return BundleError(f"{path}: {what}; take the version's files from MLflow again, or train the model again")


class _Pyfunc:
    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    def predict(self, X: Any, params: Mapping[str, Any] | None = None) -> np.ndarray:
        names = list(self.bundle.facts.feature_names)
        return self.bundle.predict(np.asarray(X[names] if hasattr(X, "columns") else X, dtype=np.float32))


def _load_pyfunc(path: str) -> _Pyfunc:
    """What ``mlflow.pyfunc.load_model`` calls: an object that predicts scores from a table of features."""
    return _Pyfunc(Bundle.load(Path(path)))

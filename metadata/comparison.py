"""Compares two versions of a model: what differs in data, code, recipe and figures.

Belongs here: the differences, and scoring both versions on the same rows. Does not belong here: the metrics
(``assets/lifecycle/model/metrics``), finding the rows of a version (``version/training_rows.py``), text output.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.features import features_of
from assets.lifecycle.model.evaluation import known_entities
from assets.lifecycle.model.metrics import evaluate
from assets.lifecycle.model.training_set import matrix, test_rows
from assets.lifecycle.model.version.bundle import Bundle, BundleError, code_files
from assets.lifecycle.model.version.features_by_version import features_of_version
from assets.lifecycle.model.version.training_rows import FoundRows, RowsError, find_rows
from metadata.facts import Metadata
from metadata.views import VersionRow
from resources.tables import TableError

ALL_ROWS = "all rows"
"""Name of the slice with all test rows."""


@dataclass(frozen=True)
class TableDifference:
    """The days of one upstream table that only one of the versions was trained on, and those that differ."""

    table: str
    only_a: list[str]
    only_b: list[str]
    changed: list[str]
    same: int


@dataclass(frozen=True)
class CodeDifference:
    """A module of the model folder that differs: ``changed``, or ``added`` or ``removed`` in ``b``."""

    path: str
    change: str


@dataclass(frozen=True)
class Figure:
    """A metric with its 95 % interval, which is ``None`` for too few rows."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Pair:
    """A metric of both versions on one slice; ``None`` where it is undefined.

    ``difference`` is ``b`` minus ``a`` in the same bootstrap draws. It is only there if both were measured on the same
    rows, and for all rows.
    """

    slice: str
    metric: str
    a: Figure | None
    b: Figure | None
    difference: Figure | None = None


@dataclass(frozen=True)
class Comparison:
    """What differs between the versions ``a`` and ``b`` of a model.

    Args:
        a, b: the versions, in the order in which they were given.
        tables: by upstream table; empty if one of the versions has no record of its days.
        code: modules of the model folder that differ.
        recipe: ``(a, b)`` by parameter that differs; ``None`` for a parameter that one does not have.
        own_rows: figures of each version on its own test rows, from its evaluation.
        same_rows: figures of both on the test rows of the newer version; empty if they cannot be scored.
        same_rows_of: number of the version whose test rows these are.
        not_on_same_rows: why both cannot be scored on the same rows; empty if they were.
    """

    a: VersionRow
    b: VersionRow
    tables: list[TableDifference]
    code: list[CodeDifference]
    recipe: dict[str, tuple[str | None, str | None]]
    own_rows: list[Pair]
    same_rows: list[Pair] = field(default_factory=list)
    same_rows_of: int | None = None
    not_on_same_rows: str = ""

    @property
    def same_data(self) -> bool:
        """Whether both were trained on identical rows."""
        return self.a.data_version == self.b.data_version

    def to_json(self) -> dict[str, Any]:
        """The comparison for JSON."""
        return {"same_data": self.same_data, **asdict(self)}


def positive_rate(version: VersionRow) -> float | None:
    """Returns the share of positives among the rows of the final fit; ``None`` if it is not recorded."""
    if version.fit_positives is None or not version.fit_rows:
        return None
    return version.fit_positives / version.fit_rows


def compare(metadata: Metadata, model: str, a: str, b: str, *, score: bool = True) -> Comparison:
    """Compares two versions of a model.

    Args:
        metadata: the facts.
        model: name of the model.
        a, b: numbers of the versions, or names of branches, which stand for their latest versions.
        score: whether to score both on the same rows, which loads both networks.

    Raises:
        UnknownError: there is no such model, version or branch.
    """
    first, second = metadata.version_or_latest(model, a), metadata.version_or_latest(model, b)
    folders = [metadata.folder(one) for one in (first, second)]
    same_rows: list[Pair] = []
    newer = max(first.version, second.version)
    why = "" if score else "it was not asked for"
    if score:
        try:
            same_rows = _on_same_rows(metadata, first, second, folders)
        except (RowsError, BundleError, TableError) as error:
            why = str(error)
        except (KeyError, ValueError) as error:  # e.g. a feature of one version needs a column that is gone
            why = f"version {first.version} and version {second.version} cannot score the same rows ({error!r})"
    return Comparison(
        a=first,
        b=second,
        tables=_tables(metadata, first, second),
        code=code_differences(*folders),
        recipe=_recipe(metadata, first, second),
        own_rows=_own_rows(metadata, first, second),
        same_rows=same_rows,
        same_rows_of=newer if same_rows else None,
        not_on_same_rows=why,
    )


def _tables(metadata: Metadata, a: VersionRow, b: VersionRow) -> list[TableDifference]:
    days: dict[int, dict[str, dict[str, str]]] = {a.version: {}, b.version: {}}
    for row in metadata.data_versions():
        if row.model == a.model and row.version in days:
            days[row.version].setdefault(row.table_name, {})[row.day] = row.data_version
    of_a, of_b = days[a.version], days[b.version]
    if not of_a or not of_b:
        return []
    found = []
    for table in sorted(of_a.keys() | of_b.keys()):
        mine, other = of_a.get(table, {}), of_b.get(table, {})
        both = mine.keys() & other.keys()
        changed = sorted(day for day in both if mine[day] != other[day])
        found.append(
            TableDifference(
                table, sorted(mine.keys() - other.keys()), sorted(other.keys() - mine.keys()), changed,
                len(both) - len(changed),
            )
        )  # fmt: skip
    return found


def code_differences(a: Path, b: Path) -> list[CodeDifference]:
    """Returns the modules of the model folder that differ between the folders of two versions."""
    of_a, of_b = code_files(a), code_files(b)
    found = []
    for path in sorted(of_a.keys() | of_b.keys()):
        if of_a.get(path) != of_b.get(path):
            change = "added" if path not in of_a else "removed" if path not in of_b else "changed"
            found.append(CodeDifference(path, change))
    return found


def _recipe(metadata: Metadata, a: VersionRow, b: VersionRow) -> dict[str, tuple[str | None, str | None]]:
    params: dict[str, dict[str, str]] = {a.mlflow_run_id: {}, b.mlflow_run_id: {}}
    for row in metadata.params():
        if row.mlflow_run_id in params and row.param != "rows":  # the rows belong to the data
            params[row.mlflow_run_id][row.param] = row.value
    of_a, of_b = params[a.mlflow_run_id], params[b.mlflow_run_id]
    return {
        name: (of_a.get(name), of_b.get(name))
        for name in sorted(of_a.keys() | of_b.keys())
        if of_a.get(name) != of_b.get(name)
    }


def _own_rows(metadata: Metadata, a: VersionRow, b: VersionRow) -> list[Pair]:
    """The figures of the two reports."""
    of_a, of_b = (_figures(metadata.evaluation_of(one.model, one.version).get("report", {})) for one in (a, b))
    return _pairs(of_a, of_b)


def _on_same_rows(metadata: Metadata, a: VersionRow, b: VersionRow, folders: list[Path]) -> list[Pair]:
    """The figures of both versions on the test rows of the newer one."""
    bundles = {one.version: Bundle.load(folder) for one, folder in zip((a, b), folders, strict=True)}
    newer = max(bundles)
    found = find_rows(metadata.tables, bundles[newer], str(newer))
    model = bundles[newer].model
    test = test_rows(found.frame, model)
    rows = found.frame[test].reset_index(drop=True)
    scores = {
        version: bundle.predict(_features(metadata, bundle, bundles[newer], found, test))
        for version, bundle in bundles.items()
    }
    known = known_entities(found.frame, test, model)
    pairs = pairs_on(rows, scores[a.version], scores[b.version], model, known)
    return pairs if a.version != b.version else [replace(pair, difference=None) for pair in pairs]


def pairs_on(rows: pd.DataFrame, a: np.ndarray, b: np.ndarray, model: Model, known: np.ndarray | None) -> list[Pair]:
    """The figures of two scores of the same rows, with the differences ``b`` minus ``a`` in the same bootstrap draws.

    Args:
        rows: ``[n]`` test rows with the target and the columns of the declaration.
        a, b: scores ``[n]`` or ``[n, classes]``.
        model: the declaration of the evaluation.
        known: bool ``[n]``: rows whose entity is known as positive, or ``None``; see
            :func:`~assets.lifecycle.model.evaluation.known_entities`.
    """
    how = how_evaluated(model, known)
    # A report has slices only of its first score.
    of_a = evaluate(rows, {"a": a}, **how)
    of_b = evaluate(rows, {"b": b, "a": a}, **how)
    differences = {name: Figure(one.value, one.low, one.high) for name, one in of_b.differences["a"].items()}
    return _pairs(_figures(of_a.to_dict()), _figures(of_b.to_dict()), differences)


def how_evaluated(model: Model, known: np.ndarray | None) -> dict[str, Any]:
    """Returns the arguments of :func:`~assets.lifecycle.model.metrics.evaluate` for test rows; ``known`` as above."""
    return {
        "evaluation": model.evaluation, "target": model.target, "task": model.task, "time": model.table.time,
        "review_cost": model.review_cost, "known": known, "seed": model.training.seed,
    }  # fmt: skip


def _features(metadata: Metadata, bundle: Bundle, newer: Bundle, found: FoundRows, test: Any) -> Any:
    """The features of the newer version's test rows by the code of ``bundle``, ``[n, n_features]``."""
    rows = found.frame[test].reset_index(drop=True)
    if bundle.facts.code == newer.facts.code and features_of(bundle.model).names == features_of(newer.model).names:
        return matrix(rows, newer.model)
    return features_of_version(bundle, metadata.tables, newer.model, rows)


Figures = Mapping[str, Mapping[str, Figure]]
"""By slice and metric."""


def _figures(report: Mapping[str, Any]) -> Figures:
    """The candidate's figures of a report."""
    if not report:
        return {}
    parts = {ALL_ROWS: next(iter(report["models"].values()))}
    parts |= {name: part["figures"] for name, part in report["slices"].items()}
    return {
        name: {metric: Figure(one["value"], one["low"], one["high"]) for metric, one in figures.items()}
        for name, figures in parts.items()
    }


def _pairs(a: Figures, b: Figures, differences: Mapping[str, Figure] = {}) -> list[Pair]:
    found = []
    for part in dict.fromkeys([*b, *a]):
        of_a, of_b, known = a.get(part, {}), b.get(part, {}), differences if part == ALL_ROWS else {}
        found += [
            Pair(part, metric, of_a.get(metric), of_b.get(metric), known.get(metric))
            for metric in dict.fromkeys([*of_b, *of_a])
        ]
    return found

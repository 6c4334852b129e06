"""Leakage detection: searches a frozen training set for target leakage before a model is trained on it.

A model that reads the target off a column looks perfect in every report and fails in production. The search covers four
kinds of leakage:

* one column (or feature) that *alone* nearly determines the target, by its value or by being missing;
* numeric columns whose sum, difference, product or quotient gives the target;
* timestamps later than the row's own time, because they are not known when the row is scored;
* the same row, or other rows of the same identifier, on both sides of the split.

Belongs here: the evidence, as pure functions of the frozen rows. Does not belong here: the decision (the ``leakage``
check of ``training.py`` refuses the rows; a declaration's ``accepted_leaks`` accepts a named column).
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from assets.declaration import Model
from assets.lifecycle.data.features import compute_features, features_of
from assets.lifecycle.model.metrics.ranking import roc_auc
from assets.task import NUMBERS, Task

ALONE = {"binary": 0.985, "multiclass": 0.98, "regression": 0.985}
"""By kind of target, the held-out AUC, balanced accuracy or R² at which a single column counts as a leak."""
TOGETHER = 0.999
"""Held-out R² at which a formula of several columns counts as a leak. (A published template reported .9998; the
leak-free value was .81.)"""
LATER_SHARE = 0.01
"""Share of rows with a timestamp later than their own time at which the column counts as a leak."""
TWIN_SHARE = 0.02
"""Share of test rows duplicated among the fit rows that counts as a leak, if chance duplicates are rare."""
AGREEING = 0.5
"""Agreement on the target among rows of one identifier that counts as a leak: 0 means as any two rows, 1 means full."""
MOST_ROWS = 20_000
MOST_COLUMNS_IN_PAIRS = 40
LEAK_MEND = (
    ". No model is trained. Remove such columns from the contract (or from the features); declare an identifier as "
    "evaluation.entity, so that its rows stay together; or, if a column is known when a row is scored, accept it by "
    "name: accepted_leaks={'column': 'why it is known'}"
)


@dataclass(frozen=True)
class Leak:
    """Columns that leak the target, and the evidence."""

    columns: tuple[str, ...]
    message: str


def leaks(frozen: pd.DataFrame, model: Model, *, fit: np.ndarray, test: np.ndarray) -> list[Leak]:
    """Returns all suspected leaks in a frozen training set.

    Args:
        frozen: rows with the table's columns, the target as codes, and the features as ``x_<name>``.
        model: the model that the rows belong to.
        fit, test: boolean ``[n]``: the rows of the final fit, and the test rows.
    """
    rows = frozen[fit | test]
    some = rows.sample(min(len(rows), MOST_ROWS), random_state=0) if len(rows) > MOST_ROWS else rows
    y = some[model.target].to_numpy(dtype=float)
    columns = _columns(some, model)
    found = _alone(columns, y, model.task)
    found_columns = {name for leak in found for name in leak.columns}
    rest = {name: values for name, values in columns.items() if name not in found_columns}
    if model.task.kind != "multiclass":
        found += _together(rest, y, model.target)
    found += _later(some, model)
    found += _on_both_sides(frozen, model, fit, test)
    return found


def _columns(rows: pd.DataFrame, model: Model) -> dict[str, pd.Series]:
    """The columns that the model can use: the contract's with default features, otherwise the features.

    The earlier values of a forecast are left out: the check `point_in_time` holds for them."""
    if model.features is not None:
        return {name: rows[f"x_{name}"] for name in model.features.names if name not in model.features.words}
    left_out = {model.table.key, model.table.time, model.target, model.evaluation.entity}
    read = model.forecast.known if model.forecast else model.table.columns
    return {name: rows[name] for name in read if name not in left_out}


# -- one column ------------------------------------------------------------------------------------------------------


def _alone(columns: dict[str, pd.Series], y: np.ndarray, task: Task) -> list[Leak]:
    half = np.random.default_rng(0).random(len(y)) < 0.5
    found = []
    for name, values in columns.items():
        figure = _told_by(values, y, half, task)
        if figure >= ALONE[task.kind]:
            what = {"binary": "AUC", "multiclass": "balanced accuracy", "regression": "R²"}[task.kind]
            found.append(
                Leak((name,), f"'{name}' alone nearly determines the target ({what} {figure:.3f} on held-out rows)")
            )
    return found


def _told_by(values: pd.Series, y: np.ndarray, half: np.ndarray, task: Task) -> float:
    """AUC, balanced accuracy or R² of a small tree on one column, fitted on one half of the rows, scored on the other.

    For measured values the result is the squared linear correlation where that is larger. It is 0 where the column or
    the target has a single value.
    """
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    X = _as_numbers(values, y, half, task)
    if len(np.unique(X)) < 2 or len(np.unique(y[half])) < 2 or len(np.unique(y[~half])) < 2:
        return 0.0
    least = max(5, len(y) // 1_000)
    if task.kind == "regression":
        tree = DecisionTreeRegressor(max_leaf_nodes=256, min_samples_leaf=least, random_state=0)
        tree.fit(X[half], y[half])
        straight = np.corrcoef(X[:, 0], y)[0, 1] ** 2 if X[:, 0].std() > 0 else 0.0  # steps fit a line poorly
        return max(_r2(y[~half], tree.predict(X[~half])), float(straight))
    tree = DecisionTreeClassifier(max_leaf_nodes=32, min_samples_leaf=least, random_state=0, class_weight="balanced")
    tree.fit(X[half], y[half])
    if task.kind == "binary":
        return roc_auc(y[~half], tree.predict_proba(X[~half])[:, -1])
    predicted, truth = tree.predict(X[~half]), y[~half]
    return float(np.mean([(predicted[truth == k] == k).mean() for k in np.unique(truth)]))


def _as_numbers(values: pd.Series, y: np.ndarray, half: np.ndarray, task: Task) -> np.ndarray:
    """``[n, k]``: the value and a missing indicator; text as its mean target in the rows of ``half``, by class."""
    missing = values.isna().to_numpy()
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        number: np.ndarray = _days(values)
    elif pd.api.types.is_bool_dtype(values.dtype) or str(values.dtype).startswith(NUMBERS):
        number = values.astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    else:
        text = values.astype("string").fillna("")
        encoded = []
        for code in np.unique(y) if task.kind == "multiclass" else [None]:
            truth = pd.Series(y if code is None else (y == code).astype(float))
            means = truth[half].groupby(text.to_numpy()[half]).mean()
            encoded.append(text.map(means).fillna(truth[half].mean()).to_numpy(dtype=float))
        return np.column_stack([*encoded, missing])
    return np.column_stack([np.where(missing, -1e12, number), missing])


def _days(moments: pd.Series) -> np.ndarray:
    seconds: np.ndarray = (moments - pd.Timestamp(2000, 1, 1)).dt.total_seconds().to_numpy(dtype=float)
    return seconds / 86_400


def _r2(y: np.ndarray, predicted: np.ndarray) -> float:
    spread = float(np.square(y - y.mean()).sum())
    return 1 - float(np.square(predicted - y).sum()) / spread if spread else 0.0


# -- several columns -------------------------------------------------------------------------------------------------


def _together(columns: dict[str, pd.Series], y: np.ndarray, target: str) -> list[Leak]:
    """Numeric columns whose sum, difference, product or quotient gives the target."""
    numbers: dict[str, np.ndarray] = {}
    for name, values in columns.items():
        if pd.api.types.is_datetime64_any_dtype(values.dtype):
            numbers[name] = _days(values)
        elif pd.api.types.is_bool_dtype(values.dtype) or str(values.dtype).startswith(NUMBERS):
            numbers[name] = values.astype("Float64").to_numpy(dtype=float, na_value=np.nan)
    numbers = {name: values for name, values in numbers.items() if np.nanstd(values) > 0}
    if not numbers:
        return []
    names, X = list(numbers), np.column_stack(list(numbers.values()))
    whole = np.isfinite(X).all(axis=1)
    if whole.sum() < 50:
        return []
    X, y = X[whole], y[whole]
    if (summed := _formula(names, X, y)) is not None:
        return [Leak(summed[0], f"{_listed(summed[0])} add up to '{target}' (R² {summed[1]:.4f})")]
    able = np.array([(column > 0).all() for column in X.T])
    if (y > 0).all() and able.sum() > 1:
        factors = [name for name, positive in zip(names, able, strict=True) if positive]
        if (multiplied := _formula(factors, np.log(X[:, able]), np.log(y))) is not None:
            return [Leak(multiplied[0], f"{_listed(multiplied[0])} multiply to '{target}' (R² {multiplied[1]:.4f})")]
    return _pairs(names, X, y, target)


def _formula(names: list[str], X: np.ndarray, y: np.ndarray) -> tuple[tuple[str, ...], float] | None:
    """The fewest columns whose linear formula gives the target on held-out rows, and its R²; ``None`` if none do.

    Columns are eliminated one by one, from the least to the most predictive.
    """
    half = np.random.default_rng(1).random(len(y)) < 0.5
    kept = list(range(X.shape[1]))
    best = _linear_r2(X, y, half)
    if best < TOGETHER:
        return None
    for column in sorted(kept, key=lambda i: _linear_r2(X[:, [i]], y, half)):  # least predictive first
        without = [i for i in kept if i != column]
        if without and (figure := _linear_r2(X[:, without], y, half)) >= TOGETHER:
            kept, best = without, figure
    return tuple(names[i] for i in kept), best


def _linear_r2(X: np.ndarray, y: np.ndarray, half: np.ndarray) -> float:
    scaled = np.column_stack([np.ones(len(X)), (X - X.mean(axis=0)) / np.where(X.std(axis=0) > 0, X.std(axis=0), 1)])
    weights = np.linalg.lstsq(scaled[half], y[half], rcond=None)[0]
    return _r2(y[~half], scaled[~half] @ weights)


def _pairs(names: list[str], X: np.ndarray, y: np.ndarray, target: str) -> list[Leak]:
    """Two columns whose product or quotient is the target, up to a linear scale."""
    strongest = np.argsort([-abs(np.corrcoef(x, y)[0, 1]) for x in X.T])[:MOST_COLUMNS_IN_PAIRS]
    for i, j in itertools.combinations(sorted(strongest), 2):
        a, b = X[:, i], X[:, j]
        with np.errstate(divide="ignore", invalid="ignore"):
            made = {f"'{names[i]}' × '{names[j]}'": a * b, f"'{names[i]}' / '{names[j]}'": a / b,
                    f"'{names[j]}' / '{names[i]}'": b / a}  # fmt: skip
        for formula, values in made.items():
            sound = np.isfinite(values)
            if sound.mean() > 0.9 and values[sound].std() > 0 and y[sound].std() > 0:
                figure = float(np.corrcoef(values[sound], y[sound])[0, 1] ** 2)
                if figure >= TOGETHER:
                    return [Leak((names[i], names[j]), f"{formula} gives '{target}' (R² {figure:.4f})")]
    return []


def _listed(names: tuple[str, ...]) -> str:
    quoted = [f"'{name}'" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


# -- later moments, and both sides of the split ----------------------------------------------------------------------


def _later(rows: pd.DataFrame, model: Model) -> list[Leak]:
    """Timestamps later than the row's own time, in columns that the features use."""
    if model.table.time is None:
        return []
    found = []
    for name in model.table.columns:
        if name in (model.table.time, model.target) or not pd.api.types.is_datetime64_any_dtype(rows[name].dtype):
            continue
        share = float((rows[name] > rows[model.table.time]).mean())
        if share >= LATER_SHARE and _is_looked_at(name, rows, model):
            message = (
                f"'{name}' is later than '{model.table.time}' in {share:.0%} of the rows, so it is not known when a "
                "row is scored"
            )
            found.append(Leak((name,), message))
    return found


def _is_looked_at(name: str, rows: pd.DataFrame, model: Model) -> bool:
    """Whether any feature changes when the column's values are shuffled."""
    features, some = features_of(model), rows.head(500)
    events: dict[str, Any] = {c: some[c].to_numpy() for c in model.table.columns if c != model.target}
    events["label"] = some[model.target].to_numpy(dtype=float)
    wanted = np.arange(len(some))
    other = events | {name: np.random.default_rng(0).permutation(events[name])}
    was, now = (compute_features(features, given, wanted) for given in (events, other))
    return not np.array_equal(was, now, equal_nan=True)


def _on_both_sides(frozen: pd.DataFrame, model: Model, fit: np.ndarray, test: np.ndarray) -> list[Leak]:
    left_out = {model.table.key, model.table.time, model.target}
    columns = [name for name in model.table.columns if name not in left_out]
    found = _twins(frozen, columns, model, fit, test)
    if model.table.time is None:
        found += [leak for name in columns if (leak := _siblings(frozen, name, model, fit, test)) is not None]
    return found


def _twins(frozen: pd.DataFrame, columns: list[str], model: Model, fit: np.ndarray, test: np.ndarray) -> list[Leak]:
    """Test rows that duplicate a fit row under another key."""
    if not columns:
        return []
    distinct = max(frozen[name].nunique() for name in columns)
    if distinct < len(frozen) / 20:  # rows of few categories repeat by chance
        return []
    hashes = pd.util.hash_pandas_object(frozen[[*columns, model.target]].astype("string"), index=False)
    share = float(hashes[test].isin(set(hashes[fit])).mean())
    if share < TWIN_SHARE:
        return []
    message = f"{share:.0%} of the test rows are also among the fit rows under another '{model.table.key}'"
    return [Leak((model.table.key,), message + "; land each row once")]


def _names_things(name: str, values: pd.Series) -> bool:
    """Whether a column's name or format marks it as an identifier; a city also recurs, but is a valid feature."""
    if str(values.dtype).startswith(("bool", "float", "Float", "datetime")):
        return False
    snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    if re.search(r"(^|_)(id|uuid|key|no|nr|number|code)$", snake, re.IGNORECASE):
        return True
    is_text = not str(values.dtype).startswith(NUMBERS)
    return is_text and bool(values.dropna().astype(str).str.fullmatch(r"[A-Za-z]{0,4}[-_]?\d+").mean() > 0.9)


def _siblings(frozen: pd.DataFrame, name: str, model: Model, fit: np.ndarray, test: np.ndarray) -> Leak | None:
    """An identifier with rows on both sides of the split that agree on the target far more than any two rows do."""
    values = frozen[name]
    groups = values.nunique()
    # An identifier has many values with a few rows each; a category has few values.
    if not _names_things(name, values) or groups < max(50, len(frozen) / 50) or groups > 0.9 * len(frozen):
        return None
    both = float(values[test].isin(set(values[fit])).mean())
    y = frozen[model.target].astype(float)
    if model.task.kind == "multiclass":
        agreement = float((y == y.groupby(values).transform(lambda group: group.mode().iloc[0]))[test].mean())
        chance = float(y.value_counts(normalize=True).iloc[0])
        agreement = (agreement - chance) / max(1 - chance, 1e-9)
    else:
        means = y[fit].groupby(values[fit]).mean()
        known = test & values.isin(means.index).to_numpy()
        if known.sum() < 20 or y[known].std() == 0:
            return None
        agreement = float(np.corrcoef(values[known].map(means).astype(float), y[known])[0, 1])
    if both < 0.2 or not agreement >= AGREEING:
        return None
    message = (
        f"rows with the same '{name}' are on both sides of the split ({both:.0%} of the test rows share it with a fit "
        f"row), and they agree on the target (correlation {agreement:.2f})"
    )
    return Leak((name,), message)

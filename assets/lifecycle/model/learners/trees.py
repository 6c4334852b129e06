"""Gradient-boosted trees: fitted with XGBoost, then converted to a torch module that makes exactly the same decisions.

Belongs here: the settings, the fit, and the module. Does not belong here: the ensemble weight of the trees
(``fitting.py``), their role as a baseline of the report (``baselines.py``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assets.lifecycle.data.text import BUCKETS, as_words
from assets.task import BINARY, Task

if TYPE_CHECKING:
    import torch

FREQUENT_WORDS = 300
"""Maximum number of word columns for the trees, one for each of the most frequent words."""
RARE = 1e-4
"""Probability of a class that is absent from the training rows."""
XGBOOST: dict[str, Any] = {
    # The library's defaults use 256 bins and start at the mean label. With one positive in a hundred, they cannot split
    # in the tail of an amount, and they block small leaves. This costs 7 to 11 points of average precision on card
    # payments.
    "max_bin": 4096,
    "base_score": 0.5,
    "n_estimators": 200,
    "learning_rate": 0.06,
    "max_depth": 3,
}
"""Settings for two classes; suitable for streams of rare events and for plain tables. On the telco churn table (two
5-fold runs) the AUC is .848; it is .824 with the library's defaults, .845 to .849 with depth 2 to 4 and 100 to 300
trees, and .845 with logistic regression."""
XGBOOST_STOPPED: dict[str, Any] = {
    "n_estimators": 2000,
    "learning_rate": 0.05,
    "max_depth": 5,
    "min_child_weight": 5,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
}
"""Settings for more classes and measured values; early stopping on held-out rows sets the number of trees (California
housing: 1,300)."""
COMMON: dict[str, Any] = {"tree_method": "hist", "n_jobs": 1}  # fixed: another order of summation gives another model
STOP_AFTER = 50


@dataclass(frozen=True)
class Trees:
    """Fitted trees.

    Args:
        booster: the XGBoost booster.
        words: word numbers with a column each, placed after the numeric columns; empty without text.
        codes: class codes in the training rows; empty for measured values.
        rounds: number of boosting rounds.
    """

    booster: Any
    words: np.ndarray
    codes: np.ndarray
    rounds: int

    def save(self, path: Path) -> None:
        """Writes one file in XGBoost's own format, which XGBoost can load without this project."""
        self.booster.set_attr(words=json.dumps(self.words.tolist()), codes=json.dumps(self.codes.tolist()))
        self.booster.save_model(path)

    @classmethod
    def load(cls, path: Path) -> Trees:
        """Reads a file written by :meth:`save`."""
        import xgboost

        booster = xgboost.Booster(model_file=path)
        words, codes = (np.array(json.loads(booster.attr(name) or "[]")) for name in ("words", "codes"))
        return cls(booster, words.astype(np.int64), codes, booster.num_boosted_rounds())


def fit_trees(
    X: np.ndarray,
    y: np.ndarray,
    *,
    task: Task = BINARY,
    tokens: Sequence[int] = (),
    seed: int = 0,
    rounds: int | None = None,
    valid: tuple[np.ndarray, np.ndarray] | None = None,
    weight: np.ndarray | None = None,
) -> Trees:
    """Fits the trees; the same rows and seed give the same trees.

    Two classes use a fixed number of trees (:data:`XGBOOST`). More classes and measured values use
    :data:`XGBOOST_STOPPED`, with early stopping on ``valid``. ``rounds`` overrides the number of trees.

    Args:
        X: float32 ``[n, n_features]``; missing values are NaN, infinite values are not allowed.
        y: ``[n]``, class codes or measured values.
        task: the kind of target.
        tokens: positions of the columns of word numbers.
        seed: of the library's random numbers.
        rounds: number of boosting rounds.
        valid: features and target of validation rows for early stopping; ignored for two classes.
        weight: row weights, ``[n]``; default: equal weights.
    """
    import xgboost

    words = frequent_words(X, tokens)
    codes = np.array([]) if task.kind == "regression" else np.unique(y)
    settings = {**COMMON, **(XGBOOST if task.kind == "binary" else XGBOOST_STOPPED), "random_state": seed}
    if rounds is not None:
        settings["n_estimators"] = rounds
    kind = xgboost.XGBRegressor if task.kind == "regression" else xgboost.XGBClassifier
    held: dict[str, Any] = {}
    if valid is not None and task.kind != "binary":
        rows = np.isin(valid[1], codes) if len(codes) else np.ones(len(valid[1]), dtype=bool)
        settings["early_stopping_rounds"] = STOP_AFTER
        held = {"eval_set": [(columns_of(valid[0][rows], tokens, words), _coded(valid[1][rows], codes))],
                "verbose": False}  # fmt: skip
    model = kind(**settings)
    model.fit(columns_of(X, tokens, words), _coded(y, codes), sample_weight=weight, **held)
    booster = model.get_booster()
    if held:
        best = int(model.best_iteration) + 1
        return Trees(booster[:best], words, codes, best)
    return Trees(booster, words, codes, booster.num_boosted_rounds())


def _coded(y: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Class codes without gaps, as XGBoost requires; measured values unchanged."""
    return np.searchsorted(codes, y) if len(codes) else y


def frequent_words(X: np.ndarray, tokens: Sequence[int]) -> np.ndarray:
    """Returns the word numbers that occur in the most rows, at most :data:`FREQUENT_WORDS`."""
    if not len(tokens):
        return np.array([], dtype=np.int64)
    words = np.sort(_words(X, tokens), axis=1)
    first = np.ones_like(words, dtype=bool)
    first[:, 1:] = words[:, 1:] != words[:, :-1]
    counts = np.bincount(words[first & (words > 0)])
    return np.argsort(-counts, kind="stable")[: min(FREQUENT_WORDS, int((counts > 0).sum()))]


def columns_of(X: np.ndarray, tokens: Sequence[int], words: np.ndarray) -> np.ndarray:
    """Returns the trees' input ``[n, k]``: numeric features, and counts of each of ``words`` for the word numbers."""
    if not len(tokens):
        return X
    numbers = np.setdiff1d(np.arange(X.shape[1]), tokens)
    of_rows = _words(X, tokens)
    slot = np.zeros(int(max(words.max(initial=0), of_rows.max(initial=0))) + 1, dtype=np.int64)
    slot[words] = np.arange(1, len(words) + 1)
    slots = slot[of_rows]
    row = np.arange(len(X))[:, None] * (len(words) + 1)
    counts = np.bincount((row + slots).ravel(), minlength=len(X) * (len(words) + 1)).reshape(len(X), -1)
    return np.hstack([X[:, numbers], counts[:, 1:].astype(np.float32)])


def _words(X: np.ndarray, tokens: Sequence[int]) -> np.ndarray:
    """The columns of texts as word numbers, int64 ``[n, places]``."""
    import torch

    return as_words(torch.from_numpy(np.ascontiguousarray(X[:, list(tokens)], dtype=np.float32))).numpy()


def as_module(trees: Trees, task: Task, tokens: Sequence[int] = ()) -> torch.nn.Module:
    """Converts the trees to a torch module that maps raw float32 ``[n, n_features]`` (NaN allowed) to outputs.

    Each tree becomes a complete binary tree with a feature and a threshold for each node and a value for each leaf. A
    row goes right if its float32 value is at least the float32 threshold, which is XGBoost's own comparison. A missing
    value goes in XGBoost's default direction. Only the sum of the leaves may differ from XGBoost's, in its last digits.

    Returns:
        A module in evaluation mode. Outputs are logits ``[n]``, log probabilities ``[n, classes]``, or values in the
        unit of the target that the trees were fitted on, ``[n]``.
    """
    import torch

    learner = json.loads(bytes(trees.booster.save_raw("json")))["learner"]
    grown = learner["gradient_booster"]["model"]["trees"]
    depth = max(1, *(_depth(tree) for tree in grown))
    n_columns = int(learner["learner_model_param"]["num_feature"])
    levels, values = _complete(grown, depth, n_columns)
    classes = len(trees.codes) if task.kind == "multiclass" and len(trees.codes) > 2 else 1
    start = _start(learner, task, classes)
    width = len(tokens)

    class Forest(torch.nn.Module):
        leaves: torch.Tensor
        start: torch.Tensor
        numbers: torch.Tensor
        tokens: torch.Tensor
        slots: torch.Tensor
        present: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            for level, (features, thresholds) in enumerate(levels):
                self.register_buffer(f"features_{level}", torch.from_numpy(features))
                self.register_buffer(f"thresholds_{level}", torch.from_numpy(thresholds))
            self.register_buffer("leaves", torch.from_numpy(values))
            self.register_buffer("start", torch.from_numpy(start))
            if width:
                slots = torch.zeros(BUCKETS + 1, dtype=torch.long)
                slots[torch.from_numpy(trees.words)] = torch.arange(1, len(trees.words) + 1)
                self.register_buffer("slots", slots)
                self.register_buffer("tokens", torch.tensor(list(tokens)))
            if task.kind == "multiclass":
                self.register_buffer("present", torch.from_numpy(np.asarray(trees.codes, dtype=np.int64)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if width:
                x = self.with_words(x)
            # A missing value becomes -inf or +inf, by its node's default direction; each column exists in both forms.
            missing = x.isnan()
            both = torch.cat([x.masked_fill(missing, -torch.inf), x.masked_fill(missing, torch.inf)], dim=1)
            at = torch.arange(len(levels[0][0]), device=x.device).unsqueeze(0)
            for level in range(depth):
                features, thresholds = getattr(self, f"features_{level}"), getattr(self, f"thresholds_{level}")
                # At level 0 all rows are at the roots.
                value = both.gather(1, features[at]) if level else both.index_select(1, features)
                at = 2 * at + (value >= thresholds[at])
            leaves = self.leaves[at]
            if classes == 1:
                margin = leaves.sum(dim=1) + self.start
                return margin if task.kind != "multiclass" else self.of_all(torch.stack([0 * margin, margin], dim=1))
            margins = leaves.unflatten(1, (-1, classes)).sum(dim=1) + self.start
            return self.of_all(margins)

        def with_words(self, x: torch.Tensor) -> torch.Tensor:
            words = as_words(x.index_select(1, self.tokens))
            counts = x.new_zeros(x.shape[0], len(trees.words) + 1)
            counts = counts.scatter_add(1, self.slots[words], torch.ones_like(words, dtype=x.dtype))
            return torch.cat([x.index_select(1, self.numbers), counts[:, 1:]], dim=1)

        def of_all(self, margins: torch.Tensor) -> torch.Tensor:
            known = torch.log_softmax(margins, dim=1)
            every = known.new_full((known.shape[0], len(task.classes)), float(np.log(RARE)))
            return every.index_copy(1, self.present, known)

    module = Forest()
    if width:
        n_features = n_columns - len(trees.words) + width
        module.register_buffer("numbers", torch.from_numpy(np.setdiff1d(np.arange(n_features), tokens)))
    return module.eval()


def _depth(tree: dict[str, Any]) -> int:
    """Depth of a tree: the number of levels above the deepest leaf."""
    left, right, parents = tree["left_children"], tree["right_children"], tree["parents"]
    depth = [0] * len(left)
    deepest = 0
    for node in range(1, len(left)):  # a parent comes before its children
        if parents[node] < len(left) and node in (left[parents[node]], right[parents[node]]):
            depth[node] = depth[parents[node]] + 1
            deepest = max(deepest, depth[node])
    return deepest


def _complete(
    grown: Sequence[dict[str, Any]], depth: int, n_columns: int
) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """Completes the trees: by level, the column and threshold of each node of all trees; and the value of each leaf.

    Each column has two indices: its own if a missing value goes left, and its own plus ``n_columns`` if it goes right.
    """
    trees = len(grown)
    levels = [(np.zeros(trees << level, np.int64), np.zeros(trees << level, np.float32)) for level in range(depth)]
    values = np.zeros(trees << depth, np.float32)
    for number, tree in enumerate(grown):
        left, right = tree["left_children"], tree["right_children"]
        places = [(0, 0, 0)]
        while places:
            node, level, place = places.pop()
            at = (number << level) + place
            if left[node] < 0:
                first = at << (depth - level)
                values[first : first + (1 << (depth - level))] = tree["split_conditions"][node]
                continue
            levels[level][0][at] = tree["split_indices"][node] + (0 if tree["default_left"][node] else n_columns)
            levels[level][1][at] = tree["split_conditions"][node]
            places += [(left[node], level + 1, 2 * place), (right[node], level + 1, 2 * place + 1)]
    return levels, values


def _start(learner: dict[str, Any], task: Task, classes: int) -> np.ndarray:
    """The output before the first tree, float32 scalar or ``[classes]``."""
    text = learner["learner_model_param"]["base_score"].strip("[]")
    base = np.array([float(part) for part in text.split(",")], dtype=np.float64)
    if task.kind != "regression" and classes == 1:
        base = np.log(base / (1 - base))
    if classes == 1:
        return np.array(base[0], dtype=np.float32)
    return np.broadcast_to(base, (classes,)).astype(np.float32)

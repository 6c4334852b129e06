"""Gradient-boosted trees: fitted with XGBoost, then read into a torch module that decides exactly as they do.

Belongs here: the settings, the fit, and the module. Does not belong here: what share the trees get beside a network
(``fitting.py``), the report's comparison with them (``baselines.py``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assets.task import BINARY, Task

if TYPE_CHECKING:
    import torch

FREQUENT_WORDS = 300
"""Words that the trees get a column each for, the most frequent ones."""
RARE = 1e-4
"""Probability of a class that the rows fitted on lack."""
XGBOOST: dict[str, Any] = {
    # The library's defaults place 256 bins and start at the mean label. With one positive in a hundred they cannot cut
    # at the tail of an amount and block small leaves: 7 to 11 points of average precision lost on card payments.
    "max_bin": 4096,
    "base_score": 0.5,
    "n_estimators": 200,
    "learning_rate": 0.06,
    "max_depth": 3,
}
"""Honest for streams of rare events and for plain tables alike. On the telco churn table (two 5-fold runs): AUC .848,
the library's defaults .824, depth 2 to 4 with 100 to 300 trees .845 to .849, logistic regression .845."""
XGBOOST_STOPPED: dict[str, Any] = {
    "n_estimators": 2000,
    "learning_rate": 0.05,
    "max_depth": 5,
    "min_child_weight": 5,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
}
"""For classes and measured values: as many trees as rows that were held back ask for (California housing: 1,300)."""
COMMON: dict[str, Any] = {"tree_method": "hist", "n_jobs": 1}  # fixed: sums in another order are another model
STOP_AFTER = 50


@dataclass(frozen=True)
class Trees:
    """Fitted trees.

    Args:
        booster: XGBoost's.
        words: the word numbers that have a column each, after those of the numbers; empty without text.
        codes: the class codes that the rows fitted on held; empty for measured values.
        rounds: rounds of boosting.
    """

    booster: Any
    words: np.ndarray
    codes: np.ndarray
    rounds: int

    def save(self, path: Path) -> None:
        """Writes one file, in XGBoost's own format, that XGBoost alone can use as well."""
        self.booster.set_attr(words=json.dumps(self.words.tolist()), codes=json.dumps(self.codes.tolist()))
        self.booster.save_model(path)

    @classmethod
    def load(cls, path: Path) -> Trees:
        """Reads what :meth:`save` wrote."""
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
    """Fits the trees; the same rows and seed give the same ones.

    Two classes get a fixed number of trees (:data:`XGBOOST`); more classes and measured values get as many as
    ``valid`` asks for (:data:`XGBOOST_STOPPED`), or ``rounds`` where that is settled.

    Args:
        X: float32 ``[n, n_features]``; missing values are NaN, nothing is infinite.
        y: ``[n]``, class codes or measured values.
        task: the kind of target.
        tokens: positions of the columns of word numbers.
        seed: of the library's random numbers.
        rounds: how many rounds of boosting.
        valid: features and target of rows that say when to stop.
        weight: of each row, ``[n]``; default: all alike.
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
    """Codes without gaps, as the library wants them; measured values as they are."""
    return np.searchsorted(codes, y) if len(codes) else y


def frequent_words(X: np.ndarray, tokens: Sequence[int]) -> np.ndarray:
    """The word numbers that are in most rows, at most :data:`FREQUENT_WORDS`."""
    if not len(tokens):
        return np.array([], dtype=np.int64)
    words = np.sort(X[:, list(tokens)].astype(np.int64), axis=1)
    first = np.ones_like(words, dtype=bool)
    first[:, 1:] = words[:, 1:] != words[:, :-1]
    counts = np.bincount(words[first & (words > 0)])
    return np.argsort(-counts, kind="stable")[: min(FREQUENT_WORDS, int((counts > 0).sum()))]


def columns_of(X: np.ndarray, tokens: Sequence[int], words: np.ndarray) -> np.ndarray:
    """What the trees are fitted on: the numbers, and a count of each of ``words`` in place of the word numbers."""
    if not len(tokens):
        return X
    numbers = np.setdiff1d(np.arange(X.shape[1]), tokens)
    slot = np.zeros(int(max(words.max(initial=0), X[:, list(tokens)].max(initial=0))) + 1, dtype=np.int64)
    slot[words] = np.arange(1, len(words) + 1)
    slots = slot[X[:, list(tokens)].astype(np.int64)]
    row = np.arange(len(X))[:, None] * (len(words) + 1)
    counts = np.bincount((row + slots).ravel(), minlength=len(X) * (len(words) + 1)).reshape(len(X), -1)
    return np.hstack([X[:, numbers], counts[:, 1:].astype(np.float32)])


def as_module(trees: Trees, task: Task, tokens: Sequence[int] = ()) -> torch.nn.Module:
    """The trees as a torch module, from raw float32 ``[n, n_features]`` (NaN allowed) to outputs, as a network has.

    Each tree becomes a complete binary tree: at each level a feature and a threshold for each node, at the end a value
    for each leaf. A row goes right where its float32 value is not below the float32 threshold, which is XGBoost's own
    comparison, and a missing value goes where XGBoost sends it. Only the sum of the leaves may differ, in its last
    digits.
    """
    import torch

    from assets.lifecycle.data.text import BUCKETS

    said = json.loads(bytes(trees.booster.save_raw("json")))["learner"]
    grown = said["gradient_booster"]["model"]["trees"]
    depth = max(1, *(_depth(tree) for tree in grown))
    n_columns = int(said["learner_model_param"]["num_feature"])
    levels, values = _complete(grown, depth, n_columns)
    classes = len(trees.codes) if task.kind == "multiclass" and len(trees.codes) > 2 else 1
    start = _start(said, task, classes)
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
            # What is missing is below or above everything, as its node sends it: one column for each of the two.
            missing = x.isnan()
            both = torch.cat([x.masked_fill(missing, -torch.inf), x.masked_fill(missing, torch.inf)], dim=1)
            at = torch.arange(len(levels[0][0]), device=x.device).unsqueeze(0)
            for level in range(depth):
                features, thresholds = getattr(self, f"features_{level}"), getattr(self, f"thresholds_{level}")
                # All rows are at the roots at first.
                value = both.gather(1, features[at]) if level else both.index_select(1, features)
                at = 2 * at + (value >= thresholds[at])
            leaves = self.leaves[at]
            if classes == 1:
                margin = leaves.sum(dim=1) + self.start
                return margin if task.kind != "multiclass" else self.of_all(torch.stack([0 * margin, margin], dim=1))
            margins = leaves.unflatten(1, (-1, classes)).sum(dim=1) + self.start
            return self.of_all(margins)

        def with_words(self, x: torch.Tensor) -> torch.Tensor:
            words = torch.nan_to_num(x.index_select(1, self.tokens)).clamp(0, BUCKETS).long()
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
    """Levels of nodes above the deepest leaf."""
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
    """By level, column and threshold of each node of each tree, one after the other; and the value of each leaf.

    Each column is there twice: as it is where a missing value goes left, and ``n_columns`` further on where it goes
    right.
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


def _start(said: dict[str, Any], task: Task, classes: int) -> np.ndarray:
    """float32 scalar or ``[classes]``: the output before the first tree."""
    text = said["learner_model_param"]["base_score"].strip("[]")
    base = np.array([float(part) for part in text.split(",")], dtype=np.float64)
    if task.kind != "regression" and classes == 1:
        base = np.log(base / (1 - base))
    if classes == 1:
        return np.array(base[0], dtype=np.float32)
    return np.broadcast_to(base, (classes,)).astype(np.float32)

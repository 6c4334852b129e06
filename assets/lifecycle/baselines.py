"""What the torch model has to stand up to: a simple baseline and a strong one, fitted on the same rows.

Belongs here: models from other libraries with settings that do not cripple them, each a pure function. Does not belong
here: the declared network (``fitting.py``), or the comparison itself (``metrics``, ``gate.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from assets.task import BINARY, Task

MAX_DEVIATIONS = 8.0
"""Standardised values are cut here, so that one absurd amount cannot tilt a linear model."""
FREQUENT_WORDS = 300
"""Words that the trees get a column each for, the most frequent ones."""
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
"""For classes and measured values: as many trees as a sixth of the rows, held back, asks for (California housing:
1,300), then fitted again on all rows."""
COMMON: dict[str, Any] = {"tree_method": "hist", "n_jobs": 2}  # fixed: sums in another order are another model
STOP_AFTER = 50


def linear(
    X: np.ndarray, y: np.ndarray, X_test: np.ndarray, *, task: Task = BINARY, tokens: Sequence[int] = ()
) -> np.ndarray:
    """Scores of a regularised linear model on the test rows, float64 ``[m]`` (or ``[m, classes]``).

    Missing values become the median, beside a column that says so where the training rows had any; columns are
    standardised and cut at ± :data:`MAX_DEVIATIONS`. Words are weighed by how rare they are.

    Args:
        X: ``[n, k]``, may hold NaN but nothing infinite.
        y: class codes or measured values, ``[n]``.
        X_test: ``[m, k]``.
        task: the kind of target.
        tokens: positions of the columns that hold word numbers.

    Raises:
        ValueError: only one class in ``y``, or shapes that do not fit.
    """
    from scipy.sparse import csr_array, hstack
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    _refuse_one_class(y, task)
    numbers = np.setdiff1d(np.arange(X.shape[1]), tokens)
    prepare = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
        FunctionTransformer(np.clip, kw_args={"a_min": -MAX_DEVIATIONS, "a_max": MAX_DEVIATIONS}),
    )
    parts = [(prepare.fit_transform(np.asarray(X[:, numbers], np.float64)),
              prepare.transform(np.asarray(X_test[:, numbers], np.float64)))] if len(numbers) else []  # fmt: skip
    if len(tokens):
        weigh = TfidfTransformer(sublinear_tf=True)
        words = _word_counts(X, tokens), _word_counts(X_test, tokens)
        sparse = weigh.fit_transform(words[0]), weigh.transform(words[1])
        fitted, asked = (csr_array(hstack([*(part[i] for part in parts), sparse[i]])) for i in (0, 1))
    else:
        fitted, asked = parts[0]
    if task.kind == "regression":
        model = Ridge(1.0) if len(tokens) else RidgeCV(np.logspace(-3, 3, 13))
        return model.fit(fitted, y).predict(asked)
    # Many rows, few columns; with words there are many columns.
    solver = "lbfgs" if len(tokens) or task.kind == "multiclass" else "newton-cholesky"
    probability = LogisticRegression(solver=solver, max_iter=300).fit(fitted, y).predict_proba(asked)
    return probability[:, 1] if task.kind == "binary" else _all_classes(probability, y, task)


def xgboost(
    X: np.ndarray, y: np.ndarray, X_test: np.ndarray, *, task: Task = BINARY, tokens: Sequence[int] = (), seed: int = 0
) -> np.ndarray:
    """Scores of gradient-boosted trees on the test rows, float64 ``[m]`` (or ``[m, classes]``).

    The same rows and seed give the same scores. Missing values are the library's own business. Arguments and errors as
    of :func:`linear`; ``seed`` is of the library's random numbers.
    """
    from xgboost import XGBClassifier, XGBRegressor

    _refuse_one_class(y, task)
    X, X_test = for_trees(X, X_test, tokens)
    if task.kind == "binary":
        model = XGBClassifier(**COMMON, **XGBOOST, random_state=seed)
        return model.fit(X, y).predict_proba(X_test)[:, 1].astype(np.float64)
    kind = XGBRegressor if task.kind == "regression" else XGBClassifier
    codes = y if task.kind == "regression" else np.unique(y, return_inverse=True)[1]
    settings = {**COMMON, **XGBOOST_STOPPED, "random_state": seed}
    held = _a_sixth(codes, task, seed)
    first = kind(**settings, early_stopping_rounds=STOP_AFTER)
    first.fit(X[~held], codes[~held], eval_set=[(X[held], codes[held])], verbose=False)
    # The trees of five sixths are a tenth too few for all rows, by the learning rate's rule of thumb.
    model = kind(**{**settings, "n_estimators": int(1.1 * (first.best_iteration + 1)) + 1}).fit(X, codes)
    if task.kind == "regression":
        return model.predict(X_test).astype(np.float64)
    return _all_classes(model.predict_proba(X_test).astype(np.float64), y, task)


def for_trees(X: np.ndarray, X_test: np.ndarray, tokens: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Both matrices with a count of each frequent word in place of the columns of word numbers."""
    if not len(tokens):
        return X, X_test
    counts = _word_counts(X, tokens), _word_counts(X_test, tokens)
    frequent = np.argsort(-np.asarray((counts[0] > 0).sum(axis=0)).ravel(), kind="stable")[:FREQUENT_WORDS]
    numbers = np.setdiff1d(np.arange(X.shape[1]), tokens)
    with_words = [
        np.hstack([rows[:, numbers], words[:, frequent].toarray().astype(np.float32)])
        for rows, words in zip((X, X_test), counts, strict=True)
    ]
    return with_words[0], with_words[1]


def _word_counts(X: np.ndarray, tokens: Sequence[int]) -> Any:
    """Sparse ``[n, words]``: how often each word number is in a row; the number 0 is no word."""
    from scipy.sparse import csr_array

    from assets.lifecycle.text import BUCKETS

    words = X[:, list(tokens)].astype(np.int64)
    row, column = np.nonzero(words)
    return csr_array((np.ones(len(row)), (row, words[row, column])), shape=(len(X), BUCKETS + 1))


def _a_sixth(codes: np.ndarray, task: Task, seed: int) -> np.ndarray:
    """Boolean: rows held back to count trees on; each class keeps at least one row to fit on."""
    held = np.zeros(len(codes), dtype=bool)
    order = np.random.default_rng(seed).permutation(len(codes))
    held[order[: max(1, len(codes) // 6)]] = True
    if task.kind != "regression":
        for code in np.setdiff1d(np.unique(codes), np.unique(codes[~held])):
            held[codes == code] = False
    return held


def _all_classes(probability: np.ndarray, y: np.ndarray, task: Task) -> np.ndarray:
    """``[m, classes]`` with a column for classes too, that the training rows lacked."""
    every = np.zeros((len(probability), len(task.classes)))
    every[:, np.unique(y).astype(int)] = probability
    return every


def _refuse_one_class(y: np.ndarray, task: Task) -> None:
    found = np.unique(y)
    if task.kind == "binary" and not np.array_equal(found, [0, 1]):
        raise ValueError(
            f"a baseline needs training rows of both classes, 0 and 1, and found {found.tolist()[:5]}; "
            "use a longer training window or check the target"
        )
    if len(found) < 2:
        raise ValueError(f"a baseline needs training rows of two values and more, and found {found.tolist()}")

"""The baselines: honest, repeatable, and clear about what they cannot do."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from assets.lifecycle.model.baselines import linear, xgboost


def rows(n, seed):
    """A linear signal in 0 and 1, a cut at the tail of column 2, blanks, a constant and an all-missing column."""
    rng = np.random.default_rng(seed)
    X = rng.normal(0, 1, (n, 5)).astype(np.float32)
    X[:, 2] = rng.exponential(30, n)
    odds = 1.5 * X[:, 0] - X[:, 1] - 4 + np.where(X[:, 2] > 180, 8, 0)
    y = (rng.random(n) < 1 / (1 + np.exp(-odds))).astype(int)
    X[rng.random(n) < 0.1, 0] = np.nan
    X[:, 3], X[:, 4] = 7, np.nan
    return X, y


@pytest.mark.parametrize("baseline", [linear, xgboost])
def test_it_ranks_rows_it_has_not_seen_blanks_and_constants_or_not(baseline):
    X, y = rows(8000, 0)
    X_test, y_test = rows(4000, 1)
    p = baseline(X, y, X_test)
    assert p.dtype == np.float64
    assert p.shape == (4000,)
    assert ((p > 0) & (p < 1)).all()
    assert roc_auc_score(y_test, p) > 0.8
    assert abs(p.mean() - y_test.mean()) < 0.01  # probabilities, not mere scores
    assert np.array_equal(p, baseline(X, y, X_test))


@pytest.mark.parametrize("baseline", [linear, xgboost])
@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_refused_with_the_mend(baseline, label):
    with pytest.raises(ValueError, match=r"both classes, 0 and 1.*longer training window"):
        baseline(np.zeros((20, 2)), np.full(20, label), np.zeros((3, 2)))


def test_one_absurd_value_does_not_tilt_the_linear_model():
    X, y = rows(4000, 0)
    X_test, _ = rows(50, 1)
    plain = linear(X, y, X_test)
    X_test[0, 0] = 1e30
    absurd = linear(X, y, X_test)
    assert np.array_equal(plain[1:], absurd[1:])
    assert 0 < absurd[0] <= 1
    spoilt = X.copy()
    spoilt[0, 1] = 1e3
    assert np.abs(linear(spoilt, y, X_test)[1:] - plain[1:]).max() < 0.2


def test_xgboost_is_not_crippled_by_its_defaults():
    """Rare positives at the tail of one column: the library's defaults lose some, the honest settings do not."""
    from xgboost import XGBClassifier

    rng = np.random.default_rng(0)
    X = np.column_stack([rng.exponential(30, 60_000), rng.normal(0, 1, (60_000, 8))]).astype(np.float32)
    y = ((X[:, 0] > 220) | (rng.random(60_000) < 0.001)).astype(int)
    train, test = slice(0, 40_000), slice(40_000, None)
    honest = average_precision_score(y[test], xgboost(X[train], y[train], X[test]))
    crippled = average_precision_score(
        y[test], XGBClassifier(n_jobs=2).fit(X[train], y[train]).predict_proba(X[test])[:, 1]
    )
    assert honest > crippled + 0.02

"""The linear model is scikit-learn's of each kind of target, on numbers and on TF-IDF, as a module that is exported."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, hstack
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.linear_model import LogisticRegression, RidgeCV

from assets.lifecycle.data.text import WORDS, pairs_of, word_numbers
from assets.lifecycle.model.fitting import outputs_of
from assets.lifecycle.model.learners.linear import OF_PAIRS, ROWS_OF_A_PAIR, WORDS_STRENGTH, fit_linear, word_counts
from assets.lifecycle.model.metrics import roc_auc
from assets.task import BINARY, Task

ROWS = 2_000
MEASURED, CLASSES = Task("regression"), Task("multiclass", ("a", "b", "c", "d"))
TOKENS = list(range(1, WORDS + 1))


def make(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows and what a line says of them, with noise."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-2, 2, (ROWS, 3)).astype(np.float32)
    return X, X @ [1.0, -2.0, 0.0] + rng.normal(size=ROWS)


def standardised(X: np.ndarray) -> np.ndarray:
    return (X - X.mean(axis=0)) / X.std(axis=0)


def messages(rows: int = 1_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A number and a text each; what the text says decides, words and one pair of them."""
    rng = np.random.default_rng(seed)
    words = [f"word{n}" for n in range(60)]
    strength = dict(zip(words, np.random.default_rng(9).normal(size=60), strict=True))
    texts = [" ".join(rng.choice(words, rng.integers(1, 12))) for _ in range(rows)]
    told = np.array([sum(strength[word] for word in text.split()) for text in texts])
    X = np.column_stack([rng.normal(size=rows), word_numbers(texts)]).astype(np.float32)
    return X, (rng.random(rows) < 1 / (1 + np.exp(-2 * told))).astype(float)


def test_two_classes_are_the_logistic_regression():
    X, told = make()
    y = (told > 0).astype(float)
    peer = LogisticRegression(C=1.0, tol=1e-8).fit(standardised(X), y)
    assert outputs_of(fit_linear(X, y), X) == pytest.approx(peer.decision_function(standardised(X)), abs=1e-3)


def test_a_measured_value_is_the_ridge_regression():
    X, told = make()
    peer = RidgeCV(np.logspace(-3, 3, 13)).fit(standardised(X), told)
    assert outputs_of(fit_linear(X, told, task=MEASURED), X) == pytest.approx(peer.predict(standardised(X)), abs=1e-3)


@pytest.mark.parametrize("codes", [[0, 1, 3], [1, 2]], ids=str)
def test_classes_are_log_probabilities_and_one_that_never_came_is_unlikely(codes):
    X, told = make()
    y = np.array(codes, dtype=float)[np.digitize(told, np.quantile(told, np.arange(1, len(codes)) / len(codes)))]
    peer = LogisticRegression(C=1.0, tol=1e-8).fit(standardised(X), y)
    said = np.exp(outputs_of(fit_linear(X, y, task=CLASSES), X))
    assert said[:, codes] == pytest.approx(peer.predict_proba(standardised(X)), abs=2e-3)
    assert said[:, [code for code in range(4) if code not in codes]] == pytest.approx(1e-4)


def test_a_text_is_its_words_and_pairs_by_tf_idf():
    X, y = messages()
    words = X[:, TOKENS].astype(int)
    of_words, of_pairs = (
        TfidfTransformer(sublinear_tf=True).fit_transform(counts[:, np.asarray((counts > 0).sum(axis=0)) >= least])
        for counts, least in (
            (word_counts(words), 1),
            (word_counts(pairs_of(torch.from_numpy(words)).numpy()), ROWS_OF_A_PAIR),
        )
    )
    all_of_it = csr_array(hstack([csr_array(standardised(X[:, :1])), of_words, OF_PAIRS * of_pairs]))
    peer = LogisticRegression(C=WORDS_STRENGTH, tol=1e-8, max_iter=1_000).fit(all_of_it, y)
    said = outputs_of(fit_linear(X, y, tokens=TOKENS), X)
    assert said == pytest.approx(peer.decision_function(all_of_it), abs=0.05)  # as far as its solver goes


@pytest.mark.parametrize("task", [BINARY, CLASSES, MEASURED], ids=lambda task: task.kind)
def test_words_tell_what_they_told_and_the_module_is_exported_with_them(task):
    X, y = messages()
    X_new, y_new = messages(seed=1)
    module = fit_linear(X, y, task=task, tokens=TOKENS)
    said = outputs_of(module, X_new)
    assert roc_auc(y_new, said[:, 1] - said[:, 0] if said.ndim == 2 else said) > 0.85
    rows = ({0: torch.export.Dim.DYNAMIC},)
    exported = torch.export.export(module, (torch.from_numpy(X[:2]),), dynamic_shapes=rows).module()
    for n in (1, 5, 300):
        assert exported(torch.from_numpy(X_new[:n])).numpy() == pytest.approx(said[:n], abs=1e-5)


def test_texts_side_by_side_are_one_bag_of_words_but_no_pair_joins_two_of_them():
    two = torch.from_numpy(np.hstack([word_numbers(["late parcel"]), word_numbers(["late parcel"])]).astype(np.int64))
    one = two[:, :WORDS]
    pairs = pairs_of(two, 2)
    assert pairs.shape == (1, 2 * (WORDS - 1))
    assert torch.equal(pairs[:, : WORDS - 1], pairs_of(one))
    assert torch.equal(pairs[:, WORDS - 1 :], pairs_of(one))


def test_texts_without_any_word_and_words_never_seen_say_nothing():
    X, y = messages()
    module = fit_linear(X, y, tokens=TOKENS)
    strange = np.zeros((3, 1 + WORDS), dtype=np.float32)
    strange[0, 1:] = word_numbers(["something else entirely"])
    strange[2, 1:] = np.nan
    said = outputs_of(module, strange)
    assert np.isfinite(said).all()
    assert said == pytest.approx(said[1], abs=1e-6)


def test_what_is_missing_counts_as_missing():
    X, told = make()
    X[::3, 2] = np.nan
    y = (told + 3 * np.isnan(X[:, 2]) > 1).astype(float)
    said = outputs_of(fit_linear(X, y), X)
    assert roc_auc(y, said) > 0.93


def test_texts_of_one_word_each_have_no_pairs_and_are_learnt():
    numbers = word_numbers(np.array(["Lyon", "Oslo"] * 40))
    y = np.array([0.0, 1.0] * 40)
    outputs = fit_linear(numbers, y, tokens=range(WORDS))(torch.from_numpy(numbers)).detach().numpy()
    assert ((outputs > 0) == (y > 0)).all()

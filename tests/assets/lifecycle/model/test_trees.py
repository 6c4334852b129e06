"""The trees' module decides as XGBoost does: at the thresholds themselves, where values are missing, with words."""

import numpy as np
import pytest
import torch
import xgboost

from assets.lifecycle.data.text import WORDS, word_numbers
from assets.lifecycle.model.fitting import outputs_of
from assets.lifecycle.model.learners.ensemble import boosted_trees
from assets.lifecycle.model.learners.trees import Trees, as_module, columns_of, fit_trees, frequent_words
from assets.task import BINARY, Task

MEASURED, CLASSES = Task("regression"), Task("multiclass", ("a", "b", "c", "d"))


def make(rows: int = 2_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of few different values, so that many stand on a threshold; some missing, where that says something."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, 6)).astype(np.float32).round(1)
    X[rng.random(X.shape) < 0.15] = np.nan
    told = 2 * np.nan_to_num(X[:, 0]) + np.nan_to_num(X[:, 1]) * np.nan_to_num(X[:, 2]) + 2 * np.isnan(X[:, 3])
    return X, told + rng.normal(size=rows)


def margins(trees: Trees, X: np.ndarray) -> np.ndarray:
    """What XGBoost itself says, before any link."""
    return trees.booster.predict(xgboost.DMatrix(X), output_margin=True)


def around_thresholds(trees: Trees, X: np.ndarray) -> np.ndarray:
    """Rows of thresholds, the float32 values next to them, infinite and missing values."""
    table = trees.booster.trees_to_dataframe()
    table = table[table["Feature"] != "Leaf"]
    cuts = [table.loc[table["Feature"] == f"f{i}", "Split"].to_numpy(np.float32) for i in range(X.shape[1])]
    rng = np.random.default_rng(0)
    rows = []
    for found in cuts:
        of_column = np.append(found, np.float32(0))
        up, down = np.nextafter(of_column, np.float32(np.inf)), np.nextafter(of_column, np.float32(-np.inf))
        every = np.concatenate([of_column, up, down, [np.nan, 1e30, -1e30]]).astype(np.float32)
        rows.append(rng.choice(every, 3_000))
    return np.column_stack(rows)


@pytest.mark.parametrize("task", [BINARY, MEASURED], ids=lambda task: task.kind)
def test_each_row_ends_in_the_leaf_that_xgboost_sends_it_to(task):
    X, told = make()
    y = (told > 0).astype(float) if task.kind == "binary" else 1_000 + 50 * told
    trees = fit_trees(X, y, task=task, rounds=60)
    module = as_module(trees, task)
    strange = around_thresholds(trees, X)
    for rows in (X, strange):
        assert outputs_of(module, rows) == pytest.approx(margins(trees, rows), rel=2e-6, abs=2e-6)
    # One leaf gone wrong would show: the smallest leaf of any tree says more than the tolerance.
    leaves = trees.booster.trees_to_dataframe().query("Feature == 'Leaf'")["Gain"].abs()
    assert leaves.quantile(0.1) > 1e-4


@pytest.mark.parametrize("codes", [[0, 1, 2, 3], [0, 2, 3], [1, 3]], ids=str)
def test_classes_are_log_probabilities_and_one_that_never_came_is_unlikely(codes):
    X, told = make()
    y = np.array(codes, dtype=float)[np.digitize(told, np.quantile(told, np.arange(1, len(codes)) / len(codes)))]
    trees = fit_trees(X, y, task=CLASSES, rounds=20)
    said = outputs_of(as_module(trees, CLASSES), X)
    theirs = margins(trees, X).astype(float)
    theirs = np.column_stack([np.zeros(len(X)), theirs]) if len(codes) == 2 else theirs
    theirs -= np.log(np.exp(theirs).sum(axis=1, keepdims=True))
    assert said[:, codes] == pytest.approx(theirs, abs=1e-5)
    absent = [code for code in range(4) if code not in codes]
    assert np.exp(said[:, absent]) == pytest.approx(1e-4)


def test_a_single_leaf_and_a_column_that_is_missing_throughout_are_no_special_case():
    X = np.full((300, 2), np.nan, dtype=np.float32)
    trees = fit_trees(X, np.arange(300) % 2 * 1.0)
    assert outputs_of(as_module(trees, BINARY), X) == pytest.approx(margins(trees, X), abs=1e-6)


def test_words_are_counted_as_they_were_when_the_trees_were_fitted():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["late", "late", "parcel", "thanks", "again", "box"], 6)) for _ in range(800)]
    tokens = list(range(1, WORDS + 1))
    X = np.column_stack([rng.normal(size=800), word_numbers(texts), rng.normal(size=800)]).astype(np.float32)
    y = np.array([text.split().count("late") > 2 for text in texts], dtype=float)
    trees = fit_trees(X, y, tokens=tokens)
    module = as_module(trees, BINARY, tokens)
    assert len(trees.words) == 5
    columns = columns_of(X, tokens, trees.words)
    late = list(trees.words).index(int(word_numbers(["late"])[0, 0]))
    assert columns[:, 2 + late].tolist() == [text.split().count("late") for text in texts]
    assert outputs_of(module, X) == pytest.approx(margins(trees, columns), abs=1e-5)
    strange = X.copy()
    strange[:, tokens] = word_numbers(["never heard of", "", None, "late late late late"] * 200)
    theirs = margins(trees, columns_of(strange, tokens, trees.words))
    assert outputs_of(module, strange) == pytest.approx(theirs, abs=1e-5)


def test_only_the_most_frequent_words_have_a_column():
    numbers = word_numbers([f"word{n // 3} common" for n in range(3_000)])
    found = frequent_words(numbers, range(WORDS))
    assert len(found) == 300
    assert found[0] == word_numbers(["common"])[0, 0]
    assert 0 not in found


def test_as_many_trees_are_fitted_as_the_rows_held_back_ask_for():
    X, told = make(1_200)
    stopped = boosted_trees(X[:900], told[:900], task=MEASURED, valid=(X[900:], told[900:]))
    assert 5 < stopped.rounds < 1_000
    assert stopped.booster.num_boosted_rounds() == stopped.rounds
    again = boosted_trees(X[:900], told[:900], task=MEASURED, rounds=stopped.rounds)
    assert outputs_of(as_module(again, MEASURED), X) == pytest.approx(
        outputs_of(as_module(stopped, MEASURED), X), abs=1e-5
    )


def test_the_same_rows_give_the_same_trees_and_rows_that_weigh_nothing_are_not_there():
    X, told = make()
    y = (told > 0).astype(float)
    one, two = (outputs_of(as_module(fit_trees(X, y), BINARY), X) for _ in range(2))
    assert np.array_equal(one, two)
    weight = np.where(np.arange(len(y)) < 1_000, 2.0, 0.0)
    wrong = np.where(weight > 0, y, 1 - y)
    weighed = outputs_of(as_module(fit_trees(X, wrong, weight=weight), BINARY), X)
    assert np.corrcoef(weighed, one)[0, 1] > 0.9


def test_the_module_can_be_exported_for_any_number_of_rows():
    X, told = make(300)
    module = as_module(fit_trees(X, (told > 0).astype(float)), BINARY)
    rows = ({0: torch.export.Dim.DYNAMIC},)
    exported = torch.export.export(module, (torch.from_numpy(X[:2]),), dynamic_shapes=rows).module()
    for n in (1, 5, 300):
        assert exported(torch.from_numpy(X[:n])).numpy() == pytest.approx(outputs_of(module, X[:n]), abs=1e-6)

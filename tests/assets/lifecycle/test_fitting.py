"""What is fitted finds what is there to find, repeats itself by its seed, and says when it cannot."""

import numpy as np
import pytest
import torch

from assets.declaration import Training
from assets.lifecycle.fitting import Head, best_threshold, calibrate, choose, fit, outputs_of, preprocessing
from assets.lifecycle.metrics import roc_auc
from assets.lifecycle.networks import bin_edges

RECIPE = Training(batch_size=128, max_epochs=4)


def make(n: int = 3_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose chance has a sharp step and a slope, some of them missing."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4)).astype(np.float32)
    y = (rng.random(n) < 1 / (1 + np.exp(-(3 * (X[:, 0] > 1) + X[:, 1] - 1)))).astype(float)
    X[rng.random(n) < 0.1, 2] = np.nan
    return X, y


def test_it_finds_the_step_and_the_slope():
    X, y = make()
    X_new, y_new = make(seed=1)
    network = fit(X, y, recipe=RECIPE, epochs=6)
    best = 3 * (X_new[:, 0] > 1) + X_new[:, 1]
    assert roc_auc(y_new, outputs_of(network, X_new)) > roc_auc(y_new, best) - 0.02


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    X, y = make(600)
    one, two = (fit(X, y, recipe=RECIPE, epochs=2).state_dict() for _ in range(2))
    other = fit(X, y, recipe=Training(batch_size=128, seed=1), epochs=2).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_fitting_leaves_the_global_random_state_as_it_was():
    X, y = make(300)
    before = torch.random.get_rng_state()
    fit(X, y, recipe=RECIPE, epochs=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_loss_that_is_no_number_is_an_error_with_a_mend():
    X, y = make(300)
    recipe = Training(batch_size=64, learning_rate=1e30)
    with pytest.raises(FloatingPointError, match="lower the learning rate, or look for absurd feature values"):
        fit(X, y, recipe=recipe, epochs=3)


def test_each_epoch_says_a_line():
    X, y = make(300)
    lines: list[str] = []
    fit(X, y, recipe=RECIPE, epochs=2, log=lines.append)
    assert [line.split(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert "300 rows" in lines[0]


def test_what_is_missing_is_filled_with_the_median_and_marked():
    rows = torch.tensor([[1.0, 5.0], [2.0, float("nan")], [3.0, 7.0], [9.0, 7.0]])
    made = preprocessing(rows)(torch.tensor([[float("nan"), float("nan")]]))
    assert made.shape == (1, 3), "two features and one indicator: the first was never missing"
    assert made[0, 2] == 1
    known = preprocessing(rows)(torch.tensor([[2.0, 7.0]]))  # the medians
    assert torch.allclose(made[0, :2], known[0, :2])


def test_a_constant_or_empty_feature_harms_nothing():
    X, y = make(500)
    X = np.column_stack([X, np.ones(500), np.full(500, np.nan)]).astype(np.float32)
    assert np.isfinite(outputs_of(fit(X, y, recipe=RECIPE, epochs=1), X)).all()


def test_edges_are_in_order_apart_and_where_the_target_changes():
    rng = np.random.default_rng(0)
    values = rng.normal(size=20_000).astype(np.float32)
    edges = bin_edges(values, (values > 2.5).astype(np.float32))
    assert (np.diff(edges) > 1e-4).all()
    assert np.abs(edges - 2.5).min() < 0.05, "quantiles alone would not have one there"
    assert len(bin_edges(np.zeros(100, np.float32), np.zeros(100))) == 2


def test_the_calibrator_makes_frequencies_and_keeps_the_order():
    rng = np.random.default_rng(0)
    truth = rng.normal(-2, 1.5, 50_000)
    y = (rng.random(50_000) < 1 / (1 + np.exp(-truth))).astype(float)
    found = calibrate(truth * 3 + 4, y)  # logits that are far too sure
    assert abs(found(truth * 3 + 4).mean() - y.mean()) < 0.002
    assert abs(found.slope - 1 / 3) < 0.02
    assert calibrate(-truth, y) == Head(), "never one that turns the order around"


def test_the_threshold_gives_the_best_f1():
    rng = np.random.default_rng(0)
    p = rng.random(400)
    y = (rng.random(400) < p**3).astype(float)

    def f1(threshold: float) -> float:
        alerts = p >= threshold
        return 2 * (alerts & (y == 1)).sum() / (alerts.sum() + y.sum())

    assert f1(best_threshold(p, y)) == pytest.approx(max(f1(t) for t in p))


def test_the_choice_is_made_on_the_folds_and_kept_with_its_curves():
    X, y = make(1_200)
    folds = [(np.arange(0, 600), np.arange(600, 900)), (np.arange(300, 900), np.arange(900, 1_200))]
    choice = choose(X, y, folds, recipe=RECIPE)
    curves = choice.curves["average_precision"]
    assert set(curves) == {"fold 1", "fold 2"}
    assert all(len(curve) == 4 for curve in curves.values())
    mean = np.mean(list(curves.values()), axis=0)
    assert choice.epochs == int(mean.argmax()) + 1
    assert choice.score == pytest.approx(mean.max())
    assert 0 < choice.threshold < 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU that torch can use")
def test_a_gpu_is_used_where_there_is_one():
    X, y = make(600)
    lines: list[str] = []
    network = fit(X, y, recipe=RECIPE, epochs=1, log=lines.append)
    assert "(cuda)" in lines[0]
    assert next(network.parameters()).device.type == "cpu", "what is kept runs anywhere"

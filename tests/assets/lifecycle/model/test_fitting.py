"""What is fitted finds what is there to find, repeats itself by its seed, and says when it cannot."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from assets import declaration
from assets.declaration import Training
from assets.lifecycle.model import fitting
from assets.lifecycle.model.fitting import (
    best_threshold,
    fit,
    mixed,
    outputs_of,
    select,
)
from assets.lifecycle.model.learners import ensemble
from assets.lifecycle.model.learners.ensemble import (
    LINEAR,
    NETWORK,
    TREES,
    Fitted,
    Learner,
    boosted_trees,
    linear_model,
    mixture,
)
from assets.lifecycle.model.learners.networks import bin_edges, tabular
from assets.lifecycle.model.learners.preprocessing import preprocessing
from assets.lifecycle.model.learners.trees import as_module
from assets.lifecycle.model.metrics import average_precision, roc_auc
from assets.lifecycle.model.objectives import ScoreTransform
from assets.task import BINARY, Task

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
    with pytest.raises(FloatingPointError, match="lower the learning rate, or look for extreme feature values"):
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
    two = np.repeat(np.float32([-0.3, 2.5]), 10_000)
    assert bin_edges(two, two > 0).tolist() == np.float32([-0.3, 2.5]).tolist(), "nothing to embed: no third edge"


@pytest.mark.parametrize(("features", "size"), [(3, 16), (60, 8), (300, 4)])
def test_the_embeddings_of_many_features_are_as_long_as_those_of_few(features, size):
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(200, features)).astype(np.float32))
    made = tabular(rows, torch.arange(200).remainder(2).float())
    assert made.embedding.get_output_shape() == (features, size)


def test_the_head_makes_frequencies_and_keeps_the_order():
    rng = np.random.default_rng(0)
    truth = rng.normal(-2, 1.5, 50_000)
    y = (rng.random(50_000) < 1 / (1 + np.exp(-truth))).astype(float)
    too_sure = truth * 3 + 4
    _, found = mixed({NETWORK: [too_sure]}, [y], [ScoreTransform()], BINARY)
    assert abs(found(too_sure).mean() - y.mean()) < 0.002
    assert abs(found.slope - 1 / 3) < 0.02
    assert mixed({NETWORK: [-truth]}, [y], [ScoreTransform()], BINARY) == ({NETWORK: 1.0}, ScoreTransform()), (
        "never the other way around"
    )


def test_the_threshold_gives_the_best_f1():
    rng = np.random.default_rng(0)
    p = rng.random(400)
    y = (rng.random(400) < p**3).astype(float)

    def f1(threshold: float) -> float:
        alerts = p >= threshold
        return 2 * (alerts & (y == 1)).sum() / (alerts.sum() + y.sum())

    assert f1(best_threshold(p, y)) == pytest.approx(max(f1(t) for t in p))


FOLDS = [(np.arange(0, 600), np.arange(600, 900)), (np.arange(300, 900), np.arange(900, 1_200))]


def test_the_choice_is_made_on_the_folds_and_kept_with_its_curves():
    X, y = make(1_200)
    choice = select(X, y, FOLDS, recipe=replace(RECIPE, ensemble=()))
    curves = choice.curves["average_precision"]
    assert set(curves) == {"fold 1", "fold 2"}
    assert all(len(curve) == 4 for curve in curves.values())
    mean = np.mean(list(curves.values()), axis=0)
    assert choice.epochs == int(mean.argmax()) + 1
    assert choice.score == pytest.approx(mean.max())
    assert choice.shares == {NETWORK: 1.0}
    assert 0 < choice.threshold < 1


def test_the_score_is_the_mixtures():
    X, y = make(1_200)
    choice = select(X, y, FOLDS, recipe=RECIPE)
    assert set(choice.shares) == {NETWORK, LINEAR, TREES}
    outputs = {
        LINEAR: [outputs_of(linear_model(X[f], y[f], task=BINARY), X[v]) for f, v in FOLDS],
        TREES: [outputs_of(as_module(boosted_trees(X[f], y[f], task=BINARY), BINARY), X[v]) for f, v in FOLDS],
        NETWORK: [outputs_of(fit(X[f], y[f], recipe=RECIPE, epochs=choice.epochs), X[v]) for f, v in FOLDS],
    }
    said = [sum(choice.shares[part] * of[n] for part, of in outputs.items()) for n in range(2)]
    each = [average_precision(y[v], of) for (_, v), of in zip(FOLDS, said, strict=True)]
    assert choice.score == pytest.approx(np.mean(each), abs=1e-3)


@pytest.mark.parametrize(("bend", "least", "most"), [(0.0, 0.7, 1.0), (8.0, 0.0, 0.1)])
def test_the_line_has_the_say_where_the_truth_is_one_and_none_where_it_is_not(bend, least, most):
    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, (2_000, 3)).astype(np.float32)
    y = X @ [1.0, -2.0, 0.0] + bend * np.abs(X[:, 2]) + rng.normal(size=2_000)
    halves = np.arange(1_000), np.arange(1_000, 2_000)
    choice = select(X, y, [halves, halves[::-1]], recipe=Training(max_epochs=8), task=MEASURED)
    assert least <= choice.shares[LINEAR] <= most


MEASURED, CLASSES = Task("regression"), Task("multiclass", ("a", "b", "c"))


def parts_of(task: Task, rows: int = 4_000) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What two parts and one of no use say, and a truth that is .7 of the first and .3 of the second."""
    rng = np.random.default_rng(0)
    shape = (rows, 3) if task.kind == "multiclass" else (rows,)
    one, two, none = (rng.normal(0, 2, shape) for _ in range(3))
    told = 0.7 * one + 0.3 * two
    if task.kind == "regression":
        return {"one": one, "two": two, "none": none}, told + rng.normal(0, 0.5, rows)
    if task.kind == "binary":
        return {"one": one, "two": two, "none": none}, (rng.random(rows) < 1 / (1 + np.exp(-told))).astype(float)
    return {"one": one, "two": two, "none": none}, (told + rng.gumbel(size=shape)).argmax(axis=1).astype(float)


@pytest.mark.parametrize("task", [BINARY, CLASSES, MEASURED], ids=lambda task: task.kind)
def test_the_shares_are_those_that_lose_least_and_what_says_nothing_has_none(task):
    said, y = parts_of(task)
    half = len(y) // 2
    scales = [ScoreTransform(task.kind)] * 2
    shares, _ = mixed({k: [v[:half], v[half:]] for k, v in said.items()}, [y[:half], y[half:]], scales, task)
    assert shares["one"] == pytest.approx(0.7, abs=0.05)
    assert shares["two"] == pytest.approx(0.3, abs=0.05)
    assert shares["none"] == 0
    assert sum(shares.values()) == pytest.approx(1)


def test_folds_of_a_measured_value_are_mixed_in_their_own_scales():
    said, y = parts_of(MEASURED)
    half = len(y) // 2
    scales = [
        ScoreTransform("regression", slope=2.0, offset=5.0),
        ScoreTransform("regression", slope=10.0, offset=-3.0),
    ]
    truth = [scale.slope * part + scale.offset for scale, part in zip(scales, (y[:half], y[half:]), strict=True)]
    shares, _ = mixed({k: [v[:half], v[half:]] for k, v in said.items()}, truth, scales, MEASURED)
    assert shares["one"] == pytest.approx(0.7, abs=0.05)


@pytest.mark.parametrize("task", [BINARY, CLASSES, MEASURED], ids=lambda task: task.kind)
def test_a_mixture_says_what_its_parts_say_by_share_and_is_exported_as_one_for_any_number_of_rows(task):
    X, chance = make(400)
    told = chance + np.nan_to_num(X[:, 1])
    y = {"binary": chance, "multiclass": np.digitize(told, [-0.5, 1.0]).astype(float), "regression": told}[task.kind]
    parts = {
        NETWORK: fit(X, y, recipe=Training(batch_size=64), epochs=1, task=task),
        LINEAR: linear_model(X, y, task=task),
        TREES: as_module(boosted_trees(X, y, task=task, rounds=20), task),
    }
    shares = {NETWORK: 0.2, LINEAR: 0.3, TREES: 0.5}
    both = mixture(parts, shares)
    said = sum(shares[name] * outputs_of(part, X) for name, part in parts.items())
    assert outputs_of(both, X) == pytest.approx(said, abs=1e-5)
    rows = ({0: torch.export.Dim.DYNAMIC},)
    exported = torch.export.export(both, (torch.from_numpy(X[:2]),), dynamic_shapes=rows).module()
    for n in (1, 7, 400):
        with torch.no_grad():
            assert exported(torch.from_numpy(X[:n])).numpy() == pytest.approx(said[:n], abs=1e-5)
    assert mixture({LINEAR: parts[LINEAR]}, {NETWORK: 0.0, LINEAR: 1.0}) is parts[LINEAR]


@pytest.mark.parametrize("part", ["network", "linear", "trees"])
def test_rows_without_weight_are_as_if_they_were_not_there(part):
    X, y = make(1_500)
    wrong = np.arange(1_500) >= 1_000
    y = np.where(wrong, 1 - y, y)
    weight = np.where(wrong, 0.0, 1.5)

    def of(X, y, weight=None):
        if part == "network":
            return fit(X, y, recipe=RECIPE, epochs=4, weight=weight)
        if part == "linear":
            return linear_model(X, y, task=BINARY, weight=weight)
        return as_module(boosted_trees(X, y, task=BINARY, weight=weight), BINARY)

    right, weighed, misled = (
        roc_auc(make(seed=1)[1], outputs_of(module, make(seed=1)[0]))
        for module in (of(X[:1_000], y[:1_000]), of(X, y, weight), of(X, y))
    )
    assert weighed > right - 0.02
    assert misled < right - 0.01


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU that torch can use")
def test_a_gpu_is_used_where_there_is_one():
    X, y = make(600)
    lines: list[str] = []
    network = fit(X, y, recipe=RECIPE, epochs=1, log=lines.append)
    assert "(cuda)" in lines[0]
    assert next(network.parameters()).device.type == "cpu", "what is kept runs anywhere"


def test_after_an_error_the_fits_that_have_not_begun_are_dropped(monkeypatch):
    begun = []

    def slow(X, y, **_):
        begun.append(len(X))
        time.sleep(0.3)
        raise RuntimeError("its result is not asked for")

    def broken(X, y):
        raise ValueError("no layers")

    monkeypatch.setattr(ensemble, "linear_model", slow)
    monkeypatch.setattr(ensemble, "boosted_trees", slow)
    X, y = make(300)
    folds = [(np.arange(200), np.arange(200, 300))] * 4
    with pytest.raises(ValueError, match="no layers"):
        select(X, y, folds, recipe=RECIPE, network=broken)
    assert len(begun) < 8


class Halves(Learner):
    """Knows nothing but the sign of the first feature."""

    def fit(self, X, y, *, task, seed, tokens=(), weight=None, valid=None, rounds=None):
        class Sign(torch.nn.Module):
            def forward(self, x):
                return torch.nan_to_num(x[:, 0]).sign()

        return Fitted(Sign())


def test_another_learner_joins_by_its_name(monkeypatch):
    monkeypatch.setattr(fitting, "LEARNERS", {"halves": Halves()})
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 3)).astype(np.float32)
    y = (X[:, 0] > 0).astype(float)
    folds = [(np.arange(400), np.arange(400, 600))]
    selection = select(X, y, folds, recipe=replace(RECIPE, ensemble=("halves",)))
    assert set(selection.shares) == {"halves", NETWORK}
    assert selection.shares["halves"] > 0.1
    assert selection.score > 0.99


def test_what_a_declaration_may_name_is_what_there_is():
    assert set(declaration.LEARNERS) == set(ensemble.LEARNERS)


def test_held_out_scores_use_nothing_of_their_own_fold():
    """Epochs, weights and head come from the other fold; the network does not stop early, so it is the same, too."""
    X, y = make(900)
    fitted, one, other = np.arange(300), np.arange(300, 600), np.arange(600, 900)
    recipe = Training(batch_size=128, max_epochs=3, ensemble=("linear",))
    changed = y.copy()
    changed[one] = 1 - y[one]
    before, after = (select(X, truth, [(fitted, one), (fitted, other)], recipe=recipe) for truth in (y, changed))
    assert np.array_equal(before.held_out[0], after.held_out[0])
    assert not np.array_equal(before.held_out[1], after.held_out[1])
    alone = select(X, y, [(fitted, one)], recipe=recipe)
    assert average_precision(y[one], alone.held_out[0]) == pytest.approx(alone.score), "one fold has no other"


def test_learners_that_are_known_are_not_fitted_again():
    X, y = make(600)
    folds = [(np.arange(300), np.arange(300, 600)), (np.arange(300, 600), np.arange(300))]
    recipe = Training(batch_size=128, max_epochs=2, ensemble=("linear",))
    learnt: dict[str, list] = {}
    first = select(X, y, folds, recipe=recipe, learnt=learnt)
    assert set(learnt) == {LINEAR}
    learnt[LINEAR] = [(np.zeros(300), None)] * 2
    again = select(X, y, folds, recipe=recipe, learnt=learnt)
    assert first.shares[LINEAR] > 0
    assert again.shares[LINEAR] == 0 or again.score != first.score


def test_arguments_of_the_network_come_from_the_recipe():
    X, y = make(300)
    seen = {}

    def network(X, y, *, width: int = 1):
        seen["width"] = width
        return torch.nn.Sequential(torch.nn.Linear(X.shape[1], 1), torch.nn.Flatten(0))

    fit(X, y, recipe=replace(RECIPE, network_arguments={"width": 7}), epochs=1, network=network)
    assert seen == {"width": 7}
    blocks = [
        sum(
            p.numel() for p in fit(X, y, recipe=replace(RECIPE, network_arguments={"blocks": n}), epochs=1).parameters()
        )
        for n in (1, 3)
    ]
    assert blocks[0] < blocks[1]

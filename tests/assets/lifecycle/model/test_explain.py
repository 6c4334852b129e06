"""Contributions add up to the score, for every kind of target, and are the Shapley values worked out by hand."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest
import torch
from pandera.typing.pandas import Series

from assets.declaration import Features, Table, Training
from assets.lifecycle.data.features import compute_features, features_of
from assets.lifecycle.model.explain import TOLERANCE, ExplanationError, explain, groups_of
from assets.lifecycle.model.fitting import fit
from assets.lifecycle.model.learners.ensemble import LINEAR, NETWORK, TREES, boosted_trees, linear_model, mixture
from assets.lifecycle.model.learners.trees import as_module
from assets.lifecycle.model.objectives import ScoreTransform, objective_of
from assets.lifecycle.model.version.bundle import BACKGROUND, Bundle, BundleError
from resources.sources import CsvFile
from tests.declarations.readings import Readings, plain, readings

ROWS = 300


class Notes(Readings):
    """A reading with a number that may be missing, and what the reader wrote."""

    pressure: Series[float] = pa.Field(nullable=True)
    note: Series[str]


def noted(seed: int = 0) -> pd.DataFrame:
    frame, rng = readings(ROWS, seed=seed), np.random.default_rng(seed)
    words = rng.choice(["leak", "dry", "rust", "fine", "old"], (ROWS, 3))
    pressure = np.where(rng.random(ROWS) < 0.2, np.nan, rng.normal(size=ROWS))
    pressure[0] = np.nan
    return frame.assign(pressure=pressure, note=[" ".join(row) for row in words])


def notes_model(target: str):
    table = Table(name="readings", source=CsvFile(path="x.csv"), key="reading_id", contract=Notes)
    return plain(table=table, target=target)


def ensemble(X: np.ndarray, y: np.ndarray, model) -> torch.nn.Module:
    """A network, a linear model and a few trees, all of which read the text."""
    tokens = features_of(model).word_positions
    how = {"task": model.task, "tokens": tokens}
    parts = {
        NETWORK: fit(X, y, recipe=Training(members=1, batch_size=ROWS), epochs=1, **how),
        LINEAR: linear_model(X, y, **how),
        TREES: as_module(boosted_trees(X, y, rounds=5, seed=0, **how), model.task, tokens),
    }
    return mixture(parts, {NETWORK: 0.4, LINEAR: 0.3, TREES: 0.3})


def saved(folder, module, model, background, head=None) -> Bundle:
    Bundle.save(folder, module=module, model=model, feature_names=features_of(model).names,
                head=head or ScoreTransform(model.task.kind), threshold=0.5, fitted={},
                background=background)  # fmt: skip
    return reread(folder, model)


def reread(folder, model) -> Bundle:
    bundle = Bundle.load(folder)
    bundle.model = model  # the package of these declarations has more than one
    return bundle


@pytest.fixture(scope="module", params=["faulty", "site", "level"], ids=["binary", "classes", "measured"])
def version(request, tmp_path_factory) -> tuple[Bundle, np.ndarray]:
    """An ensemble of network, linear model and trees, and some rows of its features."""
    model, rows = notes_model(request.param), noted()
    events = {name: rows[name].to_numpy() for name in model.table.columns if name != model.target}
    features = features_of(model)
    X = compute_features(features, events, np.arange(ROWS))
    y = model.task.codes(rows[model.target]).to_numpy()
    folder = tmp_path_factory.mktemp(model.task.kind) / "1"
    head = replace(objective_of(model.task).target(y)[1], slope=1.5)
    return saved(folder, ensemble(X, y, model), model, X[:64], head), X


def test_the_contributions_of_an_ensemble_add_up_to_the_score(version):
    bundle, X = version
    found = explain(bundle, features_of(bundle.model), X[:5])
    assert np.isnan(X[:5]).any(), "some values are missing"
    assert found.contributions.shape[:2] == (5, len(found.names))
    added = bundle.head.score_of(found.base + found.contributions.sum(axis=1))
    unit = bundle.head.slope if found.kind == "regression" else 1.0
    np.testing.assert_allclose(added, bundle.predict(X[:5]), rtol=0, atol=TOLERANCE * unit)
    assert np.abs(found.contributions).max() > 0.01 * unit


def test_the_words_of_a_text_and_the_categories_of_a_column_are_one_feature(version):
    bundle, X = version
    names = set(explain(bundle, features_of(bundle.model), X[:1]).names)
    assert names == {"level", "site", "faulty", "pressure", "note", "read_at"} - {bundle.model.target}


def test_what_it_says_as_json_adds_up_too(version):
    bundle, X = version
    (said,) = json.loads(json.dumps(explain(bundle, features_of(bundle.model), X[:1]).to_json(), allow_nan=False))
    first = next(iter(said["contributions"].values()))
    if bundle.task.kind == "multiclass":
        raised = np.exp([
            said["base"][name] + sum(one[name] for one in said["contributions"].values()) for name in bundle.task.names
        ])  # fmt: skip
        assert list(said["score"].values()) == pytest.approx(raised / raised.sum(), abs=TOLERANCE)
        assert sum(first.values()) == pytest.approx(0, abs=1e-6), "a constant on all classes changes no score"
        return
    output = said["base"] + sum(said["contributions"].values())
    assert output == pytest.approx(said["output"])
    score = 1 / (1 + math.exp(-output)) if bundle.task.kind == "binary" else output
    assert said["score"] == pytest.approx(score, abs=TOLERANCE * bundle.head.slope)
    assert abs(first) == max(map(abs, said["contributions"].values())), "the largest is first"


def test_the_same_row_has_the_same_contributions_alone_and_among_others(version):
    bundle, X = version
    alone, among = explain(bundle, features_of(bundle.model), X[3:4]), explain(bundle, features_of(bundle.model), X[:5])
    np.testing.assert_allclose(alone.contributions[0], among.contributions[3], rtol=0, atol=1e-6)


NAMES = ("a", "b", "c")
THREE = plain(features=Features(compute=lambda events, wanted: {}, lookback_days=0, names=NAMES))


class Line(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nan_to_num(x) @ torch.tensor([2.0, -1.0, 0.5])


class Together(torch.nn.Module):
    """The features have no effect of their own; missing values count 3."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.nan_to_num(x, nan=3.0)
        return x[:, 0] * x[:, 1] + torch.where(x[:, 1] > x[:, 2], 1.0, 0.0)


def by_hand(module, row, background):
    """Shapley values as they are defined: over all orders and background rows."""
    given = np.zeros(3)
    orders = list(itertools.permutations(range(3)))
    for order, other in itertools.product(orders, background):
        at = other.copy()
        for i in order:
            before = module(torch.tensor(at[None])).item()
            at[i] = row[i]
            given[i] += module(torch.tensor(at[None])).item() - before
    return given / len(orders) / len(background)


def test_the_contributions_of_a_line_are_exact(tmp_path):
    rng = np.random.default_rng(0)
    background, row = rng.normal(size=(20, 3)).astype(np.float32), np.array([[1.0, np.nan, -2.0]], np.float32)
    found = explain(
        saved(tmp_path / "1", Line(), THREE, background, ScoreTransform(slope=3.0, offset=-1.0)), THREE.features, row
    )
    by_weight = 3 * np.array([2, -1, 0.5]) * (np.nan_to_num(row[0]) - background.mean(axis=0))
    np.testing.assert_allclose(found.contributions[0], by_weight, atol=1e-5)
    assert found.base == pytest.approx(3 * (background.mean(axis=0) @ [2, -1, 0.5]) - 1, abs=1e-5)


def test_of_features_that_act_together_the_contributions_are_those_of_all_orders(tmp_path):
    rng = np.random.default_rng(0)
    background, row = rng.normal(size=(64, 3)).astype(np.float32), np.array([[1.5, np.nan, -2.0]], np.float32)
    background[3, 0] = np.nan
    expected = by_hand(Together(), row[0], background)
    found = explain(saved(tmp_path / "1", Together().eval(), THREE, background), THREE.features, row)
    np.testing.assert_allclose(found.contributions[0], expected, atol=0.08 * np.abs(expected).max())


def test_features_of_one_origin_are_replaced_together(tmp_path):
    model = replace(THREE, features=replace(THREE.features, origins=("a", "pair", "pair")))
    background, row = np.zeros((1, 3), np.float32), np.array([[1, 1, 1]], np.float32)
    bundle = saved(tmp_path / "1", Line(), model, background)
    assert groups_of(model.features)[0] == ("a", "pair")
    np.testing.assert_allclose(explain(bundle, features_of(bundle.model), row).contributions, [[2.0, -0.5]], atol=1e-6)


def test_words_are_explained_by_text_without_origins():
    features = Features(
        compute=lambda e, w: {}, lookback_days=0, names=("a", "t#0", "t#1", "b#1"), words=("t#0", "t#1")
    )
    assert features.explained == ("a", "t", "t", "b#1")


def test_a_version_without_background_rows_says_what_to_do(tmp_path):
    bundle = saved(tmp_path / "1", Line(), THREE, None)
    with pytest.raises(ExplanationError, match=r"'meter' was trained before.*train it again"):
        explain(bundle, THREE.features, np.zeros((1, 3), np.float32))


def test_damaged_background_rows_are_named(tmp_path):
    bundle = saved(tmp_path / "1", Line(), THREE, np.zeros((2, 3)))
    (tmp_path / "1" / BACKGROUND).write_bytes(b"half")
    with pytest.raises(BundleError, match=r"background\.npy: damaged"):
        explain(bundle, THREE.features, np.zeros((1, 3), np.float32))


class Alone(torch.nn.Module):
    """Answers otherwise when a row is not alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nan_to_num(x).sum(dim=1) + x.shape[0]


def test_what_does_not_add_up_is_no_explanation(tmp_path):
    bundle = saved(tmp_path / "1", Alone().eval(), THREE, np.zeros((4, 3)))
    with pytest.raises(ExplanationError, match="do not add up to the score"):
        explain(bundle, THREE.features, np.ones((1, 3), np.float32))

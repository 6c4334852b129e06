"""The recipe of a version is fitted again as it was: the declared one, or what tuning found."""

import json
from dataclasses import replace

import pytest

from assets.declaration import Tuning
from assets.lifecycle.model.refit import RefitError, refit, with_tuned
from assets.lifecycle.model.version.bundle import Facts
from assets.search_space import Choice, Range
from tests.declarations.readings import plain

SPACE = {"learning_rate": Range(1e-3, 2e-2, log=True), "ensemble": Choice(("linear",), ("linear", "trees"))}
MODEL = plain(tuning=Tuning(space=SPACE))


def facts(toy_bundle, **fitted) -> Facts:
    then = Facts.read(toy_bundle)
    return replace(then, fitted={**then.fitted, **json.loads(json.dumps(fitted))})  # as they come from the file


def test_a_version_with_the_declared_recipe_is_fitted_with_it(toy_bundle):
    assert with_tuned(MODEL, facts(toy_bundle)) is MODEL
    assert with_tuned(MODEL, facts(toy_bundle, tuned={}, chosen={}, study="")) is MODEL


def test_a_tuned_recipe_survives_the_file_of_the_version(toy_bundle):
    values = {"learning_rate": 0.00312, "ensemble": ("linear", "trees")}
    chosen = {name: SPACE[name].stored(value) for name, value in values.items()}
    again = with_tuned(MODEL, facts(toy_bundle, tuned=values, chosen=chosen))
    assert again.training == MODEL.training.with_values(values)
    assert again.training != MODEL.training


@pytest.mark.parametrize(
    ("fitted", "reason"),
    [
        ({"tuned": {"learning_rate": 0.003}}, "tuned before versions recorded how to use such a recipe again"),
        (
            {"tuned": {"depth": 3}, "chosen": {"depth": 3}},
            "the search space of meter has no depth, which the recipe has",
        ),
    ],
)
def test_a_recipe_that_cannot_be_used_again_is_refused(toy_bundle, fitted, reason):
    with pytest.raises(RefitError, match=reason):
        with_tuned(MODEL, facts(toy_bundle, **fitted))


def test_a_private_version_without_its_noise_cannot_be_fitted_again(toy_bundle, tmp_path):
    with pytest.raises(RefitError, match=r"its noise was not kept.*repeatable=True"):
        refit(MODEL, None, facts(toy_bundle, privacy={"epsilon": 3.0, "repeatable": False}), tmp_path / "out")
    assert not (tmp_path / "out").exists()

"""Which recipe training uses: a tuning result holds for the declaration that it was found with, and for no other."""

import json
from dataclasses import replace

import pandas as pd

from assets.lifecycle.model.recipe import fingerprint, recipe_in_use
from assets.search_space import Choice, Range, Tuning
from tests.declarations.tunable import SPACE, tunable

MODEL = tunable({"blind": True})


def result(model=MODEL, **chosen):
    stored = {name.replace("network_", "network."): value for name, value in chosen.items()}
    return pd.DataFrame(
        {"chosen": [json.dumps(stored)], "study": ["meter-1"], "declaration": [fingerprint(model)], "score": [0.5]}
    )


def test_the_tuned_values_are_in_use():
    recipe = recipe_in_use(MODEL, result(learning_rate=0.1, network_blind=False))
    assert recipe.model.training.learning_rate == 0.1
    assert recipe.model.training.network_arguments == {"blind": False}
    assert (recipe.tuned, recipe.study) == ({"learning_rate": 0.1, "network.blind": False}, "meter-1")
    assert recipe.reason == "tuned: learning_rate 0.1, network.blind False (study meter-1)"
    assert recipe.model.name == MODEL.name


def test_without_a_tuning_the_declared_recipe_is_in_use():
    recipe = recipe_in_use(MODEL, pd.DataFrame())
    assert (recipe.model, dict(recipe.tuned), recipe.study) == (MODEL, {}, "")
    assert recipe.reason == "the declared recipe; no tuning was run"


def test_a_search_that_found_nothing_better_leaves_the_declared_recipe():
    recipe = recipe_in_use(MODEL, result())
    assert (recipe.model, dict(recipe.tuned)) == (MODEL, {})
    assert "found none that is clearly better (study meter-1)" in recipe.reason


def test_a_result_of_another_declaration_is_not_used_and_the_reason_says_so():
    found = result(learning_rate=0.1)
    smaller = {"network.blind": Choice(True, False)}
    narrower = {**SPACE, "learning_rate": Range(0.01, 0.09, log=True)}
    for changed in (
        replace(MODEL, training=replace(MODEL.training, weight_decay=0.5)),
        replace(MODEL, tuning=Tuning(space=smaller)),
        replace(MODEL, tuning=Tuning(space=narrower)),
        replace(MODEL, network=lambda X, y, *, blind=False: None),
    ):
        recipe = recipe_in_use(changed, found)
        assert (recipe.model, dict(recipe.tuned)) == (changed, {})
        assert "its result is not used: materialise meter/tuning again" in recipe.reason


def test_another_budget_order_or_schedule_does_not_end_a_result():
    found = result(learning_rate=0.1)
    for changed in (
        Tuning(space=SPACE, trials=99, minutes=1, schedule="0 6 * * MON"),
        Tuning(space=dict(reversed(SPACE.items()))),
    ):
        assert recipe_in_use(replace(MODEL, tuning=changed), found).tuned == {"learning_rate": 0.1}
    tagged = replace(MODEL, training=replace(MODEL.training, tags={"team": "a"}))
    assert recipe_in_use(tagged, found).tuned == {"learning_rate": 0.1}

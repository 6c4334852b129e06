"""A search space that cannot work is refused with one sentence, when the declaration is loaded."""

import inspect
from dataclasses import replace

import pytest

from assets.declaration import DeclarationError, Training
from assets.lifecycle.model.learners.networks import tabular
from assets.search_space import DEFAULT_NETWORK_ARGUMENTS, SEARCHABLE, Choice, Range, Tuning
from tests.declarations.readings import VARIANTS, plain, stream
from tests.declarations.tunable import line


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("learning_rat", Range(0.1, 0.2), "name one of learning_rate, weight_decay"),
        ("seed", Choice(0, 1), "name one of learning_rate, weight_decay"),
        ("holdout", Choice(0.1, 0.2), "or network.<argument>"),
        ("network.width", Choice(8, 16), "name a keyword argument of the network: blocks, dropout"),
        ("network.members", Choice(8, 16), "name a keyword argument of the network: blocks, dropout"),
        ("learning_rate", (0.1, 0.2), "give a Range(low, high) or a Choice(value, …)"),
        ("batch_size", Choice(), "name at least one value, each once"),
        ("batch_size", Choice(64, 64), "name at least one value, each once"),
        ("learning_rate", Range(0.2, 0.1), "`low` must be below `high`"),
        ("learning_rate", Range(0.1, 0.1), "`low` must be below `high`"),
        ("learning_rate", Range(0.1, float("inf")), "`low` must be below `high`"),
        ("learning_rate", Range("a", "b"), "give two numbers"),
        ("weight_decay", Range(0.0, 0.1, log=True), "a logarithmic range begins above 0"),
        ("weight_decay", Range(0.0, 0.1, step=1.0), "`step` must be above 0"),
        ("batch_size", Range(0.5, 9.5), "give a whole number of at least 1"),
        ("members", Choice(0, 4), "give a whole number of at least 1"),
        ("learning_rate", Choice("fast"), "give a number above 0"),
        ("learning_rate", Range(-1.0, 1.0), "give a number above 0"),
        ("weight_decay", Choice(-0.1), "give a number of at least 0"),
        ("ensemble", Choice(("linear",), ("forest",)), "name 'linear', 'trees', both or none"),
        ("half_life_days", Range(1.0, 9.0), "only with `table.time`"),
    ],
)
def test_a_space_that_cannot_work_is_refused(name, values, said):
    with pytest.raises(DeclarationError, match=r"^model 'meter': tuning\.space\['") as refused:
        plain(tuning=Tuning(space={name: values}))
    assert name in str(refused.value)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("tuning", "said"),
    [
        (Tuning(space={}), r"tuning\.space={} is invalid: name at least one setting"),
        (Tuning(trials=0), r"tuning\.trials=0 is invalid"),
        (Tuning(trials=2.5), r"tuning\.trials=2\.5 is invalid"),
        (Tuning(minutes=0), r"tuning\.minutes=0 is invalid"),
        (Tuning(schedule="weekly"), r"tuning\.schedule='weekly' is invalid: give a cron"),
    ],
)
def test_a_budget_that_cannot_work_is_refused(tuning, said):
    with pytest.raises(DeclarationError, match=said):
        plain(tuning=tuning)


def test_what_training_refuses_in_a_space_it_refuses_in_a_recipe():
    for wrong, said in (
        ({"batch_size": 0}, "batch_size=0"),
        ({"max_epochs": 1.5}, "max_epochs=1.5"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0"),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
        ({"network_arguments": {"width": 8}}, r"network_arguments\['width'\]=8"),
    ):
        with pytest.raises(DeclarationError, match=rf"training\.{said} is invalid"):
            plain(training=Training(**wrong))


def test_arguments_are_those_of_the_models_own_network():
    assert plain(network=line, tuning=Tuning(space={"network.blind": Choice(True, False)}))
    with pytest.raises(DeclarationError, match="keyword argument of the network: blind, broken"):
        plain(network=line, tuning=Tuning(space={"network.dropout": Choice(0.1)}))
    with pytest.raises(DeclarationError, match="keyword argument of the network: it has none"):
        plain(network=lambda X, y: None, tuning=Tuning(space={"network.dropout": Choice(0.1)}))
    with pytest.raises(DeclarationError, match="keyword argument of the network"):
        plain(network=line, tuning=Tuning(space={"network.X": Choice(0.1)}))
    assert plain(network=lambda X, y, **any_of: None, tuning=Tuning(space={"network.depth": Choice(1, 2)}))


def test_the_default_space_suits_every_kind_of_model():
    for model in [*VARIANTS.values(), plain(network=line), stream(network=line)]:
        assert model.search_space
    assert "network.dropout" in plain().search_space
    assert not any(name.startswith("network.") or name == "members" for name in plain(network=line).search_space)


def test_the_arguments_of_the_default_network_are_those_that_nothing_else_sets():
    parameters = inspect.signature(tabular).parameters.values()
    keywords = {one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}
    assert keywords == {*DEFAULT_NETWORK_ARGUMENTS, "texts", "members"}
    assert set(SEARCHABLE) <= set(vars(Training()))


def test_values_become_settings_of_the_recipe():
    recipe = Training(network_arguments={"blocks": 1}).with_values({"members": 4, "network.dropout": 0.1})
    assert recipe == replace(Training(), members=4, network_arguments={"blocks": 1, "dropout": 0.1})
    again = Training(network_arguments={"dropout": 0.1}).with_values({"network.blocks": 1, "members": 4})
    assert str(again) == str(recipe), "the order of settings makes no other version"


def test_a_stored_value_becomes_the_setting_again_or_is_refused():
    ensembles = Choice((), ("linear",), None, 0.1)
    for setting in ensembles.values:
        assert ensembles.value(ensembles.stored(setting)) == setting
    assert Range(1, 8).value(3.0) == 3
    assert isinstance(Range(1, 8).value(3.0), int)
    assert Range(1.0, 8.0).value(3) == 3.0
    for dimension, stored in ((ensembles, "trees"), (Range(1, 8), 9), (Range(1, 8), None), (Range(1.0, 2.0), 0.9)):
        with pytest.raises(ValueError, match=r"not in"):
            dimension.value(stored)

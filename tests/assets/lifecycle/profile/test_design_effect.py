"""How much less the rows of few entities say: known worlds give known design effects."""

import sys

import numpy as np
import pytest

from assets.lifecycle.profile import design_effect
from assets.lifecycle.profile.design_effect import DesignEffect, measure, of_residuals, thinned
from assets.lifecycle.profile.histograms import Bins

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def same_draws(monkeypatch):
    """Each test has its own draws, whichever test ran before it in its process."""
    monkeypatch.setattr(sys.modules[__name__], "RNG", np.random.default_rng(0))


KINDS = [lambda who: who, lambda who: (who > 0).astype(float)]
"""A number, and a column of two values, of what an entity is like."""


def effect(values: np.ndarray, entity: np.ndarray, day: np.ndarray | None = None) -> DesignEffect:
    return measure(Bins.of(values), values, {"customer": entity}, day)


@pytest.mark.parametrize("kind", KINDS)
def test_independent_rows_have_none(kind):
    values = kind(RNG.normal(size=20_000))
    found = effect(values, RNG.integers(0, 1_000, 20_000))
    assert 1 <= found.whole < 1.15
    assert effect(values, np.arange(20_000)).whole == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("of_each", [2, 8, 40])
def test_copies_count_once(kind, of_each):
    who = np.repeat(np.arange(2_000), of_each)
    values = kind(RNG.normal(size=2_000))[who]
    assert effect(values, who).whole == pytest.approx(of_each, rel=0.05)


def test_it_is_the_ratio_of_variances_that_is_seen_over_many_worlds():
    means, ratios = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        who = rng.integers(0, 60, 600)
        values = rng.normal(size=60)[who] + rng.normal(size=600)
        means.append((values > 0).mean())
        found = measure(Bins("category", np.array([0.0, 1.0]), 0, 1), (values > 0).astype(float), {"customer": who})
        ratios.append(found.whole)
    seen = np.var(means) / (0.25 / 600)
    assert np.mean(ratios) == pytest.approx(seen, rel=0.2)


def test_a_day_is_less_bound_than_the_weeks_it_is_of():
    day = np.repeat(np.arange(7), 2_000)
    who = RNG.integers(0, 1_000, 14_000)
    values = RNG.normal(size=1_000)[who]
    found = effect(values, who, day)
    assert 2 < found.day < 5 < 10 < found.whole
    assert found.over(1, 7) == pytest.approx(found.day)
    assert found.over(7, 7) == found.over(14, 7) == pytest.approx(found.whole)
    assert found.over(4, 7) == pytest.approx((found.day + found.whole) / 2)


def test_of_two_kinds_the_one_that_binds_the_rows_more_tells():
    customer, terminal = np.repeat(np.arange(500), 10), np.tile(np.arange(500), 10)
    values = RNG.normal(size=500)[customer]
    both = measure(Bins.of(values), values, {"terminal": terminal, "customer": customer})
    assert both == effect(values, customer)


def test_rows_of_nobody_are_alone():
    who = np.where(np.arange(4_000) < 2_000, np.repeat(np.arange(200), 20), np.nan)
    values = np.where(np.isnan(who), RNG.normal(size=4_000), RNG.normal(size=200)[np.nan_to_num(who).astype(int)])
    assert effect(values, who).whole == pytest.approx((20 + 1) / 2, rel=0.15)
    assert effect(values, np.full(4_000, np.nan)).whole == pytest.approx(1, abs=0.01)


def test_missing_values_hang_together_too():
    who = np.repeat(np.arange(500), 10)
    values = np.where(RNG.random(500)[who] < 0.3, np.nan, RNG.normal(size=5_000))
    assert effect(values, who).whole > 1.3


@pytest.mark.parametrize(
    ("values", "entity"),
    [(np.ones(50), np.arange(50) // 5), (np.arange(50.0), np.zeros(50)), (np.empty(0), np.empty(0)),
     (np.full(50, np.nan), np.arange(50) // 5)],
    ids=["constant", "one entity", "no rows", "all missing"],
)  # fmt: skip
def test_where_nothing_can_be_said_rows_are_taken_as_they_are(values, entity):
    assert effect(values, entity, np.zeros(len(values))) == DesignEffect()


def test_many_entities_are_drawn_from(monkeypatch):
    who = np.repeat(np.arange(4_000), 5)
    values = RNG.normal(size=4_000)[who]
    whole = effect(values, who)
    monkeypatch.setattr(design_effect, "MOST_ENTITIES", 1_000)
    assert effect(values, who).whole == pytest.approx(whole.whole, rel=0.1)


def test_the_fewer_of_an_entity_are_drawn_the_more_each_says():
    who = np.repeat(np.arange(3_000), 20)
    values = RNG.normal(size=3_000)[who]
    drawn = RNG.random(len(who)) < 0.2
    assert effect(values[drawn], who[drawn]).whole == pytest.approx(thinned(20, 0.2), rel=0.1)
    assert thinned(20, 1) == thinned(20, 3) == 20


def test_labels_that_are_wrong_together_have_one():
    customer, terminal = np.repeat(np.arange(1_000), 10), np.tile(np.arange(1_000), 10)
    together = RNG.normal(size=1_000)[customer]
    assert of_residuals(together, {"terminal": terminal, "customer": customer}) == pytest.approx(10)
    assert of_residuals(RNG.normal(size=10_000), {"customer": customer}) == pytest.approx(1, abs=0.15)
    nobody = np.where(customer < 500, customer, np.nan)
    assert of_residuals(together, {"customer": nobody}) == pytest.approx(5.5, rel=0.15)


@pytest.mark.parametrize(
    ("residuals", "who"),
    [(np.zeros(9), np.arange(9) // 3), (np.ones(9), np.zeros(9)), (np.ones(9), np.full(9, np.nan)),
     (np.empty(0), np.empty(0))],
    ids=["nothing is left open", "one entity", "nobody", "no rows"],
)  # fmt: skip
def test_where_nothing_can_be_said_of_labels_they_are_taken_as_they_are(residuals, who):
    assert of_residuals(residuals, {"customer": who}) == of_residuals(residuals, {}) == 1.0

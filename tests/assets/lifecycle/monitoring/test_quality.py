"""Faults of rows at the limits of the declaration: what is just within them is none, what is just beyond them is."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from assets.declaration import Drift
from assets.lifecycle.monitoring.drift_rule import WindowCounts, count
from assets.lifecycle.monitoring.quality import _is_more, faults, level_of_faults
from assets.lifecycle.prediction_format import SCORE
from assets.lifecycle.profile.design_effect import DesignEffect
from assets.lifecycle.profile.reference import ReferenceProfile

RULE = Drift()
USUAL = 10_000


def usual(missing: float = 0.0) -> ReferenceProfile:
    """Numbers from 0 to 1, of which a share is missing, and three categories."""
    number = np.linspace(0, 1, USUAL)
    number[: round(missing * USUAL)] = np.nan
    frame = pd.DataFrame({"number": number, "kind": np.resize([0.0, 1.0, 2.0], USUAL)})
    return ReferenceProfile.build(frame, {SCORE: np.linspace(0, 1, USUAL)})


def of(reference: ReferenceProfile, rows: int, *, rule: Drift = RULE, usual_rows: float | None = None, **said):
    """What is wrong with rows of which the first have the values that are said, ``column=(value, how many)``."""
    frame = pd.DataFrame({
        "number": np.full(rows, 0.5), "kind": np.resize([0.0, 1.0, 2.0], rows), "score": np.full(rows, 0.5),
    })  # fmt: skip
    for column, (value, how_many) in said.items():
        frame.loc[: how_many - 1, column] = value
    return faults(reference, count(reference, [frame]), rule, rows_of_day=rows, usual_rows=usual_rows)


@pytest.mark.parametrize(
    ("rows", "missing", "fault"),
    [(1_000, 49, False), (1_000, 50, True), (20, 3, False), (20, 4, True)],
)
def test_missing_values_are_a_fault_from_the_declared_rise_and_four_rows_on(rows, missing, fault):
    assert ("number" in of(usual(), rows, number=(np.nan, missing))) is fault


@pytest.mark.parametrize(("missing", "fault"), [(1_000, False), (1_300, False), (1_490, False), (1_510, True)])
def test_only_the_rise_of_missing_values_counts(missing, fault):
    found = of(usual(0.1), 10_000, number=(np.nan, missing))
    assert found == ({"number": "15.1% are missing, 10.0% in the reference"} if fault else {})


def test_rows_that_hang_together_show_less():
    reference = usual(0.3)
    assert "number" in of(reference, 1_000, number=(np.nan, 500))
    bound = replace(reference, design_effects={"number": DesignEffect(day=100.0, whole=1.0)}, days=7)
    assert of(bound, 1_000, number=(np.nan, 500)) == {}
    bound = replace(reference, design_effects={"number": DesignEffect(day=1.0, whole=1_000.0)}, days=7)
    assert of(bound, 1_000, number=(np.nan, 500)) == {}


@pytest.mark.parametrize(
    ("rows", "new", "fault"), [(1_000, 4, False), (1_000, 5, False), (1_000, 6, True), (40, 3, False), (40, 4, True)]
)
def test_unknown_categories_are_a_fault_beyond_the_declared_share_and_from_four_rows_on(rows, new, fault):
    assert ("kind" in of(usual(), rows, kind=(7.0, new))) is fault


@pytest.mark.parametrize(
    ("rows", "outside", "fault"),
    [(1_000, 9, False), (1_000, 10, False), (1_000, 11, True), (40, 3, False), (40, 4, True)],
)
@pytest.mark.parametrize("value", [-1.0, 2.0])
def test_values_out_of_range_are_a_fault_beyond_the_declared_share_and_from_four_rows_on(rows, outside, fault, value):
    assert ("number" in of(usual(), rows, number=(value, outside))) is fault


def test_categories_have_no_range():
    assert of(usual(), 1_000, rule=replace(RULE, new=0.5), kind=(7.0, 100)) == {}


def test_a_score_has_no_range_and_columns_after_it_are_looked_at():
    reference = usual()
    first = replace(reference, histograms=dict(reversed(reference.histograms.items())))
    assert next(iter(first.histograms)) == SCORE
    assert set(of(first, 1_000, score=(9.0, 500), number=(9.0, 500))) == {"number"}


def test_a_column_without_a_row_has_no_fault():
    reference = usual()
    counted = count(
        reference, [pd.DataFrame({"number": [9.0] * 9, "score": 0.5})[["number", "score"]].assign(kind=0.0)]
    )
    empty = {**counted.histograms, "kind": reference.histograms["kind"].bins.count(np.empty(0))}
    found = faults(reference, WindowCounts(empty), RULE, rows_of_day=9)
    assert set(found) == {"number"}


@pytest.mark.parametrize(
    ("usual_rows", "fault"), [(1_999, False), (2_000, False), (2_001, True), (500, False), (499, True)]
)
def test_the_declared_share_of_the_usual_rows_is_enough(usual_rows, fault):
    assert ("" in of(usual(), 1_000, usual_rows=usual_rows)) is fault


@pytest.mark.parametrize(
    ("share", "was", "more"), [(0.2, 0.1, False), (0.215, 0.1, True), (0.0, 0.0, False), (0.1, 0.215, False)]
)
def test_a_share_is_more_from_three_and_a_half_standard_errors_on(share, was, more):
    """Of 200 and 300 rows: .100 against 3.5 × .0317, and .115 against 3.5 × .0322."""
    assert _is_more(share, was, 200, 300) is more


def test_where_the_first_window_may_page_no_window_before_it_matters():
    assert level_of_faults({"a": "x"}, [{"b": "x"}], page_after=1) == "page"
    assert level_of_faults({"a": "x"}, [], page_after=1) == "page"
    assert level_of_faults({"a": "x"}, [{"a": "x"}], page_after=3) == "warn"

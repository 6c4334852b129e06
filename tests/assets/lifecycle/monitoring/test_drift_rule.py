"""The rule at its limits: p-values and effects are given, not computed; each limit is tried on both of its sides."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from assets.declaration import Drift
from assets.lifecycle.monitoring import drift_rule as rule_of
from assets.lifecycle.monitoring.drift_rule import DriftResult, EarlierWindow, WindowCounts, compare, count
from assets.lifecycle.prediction_format import PREDICTED, SCORE
from assets.lifecycle.profile.design_effect import DesignEffect, thinned
from assets.lifecycle.profile.histograms import Difference, Histogram, difference
from assets.lifecycle.profile.reference import ReferenceProfile

RULE = Drift(alpha=0.03, page_alpha=0.01, min_effect=0.05, min_importance=0.05, min_rows=300, page_after=2)
ROWS = 400

Given = tuple[float, float]
"""A p-value and an effect."""


@pytest.fixture
def live(monkeypatch):
    """Plays days in a row, of which is given how each column differs, and how it does over several days together."""

    def play(
        days: Sequence[Mapping[str, Given]], together: Mapping[str, Given] | None = None, rule: Drift = RULE,
        importance: Mapping[str, float] | None = None, unwatched: Sequence[dict[str, Histogram]] | None = None,
    ) -> list[DriftResult]:  # fmt: skip
        def given(reference: ReferenceProfile, window: WindowCounts, column: str, drift: Drift) -> Difference:
            if window.days > 1:
                return Difference(*(together or {})[column])
            return Difference(*days[int(window.calendar["number"])][column])

        monkeypatch.setattr(rule_of, "_difference", given)
        frame = pd.DataFrame({column: np.linspace(0, 1, ROWS) for column in days[0]})
        # Of what is not watched, the reference's counts and those of each day.
        usual, *of_day = unwatched or [{}] * (1 + len(days))
        reference = replace(ReferenceProfile.build(frame, {}, importance=importance), unwatched=usual)
        results: list[DriftResult] = []
        before: list[EarlierWindow] = []
        for number in range(len(days)):
            window = WindowCounts({**reference.histograms, **of_day[number]}, {"number": float(number)})
            results.append(compare(reference, window, rule, day=f"day {number}", before=before))
            columns = {column.column: column for column in results[-1].columns}
            before.append(EarlierWindow(f"day {number}", window, True, columns, results[-1].since))
        return results

    return play


STRONG, NONE = (0.001, 0.2), (0.5, 0.01)
WEAK = (0.019, 0.03)
"""Shown alone only weakly: three fifths of the least effect."""


@pytest.mark.parametrize(
    ("given", "drifted"),
    [((0.0299, 0.05), True), ((0.03, 0.5), False), ((0.0, 0.0499), False)],
)
def test_a_column_drifts_below_alpha_and_from_the_least_effect_on(live, given, drifted):
    assert live([{"a": given}])[0].drifted is drifted


def test_the_columns_share_alpha(live):
    [result] = live([{"a": (0.0149, 0.2), "b": (0.0151, 0.2)}])
    assert result.drifted_columns == ["a"]


def test_the_largest_effect_is_named_first(live):
    [result] = live([{"a": (0.001, 0.1), "b": (0.001, 0.3), "c": (0.001, 0.2)}])
    assert result.drifted_columns == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("together", "level"),
    [((0.0099, 0.05), "page"), ((0.01, 0.5), "warn"), ((0.0, 0.0499), "warn")],
)
def test_two_days_in_a_row_page_when_their_rows_together_are_sure(live, together, level):
    """Neither day is sure by itself."""
    days = [{"a": (0.02, 0.2)}, {"a": (0.02, 0.2)}]
    assert [result.level for result in live(days, {"a": together})] == ["warn", level]


@pytest.mark.parametrize(("second", "level"), [((0.0099, 0.05), "page"), ((0.01, 0.2), "warn")])
def test_or_when_each_of_them_is_sure_by_itself(live, second, level):
    assert live([{"a": STRONG}, {"a": second}], {"a": NONE})[1].level == level


@pytest.mark.parametrize(("p_value", "level"), [(0.0049, "page"), (0.0051, "warn")])
def test_the_columns_share_what_a_page_asks_for(live, p_value, level):
    days = [{"a": (0.014, 0.2), "b": NONE}] * 2
    assert live(days, {"a": (p_value, 0.2), "b": NONE})[1].level == level


def test_where_one_window_is_enough_it_pages_on_any_day(live):
    rule = replace(RULE, page_after=1)
    assert [result.level for result in live([{"a": NONE}, {"a": STRONG}], rule=rule)] == ["ok", "page"]


@pytest.mark.parametrize(
    ("second", "together", "level"),
    [
        (WEAK, (0.001, 0.05), "page"),
        ((0.02, 0.03), (0.001, 0.05), "ok"),  # not even weakly
        ((0.019, 0.0299), (0.001, 0.05), "ok"),
        (WEAK, (0.01, 0.05), "ok"),  # together not sure
        (WEAK, (0.001, 0.0501), "ok"),  # the day shows less than three fifths of both
    ],
)
def test_a_weak_day_beside_a_drifted_one_pages_when_both_are_alike_and_sure(live, second, together, level):
    results = live([{"a": (0.001, 0.05)}, {"a": second}], {"a": together})
    assert [result.level for result in results] == ["warn", level]
    assert results[1].since == ("day 0" if level == "page" else "")


@pytest.mark.parametrize(("together", "level"), [(0.06, "page"), (0.0599, "warn")])
def test_what_goes_two_ways_shows_less_together_and_is_not_alike(live, together, level):
    """The first day is weak, the second drifts, and together they are sure."""
    results = live([{"a": (0.04, 0.1)}, {"a": (0.012, 0.1)}], {"a": (0.001, together)})
    assert [result.level for result in results] == ["ok", "warn"], "a day that is not shown at all is none of two"
    results = live([{"a": (0.019, 0.04)}, {"a": (0.012, 0.1)}], {"a": (0.001, together)})
    assert results[1].level == level


def test_two_weak_days_are_none(live):
    assert [result.level for result in live([{"a": WEAK}] * 2, {"a": (0.001, 0.05)})] == ["ok", "ok"]


def test_of_three_days_one_must_drift_and_all_be_alike(live):
    rule = replace(RULE, page_after=3)
    results = live([{"a": (0.001, 0.05)}, {"a": WEAK}, {"a": WEAK}], {"a": (0.001, 0.05)}, rule)
    assert [(result.level, result.since) for result in results] == [("warn", "day 0"), ("ok", ""), ("page", "day 0")]


def test_a_drift_has_begun_on_its_first_day_however_long_it_lasts(live):
    days = [{"a": NONE}, *[{"a": STRONG}] * 3]
    results = live(days, {"a": STRONG})
    assert [result.since for result in results] == ["", "day 1", "day 1", "day 1"]
    results = live(days[:3], {"a": STRONG}, replace(RULE, page_after=4))
    assert [result.since for result in results] == ["", "day 1", "day 1"]


def test_a_drift_of_another_column_begins_anew(live):
    days = [{"a": STRONG, "b": NONE}, {"a": NONE, "b": STRONG}]
    assert [result.since for result in live(days, {"a": NONE, "b": NONE})] == ["day 0", "day 1"]


@pytest.mark.parametrize(("importance", "level"), [({"a": 0.05}, "page"), ({"a": 0.0499}, "warn"), ({}, "page")])
def test_a_column_pages_from_the_least_importance_on(live, importance, level):
    assert live([{"a": STRONG}] * 2, {"a": STRONG}, importance=importance)[1].level == level


def test_a_column_of_unknown_importance_pages_whatever_is_asked_for(live):
    assert live([{"a": STRONG}] * 2, {"a": STRONG}, replace(RULE, min_importance=1.0))[1].level == "page"


@pytest.mark.parametrize(("rows", "judged"), [(299, False), (300, True)])
def test_the_least_rows_are_enough(rows, judged):
    reference = ReferenceProfile.build(pd.DataFrame({"a": np.linspace(0, 1, ROWS)}), {})
    frame = pd.DataFrame({"a": np.linspace(0, 1, rows)})
    assert compare(reference, count(reference, [frame]), RULE).judged is judged


# -- a score that settles --------------------------------------------------------------------------------------------


@pytest.fixture
def settle(live, monkeypatch):
    """A quiet day and one on which scores differ as given, with the differences of what is not watched.

    ``moved``: by unwatched feature, its difference from the reference and, where given, from the day before.
    """

    def play(
        moved: Mapping[str, Sequence[Given]], scores: Mapping[str, Given] | None = None,
        first: Mapping[str, Given] | None = None, together: Mapping[str, Given] | None = None, alone: bool = False,
    ) -> DriftResult:  # fmt: skip
        scores = scores or {SCORE: STRONG}
        quiet = {"a": NONE, **dict.fromkeys(scores, NONE)}
        days = [{**quiet, **(first or {})}, {**quiet, **scores}][alone:]
        some = ReferenceProfile.build(pd.DataFrame({"a": np.linspace(0, 1, ROWS)}), {}).histograms["a"]
        unwatched = [{name: replace(some) for name in moved} for _ in range(1 + len(days))]
        named = {id(counts): (name, number) for number, of in enumerate(unwatched) for name, counts in of.items()}

        def given(before: Histogram, now: Histogram, design_effects: tuple[float, float]) -> Difference:
            name, number = named[id(before)]
            assert name == named[id(now)][0]
            return Difference(*moved[name][0 if number == 0 else 1])

        monkeypatch.setattr(rule_of, "difference", given)
        return live(days, together or dict.fromkeys(quiet, NONE), unwatched=unwatched)[-1]

    return play


STILL = (0.9, 0.0)


@pytest.mark.parametrize(
    ("moved", "settles"),
    [
        ((0.019, 0.12), True),  # three fifths of what the score moved, which is .2
        ((0.0, 0.1199), False),
        ((0.02, 0.3), False),
    ],
)
def test_a_feature_explains_a_score_that_moved_about_as_much(settle, moved, settles):
    result = settle({"u": [moved, STILL], "v": [NONE, STILL]})
    assert (result.level, result.settling) == (("ok", ("u",)) if settles else ("warn", ()))


def test_the_features_after_one_that_explains_nothing_are_looked_at(settle):
    assert settle({"u": [NONE, STILL], "v": [STRONG, STILL]}).settling == ("v",)


def test_on_the_first_window_of_a_version_nothing_can_have_jumped(settle):
    moved = {"u": [STRONG, STRONG], "v": [STRONG, STRONG]}
    assert settle(moved, alone=True).settling == ("u", "v")
    assert settle(moved).settling == (), "on the second it can"


@pytest.mark.parametrize(
    ("jump", "settles"),
    [
        ((0.0049, 0.0599), True),  # half of the .12 that it moved would be a jump
        ((0.0049, 0.06), False),
        ((0.005, 0.5), True),  # two features share what a page asks for
    ],
)
def test_a_jump_is_half_of_the_way_in_one_day_and_sure(settle, jump, settles):
    result = settle({"u": [(0.001, 0.12), jump], "v": [NONE, STILL]})
    assert (result.level, result.settling) == (("ok", ("u",)) if settles else ("warn", ()))


def test_of_two_scores_the_one_that_moved_most_is_to_be_explained(settle):
    scores = {SCORE: (0.001, 0.1), PREDICTED: (0.001, 0.3)}
    assert settle({"u": [(0.001, 0.1), STILL]}, scores).level == "warn"
    assert settle({"u": [(0.001, 0.18), STILL]}, scores).level == "ok"


@pytest.mark.parametrize(("effect", "level"), [(0.0299, "page"), (0.03, "ok")])
def test_a_weak_score_is_explained_by_what_moved_three_fifths_of_the_least_effect(settle, effect, level):
    result = settle(
        {"u": [(0.001, effect), STILL]}, {SCORE: WEAK}, first={"a": STRONG, SCORE: (0.001, 0.05)},
        together={"a": NONE, SCORE: (0.001, 0.05)},
    )  # fmt: skip
    assert result.level == level


# -- what is compared with what --------------------------------------------------------------------------------------


def p_value(result: DriftResult, column: str) -> float:
    return next(one.p_value for one in result.columns if one.column == column)


def test_a_window_that_follows_no_calendar_is_compared_with_all_rows_and_not_with_the_sample():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"weekend": rng.integers(0, 2, 30_000).astype(float)})
    reference = ReferenceProfile.build(frame, {SCORE: rng.random(30_000)}, calendar=("weekend",), max_rows=5_000)
    window = count(reference, [pd.DataFrame({"weekend": np.resize([0.0, 1.0], 500), SCORE: rng.random(500)})])
    expected = difference(reference.histograms[SCORE], window.histograms[SCORE]).p_value
    assert p_value(compare(reference, window, RULE), SCORE) == expected


@pytest.mark.parametrize("weekends", [299, 300])
def test_a_weekend_is_compared_with_weekends_where_there_are_enough_of_them(weekends):
    weekend = (np.arange(2_000) < weekends).astype(float)
    scores = np.random.default_rng(0).random(2_000) + 10 * weekend
    frame = pd.DataFrame({"weekend": weekend})
    reference = ReferenceProfile.build(frame, {SCORE: scores}, calendar=("weekend",))
    reference = replace(reference, design_effects={SCORE: DesignEffect(day=1.0, whole=5.0)})
    now = pd.DataFrame({"weekend": 1.0, SCORE: scores[:weekends] + 0.1}).iloc[:290]
    window = count(reference, [pd.concat([now, now.iloc[:10]])])
    effects = (thinned(5.0, weekends / 2_000), 5.0)
    against = reference.histograms[SCORE].bins.count(scores[:weekends])
    result = compare(reference, window, RULE)
    if weekends < RULE.min_rows:
        assert result.drifted, "with all days a weekend is a drift"
    else:
        expected = difference(against, window.histograms[SCORE], effects).p_value
        assert 0.01 < expected < 0.99, "the test would show nothing"
        assert p_value(result, SCORE) == pytest.approx(expected)
        assert not result.drifted


def test_a_window_knows_its_rows_and_the_calendar_that_all_of_them_share():
    frame = pd.DataFrame({"a": np.linspace(0, 1, ROWS), "weekend": 1.0})
    reference = ReferenceProfile.build(frame, {}, calendar=("weekend",))

    def of(weekend, rows: int = 1) -> WindowCounts:
        return count(reference, [pd.DataFrame({"a": 0.5, "weekend": weekend, "other": 1.0}, index=range(rows))])

    assert of([1.0]).calendar == {"weekend": 1.0}
    assert of([1.0, 1.0, 0.0], 3).calendar == {"weekend": None}
    assert (of(1.0) + of(1.0)).calendar == {"weekend": 1.0}
    assert (of(1.0) + of(0.0)).calendar == {"weekend": None}
    assert count(reference, [pd.DataFrame({"a": [], "weekend": []})]).calendar == {}


def test_features_and_scores_may_come_apart_and_the_longer_counts():
    reference = ReferenceProfile.build(pd.DataFrame({"a": np.linspace(0, 1, ROWS)}), {SCORE: np.linspace(0, 1, ROWS)})
    window = count(reference, [pd.DataFrame({"a": np.ones(7)}), pd.DataFrame({SCORE: np.ones(5)})])
    assert window.rows == 7
    assert WindowCounts({}).rows == 0


def test_the_names_of_the_tests_are_those_that_reports_of_earlier_versions_hold():
    assert rule_of.METHODS == {"number": "binned_ks", "category": "two_sample_chi_square"}

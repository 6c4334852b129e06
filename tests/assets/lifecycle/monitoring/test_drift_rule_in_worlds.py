"""The rule of the drift check: silent where nothing changed, loud where something did, whatever the number of rows."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from assets.declaration import Drift
from assets.lifecycle.monitoring.drift_report import (
    MOST_DRAWN,
    Drawing,
    _of_those_that_can,
    draw,
    html_of,
    two_sample_chi_square,
    verdicts_json,
)
from assets.lifecycle.monitoring.drift_rule import CHI_SQUARE, KS, DriftResult, EarlierWindow, compare, count
from assets.lifecycle.monitoring.quality import faults, level_of_faults
from assets.lifecycle.prediction_format import SCORE
from assets.lifecycle.profile.reference import ReferenceProfile

RULE = Drift()


def world(n: int, seed: int, shift: float = 0.0, swap: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "amount": rng.lognormal(shift, 1, n),
            "age": rng.normal(0, 1, n),
            "kind": rng.choice(3, n, p=[0.5 - swap, 0.3, 0.2 + swap]).astype(float),
            "is_weekend": (np.arange(n) % 7 >= 5).astype(float),
        }
    )


def score(frame: pd.DataFrame) -> np.ndarray:
    return 1 / (1 + np.exp(-(np.log(frame["amount"]) + frame["is_weekend"] - 3)))


@pytest.fixture(scope="module")
def reference() -> ReferenceProfile:
    frame = world(20_000, seed=0)
    return ReferenceProfile.build(frame, {SCORE: score(frame)}, calendar=("is_weekend",))


def window(n: int, seed: int, **changed) -> pd.DataFrame:
    frame = world(n, seed, **changed)
    return frame.assign(score=score(frame))


def held(reference, frame, rule=RULE, before=(), day="") -> DriftResult:
    return compare(reference, count(reference, [frame]), rule, before=before, day=day)


def lived(reference, frames, rule=RULE) -> list[DriftResult]:
    """The verdicts on windows in a row."""
    results, before = [], []
    for number, frame in enumerate(frames, start=1):
        counted = count(reference, [frame])
        results.append(compare(reference, counted, rule, before=before, day=f"2026-03-0{number}"))
        columns = {c.column: c for c in results[-1].columns}
        before.append(EarlierWindow(f"2026-03-0{number}", counted, results[-1].judged, columns, results[-1].since))
    return results


def test_nothing_changed_nothing_said(reference):
    flagged = [held(reference, window(2_000, seed)).drifted for seed in range(1, 21)]
    assert sum(flagged) <= 1, "a family error of 3 % of which the effect takes most"


def test_the_methods_are_pinned_by_kind_of_column(reference):
    assert {c.column: c.method for c in held(reference, window(500, 1)).columns} == {
        "amount": KS, "age": KS, "kind": CHI_SQUARE, "score": KS,
    }  # fmt: skip


@pytest.mark.parametrize(("changed", "columns"), [({"shift": 0.3}, {"amount", "score"}), ({"swap": 0.15}, {"kind"})])
def test_a_shift_is_found_in_its_columns(reference, changed, columns):
    for seed in range(5):
        assert set(held(reference, window(2_000, 100 + seed, **changed)).drifted_columns) == columns


def test_with_many_rows_a_trifle_is_no_drift(reference):
    assert not held(reference, window(50_000, 6, shift=0.03)).drifted


def test_a_column_that_stops_arriving_drifts(reference):
    assert "age" in held(reference, window(1_000, 3).assign(age=np.nan)).drifted_columns


def test_a_weekend_is_compared_with_weekends(reference):
    weekend = window(4_000, 5)
    weekend = weekend[weekend["is_weekend"] == 1]
    assert not held(reference, weekend).drifted


def test_too_few_rows_are_not_judged(reference):
    result = held(reference, window(RULE.min_rows - 1, 7, shift=5.0))
    assert not result.judged
    assert not result.drifted


def test_a_column_that_is_not_there_is_named(reference):
    with pytest.raises(KeyError, match="the window lacks age, which the reference profile has"):
        held(reference, window(500, 8).drop(columns="age"))


def test_batches_are_counted_as_the_whole_is(reference):
    whole, parts = window(5_000, 9), [window(5_000, 9).iloc[i : i + 700] for i in range(0, 5_000, 700)]
    one, many = count(reference, [whole]), count(reference, parts)
    assert one.to_json() == many.to_json()
    split = count(reference, [whole.drop(columns="score"), whole[["score"]]])
    assert split.to_json() == one.to_json()


# -- persistence -----------------------------------------------------------------------------------------------------


def test_the_first_window_warns_and_the_next_in_a_row_pages(reference):
    levels = [r.level for r in lived(reference, [window(1_000, n, shift=0.5 if n > 1 else 0) for n in range(1, 5)])]
    assert levels == ["ok", "warn", "page", "page"]


def test_it_says_since_when(reference):
    results = lived(reference, [window(1_000, n, shift=0.5 if n > 1 else 0) for n in range(1, 5)])
    assert [r.since for r in results] == ["", "2026-03-02", "2026-03-02", "2026-03-02"]


def test_up_one_day_and_down_the_next_pages_too(reference):
    assert [r.level for r in lived(reference, [window(1_000, n, shift=(-1) ** n) for n in (1, 2)])] == ["warn", "page"]


def test_another_column_each_time_is_no_row(reference):
    frames = [window(2_000, 1, swap=0.2), window(2_000, 2, shift=0.4)]
    assert [r.level for r in lived(reference, frames)] == ["warn", "warn"]


def test_a_window_with_too_few_rows_does_not_break_the_row(reference):
    frames = [window(1_000, 1, shift=0.5), window(50, 2), window(1_000, 3, shift=0.5)]
    assert [r.level for r in lived(reference, frames)] == ["warn", "ok", "page"]


def test_three_in_a_row_may_be_asked_for(reference):
    frames = [window(1_000, n, shift=0.5) for n in range(1, 5)]
    levels = [r.level for r in lived(reference, frames, replace(RULE, page_after=3))]
    assert levels == ["warn", "warn", "page", "page"]
    assert lived(reference, frames[:1], replace(RULE, page_after=1))[0].level == "page"


def test_what_is_small_and_lasts_is_found_by_two_windows_together(reference):
    alone, together = 0, 0
    for seed in range(30):
        first, second = lived(reference, [window(500, 1_000 + seed * 2 + n, shift=0.22) for n in (0, 1)])
        alone += first.drifted
        together += second.level == "page"
    assert together > alone, (alone, together)
    assert together >= 20


def test_a_day_of_chance_before_a_great_drift_does_not_make_its_first_window_page(reference):
    chance, great = window(2_000, 1, shift=0.1), window(2_000, 2, shift=1.5)
    first, second, third = lived(reference, [chance, great, great])
    found = {column.column: column for column in first.columns}["amount"]
    assert found.p_value < 0.02, "the test would show nothing"
    assert found.effect >= 0.03
    assert [first.level, second.level, third.level] == ["ok", "warn", "page"]
    # Nor does one that went the other way.
    back, great, _ = lived(reference, [window(2_000, 4, shift=-0.08), great, great])
    assert [back.level, great.level] == ["ok", "warn"]


def test_what_a_small_reference_has_by_chance_pages_rarely():
    """A column drifted twice in a row against 300 rows: every window says the same of them."""
    warned, paged = 0, 0
    for seed in range(150):
        small = ReferenceProfile.build(world(300, 5_000 + seed).drop(columns="is_weekend"), {})
        results = lived(small, [window(1_500, 9_000 + 3 * seed + n) for n in range(3)])
        warned += any(result.level != "ok" for result in results)
        paged += any(result.level == "page" for result in results)
    assert paged <= 4
    assert warned >= paged


def test_a_column_that_hardly_moves_the_score_never_pages(reference):
    unimportant = replace(reference, importance={"amount": 1.0, "age": 0.01, "kind": 0.3})
    frames = [window(1_000, n).assign(age=lambda f: f["age"] + 1) for n in range(1, 4)]
    assert [r.level for r in lived(reference, frames)] == ["warn", "page", "page"]
    assert [r.level for r in lived(unimportant, frames)] == ["warn", "warn", "warn"]


# -- rows of few entities --------------------------------------------------------------------------------------------


def of_customers(customers: int, days: int, seed: int, shift: float = 0.0) -> tuple[pd.DataFrame, np.ndarray]:
    """Ten payments a day of each customer, who has an amount and a kind that are hers; and who each is of."""
    rng = np.random.default_rng(seed)
    who = np.tile(np.repeat(np.arange(customers), 10), days)
    frame = pd.DataFrame(
        {
            "amount": rng.normal(shift, 1, customers)[who] + rng.normal(0, 0.5, len(who)),
            "kind": np.where(rng.random(len(who)) < 0.8, rng.integers(0, 3, customers)[who], 0.0),
        }
    )
    return frame, who


def of_few(seed: int, entities: bool = True) -> ReferenceProfile:
    frame, who = of_customers(100, 7, seed)
    day = np.repeat(np.arange(7), 1_000)
    return ReferenceProfile.build(frame, {}, entities={"customer": who} if entities else None, day=day)


def test_rows_of_few_customers_do_not_cry_wolf():
    """Other customers each time: what a small world's days are like at worst."""
    windows = [of_customers(100, 1, 1_000 + seed)[0] for seed in range(40)]
    plain = [held(of_few(seed, entities=False), frame).drifted for seed, frame in enumerate(windows)]
    bound = [held(of_few(seed), frame).drifted for seed, frame in enumerate(windows)]
    assert np.mean(plain) > 0.5, "the test would show nothing"
    assert np.mean(bound) <= 0.05


def test_what_many_of_them_do_is_still_found():
    results = [held(of_few(seed), of_customers(100, 1, 2_000 + seed, shift=1.0)[0]) for seed in range(10)]
    assert all("amount" in result.drifted_columns for result in results)


def test_windows_of_several_days_are_known_as_such():
    reference = of_few(0)
    day = count(reference, [of_customers(100, 1, 1)[0]])
    week = sum([day] * 6, day)
    assert (day.days, week.days) == (1, 7)
    assert type(week).from_json(reference, week.to_json()).days == 7
    # The same shares: seven days of the same customers weigh less than seven times a day.
    p_value = {n: compare(reference, w, RULE).columns[0].p_value for n, w in (("day", day), ("week", week))}
    free = replace(reference, design_effects={})
    as_rows = {n: compare(free, w, RULE).columns[0].p_value for n, w in (("day", day), ("week", week))}
    assert p_value["week"] > as_rows["week"]
    assert p_value["day"] > as_rows["day"]


def test_missing_values_of_one_customer_are_no_fault_and_of_many_are():
    reference = of_few(0)
    frame, who = of_customers(100, 1, 0)
    some, many = frame.assign(amount=frame["amount"].mask(who < 6)), frame.assign(amount=frame["amount"].mask(who < 60))
    assert "amount" in wrong(replace(reference, design_effects={}), some)
    assert "amount" not in wrong(reference, some)
    assert "amount" in wrong(reference, many)


# -- quality ---------------------------------------------------------------------------------------------------------


def wrong(reference, frame, usual=None):
    return faults(reference, count(reference, [frame]), RULE, rows_of_day=len(frame), usual_rows=usual)


def test_nothing_is_wrong_with_what_is_as_it_was(reference):
    assert all(not wrong(reference, window(n, n), usual=n) for n in (300, 1_000, 3_000, 10_000))


def test_each_fault_is_named_with_its_column_and_share(reference):
    frame = window(1_000, 1)
    frame.loc[:199, "age"] = np.nan
    frame.loc[:49, "kind"] = 7.0
    frame.loc[:99, "amount"] = 1e9
    found = wrong(reference, frame, usual=4_000)
    assert found["age"] == "20.0% are missing, 0.0% in the reference"
    assert found["kind"] == "5.0% have values that are not in the reference"
    assert found["amount"].startswith("10.0% are outside the reference's range")
    assert found[""] == "1,000 rows, 4,000 are usual on this weekday"
    assert set(found) == {"age", "kind", "amount", ""}


@pytest.mark.parametrize(("usual", "fault"), [(1_900, False), (2_100, True), (520, False), (480, True), (None, False)])
def test_volume_is_half_to_double_what_is_usual(reference, usual, fault):
    assert ("" in wrong(reference, window(1_000, 2), usual=usual)) is fault


@pytest.mark.parametrize(
    ("before", "found", "level"),
    [([], {}, "ok"), ([], {"a": "x"}, "warn"), ([{"a": "x"}], {"a": "x"}, "page"), ([{"b": "x"}], {"a": "x"}, "warn"),
     ([{"a": "x"}, {}], {"a": "x"}, "warn"), ([{"": "x"}], {"": "x"}, "page")],
)  # fmt: skip
def test_the_same_fault_in_a_row_pages(before, found, level):
    assert level_of_faults(found, before, page_after=2) == level


# -- Evidently -------------------------------------------------------------------------------------------------------


def test_evidently_computes_the_same_tests_and_draws_them(reference):
    frame = window(500, 9)
    snapshot = draw(reference, frame, RULE).snapshot
    said = {m["config"]["column"]: float(m["value"]) for m in snapshot.dict()["metrics"]}
    ours = {c.column: c.p_value for c in held(reference, frame.assign(is_weekend=[0.0, 1.0] * 250)).columns}
    assert said == {column: pytest.approx(p, rel=1e-6) for column, p in ours.items()}
    assert "<html" in html_of(Drawing(snapshot, {}))[:2_000].lower()


def test_evidently_weighs_rows_of_few_customers_as_the_verdict_does():
    reference = of_few(0)
    frame, _ = of_customers(100, 1, 3)
    snapshot = draw(reference, frame, RULE).snapshot
    said = {m["config"]["column"]: float(m["value"]) for m in snapshot.dict()["metrics"]}
    ours = {c.column: c.p_value for c in held(reference, frame).columns}
    assert said == {column: pytest.approx(p, rel=0.05) for column, p in ours.items()}
    assert "design effects" in snapshot.dict()["metrics"][0]["config"]["method"]


def test_a_column_that_is_constant_or_empty_on_both_sides_is_left_out_of_the_picture():
    frame = world(2_000, 1).assign(nothing=np.nan, same=1.0)
    reference = ReferenceProfile.build(frame.drop(columns="is_weekend"), {})
    snapshot = draw(reference, frame, RULE).snapshot
    assert {m["config"]["column"] for m in snapshot.dict()["metrics"]} == {"amount", "age", "kind"}
    assert not held(reference, frame).drifted


def test_each_column_that_cannot_be_drawn_is_named_and_the_others_are_drawn(reference):
    frame = world(2_000, 1)
    reference = ReferenceProfile.build(frame[["amount", "age"]].assign(same=1.0, none=np.nan), {"score": frame["kind"]})
    now = frame[["amount", "age"]].assign(same=1.0, none=np.nan, score=np.inf)
    drawing = draw(reference, now, RULE)
    assert {m["config"]["column"] for m in drawing.snapshot.dict()["metrics"]} == {"amount", "age", "score"}
    assert set(drawing.left_out) == {"same", "none"}
    assert "same: it is empty or constant on both sides" in html_of(drawing)


def test_a_column_on_which_evidently_fails_does_not_end_the_others():
    frame = world(500, 1)[["amount", "age"]]
    snapshot, failed = _of_those_that_can(frame, frame, {"amount": "no such test", "age": "ks"}, 0.01)
    assert {m["config"]["column"] for m in snapshot.dict()["metrics"]} == {"age"}
    assert list(failed) == ["amount"]
    assert "Evidently cannot compare it" in failed["amount"]


@pytest.mark.parametrize(
    ("scores", "drifted"), [([0.0, 1.0], False), ([0.0], True), ([1.0], True), ([np.nan], True), ([np.inf], True)]
)
def test_a_score_alone_at_the_ends_of_its_range_is_judged(scores, drifted):
    reference = ReferenceProfile.build(pd.DataFrame(index=range(400)), {"score": np.resize([0.0, 1.0], 400)})
    now = pd.DataFrame({"score": np.resize(scores, 400)})
    result = held(reference, now)
    assert (result.judged, result.drifted) == (True, drifted)
    said = json.loads(verdicts_json(result, draw(reference, now, RULE)))
    assert [one["column"] for one in said["columns"]] == ["score"]


def test_of_hundreds_of_columns_those_that_differ_most_are_drawn():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({f"c{n}": rng.normal(size=300) for n in range(MOST_DRAWN + 40)})
    reference = ReferenceProfile.build(frame, {})
    drawing = draw(reference, frame.assign(c7=frame["c7"] + 2), RULE)
    drawn = {m["config"]["column"] for m in drawing.snapshot.dict()["metrics"]}
    assert len(drawn) == MOST_DRAWN
    assert "c7" in drawn
    assert len(drawing.left_out) == 40


def test_two_samples_of_one_distribution_alarm_as_often_as_they_should():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(400):
        one, two = (pd.Series(rng.choice(4, n, p=[0.5, 0.3, 0.15, 0.05])) for n in (3_000, 1_000))
        alarms += two_sample_chi_square(one, two) < 0.05
    assert 5 <= alarms <= 40, "Evidently's own takes the reference for exact, and alarms several times as often"


# -- a score that settles ---------------------------------------------------------------------------------------------

MEMORY = 30
"""Days that the unwatched mean remembers."""


def settling_world(n: int, seed: int, moved: float) -> pd.DataFrame:
    """Rows whose watched amount is as it was, while an unwatched mean has moved; the score follows the mean."""
    rng = np.random.default_rng(seed)
    mean = rng.normal(moved, 1, n)
    return pd.DataFrame({"amount": rng.normal(0, 1, n), "mean_30d": mean, "score": 1 / (1 + np.exp(-mean))})


@pytest.fixture(scope="module")
def young() -> ReferenceProfile:
    """The reference of a version that was made while the mean had half its way to go."""
    rows = settling_world(20_000, 0, 0.0)
    return ReferenceProfile.build(rows[["amount"]], {SCORE: rows["score"].to_numpy()}, unwatched=rows[["mean_30d"]])


def test_a_score_that_moves_with_what_is_not_watched_neither_warns_nor_pages(young):
    days = [settling_world(3_000, 10 + day, day / MEMORY) for day in range(MEMORY)]
    results = lived_days(young, days)
    assert {result.level for result in results} == {"ok"}
    assert results[-1].settling == ("mean_30d",)
    assert not results[-1].drifted
    assert not results[0].settling, "it has not moved yet"


def test_a_score_that_nothing_explains_warns_and_pages(young):
    rows = [settling_world(3_000, seed, 0.0) for seed in (1, 2, 3)]
    wrong = [frame.assign(score=frame["score"] ** 2) for frame in rows]  # another version answers, say
    assert [result.level for result in lived_days(young, wrong)] == ["warn", "page", "page"]


def test_a_jump_of_what_is_not_watched_is_a_fault_and_goes_on_counting(young):
    days = [0.0, 0.0, 1.0, 1.0, 1.0]
    levels = [r.level for r in lived_days(young, [settling_world(3_000, n, moved) for n, moved in enumerate(days)])]
    assert levels == ["ok", "ok", "warn", "page", "page"]


def test_a_watched_feature_that_drifts_counts_however_the_others_move(young):
    days = [settling_world(3_000, 20 + day, 0.5 + day / MEMORY) for day in range(3)]
    days = [frame.assign(amount=frame["amount"] + 0.5) for frame in days]
    results = lived_days(young, days)
    assert [result.level for result in results] == ["warn", "page", "page"]
    assert set(results[-1].drifted_columns) == {"amount", SCORE}


def test_what_is_not_watched_is_kept_counted_and_added_but_not_compared(young, tmp_path):
    young.save(tmp_path)
    again = ReferenceProfile.load(tmp_path)
    assert again.columns == ["amount", SCORE]
    assert list(again.unwatched) == ["mean_30d"]
    assert "mean_30d" not in again.sample
    day = settling_world(3_000, 5, 1.0)
    assert count(again, [day]).histograms["mean_30d"].rows == 3_000
    with pytest.raises(KeyError, match="mean_30d"):
        count(again, [day.drop(columns="mean_30d")])
    assert young.merge(again).unwatched["mean_30d"].rows == 40_000
    absurd = day.assign(mean_30d=1e6)
    assert not faults(again, count(again, [absurd]), RULE, rows_of_day=3_000), "its range is nobody's business"


def lived_days(reference: ReferenceProfile, frames: list[pd.DataFrame]) -> list[DriftResult]:
    """The verdicts on days in a row, of any number."""
    results: list[DriftResult] = []
    before: list[EarlierWindow] = []
    for number, frame in enumerate(frames):
        counted = count(reference, [frame])
        results.append(compare(reference, counted, RULE, before=before[-3:], day=f"{number:03d}"))
        columns = {column.column: column for column in results[-1].columns}
        before.append(EarlierWindow(f"{number:03d}", counted, True, columns, results[-1].since))
    return results

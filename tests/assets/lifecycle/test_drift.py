"""The rule of the drift check: silent where nothing changed, loud where something did, whatever the number of rows."""

import json

import numpy as np
import pandas as pd
import pytest

from assets.declaration import Drift
from assets.lifecycle.drift import CHI_SQUARE, KS, compare, severity, two_sample_chi_square
from assets.lifecycle.reference import SCORE, ProfileError, ReferenceProfile

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


def test_nothing_changed_nothing_said(reference):
    flagged = [compare(reference, window(2_000, seed), RULE).drifted for seed in range(1, 21)]
    assert sum(flagged) <= 1, "a family error of 5 % of which the effect takes most"


def test_the_methods_are_pinned_by_kind_of_column(reference):
    result = compare(reference, window(500, 1), RULE)
    assert {c.column: c.method for c in result.columns} == {
        "amount": KS, "age": KS, "kind": CHI_SQUARE, "score": KS,
    }  # fmt: skip
    assert "is_weekend" not in {c.column for c in result.columns}


@pytest.mark.parametrize(("changed", "columns"), [({"shift": 0.3}, {"amount", "score"}), ({"swap": 0.15}, {"kind"})])
def test_a_shift_is_found_in_its_columns(reference, changed, columns):
    for seed in range(5):
        assert set(compare(reference, window(2_000, 100 + seed, **changed), RULE).drifted_columns) == columns


def test_a_difference_that_is_significant_but_small_is_none(reference):
    result = compare(reference, window(50_000, 3, shift=0.06), RULE)
    amount = next(c for c in result.columns if c.column == "amount")
    assert amount.p_value < 1e-4
    assert amount.effect < RULE.min_effect
    assert not result.drifted


def test_a_column_that_stops_arriving_has_drifted(reference):
    gone = window(2_000, 5).assign(age=np.nan)
    assert "age" in compare(reference, gone, RULE).drifted_columns


def test_a_weekend_is_compared_with_weekends(reference):
    weekend = window(7_000, 6)
    weekend = weekend[weekend["is_weekend"] == 1]
    assert not compare(reference, weekend, RULE).drifted


def test_too_few_rows_are_not_judged(reference):
    result = compare(reference, window(RULE.min_rows - 1, 7, shift=5.0), RULE)
    assert not result.judged
    assert not result.drifted


def test_a_column_that_is_not_there_is_named(reference):
    with pytest.raises(KeyError, match="the window lacks age, which the reference profile has"):
        compare(reference, window(500, 8).drop(columns="age"), RULE)


def test_the_verdict_carries_what_evidently_computed(reference):
    result = compare(reference, window(500, 9), RULE)
    said = json.loads(result.to_json())
    assert len(said["evidently"]["metrics"]) == 4
    by_evidently = {m["config"]["column"]: m["value"] for m in said["evidently"]["metrics"]}
    assert by_evidently == {c.column: pytest.approx(c.p_value) for c in result.columns}
    assert "<html" in result.html()[:2_000].lower()


@pytest.mark.parametrize(
    ("before", "drifted", "level"),
    [
        ([], True, "warn"), ([True], True, "page"), ([True, False], True, "warn"), ([True, None], True, "page"),
        ([None], True, "warn"), ([True, True], False, "ok"), ([False, True, True], True, "page"),
    ],
)  # fmt: skip
def test_the_first_warns_the_second_in_a_row_pages(before, drifted, level):
    assert severity(before, drifted, page_after=2) == level


def test_two_samples_of_one_distribution_alarm_as_often_as_they_should():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(400):
        one, two = (pd.Series(rng.choice(4, n, p=[0.5, 0.3, 0.15, 0.05])) for n in (3_000, 1_000))
        alarms += two_sample_chi_square(one, two) < 0.05
    assert 5 <= alarms <= 40, "Evidently's own takes the reference for exact, and alarms several times as often"


def test_the_profile_is_bounded_small_and_comes_back(tmp_path, reference):
    frame = world(60_000, seed=1)
    profile = ReferenceProfile.build(frame, {SCORE: score(frame)}, calendar=("is_weekend",))
    profile.save(tmp_path / "reference")
    back = ReferenceProfile.load(tmp_path / "reference")
    pd.testing.assert_frame_equal(back.sample, profile.sample)
    assert (back.rows, len(back.sample), back.calendar) == (60_000, 20_000, ("is_weekend",))
    assert back.summary["amount"]["quantiles"]["0.5"] == pytest.approx(1.0, abs=0.02)
    assert sum(path.stat().st_size for path in (tmp_path / "reference").iterdir()) < 3e6


def test_a_damaged_profile_is_named_with_its_mend(tmp_path):
    with pytest.raises(ProfileError, match="train the model again"):
        ReferenceProfile.load(tmp_path)
    (tmp_path / "summary.json").write_text('{"rows": 3')
    with pytest.raises(ProfileError, match=str(tmp_path)):
        ReferenceProfile.load(tmp_path)

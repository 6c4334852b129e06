"""The reference profile: small, mergeable, without a person in it; and back from its folder as it was."""

import numpy as np
import pandas as pd
import pytest

from assets.lifecycle.prediction_format import SCORE
from assets.lifecycle.profile.reference import ProfileError, ReferenceProfile, calibration_of


def frame(n: int, columns: int = 20, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    made = pd.DataFrame({f"c{i}": rng.normal(size=n) for i in range(columns - 2)})
    return made.assign(kind=rng.choice(4, n).astype(float), is_weekend=(np.arange(n) % 7 >= 5).astype(float))


def profile(n: int = 3_000, columns: int = 20, seed: int = 0) -> ReferenceProfile:
    rows = frame(n, columns, seed)
    return ReferenceProfile.build(rows, {SCORE: rows["c0"].to_numpy()}, calendar=("is_weekend",),
                                  importance={"c0": 1.0}, rows_of_weekday=[1.0] * 7,
                                  entities={"customer": np.arange(n) % 300}, day=np.arange(n) % 7,
                                  label_effect=2.5)  # fmt: skip


@pytest.mark.parametrize(("rows", "columns"), [(60_000, 20), (6_000, 400), (500, 5)])
def test_it_is_small_however_long_or_wide_the_table(tmp_path, rows, columns):
    profile(rows, columns).save(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2e6


def test_it_comes_back(tmp_path):
    made = profile()
    made.save(tmp_path / "reference")
    back = ReferenceProfile.load(tmp_path / "reference")
    pd.testing.assert_frame_equal(back.sample, made.sample)
    assert {c: h.to_json() for c, h in back.histograms.items()} == {c: h.to_json() for c, h in made.histograms.items()}
    assert all(back.histograms[c].bins.same_as(h.bins) for c, h in made.histograms.items())
    assert (back.rows, back.calendar, back.importance, back.rows_of_weekday) == (
        made.rows, made.calendar, made.importance, made.rows_of_weekday,
    )  # fmt: skip
    assert back.days == made.days == 7
    assert back.design_effects == made.design_effects
    assert back.label_effect == made.label_effect == 2.5
    assert set(made.design_effects) == set(made.columns)
    assert back.summary["c1"]["quantiles"]["0.5"] == pytest.approx(0.0, abs=0.1)


def test_whose_the_rows_are_is_not_kept(tmp_path):
    rows = frame(3_000)
    who = np.array([f"customer {n % 300}" for n in range(3_000)])
    ReferenceProfile.build(rows, {}, entities={"customer_id": who}).save(tmp_path)
    for path in tmp_path.iterdir():
        assert b"customer" not in path.read_bytes()


def test_the_counts_are_of_all_rows_and_the_sample_is_bounded():
    made = profile(60_000)
    assert made.histograms["c1"].rows == made.rows == 60_000
    assert len(made.sample) <= 20_000


def test_no_row_of_the_sample_is_one_that_was():
    rows = frame(3_000)
    rows["c2"] = rows["c1"]  # what belongs together in every row
    made = ReferenceProfile.build(rows, {SCORE: rows["c1"].to_numpy()}, calendar=("is_weekend",))
    assert abs(np.corrcoef(made.sample["c1"], made.sample["c2"])[0, 1]) < 0.1
    assert abs(np.corrcoef(made.sample["c1"], made.sample[SCORE])[0, 1]) < 0.1
    real = {tuple(row) for row in rows.astype(np.float32).to_numpy()[:, :3].tolist()}
    assert not real & {tuple(row) for row in made.sample.to_numpy()[:, :3].tolist()}


def test_the_score_keeps_its_calendar():
    rows = frame(3_000)
    made = ReferenceProfile.build(rows, {SCORE: rows["is_weekend"].to_numpy() + 0.5}, calendar=("is_weekend",))
    assert (made.sample[SCORE] - made.sample["is_weekend"] == 0.5).all()


def test_profiles_in_the_same_bins_add_up_and_others_are_refused():
    one = profile()
    rows = frame(1_000, seed=3).assign(score=0.1)
    two = ReferenceProfile(
        {c: h.bins.count(rows[c].to_numpy()) for c, h in one.histograms.items()}, one.summary, one.sample, 1_000
    )
    both = one.merge(two)
    assert (both.rows, both.days) == (4_000, 8)
    assert both.design_effects == one.design_effects
    for column, counts in both.histograms.items():
        assert (counts.counts == one.histograms[column].counts + two.histograms[column].counts).all()
    with pytest.raises(ProfileError, match="c0: the profiles have different bins"):
        one.merge(profile(seed=5))


def test_calibration_says_what_was_said_and_what_was():
    said = np.linspace(0, 1, 1_000)
    bins = calibration_of(said, (said > 0.5).astype(float))
    assert sum(bin_["rows"] for bin_ in bins) == 1_000
    assert sorted(bin_["said"] for bin_ in bins) == [bin_["said"] for bin_ in bins]
    assert {bin_["was"] for bin_ in bins if bin_["said"] < 0.45} == {0.0}
    assert {bin_["was"] for bin_ in bins if bin_["said"] > 0.55} == {1.0}
    assert bins[0]["said"] == pytest.approx(0.05, abs=0.01)


def test_where_positives_are_rare_the_bins_are_fine_where_they_are():
    rng = np.random.default_rng(0)
    said = 1 / (1 + np.exp(-rng.normal(-7, 3, 50_000)))
    bins = calibration_of(said, (rng.random(50_000) < said).astype(float))
    expected = np.array([bin_["said"] * bin_["rows"] for bin_ in bins])
    assert 10 < len(bins) <= 20
    assert expected.max() < 0.11 * expected.sum(), "by tens of rows the last would have nearly all"
    for bin_ in bins:
        chance = 4 * np.sqrt(bin_["said"] * bin_["rows"]) + 1
        assert abs(bin_["was"] - bin_["said"]) * bin_["rows"] < chance


@pytest.mark.parametrize("said", [np.zeros(50), np.full(50, 0.3), np.array([0.2])])
def test_calibration_of_one_value_or_one_row_is_one_line_or_several_alike(said):
    bins = calibration_of(said, np.zeros(len(said)))
    assert sum(bin_["rows"] for bin_ in bins) == len(said)
    assert {round(bin_["said"], 9) for bin_ in bins} == {said[0]}


def test_a_damaged_profile_is_named_with_its_mend(tmp_path):
    with pytest.raises(ProfileError, match="train the model again"):
        ReferenceProfile.load(tmp_path)
    (tmp_path / "profile.json").write_text('{"rows": 3')
    with pytest.raises(ProfileError, match=str(tmp_path)):
        ReferenceProfile.load(tmp_path)

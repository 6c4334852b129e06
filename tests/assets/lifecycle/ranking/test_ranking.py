"""Fitting, lists, measures and off-policy values, on a shelf of books whose readers like one of four genres."""

import datetime as dt
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from assets.declaration import DeclarationError
from assets.lifecycle.model import report
from assets.lifecycle.model.metrics.evaluate import Report
from assets.lifecycle.model.version.bundle import Bundle
from assets.lifecycle.ranking.assets import evaluated, learnt
from assets.lifecycle.ranking.baselines import NAMES, POPULAR_DAYS
from assets.lifecycle.ranking.behaviour import Behaviour, Histories, Items, histories
from assets.lifecycle.ranking.bundle import RankingBundle
from assets.lifecycle.ranking.daily import day_of, lists_of, log_of, measured_days
from assets.lifecycle.ranking.fitting import fit_ranking, moment_of
from assets.lifecycle.ranking.measures import Asked, differences, figures, measure
from assets.lifecycle.ranking.off_policy import Value, decisions_of, support, value_of, values_of
from assets.lifecycle.ranking.ranker import FEATURES, explore
from tests.declarations.shelf import START, loans, model, shelf_model

RANKING = model.ranking
LAST = START + dt.timedelta(days=9)
NOW = np.datetime64(str(LAST), "s")


def rows(days: int = 10) -> pd.DataFrame:
    return pd.concat([loans(START + dt.timedelta(days=n)) for n in range(days)], ignore_index=True)


def fit(frame: pd.DataFrame, **given):
    items, past = log_of(frame, model)
    return fit_ranking(past, items, replace(RANKING, **given), seed=3, log=lambda _: None), items, past


@pytest.fixture(scope="module")
def fitted():
    return fit(rows(9))


def history_of(items: Items, ids: list[str]) -> Histories:
    codes = np.full((1, RANKING.history), -1)
    codes[0, : len(ids)] = items.codes(np.array(ids, dtype=object))
    return Histories(codes, (codes >= 0).astype(np.float32))


def test_the_candidate_beats_popularity_and_lists_the_genre_that_a_reader_likes(fitted):
    found, items, past = fitted
    every, behaviour = log_of(rows(10), model)
    measured = measured_days({"torch": found.ranker.with_items(every)}, behaviour.some(behaviour.at < NOW), behaviour,
                             every, RANKING, [str(LAST)])  # fmt: skip
    assert set(measured) == {"torch", *NAMES}
    gain = differences(measured["torch"], measured["popularity"])["ndcg"]
    assert gain.low > 0
    listed = found.ranker.lists(history_of(items, ["b1", "b5", "b9"]), moment_of(past, items, NOW), 5)[0]
    assert {int(one[1:]) % 4 for one in items.ids[listed.item]} == {1}


def test_the_same_seed_gives_the_same_weights():
    frame = rows(4)
    first, second = fit(frame, epochs=2)[0], fit(frame, epochs=2)[0]
    for name, weights in first.ranker.weights.items():
        assert np.array_equal(weights, second.ranker.weights[name]), name


def test_a_new_item_is_found_by_its_text_alone(fitted):
    found, _, _ = fitted
    new = pd.DataFrame({"loan_id": ["n"], "at": [pd.Timestamp(LAST) - pd.Timedelta(hours=1)], "reader": [""],
                        "book": ["b900"], "event": ["publish"], "title": ["verse rhyme sonnet volume"],
                        "genre": ["poems"]})  # fmt: skip
    every = Items.of(pd.concat([rows(9), new]), RANKING, "at")
    ranker = found.ranker.with_items(every)
    code = every.codes(np.array(["b900"], dtype=object))[0]
    assert ranker.code[code] == -1
    poems = ranker.taste(history_of(every, ["b1", "b5", "b9"]))[0]
    crime = ranker.taste(history_of(every, ["b0", "b4", "b8"]))[0]
    assert (poems < poems[code]).mean() > 0.7  # among the best quarter
    assert crime[code] < poems[code]


def test_a_feature_that_did_not_vary_does_not_decide_later(fitted):
    found, _, _ = fitted
    # All books were published on the first day, so the ranking network has seen no item that is not known.
    column = FEATURES.index("known")
    one = np.tile(found.ranker.mean, (2, 1)).astype(np.float32)
    one[1, column] = 0
    assert np.abs(np.diff(found.ranker.scores(one))) < 5


def test_the_ranking_network_has_seen_items_that_its_towers_do_not_know():
    frame = rows(9)
    late = frame["book"].isin([f"b{i}" for i in range(0, 80, 5)]) & (frame["at"] < str(LAST - dt.timedelta(days=3)))
    found, _, _ = fit(frame[~late], epochs=2)
    assert 0.05 < found.ranker.mean[FEATURES.index("known")] < 0.95


def test_a_withdrawn_item_is_on_no_list(fitted):
    found, _, past = fitted
    gone = rows(9).iloc[-1:].assign(event="withdraw", book="b1", reader="", at=pd.Timestamp(LAST) - pd.Timedelta("1h"))
    every = Items.of(pd.concat([rows(9), gone]), RANKING, "at")
    listed = found.ranker.with_items(every).lists(history_of(every, ["b5"]), moment_of(past, every, NOW), 80)[0]
    assert "b1" not in every.ids[listed.item]
    assert len(listed.item) == 78  # all but it and the one of the history


def test_a_user_without_history_gets_what_is_popular_or_new(fitted):
    found, items, past = fitted
    listed = found.ranker.lists(history_of(items, []), moment_of(past, items, NOW), 5)[0]
    assert len(listed.item) == 5
    assert set(listed.reason) <= {"popular in the last days", "new"}


def test_a_catalogue_of_ten_items_and_a_list_longer_than_it():
    frame = rows(9)
    frame = frame[frame["book"].isin([f"b{i}" for i in range(10)])]
    found, items, past = fit(frame, epochs=2)
    listed = found.ranker.lists(history_of(items, ["b1"]), moment_of(past, items, NOW), 100)[0]
    assert len(listed.item) == 9
    none = found.ranker.lists(history_of(items, ["b1"]), moment_of(past, items, NOW), 5, candidates=np.array([], int))[
        0
    ]
    assert len(none.item) == 0


def test_the_approximate_index_finds_what_the_exact_one_finds(fitted):
    pytest.importorskip("usearch", reason="the approximate index needs `pip install 'assetline[ranking]'`")
    found, items, past = fitted
    approximate = replace(found.ranker, ranking=replace(RANKING, exact_items=10))
    history, moment = history_of(items, ["b1", "b5"]), moment_of(past, items, NOW)
    exact = found.ranker.lists(history, moment, 5)[0].item
    assert np.array_equal(approximate.lists(history, moment, 5)[0].item, exact)


def test_a_history_reads_only_events_before_the_moment_and_not_the_item_itself():
    _, past = log_of(rows(3), model)
    liked = past.liked
    found = histories(past, liked.user, liked.at, RANKING, without=liked.item)
    for i in range(0, len(liked), 7):
        before = liked.some((liked.user == liked.user[i]) & (liked.at < liked.at[i]) & (liked.item != liked.item[i]))
        assert set(found.item[i][found.item[i] >= 0]) == set(before.item[-RANKING.history :])


def test_duplicate_events_count_once():
    frame = rows(2)
    items, past = log_of(frame, model)
    assert len(Behaviour.of(pd.concat([frame, frame]), items, RANKING, "at")) == len(past)


def test_lists_of_a_day_do_not_read_the_day(fitted):
    found, _, _ = fitted
    items, behaviour = log_of(rows(10), model)
    day = day_of(behaviour, items, RANKING, str(LAST))
    assert (behaviour.at[np.isin(behaviour.item, day.history.item[day.history.item >= 0])] < NOW).any()
    other = behaviour.some(behaviour.at < NOW)
    same = histories(other, day.asked.user, np.full(len(day.asked), NOW), RANKING)
    assert np.array_equal(same.item, day.history.item)
    assert lists_of(found.ranker.with_items(items), day).shape == (len(day.asked), RANKING.k)
    assert POPULAR_DAYS < 8  # the declared lookback covers it


def test_measures_of_a_known_list():
    asked = Asked(np.array([7]), [np.array([2, 5])], [np.array([1.0, 1.0])])
    share, new = np.full(6, 0.25), np.array([False] * 5 + [True])
    found = measure(np.array([[5, 1, 2]]), asked, k=3, share=share, new=new)
    best = 1 + 1 / np.log2(3)
    assert found.values["ndcg"][0] == pytest.approx((1 + 0.5) / best)
    assert found.values["recall"][0] == 1
    assert found.values["novelty"][0] == 2
    assert found.values["new_share"][0] == pytest.approx(1 / 3)
    assert figures(found, 6)["coverage"].value == 0.5


def test_a_version_is_read_as_it_was_written(fitted, tmp_path):
    found, items, past = fitted
    RankingBundle.write(tmp_path / "v", found.ranker, model, {"seed": 0})
    bundle = Bundle.load(tmp_path / "v")
    assert isinstance(bundle, RankingBundle)
    history, moment = history_of(items, ["b1", "b5"]), moment_of(past, items, NOW)
    before, after = found.ranker.lists(history, moment, 5)[0], bundle.ranker.lists(history, moment, 5)[0]
    assert np.array_equal(before.item, after.item)
    assert before.reason == after.reason
    assert np.isfinite(bundle.predict(np.full((2, 7), np.nan, np.float32))).all()


def test_the_report_has_the_figures_that_the_gate_and_the_card_read(fitted, tmp_path):
    pytest.importorskip("implicit", reason="the baseline ALS needs `pip install 'assetline[ranking]'`")
    RankingBundle.write(tmp_path / "v", fitted[0].ranker, model, {"seed": 0})
    bundle = Bundle.load(tmp_path / "v")
    found, _ = evaluated(rows(10), {"torch": bundle, "champion": bundle}, model)
    assert set(found.models) == {"torch", "champion", *NAMES}
    same = found.differences["champion"]["ndcg"]
    assert (same.low, same.value, same.high) == (0, 0, 0)  # paired: a version does not differ from itself
    assert all(0 < own["coverage"].value <= 1 for own in found.models.values())
    assert sum(one.rows for one in found.slices.values()) <= found.rows
    assert Report.from_dict(found.to_dict()).models == found.models
    assert set(report.plots(found)) <= set(report.PICTURES)


@pytest.mark.parametrize(("given", "said"), [
    ({"item": "isbn"}, r"ranking.item='isbn' is invalid: name a column"),
    ({"weights": {}}, "give a weight above 0"),
    ({"weights": {"publish": 1.0}}, "leave out the events by which an item appears"),
    ({"k": 0}, "give a whole number from 1 to 100"),
    ({"exploration": 0.9}, "give a share from 0"),
])  # fmt: skip
def test_a_ranking_that_cannot_work_is_refused(given, said):
    with pytest.raises(DeclarationError, match=said):
        shelf_model(ranking=replace(RANKING, **given))


def test_the_target_of_a_ranking_is_its_event():
    with pytest.raises(DeclarationError, match="name the column of events, 'event'"):
        shelf_model(target="genre")


@pytest.mark.closes("trained_model", "learnt")
def test_a_loss_that_does_not_fall_fails():
    assert learnt([5.0, 4.0]).passed
    refused = learnt([5.0, 5.1])
    assert not refused.passed
    assert "nothing was learnt" in refused.description


@pytest.mark.closes("off_policy", "support")
def test_too_few_decisions_warn():
    enough, few = Value(0.1, 0, 1, 150.0, 160), Value(0.1, 0, 1, 20.0, 20)
    assert support({"list": enough, "random": enough}, "2026-01-01").passed
    assert not support({"list": few, "random": enough}, "2026-01-01").passed
    refused = support({"list": enough, "random": few}, "2026-01-01")
    assert not refused.passed
    assert "20 places were drawn, at least 30 needed" in refused.description
    assert support({}, "2026-01-01").passed


def test_the_interval_of_the_list_without_exploration_covers_the_truth():
    rng = np.random.default_rng(0)
    order, k, share = np.arange(40), 10, 0.2
    liked = np.concatenate([np.linspace(0.4, 0.1, 10), np.full(30, 0.05)])
    seen = 1 / (1 + np.arange(k)) ** 0.5  # what is higher is seen more often
    truth = {"list": float((liked[:k] * seen).mean()), "random": float((0.05 * seen).mean())}
    covered = dict.fromkeys(truth, 0)
    for _ in range(60):
        frames = []
        for user in range(400):
            item, probability, explored = explore(order, k, share, rng)
            reward = (rng.random(k) < liked[item] * seen).astype(float)
            frames.append(
                pd.DataFrame({"user": user, "propensity": probability, "explored": explored, "reward": reward})
            )
        found = values_of(pd.concat(frames))
        for name, value in truth.items():
            covered[name] += found[name].low <= value <= found[name].high
        assert found["logged"].value < found["list"].value
    assert min(covered.values()) >= 54  # 90 % of 60


def test_the_propensity_of_a_drawn_item_is_its_frequency():
    rng = np.random.default_rng(1)
    drawn = np.zeros(20)
    for _ in range(4_000):
        item, probability, explored = explore(np.arange(20), 5, 0.3, rng)
        drawn[item[2]] += 1
        assert np.allclose(probability[explored], 0.3 / 15)
        assert len(set(item)) == 5
    assert drawn[2] / 4_000 == pytest.approx(0.7, abs=0.03)
    assert drawn[5:] / 4_000 == pytest.approx(np.full(15, 0.3 / 15), abs=0.012)


def test_a_liking_belongs_to_the_list_before_it():
    at = pd.Timestamp("2026-01-05 10:00")
    row = {"user": "r1", "listed": ["b1", "b2"], "propensity": [0.8, 0.8], "explored": [False, False]}
    liked = pd.DataFrame({"user": ["r1", "r1", "r2"], "item": ["b1", "b2", "b2"],
                          "at": at + pd.to_timedelta([1, -1, 1], "h")})  # fmt: skip
    found = decisions_of(pd.DataFrame({"at": [at], "row": [row]}), liked)
    assert found["reward"].tolist() == [1.0, 0.0]
    assert value_of(np.zeros(2), np.ones(2), np.array([1, 2])).decisions == 0

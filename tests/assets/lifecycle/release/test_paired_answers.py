"""What two versions answered to the same requests is compared with intervals."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from assets.declaration import Gate
from assets.lifecycle.release.paired_answers import Pairs, as_table, errors, latency, metric_gain, score_shift
from tests.declarations.readings import plain

START = dt.datetime(2026, 3, 1)


def records(new, old, *, entity=None, failed=(), new_ms=1.0, old_ms=1.0, answered=()) -> pd.DataFrame:
    """A log of rows that version 2 answered and version 3 scored, or the other way round."""
    rows = []
    for i, (a, b) in enumerate(zip(new, old, strict=True)):
        same = {"request_id": f"r{i}", "key": i, "entity": i if entity is None else entity[i]}
        at = START + dt.timedelta(seconds=i)
        lost = i in failed
        rows.append({**same, "at": at, "version": "3", "role": "canary" if i in answered else "shadow",
                     "score": None if lost else a, "outcome": "error" if lost else "ok",
                     "latency_ms": float(np.broadcast_to(new_ms, len(new))[i])})  # fmt: skip
        rows.append({**same, "at": at, "version": "2", "role": "shadow" if i in answered else "champion", "score": b,
                     "outcome": "ok", "latency_ms": float(np.broadcast_to(old_ms, len(new))[i])})  # fmt: skip
    return pd.DataFrame(rows)


def pairs(*arguments, **given) -> Pairs:
    return Pairs.of(records(*arguments, **given), "3")


def scores(n, seed=0):
    return np.random.default_rng(seed).beta(1, 9, n)


def test_records_are_paired_by_request_and_row():
    log = records([0.1, 0.2, 0.3], [0.4, 0.5, 0.6], failed={1}, answered={2})
    found = Pairs.of(log.drop(index=5).sample(frac=1, random_state=1), "3")  # version 2 has no record of the third row
    assert found.key.tolist() == ["0", "1"]
    np.testing.assert_array_equal(found.challenger, [0.1, np.nan])
    np.testing.assert_array_equal(found.champion, [0.4, 0.5])
    assert found.failed.tolist() == [False, True]
    assert Pairs.of(log, "3").answered.tolist() == [False, False, True]


def test_a_row_that_is_sent_again_is_another_pair():
    log = pd.concat([records([0.1], [0.2]), records([0.3], [0.4]).assign(request_id="again")])
    assert len(Pairs.of(log, "3")) == 2


def test_an_empty_log_has_no_pairs_and_no_figure():
    found = Pairs.of(records([0.1], [0.1]).head(0), "3")
    assert len(found) == 0
    gain = metric_gain(plain(), found, pd.Series(dtype=float), margin=0, least_rows=1)
    assert [errors(found, 0.01).value, latency(found, 1.5).value, score_shift(found, 0.2).value, gain.value] == [
        None
    ] * 4


@pytest.mark.parametrize(
    ("rows", "failed", "state"),
    [
        (100, 0, "unsure"),  # none of 100 may be 3 %
        (300, 0, "within"),
        (2, 2, "beyond"),
        (1000, 5, "unsure"),
        (1000, 2, "within"),
        (1000, 30, "beyond"),
        (500, 10, "unsure"),
    ],
)
def test_errors_are_judged_with_exact_bounds(rows, failed, state):
    found = errors(pairs(scores(rows), scores(rows), failed=set(range(failed))), 0.01)
    assert (found.value, found.state) == (failed / rows, state)


@pytest.mark.parametrize(("times", "state"), [(1.0, "within"), (1.2, "within"), (1.5, "unsure"), (3.0, "beyond")])
def test_the_latency_is_compared_by_its_95th_percentile(times, state):
    rng = np.random.default_rng(3)
    old, new = rng.lognormal(0, 0.3, 2000), times * rng.lognormal(0, 0.3, 2000)
    found = latency(pairs(scores(2000), scores(2000), new_ms=new, old_ms=old), 1.5)
    assert found.state == state
    assert found.value == pytest.approx(times, rel=0.1)
    assert found.low <= found.value <= found.high


def test_the_rows_of_one_request_count_once_for_the_latency():
    log = records(scores(40), scores(40))
    log["request_id"] = "r" + (log["key"] // 2).astype(str)
    assert "20 requests cannot be compared" in latency(Pairs.of(log, "3"), 1.5).message


def test_a_constant_score_is_a_shift_and_a_little_noise_is_not():
    old = scores(1000)
    noise = np.random.default_rng(1).normal(0, 0.01, 1000)
    assert score_shift(pairs(old + noise, old), 0.25).state == "within"
    assert score_shift(pairs(np.full(1000, 0.5), old), 0.25).state == "beyond"
    assert score_shift(pairs(old, np.full(1000, 0.5)), 0.25).state == "beyond"
    assert score_shift(pairs(old, old), 0.25).value == 0


def test_rows_of_one_entity_are_not_independent():
    old, entity = scores(1000), np.arange(1000) // 100
    new = old + np.random.default_rng(5).normal(0, 0.05, 10)[entity]
    alone, together = score_shift(pairs(new, old), 0.25), score_shift(pairs(new, old, entity=entity), 0.25)
    assert together.high - together.value > 3 * (alone.high - alone.value)


def test_the_class_with_the_largest_shift_counts():
    old = np.random.default_rng(0).dirichlet([2, 2, 2], 500)
    new = old.copy()
    new[:, 2] += 0.2
    found = score_shift(pairs(new.tolist(), old.tolist()), 0.25)
    assert found.value == pytest.approx(0.2 / old[:, 2].std())
    assert found.state == "beyond"


def labelled(quality, n=3000, seed=0):
    """Scores of a version that sees ``quality`` of the truth, and the labels."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(float)
    return y, 1 / (1 + np.exp(-(quality * (y - 0.5) + np.random.default_rng(seed + 1).normal(0, 1, n))))


@pytest.mark.parametrize(("quality", "state"), [(3.0, "within"), (2.0, "within"), (1.0, "beyond")])
def test_a_version_that_is_worse_on_labelled_rows_is_beyond(quality, state):
    y, old = labelled(2.0)
    _, new = labelled(quality)
    labels = pd.Series(y, index=[str(i) for i in range(len(y))])
    found = metric_gain(plain(), pairs(new, old), labels, margin=-0.02, least_rows=500)
    assert found.state == state, found.message
    assert found.low <= found.value <= found.high


def test_a_metric_that_is_better_when_lower_has_the_same_sign():
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1, 1000)
    old, new = truth + rng.normal(0, 0.2, 1000), truth + rng.normal(0, 0.6, 1000)
    labels = pd.Series(truth, index=[str(i) for i in range(1000)])
    model = plain(target="level", gate=Gate(metric="mae", floor=1.0))
    found = metric_gain(model, pairs(new, old), labels, margin=-0.05, least_rows=500)
    assert found.value < 0
    assert found.state == "beyond"


def test_labels_of_other_rows_or_too_few_do_not_count():
    y, old = labelled(2.0, n=600)
    _, new = labelled(0.0, n=600)
    known = pd.Series(y[:400], index=[str(i) for i in range(400)])
    found = metric_gain(plain(), pairs(new, old), known, margin=-0.02, least_rows=500)
    assert (found.state, found.value, found.message) == ("within", None, "400 rows have labels; 500 are needed")
    others = pd.Series(y, index=[f"other {i}" for i in range(600)])
    assert metric_gain(plain(), pairs(new, old), others, margin=-0.02, least_rows=500).value is None


def test_the_table_shows_what_is_not_known_yet():
    table = as_table([errors(pairs([0.1], [0.1]), 0.01), latency(pairs([0.1], [0.1]), 1.5)])
    assert "| latency | not yet |  | 1.5 | unsure |" in table

"""The simulated news: any day alone, the same each time, with dirt, and a change that is only after its day."""

import datetime as dt

import pytest

from assets.models.news.simulator import LABEL_DELAY, PLAN, SURGE_TOPIC, WorldNews, landed, texts_of
from assets.simulated import World
from resources.sources import SourceError

FIRST = dt.date(2026, 1, 5)
WORLD = World(FIRST, FIRST + dt.timedelta(days=40), seed=1)
DAY = FIRST + dt.timedelta(days=10)


def test_a_day_is_the_same_whatever_was_asked_before():
    once = landed(WORLD, DAY)
    texts_of.cache_clear()
    landed(WORLD, DAY + dt.timedelta(days=3))
    assert landed(WORLD, DAY).equals(once)
    assert not landed(World(FIRST, WORLD.shift_from, seed=2), DAY).equals(once)


def test_the_days_before_the_shift_do_not_depend_on_it():
    later = World(FIRST, WORLD.shift_from + dt.timedelta(days=5), seed=1)
    assert landed(WORLD, DAY).equals(landed(later, DAY))
    assert not landed(WORLD, WORLD.shift_from).equals(landed(later, WORLD.shift_from))


def test_each_text_lands_once_except_copies_and_some_are_late_or_dirty():
    days = [FIRST + dt.timedelta(days=n) for n in range(30)]
    rows = [landed(WORLD, day) for day in days]
    true = sum(len(texts_of(WORLD, day)) for day in days[:-2])
    ids = {int(one) for part in rows for one in part["news_id"]}
    missing = {int(one) for day in days[:-2] for one in texts_of(WORLD, day)["news_id"]} - ids
    assert missing == set()
    everything = [text for part in rows for text in part["text"]]
    assert len(everything) > true
    assert any(not text.strip() for text in everything)
    assert any(text.startswith("https://") for text in everything)
    late = [part["published_at"].str[:10].lt(str(day)).sum() for day, part in zip(days, rows, strict=True)]
    assert 0 < sum(late) < 0.06 * len(everything)


def test_from_the_shift_on_a_topic_turns_negative_for_some_days_and_words_are_new():
    def negatives(first: int) -> int:
        days = [texts_of(WORLD, WORLD.shift_from + dt.timedelta(days=n)) for n in range(first, first + 4)]
        return sum(int(((one["topic"] == SURGE_TOPIC) & (one["sentiment"] == "negative")).sum()) for one in days)

    assert negatives(0) > 2.5 * max(negatives(-7), negatives(7))
    assert not texts_of(WORLD, DAY)["text"].str.contains("Quantiva|Robolux").any()
    assert texts_of(WORLD, WORLD.shift_from)["text"].str.contains("Quantiva|Robolux").any()


def test_without_a_world_there_are_no_days_and_the_sentence_says_what_makes_them(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))
    assert WorldNews().landed_until() == dt.date(2000, 1, 1)
    with pytest.raises(SourceError, match="`assetline run --model news` draws it up"):
        WorldNews().land(DAY)
    PLAN.draw_up(tmp_path, WORLD)
    assert len(WorldNews().land(DAY)) == len(landed(WORLD, DAY))
    said = WorldNews().land_labels(DAY)
    assert set(said) == {"news_id", "sentiment", "topic"}
    assert len(said) == len(texts_of(WORLD, DAY - LABEL_DELAY))
    with pytest.raises(SourceError, match="begins on 2026-01-05"):
        WorldNews().land(FIRST - dt.timedelta(days=1))

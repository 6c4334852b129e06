"""The simulated articles and readers: deterministic, dirty, late, biased by place, and changed from a day on."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from assets.models.recommend.simulator import TOPICS, WorldActivity, happened
from assets.models.recommend.tables import START, Activity, clean
from assets.simulated import World
from resources.sources import SourceError

FIRST = dt.date(2026, 3, 2)
SHIFT = FIRST + dt.timedelta(days=12)
WORLD = World(FIRST, SHIFT, seed=1)


def source() -> WorldActivity:
    return WorldActivity(first_day=str(FIRST), shift_from=str(SHIFT), seed=1)


def test_a_day_can_be_made_alone_and_again():
    day = FIRST + dt.timedelta(days=5)
    first = source().land(day)
    happened.cache_clear()
    assert first.equals(source().land(day))


def test_each_row_lands_once_at_most_two_days_late():
    landed = pd.concat([source().land(FIRST + dt.timedelta(days=n)) for n in range(5)])
    true = pd.concat([happened(WORLD, n) for n in range(3)])
    assert set(true["event_id"]) <= set(landed["event_id"])
    late = source().land(FIRST + dt.timedelta(days=4))["event_id"].str[:8]
    assert (late < "20260306").any()


def test_most_rows_are_clean_and_some_are_not():
    raw = source().land(FIRST + dt.timedelta(days=4))
    cleaned = clean(raw)
    bad = cleaned["at"].isna() | cleaned["item_id"].isna() | (cleaned["event"] == "clik")
    assert 0 < bad.mean() < 0.03
    Activity.validate(cleaned[~bad].drop_duplicates("event_id"))


def test_what_is_higher_on_the_list_is_opened_more_often():
    rows = pd.concat([happened(WORLD, n) for n in range(8)])
    views, clicks = (rows[rows["event"] == event]["place"] for event in ("view", "click"))
    high, low = ((clicks < 5).sum() / (views < 5).sum(), (clicks >= 15).sum() / (views >= 15).sum())
    assert high > 1.5 * low


def test_tastes_turn_and_a_topic_appears():
    share = {
        when: happened(WORLD, number).query("event == 'click'")["topic"].value_counts(normalize=True)
        for when, number in (("before", 11), ("after", 16))
    }
    assert share["before"].get(TOPICS[-1], 0) == 0
    assert share["after"].get(TOPICS[-1], 0) > 0.05
    both = pd.DataFrame(share).fillna(0)
    assert np.abs(both["before"] - both["after"]).sum() / 2 > 0.15


def test_there_are_no_days_before_the_world_is_drawn_up(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))
    assert WorldActivity().landed_until() < START
    with pytest.raises(SourceError, match="assetline run --model recommend"):
        WorldActivity().land(FIRST)
    with pytest.raises(SourceError, match="begins on 2026-03-02"):
        source().land(FIRST - dt.timedelta(days=1))

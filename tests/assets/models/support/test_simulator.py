"""The simulated questions: the same each time, with dirt, late rows and a topic that appears."""

import datetime as dt

import pandas as pd
import pytest

from assets.lifecycle.data.landing import number_rows
from assets.lifecycle.data.row_outcomes import first_landed, type_and_refuse
from assets.models.support import model
from assets.models.support.simulator import MISTAKEN, QuestionSimulator, WorldQuestions
from assets.models.support.tables import INTENTS, SCAM
from assets.models.support.wording import PHRASES
from assets.models.support.world import PLAN
from assets.simulated import World
from resources.sources import SourceError, SourceUnavailable

FIRST = dt.date(2026, 3, 2)
SOURCE = QuestionSimulator(first_day="2026-03-02", shift_from="2026-03-20")


def day(number: int) -> dt.date:
    return FIRST + dt.timedelta(days=number)


def test_a_day_is_the_same_alone_and_after_others():
    alone = QuestionSimulator(first_day="2026-03-02", shift_from="2026-03-20", daily=75).land(day(9))
    for number in range(9):
        SOURCE.land(day(number))
    pd.testing.assert_frame_equal(SOURCE.land(day(9)), alone)
    elsewhere = QuestionSimulator(first_day="2027-03-01", shift_from="2027-03-19")
    assert elsewhere.questions(dt.date(2027, 3, 10))["text"].tolist() == SOURCE.questions(day(9))["text"].tolist()


def test_rows_land_with_dirt_and_some_late_and_nearly_all_become_clean():
    landed = number_rows({str(day(n)): SOURCE.land(day(n)) for n in range(14)})
    accepted, refused = type_and_refuse(landed, model.table)
    clean = accepted[first_landed(accepted, model.table)]
    assert 0 < len(refused) / len(landed) < model.table.max_refused
    late = clean["landing_day"] > clean["asked_at"].dt.floor("D")
    assert 0 < late.mean() < 0.05
    assert clean["question_id"].is_unique
    assert not clean["text"].str.contains("&amp;|  ").any()


def test_the_new_topic_appears_with_the_shift():
    before = pd.concat([SOURCE.questions(day(n)) for n in range(18)])
    after = pd.concat([SOURCE.questions(day(n)) for n in range(18, 25)])
    assert SCAM not in set(before["intent"])
    assert (after["intent"] == SCAM).mean() == pytest.approx(SOURCE.new_topic, abs=0.05)
    assert set(before["intent"]) == set(INTENTS) - {SCAM}
    assert set(PHRASES) == set(INTENTS)


def test_agents_say_the_intent_two_days_later_and_are_mostly_right():
    labels, asked = SOURCE.land_labels(day(5)), SOURCE.questions(day(3))
    assert labels["question_id"].tolist() == asked["question_id"].tolist()
    assert (labels["intent"] != asked["intent"]).mean() <= 10 * MISTAKEN


def test_a_state_folder_has_no_questions_until_its_world_is_drawn_up(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))
    with pytest.raises(SourceUnavailable, match="`assetline run --model support` draws up their world"):
        WorldQuestions().landed_until()
    PLAN.draw_up(tmp_path, World(FIRST, day(18)))
    assert len(WorldQuestions().land(day(3))) > 20
    with pytest.raises(SourceError, match="begins on 2026-03-02"):
        WorldQuestions().land(day(-1))

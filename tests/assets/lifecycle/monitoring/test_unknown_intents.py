"""Questions without an intent: when their share has risen, and what an alert shows of them."""

import datetime as dt
import json

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from assets.knowledge import Unknown
from assets.lifecycle.data.embeddings import vectors_of
from assets.lifecycle.monitoring import unknown_intents
from assets.lifecycle.monitoring.unknown_intents import MOST_LETTERS, Share, examples_of, has_risen
from assets.lifecycle.retrieval.knowledge import as_text, language_of
from sensors.alerts import RETRAINED_CAUSES, UNKNOWN_CAUSE
from tests.declarations.helpdesk import START, asked, helpdesk
from tests.declarations.questions import small_language_model
from tests.stages import Stages

NEW = "today again please the loan {n}, mail me at ada{n}@example.org"


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    return small_language_model(tmp_path_factory.mktemp("language") / "small")


@pytest.fixture
def stages(tmp_path, language_model):
    """A desk whose version 1 is uncertain below .5, knows the questions of one day, and usually misses one in fifty."""
    stages = Stages(helpdesk(tmp_path / "none", language_model), tmp_path)
    known = vectors_of(asked(START)["text"].tolist(), language_of(stages.model))
    stages.put("answering", pd.DataFrame([{
        "version": "1", "intent": 0.8, "passage": 0.3, "uncertain": 0.5, "far": 1.1, "unknown": 2, "rows": 100,
        "known": as_text(known), "known_rows": len(known),
    }]))  # fmt: skip
    return stages


def put_day(stages, number: int, unknown: int, version: str = "1") -> str:
    """A day of 60 questions, of which some are uncertain. ``far`` above 1 makes all of them unknown."""
    day = START + dt.timedelta(days=number)
    rows = asked(day)
    rows.loc[: unknown - 1, "text"] = [NEW.format(n=n) for n in range(unknown)]
    certain = np.where(np.arange(len(rows)) < unknown, 0.2, 0.9)
    stages.put("asked", rows, str(day))
    predictions = rows[["question_id", "asked_at"]].assign(prediction="card", probability=certain, version=version)
    stages.put("predictions", predictions, str(day))
    return str(day)


def test_an_ordinary_day_passes(stages):
    day = put_day(stages, 1, unknown=2)
    check = stages.make("unknown_intents", day).check("new_topic", day)
    assert check.passed
    assert check.description == "2 of 60 questions have no intent, 2.0% is usual"


@pytest.mark.closes("unknown_intents", "new_topic")
def test_a_new_topic_warns_then_pages_with_masked_examples(stages):
    first, second = put_day(stages, 1, unknown=20), put_day(stages, 2, unknown=20)
    warned = stages.make("unknown_intents", first).check("new_topic", first)
    assert not warned.passed
    assert warned.severity == dg.AssetCheckSeverity.WARN
    paged = stages.make("unknown_intents", second).check("new_topic", second)
    assert not paged.passed
    assert paged.severity == dg.AssetCheckSeverity.ERROR
    assert paged.metadata["since"].value == first
    assert "the loan" in paged.description
    assert "<EMAIL>" in paged.description
    assert "@example.org" not in paged.description
    line = stages.row("unknown_intents", second)
    assert (line["level"], line["unknown"], len(json.loads(line["examples"]))) == ("page", 20, 3)
    after = put_day(stages, 3, unknown=1)
    assert stages.make("unknown_intents", after).check("new_topic", after).passed


def test_days_of_one_run_follow_each_other(stages):
    days = [put_day(stages, n, unknown=20) for n in (1, 2)]
    done = stages.make("unknown_intents", *days)
    assert [done.check("new_topic", day).severity.value for day in days] == ["WARN", "ERROR"]


def test_another_version_begins_anew_and_one_without_thresholds_says_so(stages):
    first, second = put_day(stages, 1, unknown=20), put_day(stages, 2, unknown=20, version="2")
    stages.make("unknown_intents", first)
    check = stages.make("unknown_intents", second).check("new_topic", second)
    assert not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN
    assert check.description == "version 2 has no thresholds; materialise desk/answering"


def test_with_encrypted_tables_an_alert_has_no_words_of_customers(monkeypatch):
    line = {"day": pd.Timestamp("2026-03-03"), "level": "warn", "since": "2026-03-03"}
    told = (line, Share(20, 60), Share(2, 100), ["about the loan"])
    assert "loan" in unknown_intents._check_result(*told).description
    monkeypatch.setattr(unknown_intents.in_use, "encrypts", lambda: True)
    assert "loan" not in unknown_intents._check_result(*told).description


def test_its_page_asks_for_a_training_run():
    assert UNKNOWN_CAUSE == "unknown_intents/new_topic"
    assert UNKNOWN_CAUSE in RETRAINED_CAUSES


def test_a_rise_has_to_be_sure_and_large_enough():
    rule, usual = Unknown(alpha=0.01, min_effect=0.05), Share(10, 200)
    assert has_risen(Share(30, 100), usual, rule)
    assert not has_risen(Share(9, 100), usual, rule)
    assert not has_risen(Share(1, 2), usual, rule)
    assert not has_risen(Share(3_000, 50_000), Share(1_000, 50_000), rule)  # sure, and too small to matter
    assert not has_risen(Share(0, 0), usual, rule)
    assert not has_risen(Share(5, 10), Share(0, 0), rule)


def test_quiet_days_warn_as_rarely_as_declared():
    rng = np.random.default_rng(0)
    rule = Unknown()
    usual = [Share(int(rng.binomial(200, 0.08)), 200) for _ in range(2_000)]
    warned = [has_risen(Share(int(rng.binomial(90, 0.08)), 90), one, rule) for one in usual]
    assert np.mean(warned) <= rule.alpha


def test_examples_are_alike_short_and_distinct():
    vectors = np.eye(4, dtype=np.float32)[[0, 1, 1, 1, 2]]
    texts = ["other", "new topic", "new topic", "new " * 90, "else"]
    found = examples_of(texts, vectors)
    assert found[0] == "new topic"
    assert len(found) == 3
    assert all(len(text) <= MOST_LETTERS for text in found)
    assert examples_of([], np.zeros((0, 4))) == []

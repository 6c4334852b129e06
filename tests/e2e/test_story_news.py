"""The story of news with a small language model of random weights: every step happens."""

import datetime as dt
import re
from dataclasses import replace

import pytest

pytest.importorskip("transformers", reason="install the extra: make language-model")

import story.news
from assets.language import Language
from assets.models.news import simulator
from resources.settings import Settings
from tests.declarations.questions import small_language_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Both models with a language model that knows the words of the simulator."""
    words = " ".join(
        [*simulator.PLACES, *simulator.TAILS, *simulator.COMPANIES, *simulator.NEW_COMPANIES]
        + [phrase for kinds in (simulator.THINGS, simulator.NEW_THINGS, simulator.SAID, simulator.NEW_SAID)
           for phrases in kinds.values() for phrase in phrases]
    )  # fmt: skip
    folder = small_language_model(tmp_path / "small", known=sorted(set(re.findall(r"\w+", words.lower()))))
    for name in ("model", "topics_model"):
        declared = getattr(story.news, name)
        monkeypatch.setattr(story.news, name, replace(declared, language=Language(model=str(folder))))


def test_the_story_of_news_ends_well(tmp_path, monkeypatch, small, capsys):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home" / "dagster"))
    story.news.play(Settings.from_env(), until=dt.date(2026, 10, 3), seed=0)
    told = capsys.readouterr().out
    assert "Every step happened" in told
    assert "supply has" in told

"""The two declarations of news: they build together, and hold without the language model's files."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from assets.build import build
from assets.lifecycle.data.landing import LANDING_DAY, ROW_ID
from assets.lifecycle.data.raw_rows import RawRows
from assets.models.news import model
from assets.models.news_topics import model as topics
from tests.declarations.questions import small_language_model
from tests.stages import Stages

STRANGE = ["card " * 20_000, "供应链出现严重问题", "😀🎉", "the the the", "https://news.example/a/1"]


def test_they_build_together_and_topics_by_day_reads_both():
    built, broken = build([model, topics])
    assert broken == []
    counted = next(asset for one in built for asset in one.assets if asset.key == model.key("topics_by_day"))
    reads = {key.to_user_string() for key in counted.dependency_keys}
    assert {"news/predictions", "news_topics/predictions"} <= reads
    assert build([model])[1][0].reason.startswith("model 'news': surge.topics='news_topics' is invalid: no such model")


def test_strange_texts_are_accepted_and_an_empty_one_is_refused_with_its_column():
    rows = [{"news_id": str(n), "published_at": "2026-01-05 10:00:00", "text": text} for n, text in enumerate(STRANGE)]
    empty = {**rows[0], "text": "   "}
    accepted, refused = RawRows(model).typed([*rows, empty], pd.Timestamp("2026-01-05 12:00").to_pydatetime())
    assert len(accepted) == len(STRANGE)
    assert len(refused) == 1
    assert "text" in str(refused.iloc[0].to_dict())


def test_late_labels_are_read_by_the_name_of_their_class(tmp_path):
    pytest.importorskip("transformers", reason="install the extra: make language-model")
    language = replace(model.language, model=str(small_language_model(tmp_path / "small")))
    stages = Stages(replace(model, language=language, surge=None), tmp_path)
    day, due = "2026-01-05", "2026-01-06"
    at = pd.Timestamp("2026-01-05 10:00")
    rows = pd.DataFrame({"news_id": np.arange(3), "published_at": at, "text": ["a", "b", "c"], "sentiment": None})
    stages.put("texts", rows.astype({"text": "string[pyarrow]", "sentiment": "string[pyarrow]"}), day)
    labels = pd.DataFrame(
        {"news_id": ["0", "1", "2"], "sentiment": ["negative", "positive", " positive"], "topic": "jobs"}
    )
    landed = labels.assign(_row_id=["a", "b", "c"], _landing_day=pd.Timestamp(due)).astype(
        dict.fromkeys(labels, "string[pyarrow]")
    )
    stages.put("raw_labels", landed.rename(columns={"_row_id": ROW_ID, "_landing_day": LANDING_DAY}), due)
    made = stages.make("labels", day)
    assert made.success, made.why
    assert stages.tables.read(model.key("labels"), [day])["sentiment"].tolist() == [0, 2, 2]

"""A ranking whose texts are read by a language model: trained, evaluated, served, and a new item found by its text."""

import datetime as dt
import json
from dataclasses import replace

import pandas as pd
import pytest
from fastapi.testclient import TestClient

pytest.importorskip("transformers", reason="install the extra: make language-model")
pytest.importorskip("implicit", reason="the baseline ALS needs `pip install 'assetline[ranking]'`")

from assets.language import Language
from assets.lifecycle.model.version.bundle import Bundle
from assets.lifecycle.ranking.texts import HASHED
from resources.request_log import RequestLog
from serving.scoring.service import Endpoint, Served
from tests.declarations import shelf
from tests.declarations.questions import small_language_model
from tests.declarations.shelf import START, WORDS, shelf_model
from tests.serving.conftest import app_of
from tests.worlds import World, why

pytestmark = pytest.mark.slow

DAYS = [str(START + dt.timedelta(days=n)) for n in range(11)]
WIDTH = 32
"""Of the vectors of the small language model."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    known = sorted({word for words in WORDS.values() for word in words.split()} | {"volume", *map(str, range(100))})
    folder = small_language_model(tmp_path_factory.mktemp("language") / "small", known=known)
    plain = shelf.model.ranking
    return shelf_model(ranking=replace(plain, language=Language(model=str(folder)), facts=(), epochs=4))


@pytest.fixture(scope="module")
def world(make_world, tmp_path_factory, model) -> World:
    """Trained with ten days of loans, by the jobs."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shelf, "model", model)
        world = make_world(model, tmp_path_factory.mktemp("shelf"))
        for work in ("land", "clean", "label", "features"):
            result = world.run(work, DAYS)
            assert result.success, (work, why(result))
        result = world.run("train", training_set={"as_of": DAYS[-1]})
        assert result.success, why(result)
        yield world


def test_it_is_trained_and_better_than_popularity(world):
    report = json.loads(world.row("evaluation")["report"])
    assert {"torch", "popularity", "item_knn", "als"} <= set(report["models"])
    assert report["models"]["torch"]["ndcg"]["value"] > report["models"]["popularity"]["ndcg"]["value"]
    ranker = Bundle.load(world.mlflow.download("shelf", "1")).ranker
    assert ranker.texts.shape[1] == WIDTH != HASHED, "the texts are vectors of the language model"


@pytest.fixture
def client(world, model, monkeypatch):
    monkeypatch.setattr("serving.scoring.service.declared_models", lambda: [model])
    log = RequestLog(folder=str(world.settings.serving))
    served = Served.prepare("1", world.mlflow.download("shelf", "1"), world.tables, log).try_out()
    with TestClient(app_of(Endpoint("shelf", world.tables, log=log, served=served))) as client:
        yield client


def scores(client, genre: int, **body) -> dict[str, float]:
    """Scores for somebody who has just borrowed three books of a genre."""
    events = [{"item": f"b{genre + 4 * n}", "event": "borrow"} for n in range(3)]
    answer = client.post("/models/shelf/rank", json={"user": f"new-{genre}", "events": events, "k": 100, **body})
    assert answer.status_code == 200, answer.text
    return {one["item"]: one["score"] for one in answer.json()["items"]}


def test_a_list_has_the_genre_that_a_reader_likes(client):
    ranked = list(scores(client, 1))
    assert sum(int(item[1:]) % 4 == 1 for item in ranked[:5]) >= 3


def test_a_book_that_nobody_has_seen_is_ranked_by_its_title(world, model, monkeypatch, client):
    assert "b900" not in scores(client, 1)
    new = pd.DataFrame({"loan_id": ["n1"], "at": [pd.Timestamp(DAYS[-1]) + pd.Timedelta("23h")], "reader": [""],
                        "book": ["b900"], "event": ["publish"], "title": ["verse rhyme sonnet volume 3"],
                        "genre": ["poems"]})  # fmt: skip
    rows = world.tables.read(model.key("loans"), [DAYS[-1]])
    world.tables.write(model.key("loans"), pd.concat([rows, new], ignore_index=True), DAYS[-1])
    monkeypatch.setattr("serving.scoring.service.declared_models", lambda: [model])
    log = RequestLog(folder=str(world.settings.serving))
    served = Served.prepare("1", world.mlflow.download("shelf", "1"), world.tables, log).try_out()
    with TestClient(app_of(Endpoint("shelf", world.tables, log=log, served=served))) as client:
        poems, science = scores(client, 1), scores(client, 3)
    place = {name: list(found).index("b900") / len(found) for name, found in {"p": poems, "s": science}.items()}
    assert place["p"] < 0.35, "a reader of poems gets it in the first third"
    assert place["p"] < place["s"]

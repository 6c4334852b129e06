"""A person's questions go from examples of unknown intents, from messages that quote them, and from known vectors."""

import datetime as dt
import json
import sqlite3
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from pandera.typing.pandas import Series

pytest.importorskip("transformers", reason="install the extra: make language-model")

from assets.lifecycle.data.embeddings import vectors_of
from assets.lifecycle.erasure.forget import Erasure
from assets.lifecycle.erasure.person import Person, Traces
from assets.lifecycle.erasure.questions import alerts_with, excerpts_of, questions_with
from assets.lifecycle.erasure.stored import Scope
from assets.lifecycle.retrieval.answering import _Asked, _watched
from assets.lifecycle.retrieval.knowledge import as_text, language_of, vectors_in
from resources.alerts.store import AlertStore
from resources.tables import ParquetTables
from resources.tombstones import Tombstones
from tests.declarations.helpdesk import START, Asked, asked, helpdesk
from tests.declarations.questions import small_language_model
from tests.worlds import World, why

DAYS = [str(START + dt.timedelta(days=n)) for n in (1, 2)]
PERSON = "c-4711-77"
MINE = "please the zebra | loan, mail ada@example.org; today"
SHOWN = "please the zebra | loan, mail <EMAIL>; today"
OTHERS = "please the loan today again"


class AskedByCustomers(Asked):
    """A question, and who asked it."""

    customer: Series[str]


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    return small_language_model(tmp_path_factory.mktemp("language") / "small")


def desk(folder, language_model):
    model = helpdesk(folder / "none", language_model)
    table = replace(model.table, contract=AskedByCustomers)
    return replace(model, table=table, answers=replace(model.answers, text="text"))


def write_day(tables: ParquetTables, model, day: str) -> None:
    """60 questions, 20 of them unknown: one of the person, the others in other words."""
    rows = asked(dt.date.fromisoformat(day)).assign(customer="c-1")
    rows.loc[:19, "text"] = OTHERS
    rows.loc[3, ["text", "customer"]] = [SHOWN, PERSON]  # as the landing leaves it
    probability = np.where(np.arange(len(rows)) < 20, 0.2, 0.9)
    tables.write(model.key("asked"), rows, day)
    said = rows[["question_id", "asked_at"]].assign(prediction="card", probability=probability, version="1")
    tables.write(model.key("predictions"), said, day)


def thresholds(tables: ParquetTables, model, **given) -> pd.DataFrame:
    """Version 1, which knows the questions of the second day."""
    rows = tables.read(model.key("asked"), [DAYS[1]])
    known = vectors_of(rows["text"].tolist(), language_of(model))
    return pd.DataFrame([{
        "version": "1", "intent": 0.8, "passage": 0.3, "uncertain": 0.5, "far": 1.1, "unknown": 2, "rows": 100,
        "known": as_text(known), "known_rows": len(known),
        "known_keys": json.dumps([str(one) for one in rows["question_id"]]), **given,
    }])  # fmt: skip


@pytest.fixture(scope="module")
def world(make_world, tmp_path_factory, language_model) -> World:
    """A desk whose watch quoted a question of the person in its table, in an event and in an alert."""
    folder = tmp_path_factory.mktemp("desk")
    world = make_world(desk(folder, language_model), folder / "home")
    model, store = world.model, AlertStore(world.settings.database_url)
    for day in DAYS:
        write_day(world.tables, model, day)
    world.tables.write(model.key("answering"), thresholds(world.tables, model))
    for day in DAYS:
        result = world.materialize("unknown_intents", day=day)
        assert result.success, why(result)
        [check] = result.get_asset_check_evaluations()
        assert f"| {SHOWN}" in check.description or f"e.g.: {SHOWN}" in check.description
        store.report("desk", "unknown_intents/new_topic", severity="warn", summary=f"{day}: {check.description}")
    (world.settings.home / "output.log").write_text(f"WARNING {check.description}\n")
    return world


def test_it_is_found_where_it_is_quoted_and_goes_and_those_of_others_stay(world):
    settings, model = world.settings, world.model
    erasure = Erasure(settings, [model], world.instance, column="customer", value=PERSON)
    found = erasure.find()
    assert found.questions == {"desk/unknown_intents": 2, "desk/answering": 1}
    assert found.alerts > 0
    assert found.events > 0
    assert found.texts == {"output.log": 1}
    before = world.row("answering")
    erasure.forget("ada")
    for day in DAYS:
        assert json.loads(world.row("unknown_intents", day)["examples"]) == [OTHERS]
    after = world.row("answering")
    mine = world.tables.read(model.key("asked"), [DAYS[1]])
    assert after["known_rows"] == before["known_rows"] - 1 == len(mine)
    assert json.loads(after["known_keys"]) == [str(one) for one in mine["question_id"]]
    kept = np.delete(vectors_in(before["known"], 60), 3, axis=0)
    np.testing.assert_array_equal(vectors_in(after["known"], 59), kept)
    alerts = AlertStore(settings.database_url).alerts()
    assert all("zebra" not in alert.summary and OTHERS in alert.summary for alert in alerts)
    for path in settings.home.rglob("*"):
        if path.is_file() and not path.name.endswith(("-wal", "-shm")):
            assert b"zebra" not in path.read_bytes(), path
    with sqlite3.connect(settings.home / "dagster" / "event_log.db") as events:
        told = " ".join(str(row) for row in events.execute("SELECT event FROM event_logs"))
    assert OTHERS in told
    assert "zebra" not in told


def test_a_sample_for_the_ui_has_no_examples_and_no_vectors(world):
    with sqlite3.connect(world.settings.home / "dagster" / "event_log.db") as events:
        told = [row[0] for row in events.execute("SELECT event FROM event_logs") if '"sample"' in row[0]]
    assert told
    assert not [one for one in told if "examples |" in one]


def test_a_search_that_still_finds_a_question_leaves_the_removal_open(world, monkeypatch):
    from assets.lifecycle.erasure import forget

    world.tables.write(world.model.key("answering"), thresholds(world.tables, world.model))
    other = str(world.tables.read(world.model.key("asked"), [DAYS[1]])["question_id"].iloc[0])
    erasure = Erasure(world.settings, [world.model], world.instance, column="question_id", value=other)
    monkeypatch.setattr(forget, "questions_with",
                        lambda *given, remove: questions_with(*given, remove=False))  # fmt: skip
    with pytest.raises(forget.ErasureError, match="desk/answering: 1 of their questions"):
        erasure.forget("ada")
    monkeypatch.undo()
    Erasure(world.settings, [world.model], world.instance, column="question_id", value=other).forget("ada")
    assert world.row("answering")["known_rows"] == 58


def test_earlier_versions_of_a_table_with_their_question_go_too(tmp_path, language_model):
    model = desk(tmp_path, language_model)
    tables = ParquetTables(root=f"delta+file://{tmp_path}/tables")
    write_day(tables, model, DAYS[1])
    scope = Scope([model], "customer")
    key = str(tables.read(model.key("asked"))["question_id"].iloc[3])
    person = Person("customer", PERSON, Tombstones.read(tables.files), keys={"desk/asked": {key}})
    person = replace(person, excerpts=excerpts_of(tables, scope, person))
    assert person.excerpts == {SHOWN}
    line = pd.DataFrame([{"day": pd.Timestamp(DAYS[1]), "examples": json.dumps([SHOWN, OTHERS])}])
    tables.write(model.key("unknown_intents"), line, DAYS[1])
    tables.write(model.key("unknown_intents"), line.assign(examples="[]"), DAYS[1])
    assert questions_with(tables, scope, person, remove=False) == {"desk/unknown_intents": 1}
    questions_with(tables, scope, person, remove=True)
    assert questions_with(tables, scope, person, remove=False) == {}
    assert not [path for path in (tmp_path / "tables" / "desk" / "unknown_intents").rglob("*.parquet")
                if "zebra" in str(pd.read_parquet(path).to_dict())]  # fmt: skip


def test_vectors_that_do_not_say_whose_they_are_all_go(tmp_path, language_model):
    model = desk(tmp_path, language_model)
    tables = ParquetTables(root=str(tmp_path / "tables"))
    write_day(tables, model, DAYS[1])
    tables.write(model.key("answering"), thresholds(tables, model).drop(columns="known_keys"))
    nobody = Person("customer", "c-9", Tombstones.read(tables.files))
    assert questions_with(tables, Scope([model], "customer"), nobody, remove=True) == {}
    person = replace(nobody, keys={"desk/asked": {"1"}})
    assert questions_with(tables, Scope([model], "customer"), person, remove=True) == {"desk/answering": 60}
    row = tables.read(model.key("answering")).iloc[0]
    assert (row["known_rows"], row["known"], row["intent"]) == (0, "", 0.8)


def test_a_version_keeps_whose_vectors_it_has(tmp_path, language_model):
    model = desk(tmp_path, language_model)
    fit = asked(START).assign(intent=np.arange(60) % 3)
    nobody = _Asked([], [], np.zeros(0), np.zeros(0, bool), np.zeros(0, int))
    none = np.zeros((0, 32), np.float32)
    found = _watched(model, fit, (nobody, nobody), [none, none])
    text_of = dict(zip(fit["question_id"].astype(str), fit["text"], strict=True))
    keys = json.loads(found["known_keys"])
    again = vectors_of([text_of[key] for key in keys], language_of(model))
    np.testing.assert_allclose(vectors_in(found["known"], found["known_rows"]), again, atol=1e-5)
    assert len(set(keys)) == 60


def test_an_excerpt_counts_only_where_a_message_quotes_it():
    traces = Traces("customer", "c-1", lambda _: False, frozenset(), frozenset({"pay <me>", "hi"}))
    told = b"2 of 60 questions have no intent; e.g.: hi | hi there | pay <me>; declare an intent"
    assert traces.masked(told) == told.replace(b"e.g.: hi |", b"e.g.: ** |").replace(b"pay <me>", b"********")
    assert traces.is_in(b"<td>e.g.: pay &lt;me&gt;; declare</td>")
    assert not traces.is_in(b"hi, pay <me> | hi")


def test_texts_of_alerts_are_counted_and_rewritten(tmp_path):
    store = AlertStore(url := f"sqlite:///{tmp_path / 'a.db'}")
    store.report("desk", "quality/share", severity="warn", summary="customer=c-4711-77 is odd")
    store.report("desk", "drift/text", severity="warn", summary="all of them are odd")
    person = Person("customer", PERSON, Tombstones("00"))
    assert alerts_with(store, person, remove=False) == 2, "the alert, and its history"
    assert alerts_with(store, person, remove=True) == 2
    assert alerts_with(store, person, remove=False) == 0
    summaries = {alert.summary for alert in store.alerts()}
    assert summaries == {"customer=********* is odd", "all of them are odd"}
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), sa.create_engine(url).begin() as connection:
        connection.exec_driver_sql("UPDATE alert_events SET message = ''")

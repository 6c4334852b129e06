"""`/rank` and the catalogue of today's tables: few items, deleted ones, and events about these."""

import datetime as dt
from dataclasses import replace

import pandas as pd
import pytest
from fastapi.testclient import TestClient

from assets.lifecycle.ranking.bundle import RankingBundle
from assets.lifecycle.ranking.daily import log_of
from assets.lifecycle.ranking.fitting import fit_ranking
from resources.request_log import RequestLog
from resources.tables import ParquetTables
from serving.scoring.service import Endpoint, Served
from tests.declarations.shelf import START, loans, model
from tests.serving.conftest import app_of

YESTERDAY = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)


def few(rows: pd.DataFrame, books: int = 10) -> pd.DataFrame:
    """The rows about the first books."""
    return rows[rows["book"].isin([f"b{n}" for n in range(books)])].reset_index(drop=True)


def of_yesterday() -> pd.DataFrame:
    """The rows of a fixed day, as if they were of yesterday."""
    of = START + dt.timedelta(days=6)
    rows = few(loans(of))
    return rows.assign(at=rows["at"] + (pd.Timestamp(YESTERDAY) - pd.Timestamp(of)))


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    """Fitted on ten books."""
    folder = tmp_path_factory.mktemp("version") / "v"
    rows = few(pd.concat([loans(START + dt.timedelta(days=n)) for n in range(5)], ignore_index=True))
    items, past = log_of(rows, model)
    ranking = replace(model.ranking, epochs=2)
    RankingBundle.write(folder, fit_ranking(past, items, ranking, seed=0, log=lambda _: None).ranker, model, {})
    return folder


@pytest.fixture
def rank(version, tmp_path):
    """Asks a service whose tables have a day of loans, and `b3` withdrawn."""
    tables, log = ParquetTables(root=str(tmp_path / "tables")), RequestLog(folder=str(tmp_path / "serving"))
    rows = of_yesterday()
    gone = rows.iloc[:1].assign(loan_id="gone", event="withdraw", book="b3", reader="", at=rows["at"].max())
    rows = pd.concat([rows, gone], ignore_index=True)
    tables.write(model.key("loans"), rows, str(YESTERDAY))
    labels = rows[["loan_id"]].assign(event=model.task.codes(rows["event"]))
    tables.write(model.key("labels"), labels, str(YESTERDAY))
    served = Served.prepare("1", version, tables, log).try_out()
    with TestClient(app_of(Endpoint("shelf", tables, log=log, served=served))) as client:

        def ask(user: str, **body) -> dict:
            answer = client.post("/models/shelf/rank", json={"user": user, **body})
            assert answer.status_code == 200, answer.text
            return answer.json()

        yield ask


def listed(said: dict) -> set[str]:
    return {one["item"] for one in said["items"]}


def test_a_list_that_is_longer_than_the_catalogue_has_all_of_it(rank):
    assert listed(rank("nobody", k=100)) == {f"b{n}" for n in range(10) if n != 3}


def test_a_user_without_history_gets_a_list_and_every_reason_is_one_of_nobody(rank):
    said = rank("nobody")
    assert len(said["items"]) == model.ranking.k
    assert {one["reason"] for one in said["items"]} <= {"popular in the last days", "new", "explored"}
    assert said["unknown"] == []


def test_a_deleted_item_is_on_no_list_also_if_it_is_asked_for(rank):
    said = rank("nobody", candidates=["b3", "b4"])
    assert listed(said) == {"b4"}
    assert said["unknown"] == ["b3"]
    only = rank("nobody", candidates=["b3"])
    assert (only["items"], only["unknown"]) == ([], ["b3"])


def test_an_event_about_a_deleted_or_an_unknown_item_is_taken_and_hides_nothing(rank):
    said = rank("me", k=100, events=[{"item": "b3", "event": "borrow"}, {"item": "never", "event": "borrow"}])
    assert said["unknown"] == ["never"]
    assert listed(said) == {f"b{n}" for n in range(10) if n != 3}


def test_somebody_who_knows_every_item_gets_an_empty_list(rank):
    said = rank("all", events=[{"item": f"b{n}", "event": "borrow"} for n in range(10)])
    assert said["items"] == []


def test_an_event_of_a_kind_that_counts_nothing_changes_no_history(rank):
    assert listed(rank("me", k=100, events=[{"item": "b1", "event": "look"}])) == {f"b{n}" for n in range(10) if n != 3}
    assert "b1" in listed(rank("me", k=100, events=[{"item": "b1", "event": "no such event"}]))


def test_the_tables_say_what_is_popular_and_what_a_reader_knows(rank):
    rows = of_yesterday()
    borrowed = rows[rows["event"] == "borrow"]
    reader = str(borrowed["reader"].iloc[0])
    known = set(borrowed.loc[borrowed["reader"] == reader, "book"])
    assert not known & listed(rank(reader, k=100))

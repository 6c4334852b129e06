"""A ranking whose users are stored as pseudonyms: found by their plain name, kept without it, and forgotten."""

import asyncio
import datetime as dt
import json
from dataclasses import replace

import pandas as pd
import pandera.pandas as pa
import pytest
from fastapi.testclient import TestClient
from pandera.typing.pandas import Series

from assets.declaration import DeclarationError
from assets.lifecycle.data.protection import Protection, pseudonym_of
from assets.lifecycle.erasure.person import Person
from assets.lifecycle.erasure.stored import Scope, remove_from_log, remove_from_table
from assets.lifecycle.monitoring.requests import table_of
from assets.lifecycle.ranking.bundle import RankingBundle
from assets.lifecycle.ranking.daily import log_of
from assets.lifecycle.ranking.fitting import fit_ranking
from assets.lifecycle.rekeying import rekey
from assets.personal import personal
from resources.keys import KeyFile, KeyRing
from resources.pseudonyms import InForce, record
from resources.request_log import RequestLog
from resources.settings import Settings
from resources.tables import ParquetTables
from resources.tombstones import Tombstone, Tombstones
from serving.scoring.service import Endpoint, Served
from tests.declarations.shelf import BOOKS, START, Loans, loans, shelf_model
from tests.serving.conftest import app_of

CANARY = "zqxreader"
ME, OTHER = f"{CANARY}-1@example.org", f"{CANARY}-2@example.org"
NOW = dt.datetime.now(dt.UTC).replace(tzinfo=None, microsecond=0)
LOANS = {"b1", "b5", "b9"}
"""What the first reader has borrowed, as the table says."""


class TaggedLoans(Loans):
    """Loans whose reader is an e-mail address."""

    reader: Series[str] = pa.Field(nullable=True, metadata=personal("email"))


def clean(raw: pd.DataFrame) -> pd.DataFrame:
    """Loans of a source that names the reader otherwise."""
    return raw.rename(columns={"Reader Mail": "reader"}).assign(at=pd.to_datetime(raw["at"]))[
        list(Loans.to_schema().columns)
    ]


PLAIN = shelf_model()
BY_CONTRACT = shelf_model(table=replace(PLAIN.table, contract=TaggedLoans))
BY_RAW_NAME = shelf_model(
    table=replace(PLAIN.table, clean=clean, raw_tags={"Reader Mail": personal("email", column="reader")})
)


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    folder = tmp_path_factory.mktemp("version") / "v"
    rows = pd.concat([loans(START + dt.timedelta(days=n)) for n in range(4)], ignore_index=True)
    items, past = log_of(rows, PLAIN)
    ranking = replace(PLAIN.ranking, epochs=2)
    RankingBundle.write(folder, fit_ranking(past, items, ranking, seed=0, log=lambda _: None).ranker, PLAIN, {})
    return folder


class Running:
    """A service in this process, whose table has three loans of yesterday of one reader, as they were landed."""

    def __init__(self, folder, version, model) -> None:
        self.model, self.version = model, version
        self.settings = Settings.from_env({"ASSETLINE_HOME": str(folder)})
        KeyFile(self.settings.keys).create("pseudonyms")
        self.tables = ParquetTables(root=self.settings.tables)
        yesterday = NOW - dt.timedelta(days=1)
        rows = loans(yesterday.date(), rows=3).assign(
            reader=ME, book=sorted(LOANS), event="borrow", title="murder", genre="poems"
        )
        stored = Protection(BY_CONTRACT, self.keys).frame(rows.astype("string[pyarrow]"))
        self.who = stored["reader"].iloc[0]
        rows = rows.assign(reader=stored["reader"].astype("string[pyarrow]").to_numpy())
        self.tables.write(model.key("loans"), rows, str(yesterday.date()))
        self.tables.write(model.key("labels"), rows[["loan_id"]].assign(event=1.0), str(yesterday.date()))
        record(self.settings.tables, InForce((self.keys[0].fingerprint,)))
        self.start()

    @property
    def keys(self):
        return KeyRing.of(self.settings).versions("pseudonyms")

    def start(self) -> None:
        self.log = RequestLog(folder=str(self.settings.serving))
        served = Served.prepare("1", self.version, self.tables, self.log)
        self.endpoint = Endpoint("shelf", self.tables, log=self.log, served=served, settings=self.settings)
        self.client = TestClient(app_of(self.endpoint))

    def rank(self, user: str, **body):
        return self.client.post("/models/shelf/rank", json={"user": user, **body})

    def history(self, user: str) -> set[str]:
        """The books that the service knows somebody to have borrowed: a list of all books has the others."""
        answer = self.rank(user, k=100)
        assert answer.status_code == 200, answer.text
        return {f"b{i}" for i in range(BOOKS)} - {one["item"] for one in answer.json()["items"]}

    def kept(self) -> str:
        """Everything that the service wrote."""
        return "".join(path.read_text() for path in self.settings.serving.rglob("*.jsonl"))


@pytest.fixture(params=["contract", "raw name"])
def running(request, tmp_path, version, monkeypatch) -> Running:
    model = BY_CONTRACT if request.param == "contract" else BY_RAW_NAME
    monkeypatch.setattr("serving.scoring.service.declared_models", lambda: [model])
    return Running(tmp_path, version, model)


@pytest.fixture
def tagged(tmp_path, version, monkeypatch) -> Running:
    monkeypatch.setattr("serving.scoring.service.declared_models", lambda: [BY_CONTRACT])
    return Running(tmp_path, version, BY_CONTRACT)


def test_a_user_is_found_under_the_pseudonym_and_nothing_keeps_the_plain_name(running, caplog):
    assert running.who == pseudonym_of(running.model, "reader", ME, running.keys)
    assert running.history(ME) == LOANS
    assert running.history(f" {ME.upper()} ") == LOANS, "as the landing reads the address"
    assert running.history(OTHER) == set()
    answer = running.rank(OTHER, events=[{"item": "b2", "event": "borrow"}])
    assert CANARY not in json.dumps(answer.json()["items"]), "no reason names anybody"
    assert answer.json()["user"] == OTHER, "who asked knows whom for"
    assert running.history(OTHER) == {"b2"}
    kept = running.kept()
    assert CANARY not in kept.lower()
    assert running.who in kept
    assert CANARY not in caplog.text.lower()
    assert all(name.startswith("p_") for name in running.endpoint.lists.sent)


@pytest.mark.parametrize("body", [{"events": [{"item": "b1", "event": "borrow", "at": "soon"}]}, {"k": 0}, {"who": ME}])
def test_a_refusal_does_not_quote_the_user(tagged, body):
    answer = tagged.rank(ME, **body)
    assert answer.status_code == 422
    assert CANARY not in answer.text.lower()
    assert CANARY not in tagged.kept()


def test_a_user_that_counts_as_missing_is_refused(tagged):
    for nobody in (" ", "NA"):
        answer = tagged.rank(nobody, events=[{"item": "b1", "event": "borrow"}])
        assert answer.status_code == 422, "else all of them had one history"
        assert "it counts as a missing value" in answer.json()["detail"]
    assert not tagged.endpoint.lists.sent


def test_without_its_key_no_list_is_made_and_nothing_is_kept(tagged):
    tagged.settings.keys.unlink()
    asyncio.run(tagged.endpoint.follow())
    answer = tagged.rank(ME)
    assert answer.status_code == 503
    assert "the rows of 'shelf' have pseudonyms: the key" in answer.json()["detail"]
    assert tagged.kept() == ""


def test_a_person_is_forgotten_by_a_running_service_and_nobody_else(tagged):
    for user, book in ((ME, "b2"), (ME, "b6"), (OTHER, "b3")):
        assert tagged.rank(user, events=[{"item": book, "event": "borrow"}]).status_code == 200
    assert tagged.history(ME) == {"b2", "b6", *LOANS}
    scope, tombstones = Scope([BY_CONTRACT], "reader"), Tombstones.read(tagged.tables.files)
    person = Person("reader", tagged.who, tombstones)
    begun = Tombstone(column="reader", digest=tombstones.digest(tagged.who), keys={}, at="2026-01-01T00:00:00",
                      until="2026-01-01", who="ada")  # fmt: skip
    assert remove_from_table(tagged.tables, "shelf/loans", scope, person)
    assert remove_from_log(tagged.log, scope, person) == 3
    tombstones.having(replace(begun, state="done")).write(tagged.tables.files)
    asyncio.run(tagged.endpoint.follow())
    assert tagged.endpoint.problem is None
    assert tagged.who not in str(tagged.endpoint.lists.sent)
    assert tagged.history(ME) == set(), "nothing of them is in memory"
    assert tagged.history(OTHER) == {"b3"}, "the other's event came back from the log"
    assert tagged.rank(ME, events=[{"item": "b2", "event": "borrow"}]).status_code == 200
    assert tagged.history(ME) == {"b2"}, "a later request is new data"


def test_lists_in_the_table_of_requests_are_theirs_too(tagged):
    from assets.lifecycle.erasure.stored import theirs

    for user in (ME, OTHER, ME):
        assert tagged.rank(user).status_code == 200
    records = tagged.log.day("shelf", str(dt.datetime.now(dt.UTC).date())).records
    tagged.tables.write(BY_CONTRACT.key("requests"), table_of(BY_CONTRACT, records), "2026-01-02")
    scope = Scope([BY_CONTRACT], "reader")
    person = Person("reader", tagged.who, Tombstones.read(tagged.tables.files))
    rows = tagged.tables.arrow(BY_CONTRACT.key("requests"), ["2026-01-02"])[0]
    assert theirs(rows, "shelf/requests", scope, person).tolist() == [True, False, True]
    assert remove_from_table(tagged.tables, "shelf/requests", scope, person) == {"2026-01-02": 2}
    assert tagged.who not in str(tagged.tables.read(BY_CONTRACT.key("requests")).to_dict("records"))


def test_events_in_the_log_follow_a_newer_key(tagged):
    tagged.rank(OTHER, events=[{"item": "b2", "event": "borrow"}])
    tagged.log.close()
    KeyFile(tagged.settings.keys).rotate("pseudonyms")
    log = RequestLog(folder=str(tagged.settings.serving))
    assert rekey([BY_CONTRACT], tagged.tables, log, KeyRing.of(tagged.settings), say=lambda _: None).lines == 1
    log.close()
    tagged.start()
    assert tagged.history(OTHER) == {"b2"}
    assert tagged.history(ME) == LOANS


def test_an_item_and_a_field_of_the_log_cannot_be_users_columns():
    class TaggedBooks(Loans):
        book: Series[str] = pa.Field(metadata=personal("name"))

    with pytest.raises(DeclarationError, match="it is the item, which requests and lists name as it is"):
        shelf_model(table=replace(PLAIN.table, contract=TaggedBooks))
    named = replace(PLAIN.ranking, user="listed")
    assert [field for field, _, fix in named.wrong(("listed", *PLAIN.table.columns)) if "rename the column" in fix] == [
        "user"
    ]

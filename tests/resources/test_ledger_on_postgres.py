"""The ledger on a real PostgreSQL: the same promises as on SQLite."""

import threading

import pytest
import sqlalchemy as sa

from resources.ledger import Ledger
from tests.resources.conftest import POSTGRES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(POSTGRES is None, reason="needs the Debian package postgresql"),
]
FACTS = {"verdicts": {"gate": True}, "dagster_run": "run-1", "who": "ada"}


@pytest.fixture(scope="module")
def url(postgres) -> str:
    return postgres("ledger")


def test_entries_can_be_neither_changed_nor_removed_and_none_is_lost(url):
    ledger = Ledger(database_url=url)
    ledger.promote("fraud", "1", reason="first", **FACTS)
    ledger.refuse("fraud", "2", reason="worse", **FACTS)
    engine = sa.create_engine(url)
    for statement in ("UPDATE promotions SET version = '9'", "DELETE FROM promotions"):
        with (
            pytest.raises(sa.exc.DBAPIError, match="the ledger of promotions is append-only"),
            engine.begin() as connection,
        ):
            connection.execute(sa.text(statement))
    assert [(entry.action, entry.version) for entry in ledger.history("fraud")] == [("promote", "1"), ("refuse", "2")]
    assert ledger.champion("fraud").verdicts == {"gate": True}


def test_writers_that_start_at_once_on_an_empty_database_leave_one_unbroken_history(postgres):
    url = postgres("empty")
    failures, barrier = [], threading.Barrier(6)

    def work(number: int) -> None:
        barrier.wait()
        try:
            for step in range(4):
                Ledger(database_url=url).promote("churn", f"{number}.{step}", reason="r", **FACTS)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    history = Ledger(database_url=url).history("churn")
    assert [entry.number for entry in history] == list(range(1, 25))
    assert [entry.previous for entry in history] == [None, *(entry.version for entry in history[:-1])]

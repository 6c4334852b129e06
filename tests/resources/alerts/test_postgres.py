"""The alert store on a real PostgreSQL: the same promises."""

import threading

import pytest
import sqlalchemy as sa

from resources.alerts import AlertStore, Route
from tests.resources.conftest import POSTGRES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(POSTGRES is None, reason="needs the Debian package postgresql"),
]


@pytest.fixture(scope="module")
def url(postgres):
    return postgres("alerts")


def test_many_at_once_open_one_alert_and_lose_none(url):
    store = AlertStore(url, [Route(channel="c")])
    store.open_alerts()  # the tables are made once
    failures, barrier = [], threading.Barrier(6)

    def work() -> None:
        mine = AlertStore(url, [Route(channel="c")])
        barrier.wait()
        try:
            for _ in range(5):
                mine.report("fraud", "drift/drift", severity="page", summary="x", day="2026-03-01")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    [alert] = store.open_alerts()
    assert alert.count == 30
    assert [d.change for d in store.outbox.due("c")] == ["opened"]


def test_an_alert_lives_and_its_history_cannot_be_rewritten(url):
    store = AlertStore(url, [Route(channel="c")])
    alert, _ = store.report("fraud", "run/x", severity="warn", summary="x")
    store.acknowledge(alert.id, who="ada")
    store.resolve("fraud", "run/x", reason="over")
    assert store.report("fraud", "run/x", severity="page", summary="again")[1] == "reopened"
    told = [d for d in store.outbox.due("c") if d.alert.id == alert.id]
    assert [d.change for d in told] == ["opened", "acknowledged", "resolved", "reopened"]
    store.outbox.delivered([d.id for d in told], "m")
    assert store.outbox.sent()["c"] == 4
    engine = sa.create_engine(url)
    for statement in ("UPDATE alert_events SET message = ''", "DELETE FROM alert_events"):
        with pytest.raises(sa.exc.DBAPIError, match="append-only"), engine.begin() as connection:
            connection.execute(sa.text(statement))

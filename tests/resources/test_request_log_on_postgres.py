"""The log of requests on a real PostgreSQL: the promises of the files, for services on several machines."""

import json
import threading
import time

import psycopg
import pytest
import sqlalchemy as sa

from resources.processes import free_port
from resources.request_log import LogError, RequestLog
from resources.request_log_postgres import PAUSE_S
from tests.resources.conftest import POSTGRES
from tests.resources.test_request_log import DAY, NOON, now_record, record

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(POSTGRES is None, reason="needs the Debian package postgresql"),
]


@pytest.fixture
def url(postgres, request) -> str:
    return postgres(f"requests_{abs(hash(request.node.name))}")


def process(url: str) -> RequestLog:
    """The log as a process of its own has it."""
    return RequestLog(folder="/nowhere", url=url)


def test_what_is_appended_is_read_by_others_as_it_was_in_files(url, tmp_path):
    files, shared = RequestLog(folder=str(tmp_path)), process(url)
    for log in (files, shared):
        log.append([record(1), record(2, score=[0.25, 0.75], alert=None, row={"text": "a\n\u0000\ud800 é"})])
        log.append([record(3, outcome="refused", score=None, alert=None, row=None, key=None, problem="no row")])
        log.append([record(4, at=NOON + DAY), record(5, model="other")])
    found, expected = (log.read("meter", NOON - DAY, NOON + 2 * DAY).drop(columns="writer") for log in (shared, files))
    assert found.to_dict("list") == expected.to_dict("list")
    assert process(url).days("meter") == files.days("meter") == ["2026-03-02", "2026-03-03"]
    before = process(url).state("meter", "2026-03-02")
    assert before == shared.state("meter", "2026-03-02")
    shared.append([record(6)])
    assert shared.state("meter", "2026-03-02") != before


def test_a_day_is_removed_with_all_its_lines(url):
    log = process(url)
    log.append([record(1), record(2, at=NOON + DAY)])
    assert log.models() == ["meter"]
    assert log.store.size("meter", "2026-03-02") > 100
    log.store.remove("meter", "2026-03-02")
    assert log.days("meter") == ["2026-03-03"]
    with sa.create_engine(url).connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM request_lines")).scalar() == 1


def test_lost_lines_show_as_a_gap(url):
    log = process(url)
    log.append([record(n) for n in range(1, 6)])
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("DELETE FROM request_lines WHERE n IN (2, 3)"))
    day = log.day("meter", "2026-03-02")
    assert (list(day.missing.values()), day.writers, len(day.records)) == ([2], 1, 3)


def test_what_one_process_has_written_the_next_look_of_any_other_shows_once(url):
    writers, readers = [process(url) for _ in range(3)], [process(url).follow("meter") for _ in range(2)]
    for number in range(1, 61):
        writers[number % 3].append([now_record(number)])
        found = {line["key"] for line in readers[number % 2].fetch()}
        assert found == {number, number - 1} - {0}
    assert sorted(line["key"] for line in process(url).follow("meter").fetch()) == list(range(1, 61))


def test_readers_miss_nothing_while_many_write_at_once(url):
    """A transaction that began earlier may end later: an id or a time would then hide its lines from readers."""
    done, failed, seen = threading.Event(), [], []
    follower = process(url).follow("meter")

    def write(first: int) -> None:
        log = process(url)
        try:
            for number in range(first, first + 150):
                log.append([now_record(number)])
        except LogError as error:
            failed.append(error)

    def read() -> None:
        while not done.is_set():
            seen.extend(line["key"] for line in follower.fetch())

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(1_000 * n,)) for n in range(4)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    seen += [line["key"] for line in follower.fetch()]
    assert not failed
    assert sorted(seen) == sorted(1_000 * n + i for n in range(4) for i in range(150))


def end_connections(url: str) -> None:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'assetline requests'"
        )


def test_a_broken_connection_is_opened_again_and_nothing_is_written_twice(url):
    log = process(url)
    follower = log.follow("meter")
    for number in range(1, 4):
        log.append([now_record(number)])
        end_connections(url)
        assert [line["key"] for line in follower.fetch()] == [number]
        end_connections(url)
    assert [line["n"] for line in process(url).follow("meter").fetch()] == [1, 2, 3]


def test_a_database_that_is_away_is_an_error_without_its_password(url):
    away = sa.make_url(url).set(port=free_port(), password="hush").render_as_string(hide_password=False)
    log = process(away)
    for _ in range(2):  # the second within the pause
        with pytest.raises(LogError, match=r"cannot be written \(.*refused.*nothing was recorded; send") as refused:
            log.append([record()])
        assert "hush" not in str(refused.value)
    with pytest.raises(LogError, match="cannot be read"):
        log.follow("meter").fetch()


def test_a_database_that_is_replaced_gets_its_tables_again(url):
    log = process(url)
    log.append([record(1)])
    with sa.create_engine(url).begin() as connection:
        for table in sa.inspect(connection).get_table_names():
            connection.execute(sa.text(f"DROP TABLE {table} CASCADE"))
    with pytest.raises(LogError, match="request_lines"):
        log.append([record(2)])
    time.sleep(PAUSE_S)
    log.append([record(3)])
    day = process(url).day("meter", "2026-03-02")
    assert (day.records["key"].tolist(), list(day.missing.values())) == ([3], [2])


def test_erased_lines_keep_their_number_and_the_state_of_their_day(url):
    log = process(url)
    log.append([record(n) for n in range(1, 6)])
    before = log.state("meter", "2026-03-02")
    assert log.store.forget("meter", "2026-03-02", lambda lines: [line["n"] in (2, 5) for line in lines]) == 2
    log.store.vacuum()
    day = process(url).day("meter", "2026-03-02")
    assert (len(day.records), day.missing, day.torn) == (3, {}, 0)
    assert log.state("meter", "2026-03-02") == before
    assert len(process(url).follow("meter").fetch()) == 3
    with sa.create_engine(url).connect() as connection:
        lines = connection.execute(sa.text("SELECT line FROM request_lines WHERE n IN (2, 5)")).scalars().all()
    assert [set(json.loads(line)) for line in lines] == [{"n", "forgotten"}] * 2

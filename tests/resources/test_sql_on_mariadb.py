"""SQL sources on a real MariaDB: types, days, faults and mistakes; the same promises as on PostgreSQL."""

import contextlib
import datetime as dt
import random

import dagster as dg
import pymysql
import pytest

from assets.lifecycle.data import landing
from resources.sources import SourceError, SourceUnavailable, SqlByDay, SqlTable, sql_reading
from tests.resources.sql_servers import MARIADB, CuttingProxy, at_chunk, cuts_of, land, landed_ids, lander, mariadb

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MARIADB is None, reason="needs the Debian package mariadb-server"),
]

ROWS, CHUNK = 40, 10
DAYS = [f"2026-03-{2 + n:02}" for n in range(20)]


@pytest.fixture(scope="module")
def server():
    with mariadb() as database:
        database.url = database("shop")
        yield database


def run(server, *statements: str) -> list[tuple]:
    given = {"host": "127.0.0.1", "port": server.port, "user": "reader", "password": "c4nary", "database": "shop"}
    with contextlib.closing(pymysql.connect(**given, autocommit=True)) as connection:
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall())


@pytest.fixture
def shop(server, monkeypatch) -> str:
    """The name of the variable with the URL of a database with `ROWS` payments on each of `DAYS`."""
    run(
        server, "SET time_zone = '+00:00'", "DROP TABLE IF EXISTS payments",
        "CREATE TABLE payments (id BIGINT PRIMARY KEY AUTO_INCREMENT, created_at TIMESTAMP(6) NULL, paid_at DATETIME, "
        "note TEXT) ENGINE=InnoDB",
        "INSERT INTO payments (created_at, paid_at, note) SELECT TIMESTAMPADD(SECOND, seq * 86400 / "
        f"{ROWS}, '2026-03-02'), '2026-03-02 12:00:00', REPEAT('x', 200) FROM seq_0_to_{ROWS * len(DAYS) - 1}",
    )  # fmt: skip
    monkeypatch.setattr(sql_reading, "CHUNK", CHUNK)
    monkeypatch.setattr(landing, "FIRST_WAIT_S", 0)
    monkeypatch.setenv("SHOP_URL", server.url)
    return "SHOP_URL"


def stream(shop: str, **given) -> SqlByDay:
    return SqlByDay(**{"url": dg.EnvVar(shop), "table": "payments", "arrived": "created_at", **given})


def all_of(*days: str) -> list[int]:
    return [1 + DAYS.index(day) * ROWS + n for day in days for n in range(ROWS)]


def test_each_type_of_mariadb_as_text(server, shop):
    run(
        server, "DROP TABLE IF EXISTS kinds", "SET time_zone = '+09:00'",
        "CREATE TABLE kinds (id INT PRIMARY KEY, a DECIMAL(30, 10), b BOOLEAN, c BLOB, d DATE, e DATETIME, "
        "f TIMESTAMP NULL, g DOUBLE, h TIME, i ENUM('x', 'y'), j BIGINT UNSIGNED)",
        "INSERT INTO kinds VALUES (1, 12345678901234567890.0000000001, true, X'61ff', '2026-03-02', "
        "'2026-03-02 01:02:03', '2026-03-02 01:30:00', 0.1, '10:00:00', 'y', 18446744073709551615)",
        "INSERT INTO kinds (id) VALUES (2)",
    )  # fmt: skip
    rows = SqlTable(url=dg.EnvVar(shop), table="kinds").read()
    assert rows.iloc[0].tolist() == [
        "1", "12345678901234567890.0000000001", "1", "a\\xff", "2026-03-02", "2026-03-02 01:02:03",
        "2026-03-01 16:30:00", "0.1", "36000.0", "y", "18446744073709551615",
    ]  # fmt: skip
    assert rows.iloc[1, 1:].isna().all()


def test_a_day_is_cut_out_by_each_kind_of_time_and_by_a_cursor(shop):
    day = dt.date.fromisoformat(DAYS[1])
    assert stream(shop).land(day)["id"].astype(int).tolist() == all_of(DAYS[1])
    assert len(stream(shop, arrived="paid_at").land(dt.date(2026, 3, 2))) == ROWS * len(DAYS)
    by_cursor = stream(shop, arrived="", cursor="id", time="created_at")
    assert by_cursor.land_after(day, str(ROWS), None)["id"].astype(int).tolist() == all_of(DAYS[1])
    with pytest.raises(SourceError, match="MySQL does not say which transactions are open"):
        stream(shop, arrived="", cursor="id").land_after(day, None, None)


def test_the_clock_that_is_behind_decides(server, shop):
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    assert stream(shop, settle_minutes=0).landed_until() == yesterday
    server.root("SET GLOBAL time_zone = '-12:00'")
    try:
        behind = (dt.datetime.now(dt.UTC) - dt.timedelta(hours=12)).date() - dt.timedelta(days=1)
        assert stream(shop, settle_minutes=0, arrived="paid_at").landed_until() == behind
        assert stream(shop, settle_minutes=0).landed_until() == yesterday
    finally:
        server.root("SET GLOBAL time_zone = 'SYSTEM'")


@pytest.mark.parametrize("seed", [0])
def test_a_connection_that_is_cut_anywhere_lands_each_row_once(server, shop, tmp_path, monkeypatch, seed):
    chance, proxy = random.Random(seed), CuttingProxy(server.port)
    monkeypatch.setenv("SHOP_URL", server.url.replace(str(server.port), str(proxy.port)))
    source = stream(shop)
    budgets_of, stages = cuts_of(proxy, source, DAYS[0]), lander(tmp_path, source)
    for day in DAYS:
        budgets = budgets_of(chance)
        proxy.budgets, told = list(budgets), f"seed {seed}, {day}, cut after {budgets} bytes"
        while not (made := land(stages, day)).success:
            assert landed_ids(stages, day) == [], f"{told}: half-landed"
            assert "the database does not answer now" in made.why, told
        assert landed_ids(stages, day) == all_of(day), told
    assert proxy.cut >= len(DAYS)
    proxy.close()


def test_a_reader_that_is_killed_and_rows_that_are_written_meanwhile(server, shop, tmp_path, monkeypatch):
    stages = lander(tmp_path, stream(shop))

    def kill_and_write() -> None:
        for number, *_ in run(server, "SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID()"):
            run(server, f"KILL {number}")
        run(server, f"INSERT INTO payments (created_at) VALUES ('{DAYS[1]} 23:59:59')")

    with at_chunk(monkeypatch, 2, kill_and_write):
        assert land(stages, DAYS[0]).success
    assert land(stages, DAYS[1]).success
    *before, last = landed_ids(stages)
    assert before == all_of(*DAYS[:2])
    assert last > ROWS * len(DAYS)


def test_a_server_that_is_down_is_unavailable_until_it_is_back(server, shop, tmp_path):
    stages = lander(tmp_path, stream(shop))
    server.stop()
    try:
        made = land(stages, DAYS[0])
        assert not made.success
        assert "mysql://reader@127.0.0.1" in made.why
        assert "does not answer now" in made.why
        assert landed_ids(stages) == []
    finally:
        server.start()
    assert land(stages, DAYS[0]).success
    assert landed_ids(stages) == all_of(DAYS[0])


def test_a_read_never_writes_and_sees_one_state(server, shop):
    with sql_reading.reading(server.url, "payments", connect_s=5, statement_s=5) as database:
        run(server, "INSERT INTO payments (note) VALUES ('new')")
        assert database.scalar(sql_reading.sa.text("SELECT count(*) FROM payments")) == ROWS * len(DAYS)
    with pytest.raises(SourceError, match="READ ONLY"), \
            sql_reading.reading(server.url, "payments", connect_s=5, statement_s=5) as database:  # fmt: skip
        database.connection.exec_driver_sql("DELETE FROM payments")


@pytest.mark.parametrize(
    ("change", "given", "words"),
    [
        ((":c4nary@", ":c4nary-wrong@"), {"table": "payments"}, "Access denied for user .*; check the user"),
        (("/shop", "/shp"), {"table": "payments"}, "; (check the database's name in the URL|grant SELECT on it)"),
        (("", ""), {"table": "paymets"}, r"no table or view 'paymets'; did you mean 'payments'\?"),
        (("", ""), {"query": "SELECT * FORM payments", "key": "id"}, "correct the query"),
        (("", ""), {"query": "SELECT id FROM payments"}, "no key; name the column"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_clear_error_without_the_password(server, shop, monkeypatch, change, given, words):
    monkeypatch.setenv("SHOP_URL", server.url.replace(*change) if change[0] else server.url)
    with pytest.raises(SourceError, match=words) as refused:
        SqlTable(url=dg.EnvVar(shop), **given).read()
    assert not isinstance(refused.value, SourceUnavailable)
    assert "c4nary" not in repr(refused.value)


def test_a_statement_that_takes_too_long_is_given_up(shop):
    source = SqlTable(
        url=dg.EnvVar(shop), query="SELECT id, SLEEP(1) AS s FROM payments", key="id", statement_seconds=1
    )
    with pytest.raises(SourceUnavailable, match="does not answer now"):
        source.read()

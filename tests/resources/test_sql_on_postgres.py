"""SQL sources on a real PostgreSQL: each fault lands every row exactly once, and each mistake is one clear error.

Where a moment is random, there are 20 days, each with a moment of its own; the seed is in the message of a failure.
"""

import contextlib
import datetime as dt
import os
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import psycopg
import pytest

from assets.lifecycle.data import landing
from assets.lifecycle.data.landing import UNAVAILABLE
from resources.settings import project_root
from resources.sources import SourceError, SourceUnavailable, SqlByDay, SqlTable, sql_reading
from resources.sources import sql as module
from tests.resources.conftest import POSTGRES
from tests.resources.sql_servers import CuttingProxy, at_chunk, cuts_of, land, landed_ids, lander

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(POSTGRES is None, reason="needs the Debian package postgresql"),
]

ROWS, CHUNK = 60, 10
"""Rows of each day, and of each chunk in which they are read."""
DAYS = [f"2026-03-{2 + n:02}" for n in range(20)]
LAST = DAYS[-1]
CANARY = "c4nary"


class Shop:
    """A database with the table `payments`, which has `ROWS` rows on each of `DAYS`."""

    def __init__(self, url: str) -> None:
        self.url = url.replace("+psycopg", "")
        self.port = int(self.url.rpartition(":")[2].partition("/")[0])
        self.run(
            "CREATE SCHEMA shop",
            "CREATE TABLE shop.payments (id bigserial PRIMARY KEY, created_at timestamptz, paid_at timestamp, amount "
            "numeric(12, 2), note text)",
        )

    def connect(self) -> psycopg.Connection:
        return psycopg.connect(self.url, autocommit=True)

    def run(self, *statements: str) -> None:
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement)

    def fill(self) -> None:
        self.run("TRUNCATE shop.payments RESTART IDENTITY", f"""
            INSERT INTO shop.payments (created_at, paid_at, amount, note)
            SELECT at, at::timestamp - interval '3 hours', n / 100.0, repeat('x', 200)
            FROM (SELECT n, timestamptz '2026-03-02 00:00+00' + n * interval '24 hours' / {ROWS} AS at
                  FROM generate_series(0, {ROWS * len(DAYS)} - 1) n) r""")  # fmt: skip

    def stream(self, **given) -> SqlByDay:
        return SqlByDay(**{"url": self.url, "table": "shop.payments", "arrived": "created_at", **given})

    def end_readers(self) -> None:
        self.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'assetline source'")


@pytest.fixture(scope="module")
def server(postgres) -> Shop:
    return Shop(postgres("sources"))


@pytest.fixture
def shop(server, monkeypatch) -> Shop:
    server.fill()
    monkeypatch.setattr(sql_reading, "CHUNK", CHUNK)
    monkeypatch.setattr(landing, "FIRST_WAIT_S", 0)
    monkeypatch.setattr(module, "WAIT_S", 0.05)
    return server


def all_of(*days: str) -> list[int]:
    return [1 + DAYS.index(day) * ROWS + n for day in days for n in range(ROWS)]


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(shop) -> CuttingProxy:
    made = CuttingProxy(shop.port)
    yield made
    made.close()


@pytest.mark.parametrize("seed", [0])
def test_a_connection_that_is_cut_anywhere_lands_each_row_once(shop, proxy, tmp_path, seed):
    """On each day, 1 to 4 tries in a row are cut after a random number of bytes; a run makes 3 tries."""
    chance = random.Random(seed)
    source = shop.stream(url=shop.url.replace(str(shop.port), str(proxy.port)))
    budgets_of = cuts_of(proxy, source, DAYS[0])
    stages, failed = lander(tmp_path, source), 0
    for day in DAYS:
        budgets = budgets_of(chance)
        proxy.budgets, told = list(budgets), f"seed {seed}, {day}, cut after {budgets} bytes"
        while not (made := land(stages, day)).success:
            failed += 1
            assert landed_ids(stages, day) == [], f"{told}: half-landed"
            assert "the database does not answer now" in made.why, told
            assert stages.instance.get_run_by_id(made.result.run_id).tags.get(UNAVAILABLE) == "true", told
        assert landed_ids(stages, day) == all_of(day), told
    assert landed_ids(stages) == all_of(*DAYS)
    assert failed, "some runs are cut in all three tries"
    assert proxy.cut >= len(DAYS)


@pytest.mark.parametrize("seed", [0])
def test_a_reader_whose_backend_is_ended_in_the_middle_lands_each_row_once(shop, tmp_path, monkeypatch, seed):
    chance = random.Random(seed)
    stages = lander(tmp_path, shop.stream())
    for day in DAYS:
        number = chance.randint(1, ROWS // CHUNK)
        with at_chunk(monkeypatch, number, shop.end_readers) as seen:
            made = land(stages, day)
        assert made.success, f"seed {seed}, {day}, chunk {number}: {made.why}"
        assert len(seen) > ROWS // CHUNK or number == ROWS // CHUNK
        assert landed_ids(stages, day) == all_of(day), f"seed {seed}, {day}, chunk {number}"


def test_a_server_that_restarts_between_two_tries_costs_nothing(shop, postgres, tmp_path, monkeypatch):
    stages = lander(tmp_path, shop.stream())

    def restart() -> None:
        postgres.stop()
        postgres.start()

    with at_chunk(monkeypatch, 2, restart):
        assert land(stages, DAYS[0]).success
    with at_chunk(monkeypatch, 3, postgres.stop):
        made = land(stages, DAYS[1])
    assert not made.success
    assert "does not answer now" in made.why
    assert landed_ids(stages) == all_of(DAYS[0])
    postgres.start()
    assert land(stages, DAYS[1]).success
    assert landed_ids(stages) == all_of(*DAYS[:2])


@pytest.mark.parametrize("after", [800, 5_000, 20_000])
def test_a_network_that_goes_silent_is_given_up(shop, proxy, monkeypatch, after):
    monkeypatch.setattr(sql_reading, "SPARE_S", 0)
    source = shop.stream(url=shop.url.replace(str(shop.port), str(proxy.port)), statement_seconds=1)
    proxy.silent, proxy.budgets = True, [after]
    with pytest.raises(SourceUnavailable, match="no answer for 1 s; raise the source's statement_seconds"):
        source.land(dt.date.fromisoformat(DAYS[0]))


@pytest.mark.parametrize("how", [{"arrived": "created_at"}, {"arrived": "", "cursor": "id", "time": "created_at"}])
@pytest.mark.parametrize("seed", [0])
def test_rows_that_are_written_while_a_day_is_read_land_once(shop, tmp_path, monkeypatch, how, seed):
    chance = random.Random(seed)
    stages = lander(tmp_path, shop.stream(**how))

    def write() -> None:
        shop.run(f"INSERT INTO shop.payments (created_at) SELECT '{LAST} 23:50+00' FROM generate_series(1, 30)")

    for day in DAYS[:-1]:
        number = chance.randint(1, ROWS // CHUNK)
        with at_chunk(monkeypatch, number, write):
            assert land(stages, day).success
        assert landed_ids(stages, day) == all_of(day), f"seed {seed}, {day}, chunk {number}"
    assert land(stages, LAST).success
    assert sorted(landed_ids(stages)) == list(range(1, len(DAYS) * ROWS + 19 * 30 + 1))


def test_a_row_that_is_committed_late_lands_though_a_later_one_was_seen_before(shop, tmp_path, monkeypatch):
    """The next to last row is written before the last one and committed after it; the landing waits for it."""
    stages = lander(tmp_path, shop.stream(arrived="", cursor="id"))
    late, asked, ended_before = psycopg.connect(shop.url), [], sql_reading.Database.ended_before

    def commit_after_the_first_look(self, transaction: int) -> bool:
        asked.append(ended_before(self, transaction))
        if len(asked) == 1:
            late.commit()
        return asked[-1]

    monkeypatch.setattr(sql_reading.Database, "ended_before", commit_after_the_first_look)
    late.execute(f"INSERT INTO shop.payments (created_at) VALUES ('{LAST} 23:00+00')")
    shop.run(f"INSERT INTO shop.payments (created_at) VALUES ('{LAST} 23:01+00')")
    assert land(stages, LAST).success
    assert asked == [False, True]
    late.close()
    assert landed_ids(stages) == list(range(1, ROWS * len(DAYS) + 3))


def test_a_statement_that_takes_too_long_is_ended_by_the_server(shop):
    source = SqlTable(url=shop.url, query="SELECT 1 AS id, pg_sleep(9)::text AS s", key="id", statement_seconds=1)
    with pytest.raises(SourceUnavailable, match="canceling statement due to statement timeout"):
        source.read()


def test_a_read_never_writes_and_sees_one_state(shop):
    with sql_reading.reading(shop.url, "payments", connect_s=5, statement_s=5) as database:
        shop.run("INSERT INTO shop.payments (note) VALUES ('new')")
        assert database.scalar(module.sa.text("SELECT count(*) FROM shop.payments")) == ROWS * len(DAYS)
    with pytest.raises(SourceError, match="cannot execute DELETE in a read-only transaction"), \
            sql_reading.reading(shop.url, "payments", connect_s=5, statement_s=5) as database:  # fmt: skip
        database.connection.exec_driver_sql("DELETE FROM shop.payments")


def test_a_transaction_that_never_ends_makes_the_source_unavailable(shop):
    source = shop.stream(arrived="", cursor="id", settle_minutes=0.001)
    insert, day = f"INSERT INTO shop.payments (created_at) VALUES ('{LAST} 23:00+00')", dt.date.fromisoformat(LAST)
    with psycopg.connect(shop.url) as late:
        late.execute(insert)
        assert len(source.land_after(day, None, None)) == ROWS * len(DAYS)  # the open row is above those that are there
        shop.run(insert)
        with pytest.raises(SourceUnavailable, match="a transaction that writes has been open for"):
            source.land_after(day, None, None)
    assert len(source.land_after(day, None, None)) == ROWS * len(DAYS) + 2


def test_a_changed_column_is_refused_and_lands_when_it_is_back(shop, tmp_path):
    stages = lander(tmp_path, shop.stream())
    assert land(stages, DAYS[0]).success
    shop.run("ALTER TABLE shop.payments RENAME amount TO amount_eur")
    try:
        made = land(stages, DAYS[1])
        assert not made.success
        assert "no column 'amount' any more; is it 'amount_eur' now?" in made.why
        assert landed_ids(stages, DAYS[1]) == []
    finally:
        shop.run("ALTER TABLE shop.payments RENAME amount_eur TO amount")
    shop.run("ALTER TABLE shop.payments RENAME created_at TO created")
    try:
        made = land(stages, DAYS[1])
        assert not made.success
        assert "no column 'created_at'; did you mean 'created'?" in made.why
    finally:
        shop.run("ALTER TABLE shop.payments RENAME created TO created_at")
    assert land(stages, DAYS[1]).success
    assert landed_ids(stages) == all_of(*DAYS[:2])


# -- clocks ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clocked(postgres) -> Shop:
    """A database whose `now()` is what the table `fake.clock` says."""
    shop = Shop(postgres("clocks"))
    shop.run(
        "CREATE SCHEMA fake",
        "CREATE TABLE fake.clock (at timestamptz)",
        "INSERT INTO fake.clock VALUES (pg_catalog.now())",
        "CREATE FUNCTION fake.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT at FROM fake.clock'",
        "ALTER DATABASE clocks SET search_path = fake, pg_catalog, public",
    )
    return shop


class OurClock(dt.datetime):
    """Our clock; the test sets it."""

    at = dt.datetime(2026, 3, 2)

    @classmethod
    def now(cls, tz=None):
        return cls.at.replace(tzinfo=tz)


OUR_TIME = SimpleNamespace(datetime=OurClock, date=dt.date, timedelta=dt.timedelta, UTC=dt.UTC)
"""What the source takes for the module `datetime`; everything else keeps the real one."""


@pytest.mark.parametrize("skew_hours", [-2, 2])
@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(n, marks=pytest.mark.long) for n in range(4, 10))])
def test_skewed_clocks_and_late_commits_land_each_row_once(clocked, tmp_path, monkeypatch, skew_hours, seed):
    """Two nights, step by step: rows get the database's time and are committed up to 9 minutes later.

    A day lands as soon as `landed_until` says so, as the arrivals sensor would request it.
    """
    chance = random.Random(seed)
    monkeypatch.setattr(module, "dt", OUR_TIME)
    monkeypatch.setattr(module, "WAIT_S", 0.01)
    clocked.run("TRUNCATE shop.payments RESTART IDENTITY")
    cursor = bool(seed % 2)
    how = {"arrived": "", "cursor": "id", "time": "created_at"} if cursor else {}
    stages, skew = lander(tmp_path, clocked.stream(**how)), dt.timedelta(hours=skew_hours)
    moment = dt.datetime(2026, 3, 2, 20)
    end, landed, written, waiting = dt.datetime(2026, 3, 4, 3, 30), set(), 0, []
    # A transaction that a failure left open would block the next test.
    with contextlib.ExitStack() as opened, clocked.connect() as control:
        while moment < end:
            OurClock.at = moment
            control.execute("UPDATE fake.clock SET at = %s", [(moment + skew).replace(tzinfo=dt.UTC)])
            for due, connection in list(waiting):
                if due <= moment:
                    connection.commit()
                    connection.close()
                    waiting.remove((due, connection))
            connection = opened.enter_context(contextlib.closing(psycopg.connect(clocked.url)))
            connection.execute("INSERT INTO shop.payments (created_at) VALUES (fake.now())")
            written += 1
            waiting.append((moment + dt.timedelta(minutes=chance.uniform(0, 9)), connection))
            night = moment.hour >= 22 or moment.hour < 3
            until = clocked.stream(**how).landed_until() if night else dt.date.min + dt.timedelta(days=9)
            for day in (str(until - dt.timedelta(days=n)) for n in (1, 0)):
                if day >= "2026-03-02" and day not in landed:
                    # What is open now ends before the landing does, as it would while the landing waits.
                    for _, late in waiting if cursor else ():
                        late.commit()
                    made = land(stages, day)
                    assert made.success, made.why
                    landed.add(day)
            moment += dt.timedelta(minutes=chance.uniform(5, 30) if night else chance.uniform(30, 120))
        for _, connection in waiting:
            connection.commit()
            connection.close()
        rows = dict(control.execute("SELECT id, (created_at AT TIME ZONE 'UTC')::date FROM shop.payments").fetchall())
    assert len(landed) == 2
    found = landed_ids(stages)
    assert len(found) == len(set(found)), f"seed {seed}: twice"
    expected = {n for n, day in rows.items() if str(day) <= max(landed)}
    assert set(found) == expected, f"seed {seed}: {written} rows written"
    if not cursor:
        for day in landed:
            assert landed_ids(stages, day) == sorted(n for n, of in rows.items() if str(of) == day)


def test_a_local_time_without_a_zone_waits_for_the_end_of_the_local_day(clocked, monkeypatch):
    monkeypatch.setattr(module, "dt", OUR_TIME)
    zone = "ALTER DATABASE clocks SET timezone = 'America/New_York'"
    clocked.run(zone, "UPDATE fake.clock SET at = '2026-03-03 01:00+00'")
    OurClock.at = dt.datetime(2026, 3, 3, 1)
    try:
        assert clocked.stream().landed_until() == dt.date(2026, 3, 2)
        local = {"arrived": "paid_at"}, {"labels": "shop.payments", "labels_arrived": "paid_at"}
        for how in local:  # it is 20:00 on the 2nd in New York
            assert clocked.stream(**how).landed_until() == dt.date(2026, 3, 1)
        OurClock.at = dt.datetime(2026, 3, 3, 6)
        clocked.run("UPDATE fake.clock SET at = '2026-03-03 06:00+00'")
        assert clocked.stream(arrived="paid_at").landed_until() == dt.date(2026, 3, 2)
    finally:
        clocked.run("ALTER DATABASE clocks RESET timezone")


# -- types -------------------------------------------------------------------------------------------------------------


def test_each_type_of_postgresql_as_text(shop):
    shop.run(
        "CREATE TABLE kinds (id int PRIMARY KEY, a numeric(30, 10), b boolean, c bytea, d date, e timestamp, "
        "f timestamptz, g real, h double precision, i interval, j uuid, k time, l varchar(9), m inet, n smallint)",
        "SET timezone = 'Europe/Berlin'",
        "INSERT INTO kinds VALUES (1, 12345678901234567890.0000000001, true, '\\x61ff', '2026-03-02', "
        "'2026-03-02 01:02:03', '2026-03-02 01:30:00.25+02', 0.1, 0.1, '1 day 00:00:01.5', "
        "'00000000-0000-0000-0000-000000000001', '10:00', 'é', '10.0.0.1', -3)",
        "INSERT INTO kinds (id) VALUES (2)",
    )
    shop.run("ALTER DATABASE sources SET timezone = 'Asia/Tokyo'")
    try:
        rows = SqlTable(url=shop.url, table="kinds").read()
    finally:
        shop.run("ALTER DATABASE sources RESET timezone", "DROP TABLE kinds")
    assert rows.iloc[0].tolist() == [
        "1", "12345678901234567890.0000000001", "True", "a\\xff", "2026-03-02", "2026-03-02 01:02:03",
        "2026-03-01 23:30:00.250000", "0.1", "0.1", "86401.5", "00000000-0000-0000-0000-000000000001", "10:00:00", "é",
        "10.0.0.1", "-3",
    ]  # fmt: skip
    assert rows.iloc[1, 1:].isna().all()


def test_a_time_that_python_cannot_hold_and_json_are_refused_by_name(shop):
    shop.run("CREATE TABLE odd (id int PRIMARY KEY, at timestamptz, extra jsonb)",
             "INSERT INTO odd VALUES (1, 'infinity', '{\"a\": 1}')")  # fmt: skip
    try:
        with pytest.raises(SourceError, match=r"odd: .*(infinity|too large)"):
            SqlTable(url=shop.url, table="odd", columns=["at"]).read()
        with pytest.raises(SourceError, match="the column 'extra' holds lists or structures"):
            SqlTable(url=shop.url, table="odd", columns=["extra"]).read()
    finally:
        shop.run("DROP TABLE odd")


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(server) -> str:
    """The URL of a user with a password, who may read nothing."""
    with server.connect() as connection:
        (path,) = connection.execute("SHOW hba_file").fetchone()
        connection.execute(f"CREATE ROLE reader LOGIN PASSWORD '{CANARY}'")
        lines = "host all reader 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\nlocal all all trust"
        rows = " UNION ALL ".join(f"SELECT '{line}'" for line in lines.split("\n"))
        connection.execute(f"COPY ({rows}) TO '{path}'")
        connection.execute("SELECT pg_reload_conf()")
    return server.url.replace("assetline@", f"reader:{CANARY}@")


@pytest.mark.parametrize(
    ("change", "given", "words"),
    [
        (("", ""), {"table": "shop.paymets"}, r"no table or view 'shop.paymets'; did you mean 'shop.payments'\?"),
        (("", ""), {"table": "payments"}, r"did you mean 'shop.payments'\?"),
        (("", ""), {"table": "shop.payments"}, "permission denied for .*; grant SELECT on it to the user of the URL"),
        (("/sources", "/shp"), {"table": "t"}, "database \"shp\" does not exist; check the database's name"),
        ((f":{CANARY}@", ":c4nary-wrong@"), {"table": "t"}, "password authentication failed for user .*; check"),
        ((f":{CANARY}@", "@"), {"table": "t"}, "no password supplied; check the user and the password"),
        (("", ""), {"query": "SELECT 1 AS a"}, "no key; name the column that identifies a row as the source's key"),
        (("", ""), {"query": "SELECT 1 AS a, 2 AS a", "key": "a"}, "two columns are named 'a'"),
        (("", ""), {"query": "WITH d AS (DELETE FROM t RETURNING 1) SELECT 1 AS a", "key": "a"}, "does not exist"),
        (("", ""), {"query": "SELECT 1 AS a; DROP TABLE t", "key": "a"}, "syntax error"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_clear_error_without_the_password(guarded, monkeypatch, change, given, words):
    monkeypatch.setenv("SHOP_URL", guarded.replace(*change) if change[0] else guarded)
    with pytest.raises(SourceError, match=words) as refused:
        SqlTable(url=dg.EnvVar("SHOP_URL"), **given).read()
    assert not isinstance(refused.value, SourceUnavailable)
    assert CANARY not in repr(refused.value)
    assert "\n" not in str(refused.value)


def test_the_password_is_in_no_output_event_or_process_list(guarded, shop, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("SHOP_URL", guarded.replace(CANARY, f"{CANARY}-wrong"))
    stages = lander(tmp_path, shop.stream(url=dg.EnvVar("SHOP_URL")))
    made = land(stages, DAYS[0])
    assert not made.success
    events = "".join(map(repr, stages.instance.all_logs(made.result.run_id)))
    printed = capfd.readouterr()
    assert "password authentication failed" in events
    assert CANARY not in events + printed.out + printed.err + made.why

    command = [sys.executable, "-m", "cli", "new-model", "--name", "shop_of_a_test", "--target", "note", "--table",
               "env:SHOP_URL#shop.payments"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(project_root())}
    ran = subprocess.Popen(command, cwd=project_root(), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    seen = set()
    while ran.poll() is None:
        seen |= {line for path in Path("/proc").glob("[0-9]*/cmdline") if (line := _content(path))}
    out, errors = ran.communicate()
    assert ran.returncode == 1
    assert b"password authentication failed" in errors
    assert any(b"shop_of_a_test" in line for line in seen)
    assert CANARY.encode() not in out + errors + b"".join(seen)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""

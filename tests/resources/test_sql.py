"""Tables of SQL databases as sources, on files of SQLite and DuckDB: which rows land, and what is refused and how."""

import contextlib
import datetime as dt
import sqlite3
import subprocess
import sys
import threading
import traceback
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import duckdb
import pandas as pd
import pytest

from resources.sources import SourceError, SourceUnavailable, SqlByDay, SqlTable, sql_errors, sql_reading
from resources.sources import sql as module
from tests.declarations.readings import labelled_stream, plain
from tests.stages import Stages

DAY, NEXT = dt.date(2026, 3, 2), dt.date(2026, 3, 3)
SECRET_URL = "postgresql://reader:c4nary%2Fp%40ss@127.0.0.1:1/shop"
"""A URL whose password must not show up anywhere; in a URL it is encoded."""


class Shop:
    """A database file with the table `payments`, which tests may change, and a view of it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.path = kind, folder / f"shop.{kind}"
        self.url = f"{kind}:///{self.path}"
        moment, number = ("TEXT", "INTEGER") if kind == "sqlite" else ("TIMESTAMP", "BIGINT")
        self.run(
            f"CREATE TABLE payments (id {number} PRIMARY KEY, created_at {moment}, paid_at {moment}, epoch {number}, "
            "amount DECIMAL(12, 2), country VARCHAR, note VARCHAR)",
            "CREATE VIEW open_payments AS SELECT * FROM payments",
        )

    def run(self, *statements: str, rows: list[tuple] | None = None) -> None:
        connect = sqlite3.connect if self.kind == "sqlite" else duckdb.connect
        with contextlib.closing(connect(str(self.path))) as connection:
            for statement in statements:
                if rows is None:
                    connection.execute(statement)
                else:
                    connection.executemany(statement, rows)
            if self.kind == "sqlite":
                connection.commit()

    def add(self, *rows: tuple) -> None:
        """Adds payments: id, created_at, paid_at."""
        self.run("INSERT INTO payments VALUES (?, ?, ?, ?, ?, ?, ?)", rows=[
            (n, created, paid, int(pd.Timestamp(paid).timestamp()), "1.10", "DE" if n % 2 else "FR", None)
            for n, created, paid in rows
        ])  # fmt: skip

    def table(self, **given) -> SqlTable:
        return SqlTable(**{"url": self.url, "table": "payments", **given})

    def stream(self, **given) -> SqlByDay:
        return SqlByDay(**{"url": self.url, "table": "payments", **given})


@pytest.fixture(params=["sqlite", "duckdb"])
def shop(request, tmp_path) -> Shop:
    return Shop(request.param, tmp_path)


@pytest.fixture
def lite(tmp_path) -> Shop:
    return Shop("sqlite", tmp_path)


def ids(rows: pd.DataFrame) -> list[int]:
    return rows["id"].astype(int).tolist()


def days_of_march(shop: Shop) -> None:
    """Rows at the edges of two days; the second one arrives a day after its event."""
    shop.add(
        (3, "2026-03-02 00:00:00", "2026-03-01 23:59:59"), (1, "2026-03-02 23:59:59.999999", "2026-03-02 10:00:00"),
        (2, "2026-03-03 00:00:00", "2026-03-02 09:00:00"), (10, "2026-03-03 12:00:00", "2026-03-03 12:00:00"),
    )  # fmt: skip


# -- whole tables ------------------------------------------------------------------------------------------------------


def test_a_table_is_read_as_text_in_the_order_of_its_key(shop):
    days_of_march(shop)
    rows = shop.table().read()
    assert ids(rows) == [1, 2, 3, 10]
    assert (rows.dtypes == "string[pyarrow]").all()
    assert rows.loc[0, ["amount", "created_at"]].tolist() == (
        ["1.1", "2026-03-02 23:59:59.999999"] if shop.kind == "sqlite" else ["1.10", "2026-03-02 23:59:59.999999"]
    )
    assert rows["note"].isna().all()
    assert shop.table(table="open_payments", key="id").read().equals(rows)


def test_an_empty_table_has_its_columns(shop):
    rows = shop.table().read()
    assert (len(rows), list(rows)[:2]) == (0, ["id", "created_at"])
    assert (rows.dtypes == "string[pyarrow]").all()


def test_only_the_wanted_columns_are_read_and_always_the_key(shop):
    days_of_march(shop)
    assert list(shop.table(columns=["country"]).read()) == ["id", "country"]
    by_day = shop.stream(arrived="created_at", columns=["country"])
    assert list(by_day.land(DAY)) == ["id", "created_at", "country"]


def test_rows_are_read_in_chunks(shop, monkeypatch):
    monkeypatch.setattr(sql_reading, "CHUNK", 7)
    shop.add(*[(n, f"2026-03-02 {n % 24:02}:00:00", "2026-03-02 01:00:00") for n in range(50)])
    assert ids(shop.table().read()) == list(range(50))
    assert sorted(ids(shop.stream(arrived="created_at").land(DAY))) == list(range(50))


def test_a_query_gets_its_values_as_parameters(shop):
    days_of_march(shop)
    query = "SELECT id, country FROM payments -- all of one country\nWHERE country = :country AND id > :low"
    found = shop.table(table="", query=query, parameters={"country": "FR", "low": 1}, key="id").read()
    assert ids(found) == [2, 10]
    assert list(shop.table(table="", query="SELECT * FROM payments;", key="id", columns=["note"]).read()) == [
        "id",
        "note",
    ]
    sly = shop.table(table="", query=query, parameters={"country": "FR' OR '1' = '1", "low": 1}, key="id")
    assert len(sly.read()) == 0


def test_rows_without_a_key_are_in_the_order_of_their_text(shop):
    shop.run("CREATE TABLE bare (a VARCHAR, b VARCHAR)")
    shop.run("INSERT INTO bare VALUES (?, ?)", rows=[("b", "1"), ("a", "2"), (None, "3"), ("a", "1")])
    rows = shop.table(table="bare").read()
    assert rows["b"].tolist() == ["1", "2", "1", "3"]
    assert rows["a"].isna().tolist() == [False, False, False, True]


# -- days --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"arrived": "created_at"}, [[3, 1], [2, 10]]),
        ({"time": "paid_at"}, [[2, 1], [10]]),
        ({"time": "epoch", "form": "seconds since 1970-01-01"}, [[2, 1], [10]]),
    ],
)
def test_a_day_begins_at_midnight_and_ends_before_the_next(shop, how, expected):
    days_of_march(shop)
    stream = shop.stream(**how)
    assert [ids(stream.land(DAY)), ids(stream.land(NEXT))] == expected
    assert len(stream.land(DAY - dt.timedelta(days=9))) == 0


def test_a_date_is_a_day_and_a_zone_is_heeded(tmp_path):
    shop = Shop("duckdb", tmp_path)
    shop.run("CREATE TABLE dated (id INT PRIMARY KEY, day DATE, sent TIMESTAMPTZ)",
             "INSERT INTO dated VALUES (1, '2026-03-02', '2026-03-03 01:00:00+02'), "
             "(2, '2026-03-03', '2026-03-03 02:00+02')")  # fmt: skip
    assert ids(shop.stream(table="dated", time="day").land(DAY)) == [1]
    landed = shop.stream(table="dated", arrived="sent").land(DAY)
    assert (ids(landed), landed["sent"].tolist()) == ([1], ["2026-03-02 23:00:00"])


def test_rows_whose_time_is_not_known_yet_do_not_land(shop):
    shop.add((1, None, "2026-03-02 01:00:00"), (2, "2026-03-02 01:00:00", "2026-03-02 01:00:00"))
    assert ids(shop.stream(arrived="created_at").land(DAY)) == [2]


def test_labels_land_on_the_day_on_which_they_were_written(shop):
    shop.run(
        f"CREATE TABLE verdicts (payment INT, fraud INT, known_at {'TEXT' if shop.kind == 'sqlite' else 'TIMESTAMP'})"
    )
    shop.run(
        "INSERT INTO verdicts VALUES (?, ?, ?)",
        rows=[(1, True, "2026-03-02 10:00:00"), (2, False, "2026-03-03 09:00:00")],
    )
    stream = shop.stream(arrived="created_at", labels="verdicts", labels_arrived="known_at")
    assert stream.land_labels(DAY)["payment"].tolist() == ["1"]
    assert stream.land_labels(NEXT)["payment"].tolist() == ["2"]
    with pytest.raises(SourceError, match=r"names no `labels` and `labels_arrived`; name them, or declare"):
        shop.stream(arrived="created_at").land_labels(DAY)


def test_a_day_lands_only_after_its_end_and_the_time_to_settle(shop, monkeypatch):
    class Clock(dt.datetime):
        @classmethod
        def now(cls, tz=None):
            return at.replace(tzinfo=tz)

    ours = SimpleNamespace(datetime=Clock, date=dt.date, timedelta=dt.timedelta, UTC=dt.UTC)
    monkeypatch.setattr(module, "dt", ours)
    stream = shop.stream(arrived="created_at", settle_minutes=15)
    for at, until in (  # noqa: B007 - the clock reads `at`
        (dt.datetime(2026, 3, 3, 0, 14), dt.date(2026, 3, 1)), (dt.datetime(2026, 3, 3, 0, 16), DAY),
        (dt.datetime(2026, 3, 3, 23, 59), DAY),
    ):  # fmt: skip
        assert stream.landed_until() == until


def test_a_cursor_lands_what_is_above_the_last_row(shop):
    days_of_march(shop)
    stream = shop.stream(cursor="id", time="paid_at")
    assert stream.growing_column() == "id"
    assert ids(stream.land_after(DAY, None, None)) == [1, 2, 3]  # 10 was paid on the next day
    assert ids(stream.land_after(DAY, "2", None)) == [3]
    assert ids(stream.land_after(NEXT, "3", None)) == [10]
    assert ids(stream.land_after(NEXT, "10", None)) == []
    assert ids(stream.land_after(DAY, "1", "3")) == [2, 3]
    assert ids(shop.stream(cursor="id").land_after(DAY, "2", None)) == [3, 10]
    assert shop.stream(arrived="created_at").growing_column() is None


def test_rows_land_once_by_a_cursor_though_rows_are_added_between_landings(lite, tmp_path):
    lite.run("CREATE TABLE readings (reading_id INTEGER PRIMARY KEY, read_at TEXT, site TEXT, level REAL, faulty INT)")
    model = labelled_stream()
    source = lite.stream(table="readings", cursor="reading_id")
    stages = Stages(replace(model, table=replace(model.table, source=source, quiet_days=True)), tmp_path)

    def landed(day: str) -> list[int]:
        made = stages.make("raw_readings", day)
        assert made.success, made.why
        return stages.tables.read(stages.model.key("raw_readings"), [day])["reading_id"].astype(int).tolist()

    def add(*numbers: int) -> None:
        lite.run("INSERT INTO readings VALUES (?, '2026-03-02 10:00:00', 'north', 1, 0)", rows=[(n,) for n in numbers])

    add(1, 2, 9)
    assert landed("2026-03-02") == [1, 2, 9]
    assert landed("2026-03-03") == []
    add(10, 11, 100)
    assert landed("2026-03-04") == [10, 11, 100]
    add(101)
    assert landed("2026-03-04") == [10, 11, 100]
    assert landed("2026-03-05") == [101]


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"table": "paymets"}, r"no table or view 'paymets'; did you mean 'payments'"),
        ({"table": "zzz"}, r"no table or view 'zzz'; it has: open_payments, payments"),
        ({"columns": ["amuont"]}, r"no column 'amuont'; did you mean 'amount'\?"),
        ({"key": "country"}, r"the key 'country' is not unique, for example (DE|FR); name another column"),
        ({"key": "note"}, "the key 'note' is empty in 4 rows; fill it"),
        ({"key": "ident"}, r"the key: there is no column 'ident'"),
        ({"table": ""}, "give either a table or a query"),
        ({"parameters": {"a": 1}}, "parameters are those of a query"),
        ({"table": "", "query": "SELECT id FROM payments"}, "no key; name the column that identifies a row"),
        ({"table": "", "query": "SELECT country FROM payments", "key": "id"}, "no column 'id'; the columns are:"),
        ({"table": "", "query": "SELECT * FROM payments WHERE id = :n", "key": "id"}, "parameter 'n': it has no value"),
        ({"table": "", "query": "SELECT * FROM payments", "key": "id", "parameters": {"n": 1}}, "no such parameter"),
        ({"table": "", "query": "DELETE FROM payments", "key": "id"}, "does not begin with SELECT or WITH"),
        ({"table": "", "query": "SELECT * FORM payments", "key": "id"}, "correct the query"),
    ],
)  # fmt: skip
def test_a_declaration_that_does_not_fit_is_refused_with_its_mend(shop, given, message):
    days_of_march(shop)
    with pytest.raises(SourceError, match=message) as refused:
        shop.table(**given).read()
    assert not isinstance(refused.value, SourceUnavailable)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "names none of arrived, time and cursor"),
        ({"arrived": "created_at", "time": "paid_at"}, "names arrived and time of arrived, time and cursor"),
        ({"arrived": "create_at"}, r"no column 'create_at'; did you mean 'created_at'\?"),
        ({"arrived": "epoch"}, "say what it counts, for example form='seconds since 1970-01-01'"),
        ({"arrived": "epoch", "form": "fortnights"}, "form='fortnights'; write it as"),
        ({"arrived": "created_at", "form": "seconds since 1970-01-01"}, "leave the source's form out"),
    ],
)  # fmt: skip
def test_a_day_that_cannot_be_cut_out_is_refused(shop, given, message):
    days_of_march(shop)
    with pytest.raises(SourceError, match=message):
        shop.stream(**given).land(DAY)


def test_text_that_is_no_time_is_refused(tmp_path):
    lite, duck = Shop("sqlite", tmp_path), Shop("duckdb", tmp_path)
    lite.add((1, "2026-03-02T23:30:00-02:00", "2026-03-02 01:00:00"))
    with pytest.raises(SourceError, match=r"not in UTC or not ISO 8601, for example '2026-03-02T23:30:00-02:00'"):
        lite.stream(arrived="created_at").land(DAY)
    with pytest.raises(SourceError, match=r"of the type NULL|so a day cannot be cut out; read a view that casts it"):
        duck.stream(arrived="country").land(DAY)


@pytest.mark.parametrize("column", ["created_at", "country"])
def test_a_cursor_is_a_whole_number(shop, column):
    with pytest.raises(SourceError, match=f"the cursor '{column}' is of the type .*whole numbers"):
        shop.stream(cursor=column).land_after(DAY, None, None)


def test_lists_are_refused_by_the_name_of_their_column(tmp_path):
    shop = Shop("duckdb", tmp_path)
    shop.run("CREATE TABLE lists (id INT PRIMARY KEY, tags VARCHAR[])", "INSERT INTO lists VALUES (1, ['a'])")
    with pytest.raises(SourceError, match="the column 'tags' holds lists or structures; name the columns to read"):
        shop.table(table="lists").read()
    assert len(shop.table(table="lists", columns=["id"]).read()) == 1


def test_a_file_that_is_no_database_or_not_there_is_refused(tmp_path):
    (tmp_path / "text.db").write_text("id,amount\n" * 900)
    for kind in ("sqlite", "duckdb"):
        with pytest.raises(SourceError, match=r"no such file; set the source's url to"):
            SqlTable(url=f"{kind}:///{tmp_path}/absent.db", table="t").read()
        with pytest.raises(SourceError, match=r"not a|valid") as refused:
            SqlTable(url=f"{kind}:///{tmp_path}/text.db", table="t").read()
        assert not isinstance(refused.value, SourceUnavailable)
    assert not (tmp_path / "absent.db").exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("payments", "not the URL of a database; write it as postgresql://"),
        ("oracle://scott@host/shop", "begins with 'oracle'; supported are postgresql, mysql, mariadb, sqlite, duckdb"),
        ("sqlite://", "give the path of a file"),
        ("duckdb:///:memory:", "give the path of a file"),
        ("postgresql+nodriver://host/shop", r"the driver nodriver is not installed; .*pip install 'assetline\[sql\]'"),
    ],
)
def test_a_url_that_is_not_supported_is_refused(url, message):
    with pytest.raises(SourceError, match=message):
        SqlTable(url=url, table="payments").read()


def test_a_read_never_writes(shop):
    days_of_march(shop)
    with sql_reading.reading(shop.url, "payments", connect_s=1, statement_s=5) as database, \
            pytest.raises(Exception, match=r"read-?only"):  # fmt: skip
        database.connection.exec_driver_sql("DELETE FROM payments")
    assert len(shop.table().read()) == 4


# -- away --------------------------------------------------------------------------------------------------------------


def test_a_database_that_is_locked_is_unavailable_and_read_when_it_is_free(lite):
    days_of_march(lite)
    with contextlib.closing(sqlite3.connect(lite.path, isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(
            SourceUnavailable, match=r"shop.sqlite#payments: the database does not answer now \(.*locked"
        ):
            lite.table(connect_seconds=1).read()
        writer.execute("COMMIT")
    assert len(lite.table().read()) == 4


def test_a_duckdb_that_another_process_has_open_is_unavailable(tmp_path):
    shop = Shop("duckdb", tmp_path)
    program = f"import duckdb, sys\nc = duckdb.connect({str(shop.path)!r})\nprint('open', flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(SourceUnavailable, match="lock"):
            shop.table().read()
        other.communicate()
    assert len(shop.table().read()) == 0


def test_a_statement_that_takes_too_long_is_ended(shop):
    slow = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT max(i) AS i FROM n"
    )
    with pytest.raises(SourceUnavailable, match="no answer for 1 s; raise the source's statement_seconds"):
        shop.table(table="", query=slow, key="i", statement_seconds=1).read()


def test_a_server_that_is_not_there_is_unavailable():
    with pytest.raises(
        SourceUnavailable, match=r"postgresql://reader@127.0.0.1:1/shop#payments: .*[Cc]onnection refused"
    ):
        SqlTable(url="postgresql://reader@127.0.0.1:1/shop", table="payments").read()
    with pytest.raises(SourceUnavailable, match=r"mysql://reader@127.0.0.1:1/shop#payments: .*refused"):
        SqlTable(url="mysql://reader@127.0.0.1:1/shop", table="payments").read()


def test_the_state_of_the_beginning_is_read_though_rows_are_written_meanwhile(lite, monkeypatch):
    monkeypatch.setattr(sql_reading, "CHUNK", 5)
    lite.run("PRAGMA journal_mode=WAL")
    lite.add(*[(n, "2026-03-02 01:00:00", "2026-03-02 01:00:00") for n in range(0, 100, 2)])
    with sql_reading.reading(lite.url, "payments", connect_s=1, statement_s=5) as database:
        before = database.scalar(module.sa.text("SELECT count(*) FROM payments"))
        writer = threading.Thread(target=lite.add, args=[(n, "2026-03-02", "2026-03-02") for n in range(1, 100, 2)])
        writer.start()
        writer.join()
        table = database.table("payments")
        assert len(database.rows(module._selected(table, ["id"]))) == before == 50
    assert len(lite.table().read()) == 100


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_a_password_in_the_code_is_refused_before_anything_shows_it():
    for source in (SqlTable, SqlByDay):
        with pytest.raises(SourceError, match=r'has a password in the code.*url=dg.EnvVar\("SHOP_URL"\)') as refused:
            source(url=SECRET_URL, table="payments")
        assert "c4nary" not in str(refused.value)
    with pytest.raises(SourceError, match="has a password in the code"):
        SqlTable(url="postgresql:///shop?user=reader&password=c4nary", table="payments")


def test_a_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("SHOP_URL", raising=False)
    with pytest.raises(SourceError, match="SHOP_URL is not set; export SHOP_URL with the URL of the database"):
        SqlTable(url=dg.EnvVar("SHOP_URL"), table="payments").read()


@pytest.mark.parametrize(
    "url",
    [SECRET_URL, SECRET_URL.replace("postgresql", "mysql"), SECRET_URL.replace(":1/", ":x/"),
     SECRET_URL.replace("postgresql", "oracle"), f"{SECRET_URL}?sslpasswrd=c4nary"],
)  # fmt: skip
def test_a_password_is_in_no_error_and_no_traceback(monkeypatch, url):
    monkeypatch.setenv("SHOP_URL", url)
    source = SqlTable(url=dg.EnvVar("SHOP_URL"), table="payments", connect_seconds=1)
    with pytest.raises(SourceError) as failed:
        source.read()
    told = "".join(traceback.format_exception(failed.value)) + repr(source) + str(source) + repr(failed.value.__cause__)
    assert "c4nary" not in told


def test_a_password_is_not_in_dagsters_log_or_ui(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("SHOP_URL", SECRET_URL)
    model = plain()
    source = SqlTable(url=dg.EnvVar("SHOP_URL"), table="payments", connect_seconds=1)
    stages = Stages(replace(model, table=replace(model.table, source=source)), tmp_path)
    monkeypatch.setattr("assets.lifecycle.data.landing.FIRST_WAIT_S", 0)
    made = stages.make("raw_readings")
    assert not made.success
    assert "postgresql://reader@127.0.0.1:1/shop#payments: the database does not answer now" in made.why
    assert not stages.has("raw_readings")
    events = "".join(map(repr, stages.instance.all_logs(made.result.run_id)))
    shown = repr(source.get_resource_definition().config_schema.default_value)
    out = capfd.readouterr()
    assert "c4nary" not in events + shown + out.out + out.err
    assert "SHOP_URL" in shown


# -- the meaning of errors ---------------------------------------------------------------------------------------------


class Told(Exception):
    """An error of a driver with an SQLSTATE."""

    def __init__(self, message: str, sqlstate: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("state", "later"),
    [("08006", True), ("57P01", True), ("57P03", True), ("57014", True), ("40P01", True), ("40001", True),
     ("53300", True),
     ("55P03", True), ("28P01", False), ("3D000", False), ("42P01", False), ("42703", False), ("42501", False),
     ("22008", False)],
)  # fmt: skip
def test_errors_of_postgresql_that_pass_are_told_apart(state, later):
    error = sql_errors.told(Told("what it says\nDETAIL: more", state), "shop#payments")
    assert isinstance(error, SourceUnavailable) is later
    assert "what it says" in str(error)
    assert "DETAIL" not in str(error)


def mysql_error(number: int) -> Exception:
    import pymysql

    return pymysql.err.OperationalError(number, "what it says")


@pytest.mark.parametrize(
    ("number", "later"),
    [(2003, True), (2013, True), (2006, True), (1053, True), (1205, True), (1213, True), (1040, True), (1927, True),
     (1045, False), (1049, False), (1146, False), (1054, False), (1142, False), (1064, False)],
)  # fmt: skip
def test_errors_of_mysql_that_pass_are_told_apart(number, later):
    error = sql_errors.told(mysql_error(number), "shop#payments")
    assert isinstance(error, SourceUnavailable) is later
    assert str(error).startswith("shop#payments: ")
    assert "what it says" in str(error)

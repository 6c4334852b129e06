"""SQL over the rows of the tables: the views, what the sandbox refuses, words for errors, and the command."""

import json
import os
import time
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from cli import main
from metadata import table_sql
from metadata.query import QueryError
from metadata.table_sql import ask, files_of_tables, meanings_of
from resources.table_files import BucketFiles
from resources.tables import ParquetTables
from tests.buckets import new_bucket, reached

PAYMENTS = dg.AssetKey(["fraud", "payments"])
DAYS = ["2026-01-01", "2026-01-02", "2026-01-03"]


def filled(root: str) -> ParquetTables:
    """Three days, of which the first lacks a column and the second has another type; and a table without days."""
    tables = ParquetTables(root=root)
    for i, day in enumerate(DAYS):
        rows = pd.DataFrame({"amount": [i + 0.5, i + 1.5], "paid_at": pd.Timestamp(day)})
        if i:
            rows["country"] = pd.array(["FR", None], dtype="string[pyarrow]")
        tables.write(PAYMENTS, rows.astype({"amount": "float32"}) if i == 1 else rows, day, code_version="c1")
    tables.write(dg.AssetKey(["churn", "customers"]), pd.DataFrame({"name": ["Ada", "李"]}))
    return tables


@pytest.fixture(scope="module", params=["folder", "bucket"])
def place(request, tmp_path_factory):
    """The tables, in a folder and in a bucket, and a folder for days that are fetched."""
    cache = tmp_path_factory.mktemp("cache")
    if request.param == "folder":
        yield filled(str(tmp_path_factory.mktemp("it's here"))), cache
    else:
        with reached():
            yield filled(f"s3://{new_bucket()}/x"), cache


@pytest.fixture
def tables(tmp_path) -> ParquetTables:
    return filled(str(tmp_path / "tables"))


def answer(tables: ParquetTables, sql: str, **given) -> list[tuple]:
    return ask(tables, sql, cache=Path("/none"), **given).rows


def test_all_days_of_a_table_are_one_view_whatever_columns_each_day_has(place):
    tables, cache = place
    rows = lambda sql: ask(tables, sql, cache=cache).rows  # noqa: E731
    assert rows("select count(*), sum(amount), count(country) from fraud.payments") == [(6, 12.0, 2)]
    assert rows("SELECT name FROM Churn.Customers ORDER BY 1 DESC") == [("李",), ("Ada",)]
    assert rows("with x as (select max(paid_at) m from fraud.payments) select m from x") == [("2026-01-03 00:00:00",)]
    joined = "select count(*) from fraud.payments join churn.customers on true"
    assert rows(joined) == [(12,)]
    described = {name: kind for name, kind, *_ in rows("describe fraud.payments")}
    assert described == {"amount": "DOUBLE", "paid_at": "TIMESTAMP", "country": "VARCHAR"}


def test_the_stamps_are_a_view(place):
    tables, cache = place
    rows = ask(tables, "select * from assetline.files order by table_name, day", cache=cache)
    assert rows.columns == tuple(meanings_of("assetline.files"))
    assert [(r[0], r[1], r[2], r[4]) for r in rows.rows] == [
        ("churn.customers", "all", 2, ""), *(("fraud.payments", day, 2, "c1") for day in DAYS)
    ]  # fmt: skip
    assert [r[3] for r in rows.rows[1:]] == list(tables.versions(PAYMENTS).values())
    assert [r[5] for r in rows.rows[1:]] == [tables.size(PAYMENTS, day) for day in DAYS]
    assert all(str(row.written_at) == r[6] for row, r in zip(files_of_tables(tables), rows.rows, strict=True))


def test_days_of_a_bucket_are_fetched_once_and_again_when_they_are_replaced(tmp_path, monkeypatch):
    fetched = []
    whole = BucketFiles.read
    monkeypatch.setattr(BucketFiles, "read", lambda self, name: fetched.append(name[-18:-8]) or whole(self, name))
    with reached():
        tables = filled(f"s3://{new_bucket()}/x")
        ask_sum = lambda: ask(tables, "select sum(amount) from fraud.payments", cache=tmp_path).rows  # noqa: E731
        assert (ask_sum(), sorted(fetched)) == ([(12.0,)], DAYS)
        assert (ask_sum(), len(fetched)) == ([(12.0,)], 3)
        tables.write(PAYMENTS, pd.DataFrame({"amount": [100.0]}), DAYS[2])
        assert (ask_sum(), fetched[3:]) == ([(106.0,)], [DAYS[2]])
        kept = sorted(path.name[:10] for path in tmp_path.rglob("*.parquet.*"))
        assert kept == [*DAYS, DAYS[2]], "another query may still read the old one"
        for path in tmp_path.rglob("*.parquet.*"):
            os.utime(path, (time.time() - 2 * 86_400,) * 2)
        assert ask_sum() == [(106.0,)]
        assert sorted(path.name[:10] for path in tmp_path.rglob("*.parquet.*")) == DAYS


REFUSED = [
    ("select * from read_text('{secret}')", "files and extensions are out of reach"),
    ("select * from glob('{folder}/*')", "files and extensions are out of reach"),
    ("select * from read_parquet('{other}')", "files and extensions are out of reach"),
    ("select * from '{other}'", "files and extensions are out of reach"),
    ("select * from query('select * from read_text(''{secret}'')')", "files and extensions are out of reach"),
    ("copy (select 1) to '{folder}/out.csv'", "nothing else is allowed"),
    ("copy fraud.payments to '{day}' (format parquet)", "nothing else is allowed"),
    ("drop view fraud.payments", "nothing else is allowed"),
    ("create table x as select 1", "nothing else is allowed"),
    ("insert into fraud.payments values (1)", "nothing else is allowed"),
    ("attach '{folder}/x.db'", "nothing else is allowed"),
    ("set enable_external_access = true", "nothing else is allowed"),
    ("install httpfs", "nothing else is allowed"),
    ("load httpfs", "nothing else is allowed"),
    ("pragma database_list", "nothing else is allowed"),
    ("select 1; drop view fraud.payments", "nothing else is allowed"),
    ("select * from tables", "there is no table tables"),
]


@pytest.mark.parametrize(("sql", "mend"), REFUSED)
def test_a_query_reaches_nothing_but_the_tables_and_changes_nothing(sql, mend, tables, tmp_path):
    other = tmp_path / "other.parquet"
    pd.DataFrame({"a": [1]}).to_parquet(other)
    (tmp_path / "secret.txt").write_text("hush")
    day = Path(tables.path(PAYMENTS, DAYS[0]))
    before = day.read_bytes()
    there = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(QueryError) as error:
        answer(tables, sql.format(secret=tmp_path / "secret.txt", folder=tmp_path, other=other, day=day))
    assert mend in str(error.value)
    assert "\n" not in str(error.value)
    assert "hush" not in str(error.value)
    assert day.read_bytes() == before
    assert sorted(path.name for path in tmp_path.rglob("*")) == there


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("", "the query is empty; a query is one SELECT on the tables"),
        ("selec 1", 'the query is wrong: syntax error at or near "selec"'),
        ("select * from fraud.paymnts", "there is no table fraud.paymnts (did you mean fraud.payments?)"),
        ("select * from payments", "there is no table payments (did you mean fraud.payments?)"),
        ("select * from zz.q",
         "there is no table zz.q; the tables are: churn.customers, fraud.payments, assetline.files, assetline.vers"),
        ("select amont from fraud.payments", 'the query is wrong: Referenced column "amont" not found in FROM clause; '
         'Candidate bindings: "amount"'),
        ("select amount from fraud.payments where amount > 'much'",
         "the query is wrong: Could not convert string 'much' to DOUBLE"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence(sql, said, tables):
    with pytest.raises(QueryError) as error:
        answer(tables, sql)
    assert str(error.value).startswith(said)


def test_a_query_has_limits_of_time_rows_and_memory(tables, monkeypatch):
    with pytest.raises(QueryError, match=r"the query was stopped after 0\.2 s"):
        answer(tables, "select count(*) from range(100000000000) a, range(1000)", seconds=0.2)
    found = ask(tables, "select * from range(3000000)", cache=Path("/none"), limit=2)
    assert (found.rows, found.more) == ([(0,), (1,)], True)
    assert not ask(tables, "select * from range(2)", cache=Path("/none"), limit=2).more
    monkeypatch.setattr(table_sql, "MEMORY", "20MB")
    with pytest.raises(QueryError, match="needs more than 20MB of memory"):
        answer(tables, "select count(*) from (select distinct range from range(20000000))")


def test_values_are_plain(tables):
    [row] = answer(tables, "select [1, 2], {'a': date '2026-01-01'}, 1.5::decimal(4, 2), 'nan'::float, 'a'::blob, true")
    assert row == ([1, 2], {"a": "2026-01-01"}, "1.50", None, "61", True)
    found = ask(tables, "select 1 as a, 2 as a", cache=Path("/none"))
    assert found.to_json() == [{"a": 1, "a_2": 2}]


def test_without_duckdb_the_extra_is_named(tables, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "duckdb", None)
    with pytest.raises(QueryError, match=r"needs DuckDB; pip install 'assetline\[stores\]'"):
        answer(tables, "select 1")


# -- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    filled(str(tmp_path / "home" / "tables"))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path / "home"))
        code = main(["sql", *arguments])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def test_the_command_prints_a_table_csv_or_json(command):
    sql = "select country, count(*) as n from fraud.payments group by 1 order by 2"
    assert command(sql) == (0, "country  n\nFR       2\n         4\n", "")
    assert command(sql, "--format", "csv") == (0, "country,n\nFR,2\n,4\n", "")
    rows = [{"country": "FR", "n": 2}, {"country": None, "n": 4}]
    for wanted in (["--format", "json"], ["--json"]):
        code, out, _ = command(sql, *wanted)
        assert (code, json.loads(out)) == (0, rows)
    code, out, err = command(sql, "--limit", "1")
    assert (code, out.splitlines()[1:]) == (0, ["FR       2"])
    assert err == "assetline sql: there are more than 1 rows; raise --limit, or ask for fewer\n"


def test_without_a_query_the_tables_are_listed(command):
    code, out, _ = command()
    assert code == 0
    assert [line.split()[:4] for line in out.splitlines()[1:3]] == [
        ["churn.customers", out.splitlines()[1].split()[-1]], ["fraud.payments", "3", DAYS[0], DAYS[2]],
    ]  # fmt: skip
    assert "assetline.files: One row per day of each table" in out
    assert json.loads(command("--json")[1])[1]["last_day"] == DAYS[2]


def test_a_wrong_query_is_one_line_and_an_exit_code(command):
    assert command("selec 1") == (1, "", 'assetline sql: the query is wrong: syntax error at or near "selec"\n')


def test_an_empty_state_folder_stays_empty(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path / "none"))
    assert main(["sql"]) == 0
    assert "there is no table yet" in capsys.readouterr().out
    assert main(["sql", "select * from fraud.payments"]) == 1
    assert "the tables are: assetline.files, assetline.versions" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()

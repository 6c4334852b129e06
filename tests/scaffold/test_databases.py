"""From a table of a database to a model folder: what is guessed, what is written, and what is refused."""

import contextlib
import datetime as dt
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import dagster as dg
import duckdb
import numpy as np
import pandas as pd
import pytest

from assets.lifecycle.dry_run import dry_run
from resources.settings import project_root
from resources.sources import SqlByDay, SqlTable, sql_reading
from scaffold import databases
from scaffold.databases import is_database
from scaffold.new_model import drafted, new_model
from scaffold.report import format_report
from scaffold.tables import ScaffoldError
from tests.scaffold.test_new_model import root  # noqa: F401 - a fixture

YESTERDAY = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)


@pytest.fixture(autouse=True)
def files_are_looked_for_in_the_root(root, monkeypatch):  # noqa: F811
    monkeypatch.setattr(sql_reading, "project_root", lambda: root)


def payments(rows: int = 900, seed: int = 0) -> pd.DataFrame:
    """Payments of the last 30 days, in no order; each was written some hours after it happened."""
    rng = np.random.default_rng(seed)
    amount = rng.gamma(2, 50, rows).round(2)
    paid_at = pd.Timestamp(YESTERDAY) - pd.to_timedelta(rng.integers(-80_000, 29 * 86_400, rows), "s")
    return pd.DataFrame({
        "payment_no": rng.permutation(rows) + 1, "paid_at": paid_at.astype(str), "amount": amount,
        "created_at": (paid_at + pd.to_timedelta(rng.integers(0, 40_000, rows), "s")).astype(str),
        "country": rng.choice(["DE", "FR", "IT"], rows), "fraud": (rng.random(rows) < amount / 300).astype(int),
    })  # fmt: skip


def database(folder: Path, kind: str, rows: pd.DataFrame | None = None) -> str:
    """The URL of a new database with the table `payments`, the view `open` and the empty table `nobody`."""
    path = folder / f"shop.{kind}"
    moment, connect = ("TEXT", sqlite3.connect) if kind == "sqlite" else ("TIMESTAMP", duckdb.connect)
    with contextlib.closing(connect(str(path))) as connection:
        connection.execute(f"CREATE TABLE payments (payment_no BIGINT PRIMARY KEY, paid_at {moment} NOT NULL, amount "
                           f"DECIMAL(12, 2), created_at {moment}, country VARCHAR, fraud INTEGER)")  # fmt: skip
        connection.execute("CREATE VIEW open AS SELECT * FROM payments")
        connection.execute("CREATE TABLE nobody (a INT, b INT)")
        values = (payments() if rows is None else rows).values.tolist()
        connection.executemany("INSERT INTO payments VALUES (?, ?, ?, ?, ?, ?)", values)
        connection.commit()
    return f"{kind}:///{path}"


@pytest.mark.parametrize("kind", ["sqlite", "duckdb"])
def test_a_table_becomes_a_model_that_reads_it(root, kind):  # noqa: F811
    url = database(root, kind)
    made = new_model(root, "shop", f"{url}#payments", "fraud")
    text = (made.folder / "__init__.py").read_text()
    path = f"shop.{kind}"
    assert f'source=SqlTable(url="{kind}:///{path}", table="payments")' in " ".join(text.split())
    assert made.guess.key == "payment_no"
    assert "the key 'payment_no' is the primary key of the table" in format_report(made, root)
    assert sorted(file.name for file in (root / "assets" / "models").iterdir()) == ["shop"]


def test_with_a_time_it_becomes_a_stream_and_arrival_is_offered(root):  # noqa: F811
    url = database(root, "duckdb")
    with drafted(root, "shop", f"{url}#payments", "fraud", time="paid_at") as draft:
        source = draft.model.table.source
        assert isinstance(source, SqlByDay)
        assert (source.table, source.time, source.arrived) == ("payments", "paid_at", "")
        assert any("'created_at' looks like the time at which a row is written" in note for note in draft.guess.notes)
    with drafted(root, "shop", f"{url}#payments", "fraud", time="created_at") as draft:
        assert draft.model.table.source.arrived == "created_at"
    rows = payments().assign(paid_at=lambda rows: pd.to_datetime(rows["paid_at"]).astype("int64") // 10**9)
    shutil.rmtree(root / "made", ignore_errors=True)
    (root / "made").mkdir()
    with drafted(root, "shop", f"{database(root / 'made', 'sqlite', rows)}#payments", "fraud", time="paid_at") as draft:
        assert draft.model.table.source.form == "seconds since 1970-01-01"


@pytest.mark.parametrize("time", ["", "paid_at"])
def test_the_written_files_are_clean_and_their_rows_meet_the_contract(root, monkeypatch, time):  # noqa: F811
    monkeypatch.setenv("SHOP_URL", database(root, "duckdb"))
    with drafted(root, "shop", "env:SHOP_URL#payments", "fraud", time=time) as draft:
        assert 'url=dg.EnvVar("SHOP_URL")' in (draft.folder / "__init__.py").read_text()
        for command in (["ruff", "check"], ["ruff", "format", "--check"]):
            tool, *arguments = command
            ran = subprocess.run([str(Path(sys.executable).with_name(tool)), *arguments, str(draft.folder)],
                                 cwd=project_root(), capture_output=True, text=True, check=False)  # fmt: skip
            assert ran.returncode == 0, ran.stdout + ran.stderr
        source = draft.model.table.source
        rows = source.land(YESTERDAY) if time else source.read()
        found = dry_run(draft.model, rows)
        assert (found.landed, found.refused_share) == (len(rows), 0)
        assert len(rows) > 10


@pytest.mark.slow
def test_the_tests_of_the_folder_pass_or_skip_where_the_database_is_not(root, tmp_path_factory, monkeypatch):  # noqa: F811
    monkeypatch.setenv("SHOP_URL", database(root, "duckdb"))
    new_model(root, "shop", "env:SHOP_URL#payments", "fraud", time="paid_at")
    copy = tmp_path_factory.mktemp("project")
    for part in ("assets", "resources"):
        shutil.copytree(project_root() / part, copy / part, ignore=shutil.ignore_patterns("models", "__pycache__"))
    shutil.copytree(root / "assets" / "models", copy / "assets" / "models")
    shutil.copy(project_root() / "assets" / "models" / "__init__.py", copy / "assets" / "models")
    test = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "assets/models/shop"]
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    ran = subprocess.run(test, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 passed" in ran.stdout
    del environment["SHOP_URL"]
    ran = subprocess.run(test, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert "needs SHOP_URL, the URL of the database" in ran.stdout
    assert "2 skipped" in ran.stdout


def test_text_that_holds_numbers_is_pointed_out(root):  # noqa: F811
    rows = payments().assign(country=lambda rows: (rows["amount"] * 7).astype(int).astype(str))
    with drafted(root, "shop", f"{database(root, 'duckdb', rows)}#payments", "fraud") as draft:
        assert (
            "'country': it is text in the database, but its values are numbers and read as such" in draft.guess.warnings
        )
    with drafted(root, "mall", f"{database(root, 'sqlite')}#payments", "fraud") as draft:
        assert not any("it is text in the database" in warning for warning in draft.guess.warnings)


REFUSED = {
    "no such table": ("{url}#paymets", r"no table or view 'paymets'; did you mean 'payments'"),
    "no table": ("{url}", r"name a table or view after #, as in postgresql://.*; there are: nobody, open, payments"),
    "an empty table": ("{url}#nobody", "it has no rows"),
    "no file": ("sqlite:///nowhere.db#payments", "no such file"),
    "another database": ("oracle://host/shop#payments", "begins with 'oracle'; supported are postgresql"),
    "a server that is away": ("postgresql://127.0.0.1:1/shop#payments", "does not answer now"),
    "a variable that is not set": ("env:NO_URL#payments", "NO_URL is not set; export NO_URL with the URL"),
    "no variable": ("env:#payments", "give the name of a variable after env:"),
    "no target": ("{url}#payments", "did you mean 'fraud'"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_one_clear_sentence_and_no_folder(root, case):  # noqa: F811
    table, words = REFUSED[case]
    with pytest.raises(ScaffoldError, match=words) as refused:
        new_model(root, "shop", table.format(url=database(root, "sqlite")), "frau")
    assert "\n" not in str(refused.value)
    assert list((root / "assets" / "models").iterdir()) == []


def test_a_time_that_the_database_cannot_cut_into_days_is_refused(root):  # noqa: F811
    rows = payments().assign(paid_at=lambda rows: pd.to_datetime(rows["paid_at"]).dt.strftime("%d/%m/%Y %H:%M:%S"))
    with pytest.raises(ScaffoldError, match=r"TIME=paid_at: .*(not ISO 8601|0 rows land on|write it as)"):
        new_model(root, "shop", f"{database(root, 'sqlite', rows)}#payments", "fraud", time="paid_at")
    assert list((root / "assets" / "models").iterdir()) == []


def test_a_password_in_table_is_refused_and_not_repeated(root, monkeypatch):  # noqa: F811
    table = "postgresql://reader:c4nary@127.0.0.1:1/shop#payments"
    with pytest.raises(ScaffoldError, match=r"process list.*TABLE='env:SHOP_URL#payments'") as refused:
        new_model(root, "shop", table, "fraud")
    assert "c4nary" not in str(refused.value)
    monkeypatch.setenv("SHOP_URL", table.partition("#")[0])
    with pytest.raises(ScaffoldError, match="does not answer now") as failed:
        new_model(root, "shop", "env:SHOP_URL#payments", "fraud")
    assert "c4nary" not in str(failed.value)


def test_a_table_that_is_too_long_to_read_is_refused(root, monkeypatch):  # noqa: F811
    monkeypatch.setattr(databases, "MOST_ROWS", 899)
    with pytest.raises(ScaffoldError, match="it has 900 rows, and all are read; make the model from a view"):
        new_model(root, "shop", f"{database(root, 'sqlite')}#payments", "fraud")


def test_files_and_databases_are_told_apart():
    tables = (
        "postgresql://h/d#t",
        "postgresql+psycopg://h/d#t",
        "sqlite:///a.db#t",
        "env:URL#t",
        "mysql+pymysql://h/d",
    )
    assert all(map(is_database, tables))
    assert not any(map(is_database, ("a.csv", "s3://bucket/a.csv", "https://host/a.csv", Path("env:URL"), "env.csv")))


def test_the_command_and_make_pass_the_table_on(root, tmp_path):  # noqa: F811
    url = database(tmp_path, "sqlite")
    make = ["make", "-n", "-o", ".venv/installed", "new-model", "NAME=shop", f"TABLE={url}#payments", "TARGET=fraud"]
    said = subprocess.run(make, cwd=project_root(), capture_output=True, text=True, check=False).stdout
    assert f'--table "{url}#payments"' in said
    command = [sys.executable, "-m", "cli", "new-model", "--name", "9", "--table", "env:NO_URL#t", "--target", "x"]
    ran = subprocess.run(command, cwd=project_root(), capture_output=True, text=True, check=False)
    assert (ran.returncode, "NAME=9" in ran.stderr) == (1, True)
    assert isinstance(SqlTable(url=dg.EnvVar("SHOP_URL"), table="t").url, dg.EnvVar)

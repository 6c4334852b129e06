"""Limits by table and column: in the file, in SQL, in the catalogue, in the facts, and on the watch's pages."""

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from cli import main
from metadata.catalogue import Catalogue
from metadata.facts import Metadata
from metadata.query import QueryError
from metadata.table_sql import ask
from metadata.views import DataVersionRow
from resources.access import Access, AccessDenied
from resources.alerts import AlertStore
from resources.audit import AuditLog
from resources.service_tokens import TokenError, TokenFile
from resources.settings import Settings
from resources.tables import ParquetTables
from serving.watch.alerts_page import create_app

LIMITED = Access("ada", "reader", tables=("fraud/payments", "fraud/drift"), hidden_columns=("*.iban",))


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Settings:
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return Settings.from_env()


@pytest.fixture
def tables(settings) -> ParquetTables:
    found = ParquetTables(root=settings.tables)
    for name in ("payments", "labels"):
        rows = pd.DataFrame({"n": np.arange(3), "iban": [f"DE{name}{i}" for i in range(3)]})
        found.write(dg.AssetKey(["fraud", name]), rows, "2026-01-01")
    return found


def answer(tables: ParquetTables, sql: str, access: Access | None = LIMITED):
    return ask(tables, sql, cache=tables.files.root, access=access)


def test_patterns_of_tables_and_columns():
    assert LIMITED.sees("fraud/payments")
    assert not LIMITED.sees("fraud/labels")
    assert LIMITED.hidden_among("fraud/payments", ["n", "iban"]) == ["iban"]
    one = Access("x", "reader", models=("fraud",), hidden_columns=("fraud/pay*.i*", "churn/x.n"))
    assert (one.sees("fraud/labels"), one.sees("churn/x")) == (True, False)
    assert one.hidden_among("fraud/payments", ["n", "iban", "id"]) == ["iban", "id"]
    assert one.hidden_among("fraud/labels", ["n", "iban"]) == []
    assert Access("x", "admin").sees_all_rows
    with pytest.raises(AccessDenied, match="ada may not see iban of fraud/payments"):
        LIMITED.require_rows("fraud/payments", ["n", "iban"])
    with pytest.raises(AccessDenied, match="ada may not see the table fraud/labels, only fraud/payments, fraud/drift"):
        LIMITED.require_rows("fraud/labels", [])


def test_a_token_keeps_its_limits_and_wrong_ones_are_refused(tmp_path):
    file = TokenFile(tmp_path / "tokens.toml", tmp_path / "shown")
    file.create("ada", role="reader", tables=["fraud/payments"], hidden_columns=["*.iban"])
    file.rotate("ada")
    found = file.read()["ada"].access
    assert (found.tables, found.hidden_columns) == (("fraud/payments",), ("*.iban",))
    before = file.path.read_bytes()
    with pytest.raises(TokenError, match=r"the hidden column 'iban' is not a table, a dot and a column, like"):
        file.create("ben", hidden_columns=["iban"])
    assert file.path.read_bytes() == before
    file.path.write_text('[people.ada]\nrole = "reader"\ntables = []\n')
    with pytest.raises(TokenError, match=r"tables of \[people.ada\] is not a list of names"):
        file.people()
    file.path.write_text('[people.ada]\nrole = "reader"\nhidden_columns = ["iban"]\n')
    with pytest.raises(TokenError, match=r"hidden_columns of \[people.ada\]: 'iban' is not a table, a dot"):
        file.people()


@pytest.mark.parametrize(
    "sql",
    [
        "select * from fraud.labels", "select p.n from fraud.payments p join fraud.labels l using (n)",
        "select iban from fraud.payments", "select n from fraud.payments where iban like 'DE%'",
        "select count(distinct p.IBAN) from fraud.payments p", 'select "iban" from fraud.payments',
        "with x as (select iban from fraud.payments) select * from x",
    ],
)  # fmt: skip
def test_sql_refuses_what_is_kept_from_a_person(tables, sql):
    with pytest.raises(AccessDenied, match="ada may not see "):
        answer(tables, sql)
    assert answer(tables, sql, None).rows


def test_sql_shows_the_rest(tables):
    assert answer(tables, "select * from fraud.payments").columns == ("n",)
    assert {row[0] for row in answer(tables, "select table_name from assetline.files").rows} == {"fraud.payments"}
    with pytest.raises(QueryError, match=r"the tables are: fraud.payments, assetline"):
        answer(tables, "select * from fraud.zzzzzzzzz")
    for path in ("payments", "labels"):
        with pytest.raises(QueryError, match="files and extensions are out of reach"):
            answer(
                tables,
                f"select r.* from read_parquet('{tables.root}/fraud/{path}/2026-01-01.parquet') r, fraud.payments",
            )


def test_commands_refuse_and_record_it(tables, settings, monkeypatch, capsys):
    monkeypatch.setattr("getpass.getuser", lambda: "ada")
    settings.service_tokens.write_text(
        '[people.ada]\nrole = "reader"\ntables = ["fraud/payments"]\nhidden_columns = ["*.iban"]\n'
    )
    for arguments in (
        ["sql", "select * from fraud.labels"], ["sql", "select iban from fraud.payments"],
        ["catalogue", "fraud.labels"],
    ):  # fmt: skip
        assert main(arguments) == 1
        shown = capsys.readouterr()
        assert "ada may not see " in shown.err
        assert shown.out == ""
    assert main(["sql", "select * from fraud.payments", "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines() == ["n", "0", "1", "2"]
    assert main(["sql"]) == 0
    assert "labels" not in capsys.readouterr().out
    actions = [one.action for one in AuditLog(settings.database_url).lines()]
    assert actions.count("denied") == 3


def test_the_catalogue_leaves_out_what_is_kept_from_a_person(tables):
    shown = {one.name: [column.name for column in one.columns] for one in Catalogue(tables, []).listing(LIMITED)}
    assert shown == {"fraud.payments": ["n"]}
    assert len(Catalogue(tables, []).listing()) == 2


def test_facts_leave_out_tables_that_are_kept_from_a_person(settings, monkeypatch):
    rows = [
        DataVersionRow(model="fraud", version=1, table_name=f"fraud/{name}", day="all", data_version="a", now="a",
                       changed=False)
        for name in ("payments", "labels")
    ]  # fmt: skip
    monkeypatch.setattr(Metadata, "data_versions", lambda self: rows)
    facts = Metadata(settings, [], None)
    assert [row.table_name for row in facts.of_person(LIMITED).rows("data_versions")] == ["fraud/payments"]
    assert len(facts.of_person(None).rows("data_versions")) == 2


def test_the_watch_shows_tables_and_reports_by_the_limits_of_the_token(tables, settings, tmp_path):
    file, store = TokenFile(tmp_path / "tokens.toml", tmp_path / "shown"), AlertStore(settings.database_url)
    for name in ("labels", "payments"):
        link = tables.keep_report(dg.AssetKey(["fraud", name]), "page", "<p>rows</p>")
        store.report("fraud", f"{name}/drift", severity="page", summary="x", links={"report": link})
    app = create_app(
        store, "a-token-of-enough-letters", reports=tables, audit=AuditLog(settings.database_url), tokens=file.read
    )
    tokens = {
        "limited": file.create("limited", role="reader", tables=["fraud/payments"]),
        "without": file.create("without", role="reader", hidden_columns=["*.iban"]),
        "free": file.create("free", role="reader"),
    }
    clients = {name: TestClient(app, headers={"authorization": f"Bearer {token}"}) for name, token in tokens.items()}
    seen = {name: {one["name"]: len(one["columns"]) for one in client.get("/catalogue.json").json()}
            for name, client in clients.items()}  # fmt: skip
    assert seen == {
        "limited": {"fraud.payments": 2}, "without": {"fraud.labels": 1, "fraud.payments": 1},
        "free": {"fraud.labels": 2, "fraud.payments": 2},
    }  # fmt: skip
    reports = {
        name: [client.get(f"/alerts/{n}/report").status_code for n in (1, 2)] for name, client in clients.items()
    }
    assert reports == {"limited": [403, 200], "without": [403, 403], "free": [200, 200]}
    denied = [one.who for one in AuditLog(settings.database_url).lines() if one.action == "denied"]
    assert denied == ["limited", "without", "without"]

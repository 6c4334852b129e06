"""The project's database is migrated by revisions, and one of the release before them keeps its rows."""

import multiprocessing
import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from cli import main
from resources import audit, ledger, migrations, request_log_postgres
from resources.alerts import AlertStore, database
from resources.ledger import Ledger
from resources.migrations import MigrationError, migrate, revision_of, revisions
from resources.settings import Settings, project_root
from serving.supervisor import supervise
from tests.resources.conftest import POSTGRES

HERE = Path(__file__).parent
SAID = {"verdicts": {"gate": True}, "dagster_run": "run-1", "who": "ada"}
SCHEMAS = [ledger._TABLE.metadata, database.METADATA, request_log_postgres.METADATA, audit.METADATA]
MADE = {table for metadata in SCHEMAS for table in metadata.tables}

on_postgres = [
    pytest.mark.slow,
    pytest.mark.skipif(POSTGRES is None, reason="needs the Debian package postgresql"),
]
both = pytest.mark.parametrize("url", ["sqlite", pytest.param("postgresql", marks=on_postgres)], indirect=True)


@pytest.fixture
def url(request, tmp_path) -> str:
    """URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state/assetline.db"
    name = f"migrations_{abs(hash(request.node.name))}"
    return request.getfixturevalue("postgres")(name)


def load_release(url: str) -> None:
    """Fills the database as release 0.1.0 did."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    script = (HERE / f"release_0.1.0.{engine.dialect.name}.sql").read_text()
    if engine.dialect.name == "sqlite":
        Path(engine.url.database).parent.mkdir()
        with sqlite3.connect(engine.url.database) as connection:
            connection.executescript(script)
        connection.close()
    else:
        with engine.begin() as connection:
            connection.connection.driver_connection.execute(script)


def rows(url: str) -> dict[str, list[tuple]]:
    """All rows of the tables that the project makes, by table."""
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        there = MADE & {*sa.inspect(connection).get_table_names()}
        found = {name: sa.Table(name, sa.MetaData(), autoload_with=connection) for name in sorted(there)}
        return {
            name: sorted(map(tuple, connection.execute(sa.select(table))), key=str) for name, table in found.items()
        }


@both
def test_a_database_of_the_release_before_keeps_rows_and_triggers(url):
    load_release(url)
    before = rows(url)
    assert len(before["promotions"]) == 3
    assert len(before["alert_events"]) == 4
    migrate(sa.create_engine(url))
    after = rows(url)
    assert before.pop("alert_positions") == [("check_evaluations", 7), ("schema", 4)]
    assert after.pop("alert_positions") == [("check_evaluations", 7)]
    assert {after.pop(name) == [] for name in (*request_log_postgres.METADATA.tables, "audit_log")} == {True}
    assert after == before
    for statement in ("UPDATE promotions SET version = '9'", "DELETE FROM promotions", "DELETE FROM alert_events"):
        with pytest.raises(sa.exc.DBAPIError, match="append-only"), sa.create_engine(url).begin() as connection:
            connection.execute(sa.text(statement))
    assert Ledger(database_url=url).champion("fraud").version == "3"
    assert Ledger(database_url=url).promote("fraud", "4", reason="r", **SAID).number == 4
    assert [alert.cause for alert in AlertStore(url).open_alerts()] == ["run/fraud_train"]


@both
def test_the_code_and_the_revisions_describe_the_same_tables(url):
    engine = sa.create_engine(url)
    migrate(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"version_table": migrations.VERSION_TABLE, "compare_type": True},
        )
        assert compare_metadata(context, SCHEMAS) == []
        assert {*sa.inspect(connection).get_table_names()} == {*MADE, migrations.VERSION_TABLE}


@both
def test_an_upgraded_database_has_the_schema_of_a_new_one(url, request, tmp_path):
    load_release(url)
    migrate(sa.create_engine(url))
    new = f"sqlite:///{tmp_path}/new.db" if "sqlite" in url else request.getfixturevalue("postgres")("new_one")
    migrate(sa.create_engine(new))

    def schema(url: str) -> list[str]:
        with sa.create_engine(url).connect() as connection:
            look = sa.inspect(connection)
            if connection.dialect.name == "sqlite":
                made = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").all()
                return sorted(" ".join(f"{name} {sql}".replace('"', "").split()) for name, sql in made)
            triggers = connection.exec_driver_sql(
                "SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal"
            ).all()
            found = [f"{t} {look.get_columns(t)} {look.get_indexes(t)}" for t in look.get_table_names()]
            return sorted([*map(str, triggers), *found])

    assert schema(url) == schema(new)


@both
def test_a_database_of_a_newer_release_is_refused_and_stays_as_it_is(url):
    Ledger(database_url=url).promote("fraud", "1", reason="r", **SAID)
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '9999'"))
    before = rows(url)
    message = (
        rf"has revision 9999 of a newer release, and this release knows revisions up to {revisions()[-1]}; run the"
    )
    for opened in (Ledger(database_url=url).history, AlertStore(url).open_alerts):
        with pytest.raises(MigrationError, match=message):
            opened()
    assert rows(url) == before
    assert revision_of(sa.create_engine(url)) == "9999"


@both
def test_a_revision_that_fails_leaves_nothing(url, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("resources.append_only.forbid_rewriting", killed)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with pytest.raises(KeyboardInterrupt):
        migrate(engine)
    assert sa.inspect(engine).get_table_names() == []
    monkeypatch.undo()
    migrate(engine)
    assert revision_of(engine) == revisions()[-1]


def _migrate(url: str, barrier) -> None:
    barrier.wait()
    migrate(sa.create_engine(url))


@both
def test_several_processes_at_once_migrate_once(url):
    load_release(url)
    spawn = multiprocessing.get_context("fork")
    barrier = spawn.Barrier(3)
    processes = [spawn.Process(target=_migrate, args=(url, barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with sa.create_engine(url).connect() as connection:
        found = connection.execute(sa.text(f"SELECT version_num FROM {migrations.VERSION_TABLE}")).all()
    assert found == [(revisions()[-1],)]


def test_once_migrated_it_takes_one_query(tmp_path):
    engine = sa.create_engine(f"sqlite:///{tmp_path}/assetline.db")
    migrate(engine)
    asked = []
    sa.event.listen(engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    migrate(engine)
    assert asked == [f"SELECT version_num FROM {migrations.VERSION_TABLE}"]


def test_alembic_is_loaded_only_to_migrate(tmp_path):
    url = f"sqlite:///{tmp_path}/assetline.db"
    migrate(sa.create_engine(url))
    code = f"""
import sys, sqlalchemy as sa
from resources.migrations import migrate
migrate(sa.create_engine({url!r}))
assert "alembic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=project_root())


def test_the_tables_of_optuna_are_left_alone(tmp_path):
    url = f"sqlite:///{tmp_path}/assetline.db"
    optuna.create_study(storage=url, study_name="before")
    migrate(sa.create_engine(url))
    optuna.create_study(storage=url, study_name="after")
    assert sorted(optuna.get_all_study_names(storage=url)) == ["after", "before"]
    assert Ledger(database_url=url).history() == []


def test_revisions_are_one_line_of_numbers():
    config = Config()
    config.set_main_option("script_location", str(migrations.FOLDER))
    config.set_main_option("path_separator", "os")
    found = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(found)) == revisions()
    assert [int(revision) for revision in revisions()] == list(range(1, len(revisions()) + 1))


def test_commands_and_the_supervisor_say_that_a_database_is_newer_and_start_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))
    settings = Settings.from_env()
    Ledger.from_settings(settings).history()
    with sa.create_engine(settings.database_url).begin() as connection:
        connection.execute(sa.text(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '9999'"))
    assert main(["history"]) == 1
    assert main(["alerts", "list"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert [line.split(" has revision 9999")[0] for line in said.err.splitlines()] == [
        f"assetline: the database sqlite:///{tmp_path}/assetline.db"
    ] * 2
    with pytest.raises(MigrationError, match="9999"):
        supervise(settings, [])
    assert not settings.dagster_home.exists()

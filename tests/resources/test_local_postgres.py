"""The PostgreSQL of a state folder: made whole, started by who needs it, stopped by who leaves last, seen to die."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from resources import local_postgres
from resources.local_postgres import DATABASES, LocalPostgresError, in_use, is_running, url
from resources.settings import project_root
from tests.resources.conftest import POSTGRES

needs_server = [
    pytest.mark.slow,
    pytest.mark.skipif(POSTGRES is None, reason="needs the Debian package postgresql"),
]


def ask(home: Path, sql: str, database: str = DATABASES[0]) -> list:
    engine = sa.create_engine(url(home, database), poolclass=sa.NullPool)
    with engine.begin() as connection:
        result = connection.execute(sa.text(sql))
        return list(result) if result.returns_rows else []


def run(home: Path, command: str) -> subprocess.CompletedProcess[str]:
    """An `assetline` command on a state folder, in a process of its own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ASSETLINE_", "DAGSTER_"))}
    code = f"from cli import main; raise SystemExit(main({command.split()!r}))"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=project_root(), env={**env, "ASSETLINE_HOME": str(home)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip


class TestServer:
    pytestmark = needs_server

    def test_it_keeps_its_rows_and_runs_only_while_it_is_used(self, open_folder):
        home = open_folder / "a home with 'quotes'"
        with in_use(home):
            assert {database: ask(home, "SELECT 1", database) for database in DATABASES} == {
                database: [(1,)] for database in DATABASES
            }
            ask(home, "CREATE TABLE kept AS SELECT 42 AS n")
            with in_use(home):
                pass
            assert is_running(home), "the one that came first still uses it"
        assert not is_running(home)
        with in_use(home):
            assert ask(home, "SELECT n FROM kept") == [(42,)]

    def test_it_listens_to_nobody_else(self, open_folder):
        with in_use(open_folder / "home"):
            assert ask(open_folder / "home", "SHOW listen_addresses") == [("",)]
            socket = Path(ask(open_folder / "home", "SHOW unix_socket_directories")[0][0])
            assert socket.stat().st_mode & 0o777 == 0o700

    def test_a_long_path_has_its_socket_elsewhere(self, open_folder):
        home = open_folder / ("long" * 30)
        with in_use(home):
            assert ask(home, "SELECT 1") == [(1,)]
            assert str(home) not in url(home, "mlflow")

    def test_processes_that_begin_together_make_one_server(self, open_folder):
        home = open_folder / "home"
        failed = []

        def work():
            try:
                with in_use(home):
                    ask(home, "SELECT 1")
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert not is_running(home)

    def test_after_a_kill_of_its_user_and_of_the_server_it_starts_again(self, open_folder):
        home = open_folder / "home"
        code = (
            "import sys, time; from pathlib import Path; from resources.local_postgres import in_use\n"
            "with in_use(Path(sys.argv[1])): print('up', flush=True); time.sleep(600)"
        )
        user = subprocess.Popen([sys.executable, "-c", code, str(home)], cwd=project_root(), stdout=subprocess.PIPE)
        assert user.stdout.readline() == b"up\n"
        ask(home, "CREATE TABLE kept AS SELECT 42 AS n")
        user.kill()
        user.communicate()
        assert is_running(home), "a killed user cannot stop it"
        server = int((home / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
        watch = subprocess.Popen(
            [sys.executable, "-m", "resources.local_postgres", str(home)], cwd=project_root(), stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        os.kill(server, signal.SIGKILL)
        _, said = watch.communicate(timeout=120)
        assert watch.returncode == 1
        assert f"the PostgreSQL server in {home / 'postgres'} has ended" in said
        with in_use(home):
            assert ask(home, "SELECT n FROM kept") == [(42,)]
        assert not is_running(home)

    def test_a_half_made_server_is_made_again(self, open_folder):
        home = open_folder / "home"
        (home / "postgres" / ".data-killed").mkdir(parents=True)
        (home / "postgres" / ".data-killed" / "PG_VERSION").write_text("15")
        with in_use(home):
            assert ask(home, "SELECT 1") == [(1,)]
        assert not (home / "postgres" / ".data-killed").exists()

    def test_commands_use_the_server_of_their_state_folder(self, open_folder):
        home = open_folder / "home"
        with in_use(home):
            pass
        ended = run(home, "alerts list")
        assert ended.returncode == 0, ended.stderr
        assert not is_running(home)
        assert not list(home.rglob("*.db")), "nothing is in SQLite"
        with in_use(home):
            assert ask(home, "SELECT count(*) FROM alerts") == [(0,)]

    def test_a_server_that_does_not_start_says_why(self, open_folder):
        home = open_folder / "home"
        with in_use(home):
            pass
        with (home / "postgres" / "data" / "postgresql.conf").open("a") as file:
            file.write("shared_buffers = 'lots'\n")
        with pytest.raises(LocalPostgresError, match=r"does not start: .*; .*/log has more"), in_use(home):
            pass
        assert "shared_buffers" in (home / "postgres" / "log").read_text()


def test_without_postgresql_the_mend_is_named(tmp_path, monkeypatch):
    local_postgres.programs.cache_clear()
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))
    monkeypatch.setattr(local_postgres.shutil, "which", lambda name: None)
    monkeypatch.setattr(local_postgres.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LocalPostgresError, match="install the Debian package postgresql, or `pip install pgserver`"):
        local_postgres.programs()
    local_postgres.programs.cache_clear()


def test_without_its_drivers_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(local_postgres.importlib.util, "find_spec", lambda name: None if name == "psycopg" else name)
    with (
        pytest.raises(LocalPostgresError, match=r"psycopg is not installed; run `pip install 'assetline\[postgres\]'`"),
        in_use(tmp_path / "home"),
    ):
        pass
    assert not (tmp_path / "home").exists()


def test_a_socket_folder_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "real")
    with pytest.raises(LocalPostgresError, match="belongs to somebody else"):
        local_postgres._make_private(tmp_path / "run")

"""The alert store on a real PostgreSQL: the same promises."""

import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from resources.alerts import AlertStore, Route
from resources.processes import free_port

BIN = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BIN is None, reason="needs the Debian package postgresql"),
]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A server of its own on the loopback interface; as root it runs as the user `postgres`, who comes with it."""
    folder = tmp_path_factory.mktemp("postgres")
    as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    if as_user:
        for above in (folder, *list(folder.parents)[:2]):
            above.chmod(0o755)
        shutil.chown(folder, "postgres")
    port = free_port()

    def run(program: str, *arguments: str) -> None:
        subprocess.run([*as_user, str(BIN / program), *arguments], check=True, capture_output=True, cwd=folder)

    run("initdb", "-D", str(folder / "data"), "-U", "assetline", "--auth=trust")
    options = f"-h 127.0.0.1 -p {port} -k {folder}"
    run("pg_ctl", "-D", str(folder / "data"), "-w", "-l", str(folder / "log"), "-o", options, "start")
    run("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "assetline", "assetline")
    yield f"postgresql+psycopg://assetline@127.0.0.1:{port}/assetline"
    run("pg_ctl", "-D", str(folder / "data"), "-m", "immediate", "stop")


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

"""What tests of several resources share."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from resources.mlflow import MlflowTracking, create_store
from resources.processes import free_port

POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
"""Folder of PostgreSQL's programs."""


@pytest.fixture(scope="module")
def tracking(tmp_path_factory) -> MlflowTracking:
    folder = tmp_path_factory.mktemp("mlflow")
    create_store(folder / "mlflow.db", folder / "artifacts")
    tracking = MlflowTracking(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    client = tracking.client()
    for name in ("other", "toy"):
        client.create_registered_model(name)
        for _ in range(2):
            client.create_model_version(name, str(folder))
    return tracking


@pytest.fixture(scope="session")
def postgres():
    """Makes databases on a server of its own on the loopback interface, and returns their URLs.

    ``postgres.stop()`` and ``postgres.start()`` end that server and start it again, with all that was committed.

    As root it runs as the user `postgres`, who comes with the package. Its folder is not one of pytest's: every run of
    pytest takes the rights of others from the folder above those, also one that a test starts while the server runs.
    """
    folder = Path(tempfile.mkdtemp(prefix="assetline-postgres-"))
    as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres")
    port = free_port()

    def run(program: str, *arguments: str) -> None:
        command = [*as_user, str(POSTGRES / program), *arguments]
        ended = subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder)
        assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"

    run("initdb", "-D", str(folder / "data"), "-U", "assetline", "--auth=trust")
    options = f"-h 127.0.0.1 -p {port} -k {folder}"

    def start() -> None:
        run("pg_ctl", "-D", str(folder / "data"), "-w", "-l", str(folder / "log"), "-o", options, "start")

    def stop() -> None:
        run("pg_ctl", "-D", str(folder / "data"), "-m", "immediate", "stop")

    start()

    def database(name: str) -> str:
        run("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "assetline", name)
        return f"postgresql+psycopg://assetline@127.0.0.1:{port}/{name}"

    database.start, database.stop = start, stop
    yield database
    stop()
    shutil.rmtree(folder)

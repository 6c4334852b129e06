"""A backup of a state folder in use, what it leaves out, and what becomes of a bad one."""

import contextlib
import gzip
import io
import json
import os
import shutil
import socket
import sqlite3
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from assets.declaration import Gate
from assets.lifecycle.model.version.bundle import loaded
from cli import main
from resources import home
from resources.backup import BackupError, back_up, maintenance
from resources.ledger import Ledger
from resources.migrations import revisions
from resources.mlflow import MlflowTracking
from resources.processes import free_port
from resources.restore import RestoreError, restore
from resources.settings import Settings, project_root
from resources.targets.local_service import LocalService
from scaffold.new_model import drafted
from tests.declarations.readings import readings
from tests.resources.conftest import POSTGRES
from tests.state import DAYS, MODEL, rows_of, run_of, small_state, snapshot
from tests.worlds import World, why

X = np.linspace(0, 100, 90, dtype=np.float32).reshape(3, 30)
"""Rows to score; a model takes as many columns as it has features."""


@pytest.fixture(scope="module")
def world(make_world, tmp_path_factory, toy_bundle) -> World:
    """A state folder; tests only read it."""
    return small_state(make_world, tmp_path_factory.mktemp("state") / "var", toy_bundle)


@pytest.fixture(scope="module")
def archive(world, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("backups") / "var.tar.gz"
    back_up(world.settings, file)
    return file


@pytest.fixture
def empty(tmp_path) -> Settings:
    return Settings.from_env({"ASSETLINE_HOME": str(tmp_path / "restored" / "var")})


def members(file: Path) -> dict[str, bytes]:
    with tarfile.open(file) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def packed(file: Path, content: dict[str, bytes | tarfile.TarInfo]) -> Path:
    """Writes an archive with these members."""
    with tarfile.open(file, "w:gz") as archive:
        for name, given in content.items():
            info, data = (given, b"") if isinstance(given, tarfile.TarInfo) else (tarfile.TarInfo(name), given)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file


def changed_manifest(content: dict[str, bytes], **facts) -> dict[str, bytes]:
    manifest = {**json.loads(content["manifest.json"]), **facts}
    return {**content, "manifest.json": json.dumps(manifest).encode()}


def version_scores(settings: Settings, version: str = "1", name: str = MODEL.name) -> list[float]:
    world = World(MODEL, settings, dg.DagsterInstance.ephemeral())
    bundle = loaded(world.mlflow.download(name, version))
    return bundle.predict(X[:, : len(bundle.facts.feature_names)]).tolist()


# -- what is in it -------------------------------------------------------------------------------------------------


def test_everything_is_back_in_another_folder(world, archive, empty):
    champion, rows, scores = world.ledger.champion("meter"), rows_of(world), version_scores(world.settings)
    manifest = restore(empty, archive)
    assert manifest.revision == revisions()[-1]
    again = World(MODEL, empty, dg.DagsterInstance.ephemeral())
    assert again.ledger.champion("meter") == champion
    assert [alert.cause for alert in again.alerts.store.open_alerts()] == ["drift/drift"]
    assert again.tables.versions(MODEL.key("readings")) == world.tables.versions(MODEL.key("readings"))
    pd.testing.assert_frame_equal(rows_of(again), rows)
    folder = again.mlflow.download("meter", "1")
    assert folder.is_relative_to(empty.home), "MLflow's absolute paths follow the folder"
    assert version_scores(empty) == scores
    assert again.ledger.reconcile(again.mlflow) == {}


def test_files_that_come_and_go_do_not_stop_a_backup(world, tmp_path, monkeypatch):
    walked = os.walk

    def walk(top):
        for folder, names, files in walked(top):
            gone = ["gone.txt", *(f"{name}{end}" for name in files if name.endswith(".db") for end in ("-shm", "-wal"))]
            yield folder, names, [*files, *gone]

    monkeypatch.setattr("resources.backup.os.walk", walk)
    back_up(world.settings, tmp_path / "backup.tar.gz")
    assert not [
        name for name in members(tmp_path / "backup.tar.gz") if "gone" in name or name.endswith(("-shm", "-wal"))
    ]


def test_the_manifest_says_what_and_of_what(world, archive):
    said = json.loads(members(archive)["manifest.json"])
    assert (said["format"], said["home"], said["database"], said["revision"]) == (
        1, str(world.settings.home), "sqlite", revisions()[-1],
    )  # fmt: skip
    assert set(said["packages"]) == {"dagster", "mlflow"}
    assert set(said["files"]) == set(members(archive)) - {"manifest.json"}


def test_secrets_locks_scratch_and_captured_output_are_left_out(world, archive, tmp_path):
    left = ["token", "service-token", "keys.toml", ".runner.lock", "tables/meter/readings/.2026-03-01.77.tmp",
            "dagster/storage/r/compute_logs/x.out"]  # fmt: skip
    hidden = "mlflow/artifacts/meter/.part-of-a-model"
    for name in [*left, hidden]:
        path = world.settings.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
        os.chdir(world.settings.home)  # the path of a socket may have 108 bytes
        listening.bind("server.sock")
        os.chdir(Path(__file__).parent)
        back_up(world.settings, tmp_path / "b.tar.gz")
    (world.settings.home / "server.sock").unlink()
    found = {name.removeprefix("state/") for name in members(tmp_path / "b.tar.gz")}
    assert hidden in found
    assert {name for name in found if name in left or "compute_logs" in name or name.endswith(".sock")} == set()
    assert not [name for name in found if name.endswith(("-wal", "-shm", ".lock", ".prepared"))]
    (world.settings.home / hidden).unlink()
    (world.settings.home / "token").unlink()
    (world.settings.home / "service-token").unlink()
    assert {*found} - {hidden} == {name.removeprefix("state/") for name in members(archive)}


def test_an_open_transaction_is_not_in_it_and_does_not_hold_it_up(world, tmp_path):
    with sqlite3.connect(world.settings.home / "assetline.db") as writer:
        writer.execute("INSERT INTO alert_positions VALUES ('half', 1)")
        back_up(world.settings, tmp_path / "b.tar.gz")
        writer.rollback()
    (tmp_path / "copy.db").write_bytes(members(tmp_path / "b.tar.gz")["state/assetline.db"])
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT count(*) FROM alert_positions WHERE stream = 'half'").fetchone() == (0,)
        assert copy.execute("SELECT count(*) FROM promotions").fetchone() == (1,)


def test_what_is_committed_but_only_in_the_log_beside_the_database_is_in_it(world, tmp_path):
    with contextlib.closing(sqlite3.connect(world.settings.home / "assetline.db")) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        with writer:
            writer.execute("INSERT INTO alert_positions VALUES ('committed', 1)")
        back_up(world.settings, tmp_path / "b.tar.gz")
        with writer:
            writer.execute("DELETE FROM alert_positions WHERE stream = 'committed'")
    (tmp_path / "copy.db").write_bytes(members(tmp_path / "b.tar.gz")["state/assetline.db"])
    with contextlib.closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT count(*) FROM alert_positions WHERE stream = 'committed'").fetchone() == (1,)


def test_a_log_that_grows_is_kept_as_long_as_it_was(world, tmp_path, monkeypatch):
    log = world.settings.home / "growing.log"
    log.write_bytes(b"1\n" * 1000)
    add = tarfile.TarFile.addfile

    def grows(self, info, reader=None):
        with log.open("ab") as file:
            file.write(b"2\n")
        add(self, info, reader)

    monkeypatch.setattr(tarfile.TarFile, "addfile", grows)
    back_up(world.settings, tmp_path / "b.tar.gz")
    log.unlink()
    found = members(tmp_path / "b.tar.gz")["state/growing.log"]
    assert found.startswith(b"1\n" * 1000)
    assert len(found) % 2 == 0


def test_databases_are_copied_before_files_and_the_one_that_names_before_the_one_named(archive, world, monkeypatch):
    from resources import backup

    order, copy, add = [], backup._copy_database, backup._add
    monkeypatch.setattr(backup, "_copy_database", lambda path, to: (order.append(path.name), copy(path, to)))
    monkeypatch.setattr(backup, "_add", lambda *given: (order.append("file"), add(*given))[1])
    back_up(world.settings, archive.with_name("ordered.tar.gz"))
    assert order[:6] == ["assetline.db", "mlflow.db", "schedules.db", "runs.db", "event_log.db", "file"]


# -- what is refused -----------------------------------------------------------------------------------------------


def test_a_backup_that_cannot_be_made_leaves_no_file(world, tmp_path, archive):
    home = world.settings.home
    before = {path.name for path in tmp_path.iterdir()}
    other = Settings.from_env({"ASSETLINE_HOME": str(home), "ASSETLINE_DATABASE_URL": f"sqlite:///{tmp_path}/a.db"})
    nowhere = Settings.from_env({"ASSETLINE_HOME": str(tmp_path / "none")})
    for settings, file, message in [
        (world.settings, tmp_path / "b.zip", r"does not end with \.tar\.gz"),
        (world.settings, archive, "exists already; give another name"),
        (world.settings, home / "b.tar.gz", "lies in the state folder"),
        (world.settings, tmp_path / "none" / "b.tar.gz", "there is no folder .*none; make it first"),
        (nowhere, tmp_path / "b.tar.gz", "there is no state folder .*none; ASSETLINE_HOME names another one"),
        (other, tmp_path / "b.tar.gz", "outside of the state folder .* move that file to .*assetline.db and unset"),
    ]:
        with pytest.raises(BackupError, match=message):
            back_up(settings, file)
    with maintenance(world.settings, BackupError), pytest.raises(BackupError, match="another backup or prune of"):
        back_up(world.settings, tmp_path / "b.tar.gz")
    (home / "elsewhere").symlink_to(tmp_path)
    with pytest.raises(BackupError, match="elsewhere is a link, which an archive cannot hold"):
        back_up(world.settings, tmp_path / "b.tar.gz")
    (home / "elsewhere").unlink()
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_damaged_database_is_not_backed_up(world, tmp_path):
    bad = world.settings.home / "bad.db"
    with contextlib.closing(sqlite3.connect(bad)) as connection, connection:
        connection.execute("CREATE TABLE t (x TEXT)")
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 500)
    with bad.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)
    with pytest.raises(BackupError, match=r"bad\.db (is damaged|cannot be copied) \("):
        back_up(world.settings, tmp_path / "b.tar.gz")
    bad.unlink()
    assert list(tmp_path.iterdir()) == []


def cut(content, file):
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def flipped(content, file):
    name = next(name for name in content if name.endswith(".parquet"))
    packed(file, {**content, name: bytes([content[name][0] ^ 1]) + content[name][1:]})


def no_archive(content, file):
    file.write_text("hello")


def without_manifest(content, file):
    packed(file, {name: data for name, data in content.items() if name != "manifest.json"})


def one_missing(content, file):
    packed(file, {name: data for name, data in content.items() if not name.endswith(f"{DAYS[1]}.parquet")})


def one_more(content, file):
    packed(file, {"state/extra": b"x", **content})


def outside(content, file):
    packed(file, {"state/../../outside": b"x", **content})


def absolute(content, file):
    packed(file, {"/tmp/assetline-outside": b"x", **content})


def with_link(content, file):
    link = tarfile.TarInfo("state/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    packed(file, {"state/link": link, **content})


def twice(content, file):
    with tarfile.open(file, "w:gz") as archive:
        for name, data in [*content.items(), ("state/world.json", b"1"), ("state/world.json", b"2")]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def bad_manifest(content, file):
    packed(file, {**content, "manifest.json": b'{"format": 1}'})


def newer_format(content, file):
    packed(file, changed_manifest(content, format=2))


def newer_revision(content, file):
    packed(file, changed_manifest(content, revision="9999", version="9.0"))


def of_postgres(content, file):
    packed(file, changed_manifest(content, database="postgresql"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "is damaged"),
        (flipped, r"1 files differ from its manifest \(first: state/tables/meter"),
        (no_archive, "is damaged"),
        (without_manifest, "has no manifest that can be read"),
        (bad_manifest, "has no manifest that can be read"),
        (one_missing, r"1 files differ from its manifest \(first: .*2026-03-02"),
        (one_more, r"1 files differ from its manifest \(first: state/extra"),
        (outside, r"holds 'state/\.\./\.\./outside', which no backup does"),
        (absolute, "holds '/tmp/assetline-outside', which no backup does"),
        (with_link, "holds 'state/link', which no backup does"),
        (twice, r"holds 'state/world\.json' twice"),
        (newer_format, "has format 2, and this release reads 1"),
        (newer_revision, "has database revision 9999 of release 9.0, and this release knows revisions up to"),
        (of_postgres, "of postgresql, but ASSETLINE_DATABASE_URL names sqlite; set it to an empty PostgreSQL"),
    ],
)
def test_a_bad_archive_changes_nothing(archive, tmp_path, empty, damage, message):
    bad = tmp_path / "bad.tar.gz"
    shutil.copy(archive, bad)
    damage(members(archive), bad)
    with pytest.raises(RestoreError, match=message) as refused:
        restore(empty, bad)
    assert "\n" not in str(refused.value)
    assert list(empty.home.parent.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"bad.tar.gz", "restored"}
    assert not Path("/tmp/assetline-outside").exists()


def test_an_archive_with_a_wrong_checksum_of_gzip_changes_nothing(archive, tmp_path, empty):
    data = bytearray(gzip.compress(gzip.decompress(archive.read_bytes())))
    data[-6] ^= 1  # of the checksum at the end
    (tmp_path / "bad.tar.gz").write_bytes(data)
    with pytest.raises(RestoreError, match=r"bad\.tar\.gz is damaged \(CRC check failed"):
        restore(empty, tmp_path / "bad.tar.gz")
    assert list(empty.home.parent.iterdir()) == []


def test_a_folder_with_anything_in_it_is_not_restored_to(archive, empty, tmp_path):
    empty.home.mkdir(parents=True)
    (empty.home / "kept").write_text("x")
    with pytest.raises(RestoreError, match="is not empty; move it away, or restore into another folder with --into"):
        restore(empty, archive)
    assert [path.name for path in empty.home.iterdir()] == ["kept"]
    with pytest.raises(RestoreError, match="there is no file"):
        restore(empty, tmp_path / "none.tar.gz")
    (empty.home / "kept").unlink()
    restore(empty, archive)
    assert (empty.home / "assetline.db").exists()


def test_a_link_to_an_empty_folder_is_followed(archive, empty, tmp_path):
    (tmp_path / "disk").mkdir()
    empty.home.parent.mkdir()
    empty.home.symlink_to(tmp_path / "disk")
    restore(empty, archive)
    assert empty.home.is_symlink()
    assert World(MODEL, empty, dg.DagsterInstance.ephemeral()).mlflow.download("meter", "1").exists()
    with pytest.raises(BackupError, match="lies in the state folder"):
        back_up(empty, tmp_path / "disk" / "b.tar.gz")


def test_a_volume_is_filled_in_place(archive, empty, monkeypatch):
    (empty.home / "lost+found").mkdir(parents=True)
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    restore(empty, archive)
    names = {path.name for path in empty.home.iterdir()}
    assert names == {"assetline.db", "dagster", "lost+found", "mlflow", "tables"}


def test_a_full_disk_changes_nothing(archive, empty, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "/x")

    monkeypatch.setattr("resources.restore.hashed_copy", full)
    with pytest.raises(RestoreError, match="/x: No space left on device; nothing was restored"):
        restore(empty, archive)
    assert list(empty.home.parent.iterdir()) == []


# -- the commands --------------------------------------------------------------------------------------------------


def test_the_commands_say_what_they_did_or_why_not(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ASSETLINE_HOME", str(world.settings.home))
    file = str(tmp_path / "b.tar.gz")
    assert main(["backup", file]) == 0
    assert f"files of {world.settings.home}, " in capsys.readouterr().out
    assert main(["backup", file]) == 1
    assert capsys.readouterr().err == (f"assetline backup: {file} exists already; give another name or move it away\n")
    assert main(["restore", file, "--into", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'new'}: ")
    assert (tmp_path / "new" / "assetline.db").exists()
    assert main(["restore", file, "--into", str(tmp_path / "new")]) == 1
    assert "is not empty" in capsys.readouterr().err


def test_nothing_is_restored_under_processes_that_run(archive, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path / "var"))
    ports = [free_port() for _ in range(4)]
    for name, port in zip(("UI", "MLFLOW", "SERVICE", "WATCH"), ports, strict=True):
        monkeypatch.setenv(f"ASSETLINE_{name}_PORT", str(port))
    with socket.socket() as server:
        server.bind(("127.0.0.1", ports[0]))
        server.listen()
        assert main(["restore", str(archive)]) == 1
        said = capsys.readouterr().err
        assert f"port {ports[0]} of Dagster cannot be used" in said
        assert "stop `assetline dev` before you restore" in said
        assert not (tmp_path / "var").exists()
        assert main(["restore", str(archive), "--into", str(tmp_path / "other")]) == 0
    assert main(["restore", str(archive)]) == 0
    assert (tmp_path / "var" / "assetline.db").exists()


# -- the rehearsal -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_a_deleted_state_folder_comes_back_while_others_wrote_during_the_backup(make_world, tmp_path):
    readings(600).to_csv(tmp_path / "readings.csv", index=False)
    with drafted(project_root(), "meters", tmp_path / "readings.csv", "faulty") as draft:
        rehearse(make_world, tmp_path, draft.model)


def rehearse(make_world, tmp_path, declared):
    model = replace(
        declared, training=replace(declared.training, max_epochs=2), gate=Gate(floor=0.5, baseline_margin=-1)
    )
    mlflow = MlflowTracking.from_settings(Settings.from_env({"ASSETLINE_HOME": str(tmp_path / "var")}))
    target = LocalService(mlflow=mlflow, start_timeout_s=240)
    world = make_world(model, tmp_path / "var", target=target)
    lived = world.run("lifecycle")
    assert lived.success, why(lived)
    before = facts(world)
    assert before["champion"].version == "1"

    stop, written = threading.Event(), []

    def write() -> None:
        ledger = Ledger(database_url=world.settings.database_url)
        while not stop.is_set():
            number = len(written)
            day = str(pd.Timestamp("2026-03-01") + pd.Timedelta(days=number))[:10]
            world.tables.write(model.key("written"), pd.DataFrame({"n": [number]}), day)
            run = run_of(world, "written")
            ledger.refuse(model.name, "1", reason=str(number), verdicts={}, dagster_run=run.run_id, who="w")
            written.append(run.run_id)

    writer = threading.Thread(target=write)
    writer.start()
    while not written:
        stop.wait(0.01)
    back_up(world.settings, tmp_path / "backup.tar.gz")
    stop.set()
    writer.join()

    world.instance.dispose()
    shutil.rmtree(world.settings.home)
    restore(world.settings, tmp_path / "backup.tar.gz")
    home.prepare(world.settings)
    again = World(model, world.settings, dg.DagsterInstance.get())
    after = facts(again)
    assert after == before
    refused = [entry for entry in again.ledger.history(model.name) if entry.action == "refuse"]
    assert [entry.reason for entry in refused] == [str(n) for n in range(len(refused))]
    assert 0 < len(refused) <= len(written)
    there = {run.run_id for run in again.instance.get_runs()}
    for number, entry in enumerate(refused):
        assert entry.dagster_run in there, "the run that an entry names is there"
        assert again.instance.all_logs(entry.dagster_run, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        day = str(pd.Timestamp("2026-03-01") + pd.Timedelta(days=number))[:10]
        assert again.tables.read(model.key("written"), [day])["n"].tolist() == [number]
    assert again.ledger.promote(model.name, "1", reason="x", verdicts={}, dagster_run="r", who="w").number == 1
    assert run_of(again, "written").success


def facts(world: World) -> dict:
    """What must be the same after a restore."""
    model = world.model
    names = [model.table.name, "features", "training_set", "trained_model", "evaluation", "deployment", "predictions"]
    bundle = loaded(world.mlflow.download(model.name, "1"))
    runs = [run for run in world.instance.get_runs() if run.job_name.startswith(model.name)]
    return {
        "versions": {name: world.tables.versions(model.key(name)) for name in names},
        "champion": world.ledger.champion(model.name),
        "alias": world.mlflow.version_of_alias(model.name, "champion"),
        "scores": bundle.predict(X[:, : len(bundle.facts.feature_names)]).tolist(),
        "runs": {run.run_id: (run.job_name, run.status, len(world.instance.all_logs(run.run_id))) for run in runs},
        "metrics": dict(world.mlflow.client().get_run(world.mlflow.run_of_version(model.name, "1")).data.metrics),
    }


@pytest.mark.slow
@pytest.mark.skipif(POSTGRES is None, reason="needs the Debian package postgresql")
def test_a_ledger_in_postgresql_is_dumped_and_loaded(world, postgres, tmp_path, monkeypatch):
    settings = replace(world.settings, database_url=postgres("backed_up"))
    entry = Ledger(database_url=settings.database_url).promote(
        "meter", "1", reason="r", verdicts={}, dagster_run="r", who="ada"
    )
    manifest = back_up(settings, tmp_path / "b.tar.gz")
    assert (manifest.database, manifest.revision) == ("postgresql", revisions()[-1])
    target = tmp_path / "var"
    with pytest.raises(RestoreError, match=r"has tables already \(alert_channels, .*give an empty one"):
        restore(settings, tmp_path / "b.tar.gz", target)
    with pytest.raises(RestoreError, match="of postgresql, but ASSETLINE_DATABASE_URL names sqlite"):
        restore(world.settings, tmp_path / "b.tar.gz", target)
    with pytest.raises(RestoreError, match="cannot be reached"):
        restore(replace(settings, database_url=f"postgresql+psycopg://x@127.0.0.1:{free_port()}/x"),
                tmp_path / "b.tar.gz", target)  # fmt: skip
    assert not target.exists()
    new = replace(settings, database_url=postgres("restored"))
    restore(new, tmp_path / "b.tar.gz", target)
    assert Ledger(database_url=new.database_url).champion("meter") == entry
    with (
        pytest.raises(sa.exc.DBAPIError, match="append-only"),
        sa.create_engine(new.database_url).begin() as connection,
    ):
        connection.execute(sa.text("DELETE FROM promotions"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackupError, match="pg_dump is not installed; install PostgreSQL's client"):
        back_up(settings, tmp_path / "c.tar.gz")
    assert not (tmp_path / "c.tar.gz").exists()
    assert snapshot(target)

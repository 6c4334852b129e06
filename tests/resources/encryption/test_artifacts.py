"""MLflow's artifacts at rest: sealed in the folder, in the clear for who has the key, refused for who has not."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from resources.encryption import clear
from resources.encryption.clear import in_the_clear
from resources.encryption.sealed import is_sealed
from resources.mlflow import ArtifactLocked, MlflowTracking
from resources.settings import project_root

CANARY = "hunter-7731"


@pytest.fixture
def mlflow(settings) -> MlflowTracking:
    return MlflowTracking.from_settings(settings).process_config_and_initialize()


@pytest.fixture
def version(mlflow, tmp_path) -> str:
    """Version 1 of the model `toy`: files in two folders, one of them empty, and artifacts beside it."""
    bundle = tmp_path / "bundle"
    (bundle / "code" / "empty").mkdir(parents=True)
    (bundle / "bundle.json").write_text(f'{{"name": "{CANARY}"}}')
    (bundle / "code" / "network.bin").write_bytes(CANARY.encode() * 40_000)
    client = mlflow.client()
    run = client.create_run(mlflow._experiment_id(client, "toy"))
    client.log_text(run.info.run_id, CANARY, "notes/note.txt")
    client.log_dict(run.info.run_id, {"name": CANARY}, "note.json")
    return mlflow.register("toy", run.info.run_id, bundle)


def files(settings) -> list[Path]:
    return sorted(path for path in settings.artifacts.rglob("*") if path.is_file())


def test_files_are_sealed_in_the_folder_and_read_as_before(settings, mlflow, version):
    assert len(files(settings)) == 4
    for path in files(settings):
        assert is_sealed(path.read_bytes()), path
        assert CANARY.encode() not in path.read_bytes()
    folder = mlflow.download("toy", version)
    assert (folder / "bundle.json").read_text() == f'{{"name": "{CANARY}"}}'
    assert (folder / "code" / "network.bin").read_bytes() == CANARY.encode() * 40_000
    run = mlflow.run_of_version("toy", version)
    assert mlflow.read_text(run, "notes/note.txt") == CANARY
    assert mlflow.read_json(run, "note.json") == {"name": CANARY}
    assert mlflow.read_json(run, "nothing.json") is None


def test_a_copy_in_the_clear_is_the_owners_alone_and_is_made_once(settings, mlflow, version):
    folder = mlflow.download("toy", version)
    assert not folder.is_relative_to(settings.home)
    if Path("/dev/shm").is_dir():
        assert folder.is_relative_to("/dev/shm")
    of_process = next(one for one in folder.parents if one.name.startswith("assetline-artifacts-"))
    assert stat.S_IMODE(of_process.stat().st_mode) == 0o700
    assert mlflow.download("toy", version) == folder


def test_plain_files_from_before_are_read_where_they_are(settings, mlflow, version, monkeypatch, tmp_path):
    monkeypatch.setenv("ASSETLINE_ENCRYPT", "false")
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "a.txt").write_text("x")
    client = mlflow.client()
    run = client.create_run(mlflow._experiment_id(client, "toy"))
    second = mlflow.register("toy", run.info.run_id, plain)
    assert mlflow.download("toy", second).is_relative_to(settings.artifacts)
    assert (mlflow.download("toy", version) / "bundle.json").exists()  # a sealed one is still read


def test_without_the_key_reading_and_writing_are_refused_and_nothing_is_left(settings, mlflow, version, tmp_path):
    settings.keys.rename(tmp_path / "away.toml")
    clear._COPIES.clear()
    with pytest.raises(ArtifactLocked, match=r"bundle.json is encrypted, and the key \w{8} for artifacts is not in"):
        mlflow.download("toy", version)
    run = mlflow.run_of_version("toy", version)
    with pytest.raises(ArtifactLocked, match=r"note.json is encrypted"):
        mlflow.read_json(run, "note.json")
    before = files(settings)
    with pytest.raises(clear.ArtifactKeyError, match=r"new.txt cannot be encrypted: there is no key for artifacts"):
        mlflow.client().log_text(run, CANARY, "new.txt")
    assert files(settings) == before
    (tmp_path / "away.toml").rename(settings.keys)
    assert mlflow.read_json(run, "note.json") == {"name": CANARY}


def test_an_altered_file_is_refused(settings, mlflow, version):
    path = next(path for path in files(settings) if path.name == "network.bin")
    content = bytearray(path.read_bytes())
    content[100_000] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ArtifactLocked, match=r"network.bin: it is damaged, cut off or altered"):
        mlflow.download("toy", version)


def test_copies_that_a_killed_process_left_are_removed_by_the_next_one(settings, mlflow, version):
    code = (
        "import os, signal, sys; from pathlib import Path; from resources.encryption.clear import in_the_clear\n"
        "print(in_the_clear(Path(sys.argv[1])).parent.parent, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    stored = next(path for path in files(settings) if path.name == "note.json")
    killed = subprocess.run(
        [sys.executable, "-c", code, str(stored)], cwd=project_root(), capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    left = Path(killed.stdout.strip())
    assert left.is_dir()
    clear._FOLDERS.pop(os.getpid(), None)
    assert in_the_clear(stored) != stored
    assert not left.exists()


@pytest.mark.slow
def test_mlflows_own_processes_read_them_by_the_entry_point(settings, version, tmp_path):
    """A process that knows MLflow only, as its UI, with this package installed."""
    about = tmp_path / "site" / "installed-0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: installed\nVersion: 0\n")
    (about / "entry_points.txt").write_text(
        "[mlflow.artifact_repository]\nfile = resources.encryption.artifacts:SealedArtifacts\n"
    )
    code = (
        "import sys, mlflow\nmlflow.set_tracking_uri(sys.argv[1])\n"
        f"v = mlflow.MlflowClient().get_model_version('toy', '{version}')\n"
        "print(mlflow.artifacts.load_text(f'runs:/{v.run_id}/notes/note.txt'))"
    )
    path = os.pathsep.join([str(about.parent), str(project_root())])
    done = subprocess.run(
        [sys.executable, "-c", code, settings.tracking_uri], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.stdout.strip() == CANARY, done.stderr

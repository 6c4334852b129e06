"""Archives at rest; and that a value of a row lies nowhere in the clear: in the tables, the artifacts, the archive."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cli import main
from resources.backup import BackupError, back_up, default_archive
from resources.encryption.sealed import is_sealed
from resources.keys import KeyFile
from resources.restore import RestoreError, restore
from resources.settings import Settings
from tests.state import MODEL, small_state, snapshot

CANARY = np.random.default_rng(7).bytes(64)
"""A value of a row that no compression changes."""


@pytest.fixture
def world(settings, make_world, toy_bundle):
    (toy_bundle / "sample.bin").write_bytes(CANARY)
    try:
        world = small_state(make_world, settings.home, toy_bundle)
    finally:
        (toy_bundle / "sample.bin").unlink()
    rows = pd.DataFrame({"value": [CANARY, b"x"]})
    world.tables.write(MODEL.key("features"), rows, "2026-03-01", personal=["value"])
    world.tables.write(MODEL.key("raw_readings"), rows, "2026-03-01")
    world.tables.keep_report(MODEL.key("features"), "page", CANARY.decode("latin-1"))
    return world


def holding(folder: Path) -> list[str]:
    """Files that hold the canary."""
    encoded = (CANARY, CANARY.decode("latin-1").encode())
    return [name for name, content in snapshot(folder).items() if any(one in content for one in encoded)]


def test_a_value_of_a_row_is_in_no_file_and_in_no_archive(world, settings, tmp_path, monkeypatch):
    assert holding(settings.home) == []
    archive = tmp_path / "a.tar.gz.sealed"
    back_up(settings, archive)
    content = archive.read_bytes()
    assert is_sealed(content)
    assert CANARY not in content
    # The same search finds it where nothing is encrypted.
    monkeypatch.setenv("ASSETLINE_ENCRYPT", "false")
    assert main(["keys", "rewrite", "--plain"]) == 0
    found = holding(settings.home)
    assert len([name for name in found if name.startswith("tables/")]) == 3
    assert len([name for name in found if name.startswith("mlflow/artifacts/")]) == 1
    plain = tmp_path / "a.tar.gz"
    back_up(Settings.from_env(), plain)
    assert CANARY in gzip.decompress(plain.read_bytes())


def test_an_archive_is_restored_with_its_key_also_beside_the_key_file(world, settings, tmp_path, monkeypatch):
    archive = tmp_path / "a.tar.gz.sealed"
    back_up(settings, archive)
    before = {name: content for name, content in snapshot(settings.home).items() if name.startswith("tables")}
    KeyFile(settings.keys).rotate("backups")  # an old key still opens it
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "keys.toml").write_bytes(settings.keys.read_bytes())
    (elsewhere / "keys.toml").chmod(0o600)
    monkeypatch.setenv("ASSETLINE_HOME", str(elsewhere))
    restore(Settings.from_env(), archive)
    restored = snapshot(elsewhere)
    assert {name: content for name, content in restored.items() if name.startswith("tables")} == before
    assert "keys.toml" in restored


def test_without_the_key_an_archive_is_neither_made_nor_restored(world, settings, tmp_path, monkeypatch, capsys):
    archive = tmp_path / "a.tar.gz.sealed"
    back_up(settings, archive)
    settings.keys.rename(tmp_path / "away.toml")
    target = tmp_path / "elsewhere"
    with pytest.raises(RestoreError, match=r"is encrypted, and the key \w{8} for backups is not in .*nothing was rest"):
        restore(settings, archive, target)
    assert not target.exists()
    with pytest.raises(BackupError, match=r"cannot be encrypted: there is no key for backups in .*; no backup was"):
        back_up(settings, tmp_path / "b.tar.gz.sealed")
    assert sorted(path.name for path in tmp_path.glob("*.sealed")) == ["a.tar.gz.sealed"]
    monkeypatch.setenv("ASSETLINE_HOME", str(target))
    assert main(["restore", str(archive)]) == 1
    assert "assetline restore: " in capsys.readouterr().err
    (tmp_path / "away.toml").rename(settings.keys)
    restore(settings, archive, target)


@pytest.mark.parametrize("where", [200, -1])
def test_a_damaged_archive_is_refused_and_nothing_is_restored(world, settings, tmp_path, where):
    archive = tmp_path / "a.tar.gz.sealed"
    back_up(settings, archive)
    content = bytearray(archive.read_bytes())
    content[where] ^= 1
    archive.write_bytes(bytes(content))
    with pytest.raises(RestoreError, match=r"damaged, cut off or altered; .*nothing was restored"):
        restore(settings, archive, tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_the_name_says_that_it_is_encrypted(settings, tmp_path, monkeypatch):
    monkeypatch.setenv("ASSETLINE_BACKUP", str(tmp_path))
    assert default_archive(Settings.from_env()).name.endswith(".tar.gz.sealed")
    monkeypatch.setenv("ASSETLINE_ENCRYPT", "false")
    assert default_archive(Settings.from_env()).name.endswith(".tar.gz")
    with pytest.raises(BackupError, match=r"does not end with .tar.gz; name it so"):
        back_up(Settings.from_env(), tmp_path / "a.tar.gz.sealed")

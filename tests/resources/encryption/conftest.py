"""A process that encrypts, with keys of its own."""

import pytest

from resources.encryption import in_use
from resources.keys import KeyFile, KeyRing
from resources.settings import Settings


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Settings:
    """Settings of this process, with `encrypt` on and a key for each purpose."""
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ASSETLINE_ENCRYPT", "true")
    (tmp_path / "home").mkdir()
    found = Settings.from_env()
    for purpose in ("tables", "personal", "artifacts", "backups"):
        KeyFile(found.keys).create(purpose)
    return found


@pytest.fixture
def ring(settings) -> KeyRing:
    return in_use.ring()

"""A person whose values are stored as pseudonyms is forgotten by the plain value, and stays so after a re-keying."""

from pathlib import Path

import pytest

from assets.lifecycle.data.protection import pseudonym_of
from assets.lifecycle.erasure.forget import Erasure, ErasureError
from assets.lifecycle.rekeying import rekey
from resources.encryption import in_use
from resources.encryption.sealed import is_sealed, seal, unseal
from resources.keys import KeyFile, KeyProblem, KeyRing
from resources.pseudonyms import pseudonym_keys
from resources.request_log import RequestLog
from tests.declarations.canaries import visits
from tests.declarations.members import members
from tests.worlds import World, why

DAYS = ["2026-03-02", "2026-03-03"]
PLAIN = " ZQXmail7@zqxmail.example.org"


@pytest.fixture
def world(make_world, tmp_path, monkeypatch) -> World:
    """Two days of visits, landed with pseudonyms."""
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path / "world"))
    visits(days=2, a_day=200).to_csv(tmp_path / "visits.csv", index=False)
    world = make_world(members(str(tmp_path / "visits.csv")), tmp_path / "world")
    KeyFile(world.settings.keys).create("pseudonyms")
    land(world)
    return world


def land(world: World) -> None:
    for work in ("land", "clean"):
        result = world.run(work, DAYS)
        assert result.success, why(result)


def theirs(world: World) -> list[int]:
    """The number of the person's rows in the raw and in the cleaned table, by the pseudonym of today."""
    stored = pseudonym_of(world.model, "email", PLAIN, pseudonym_keys(world.settings))
    raw, cleaned = (world.tables.read(world.model.key(name)) for name in ("raw_visits", "visits"))
    assert len(raw) > 300
    return [int((raw["E-Mail"] == stored).sum()), int((cleaned["email"] == stored).sum())]


def erasure(world: World) -> Erasure:
    return Erasure(world.settings, [world.model], world.instance, column="email", value=PLAIN)


def test_by_the_plain_value_the_rows_go_and_no_landing_brings_them_back(world):
    assert min(theirs(world)) > 0
    erasure(world).forget("ada")
    assert theirs(world) == [0, 0]
    land(world)
    assert theirs(world) == [0, 0]
    KeyFile(world.settings.keys).rotate("pseudonyms")
    log = RequestLog(folder=str(world.settings.serving))
    rekey([world.model], world.tables, log, KeyRing.of(world.settings), say=lambda _: None)
    land(world)
    assert theirs(world) == [0, 0], "the tombstone knows the pseudonym of the older key"


def test_without_the_key_nobody_is_forgotten(world):
    world.settings.keys.unlink()
    with pytest.raises(ErasureError, match="email has pseudonyms: "):
        erasure(world)


def test_sealed_pages_and_encrypted_tables_are_searched_and_cleaned_too(world, monkeypatch):
    for purpose in ("tables", "personal", "artifacts"):
        KeyFile(world.settings.keys).create(purpose)
    monkeypatch.setenv("ASSETLINE_ENCRYPT", "true")
    land(world)
    stored = pseudonym_of(world.model, "email", PLAIN, pseudonym_keys(world.settings))
    page = world.settings.artifacts / "1" / "page.html"
    page.parent.mkdir(parents=True)
    page.write_bytes(seal(f"<p>{stored}</p>".encode(), "artifacts", in_use.ring()))
    stray = world.settings.home / "stray.parquet"
    stray.write_bytes(Path(world.path("visits", DAYS[0])).read_bytes())
    assert is_sealed(page.read_bytes())
    with pytest.raises(ErasureError, match=r"stray\.parquet"):
        erasure(world).forget("ada")
    assert is_sealed(page.read_bytes())
    assert unseal(page.read_bytes(), in_use.ring()) == f"<p>{'*' * len(stored)}</p>".encode()
    assert theirs(world) == [0, 0]
    assert b"assetline.keys" in Path(world.path("visits", DAYS[0])).read_bytes(), "what was encrypted stays so"
    stray.unlink()
    erasure(world).forget("ada")
    page.write_bytes(page.read_bytes()[:-1] + b"?")
    with pytest.raises((ErasureError, KeyProblem)):
        erasure(world).forget("ada")

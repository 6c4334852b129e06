"""SQLite skips its fsyncs in the folder that is asked for, and nowhere else; the files are synced at the end."""

import os
from pathlib import Path

import pytest
import sqlalchemy as sa

from resources.sqlite import synchronous_off

OFF, FULL = 0, 2


@pytest.fixture(autouse=True)
def as_in_production(sqlite_without_sync):
    """Lets SQLite sync, as it does outside of tests."""
    sa.event.remove(sa.Engine, "connect", sqlite_without_sync)
    yield
    sa.event.listen(sa.Engine, "connect", sqlite_without_sync)


def synchronous(path: Path) -> int:
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(sa.text("create table if not exists t (x int)"))
        level = connection.execute(sa.text("PRAGMA synchronous")).scalar_one()
    engine.dispose()
    return level


def test_only_what_lies_in_the_folder_and_only_in_the_block(tmp_path):
    aside, beside = tmp_path / "aside", tmp_path / "aside-not"
    aside.mkdir()
    beside.mkdir()
    with synchronous_off(aside):
        assert synchronous(aside / "new.db") == OFF
        assert synchronous(beside / "other.db") == FULL
        with sa.create_engine("sqlite://").connect() as connection:
            assert connection.execute(sa.text("PRAGMA synchronous")).scalar_one() == FULL
    assert synchronous(aside / "new.db") == FULL


def test_every_file_is_on_the_disk_at_the_end(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_ino))
    (tmp_path / "history").mkdir()
    with synchronous_off(tmp_path):
        synchronous(tmp_path / "a.db")
        synchronous(tmp_path / "history" / "b.db")
        assert not synced
    assert set(synced) == {path.stat().st_ino for path in (tmp_path / "a.db", tmp_path / "history" / "b.db")}


def test_after_an_error_nothing_listens_any_more(tmp_path):
    try:
        with synchronous_off(tmp_path):
            raise RuntimeError
    except RuntimeError:
        pass
    assert synchronous(tmp_path / "a.db") == FULL

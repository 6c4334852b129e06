"""Rotation, rehearsed: write, rotate, read, rewrite (killed in the middle, and begun again), remove the old key."""

import json
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from cli import main
from resources.audit import AuditLog
from resources.encryption import in_use
from resources.encryption.sealed import HEAD, is_sealed, key_of
from resources.keys import KeyFile
from resources.settings import Settings, project_root
from resources.tables import ParquetTables, Stamp
from tests.buckets import new_bucket, reached

TABLES = [dg.AssetKey(["m", "events"]), dg.AssetKey(["n", "rows"])]
DAYS = [f"2026-01-{n:02}" for n in range(1, 16)]
SECRET = "hunter-7731"


def filled(tables: ParquetTables, settings: Settings, days: list[str] = DAYS) -> dict[tuple[str, str], Stamp]:
    """Two tables, a report, and three artifacts; returns the stamps."""
    stamps = {}
    for key in TABLES:
        for n, day in enumerate(days):
            rows = pd.DataFrame({"n": np.arange(200) + n, "email": [f"{SECRET}@{i}" for i in range(200)]})
            stamps[key.to_user_string(), day] = tables.write(
                key, rows, day, code_version="c", inputs={"x": {day: "1"}}, personal=["email"]
            )
    tables.keep_report(TABLES[0], "page", SECRET)
    if settings.artifacts.exists() or not settings.encrypt:
        settings.artifacts.mkdir(parents=True, exist_ok=True)
    folder = settings.artifacts / "m" / "run" / "artifacts"
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(3):
        (folder / f"{n}.json").write_text(json.dumps([SECRET, n]))
    return stamps


def rows_of(tables: ParquetTables) -> dict[str, pd.DataFrame]:
    return {key.to_user_string(): tables.read(key) for key in TABLES}


def stamps_of(tables: ParquetTables) -> dict[tuple[str, str], Stamp]:
    return {(key.to_user_string(), day): stamp for key in TABLES for day, stamp in tables.stamps(key).items()}


def keys_used(tables: ParquetTables, settings: Settings) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for key in TABLES:
        for day in tables.days(key):
            for purpose, fingerprint in tables.keys_of(key, day).items():
                found.setdefault(purpose, set()).add(fingerprint)
        for link in tables.reports(key):
            if used := tables.key_of_report(link):
                found.setdefault(used[0], set()).add(used[1])
    for path in settings.artifacts.rglob("*.json"):
        if used := key_of(path.read_bytes()[:HEAD]):
            found.setdefault(used[0], set()).add(used[1])
    return found


@pytest.fixture(
    params=["folder", pytest.param("bucket", marks=pytest.mark.slow), pytest.param("delta", marks=pytest.mark.slow)]
)
def place(request, settings, tmp_path, monkeypatch):
    if request.param == "bucket":
        with reached():
            monkeypatch.setenv("ASSETLINE_TABLES", f"s3://{new_bucket()}/x")
            yield Settings.from_env()
    else:
        if request.param == "delta":
            monkeypatch.setenv("ASSETLINE_TABLES", f"delta+file://{tmp_path}/delta")
        yield Settings.from_env()


def test_a_rotation_from_the_first_key_to_its_removal(place, capsys):
    settings = place
    tables = ParquetTables(root=settings.tables)
    stamps = filled(tables, settings, DAYS[:2])
    rows = rows_of(tables)
    old = {purpose: in_use.ring().newest(purpose) for purpose in ("tables", "personal", "artifacts")}
    for purpose in old:
        assert main(["keys", "rotate", purpose]) == 0
    new = {purpose: in_use.ring().newest(purpose).fingerprint for purpose in old}
    assert not set(new.values()) & {key.fingerprint for key in old.values()}
    assert main(["keys", "remove", "tables", old["tables"].id]) == 1
    assert "5 files need the key" in capsys.readouterr().err  # four days and a report
    pd.testing.assert_frame_equal(rows_of(tables)["m/events"], rows["m/events"])  # the old keys still decrypt
    assert main(["keys", "rewrite", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "4 table files, 1 reports, 3 artifacts to write"
    assert keys_used(tables, settings)["tables"] == {old["tables"].fingerprint}
    assert main(["keys", "rewrite"]) == 0
    assert "4 table files, 1 reports, 3 artifacts encrypted by the newest keys" in capsys.readouterr().out
    assert keys_used(tables, settings) == {purpose: {fingerprint} for purpose, fingerprint in new.items()}
    assert main(["keys", "rewrite"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    for purpose, key in old.items():
        assert main(["keys", "remove", purpose, key.id]) == 0
    assert stamps_of(tables) == stamps
    for name, frame in rows_of(tables).items():
        pd.testing.assert_frame_equal(frame, rows[name])
    assert tables.report(tables.reports(TABLES[0])[0]) == SECRET.encode()
    lines = [one.action for one in AuditLog(settings.database_url).lines()]
    assert [lines.count(action) for action in ("rotate", "rewrite", "delete")] == [3, 3, 4]


REWRITE = """
import os, sys
from resources.encryption import rewriting
found = rewriting.outdated
def slowly(*args, **kwargs):
    for n, one in enumerate(found(*args, **kwargs)):
        print(n, flush=True)
        sys.stdin.readline()
        yield one
rewriting.outdated = slowly
from cli import main
sys.exit(main(["keys", "rewrite"]))
"""


@pytest.mark.parametrize("after", [7, 32])  # in the tables, and in the artifacts
def test_a_rewriting_that_is_killed_loses_nothing_and_is_begun_again(settings, after):
    tables = ParquetTables(root=settings.tables)
    stamps, rows = filled(tables, settings), rows_of(tables)
    for purpose in ("tables", "personal", "artifacts"):
        KeyFile(settings.keys).rotate(purpose)
    process = subprocess.Popen(
        [sys.executable, "-c", REWRITE], cwd=project_root(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    for line in process.stdout:
        process.stdin.write("\n")
        process.stdin.flush()
        if int(line) >= after:
            break
    process.kill()  # while it writes this file, or just before or after
    process.wait()
    assert stamps_of(tables) == stamps
    for name, frame in rows_of(tables).items():
        pd.testing.assert_frame_equal(frame, rows[name])
    if after < 30:
        assert len(keys_used(tables, settings)["tables"]) == 2  # some files have the old key, some the new one
    else:
        assert 1 <= sum(is_sealed(path.read_bytes()) for path in settings.artifacts.rglob("*.json")) <= 2
    assert main(["keys", "rewrite"]) == 0
    assert {purpose: len(used) for purpose, used in keys_used(tables, settings).items()} == {
        "tables": 1, "personal": 1, "artifacts": 1,
    }  # fmt: skip
    assert stamps_of(tables) == stamps
    for name, frame in rows_of(tables).items():
        pd.testing.assert_frame_equal(frame, rows[name])


def test_encryption_is_switched_on_and_off_again_for_files_that_are_there(settings, monkeypatch, capsys):
    monkeypatch.setenv("ASSETLINE_ENCRYPT", "false")
    tables = ParquetTables(root=settings.tables)
    stamps, rows = filled(tables, settings, DAYS[:1]), rows_of(tables)
    bytes_before = tables.files.read("m/events/2026-01-01.parquet")
    assert main(["keys", "rewrite"]) == 1
    assert "the setting `encrypt` is off; set it, or give --plain" in capsys.readouterr().err
    monkeypatch.setenv("ASSETLINE_ENCRYPT", "true")
    assert main(["keys", "rewrite", "--plain"]) == 1
    assert main(["keys", "rewrite"]) == 0
    for path in [*Path(settings.tables).rglob("*.*"), *settings.artifacts.rglob("*.*")]:
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()
    assert all(is_sealed(path.read_bytes()) for path in settings.artifacts.rglob("*.json"))
    assert stamps_of(tables) == stamps
    monkeypatch.setenv("ASSETLINE_ENCRYPT", "false")
    assert main(["keys", "rewrite", "--plain"]) == 0
    assert tables.files.read("m/events/2026-01-01.parquet") == bytes_before
    assert json.loads((settings.artifacts / "m/run/artifacts/1.json").read_text()) == [SECRET, 1]
    pd.testing.assert_frame_equal(rows_of(tables)["m/events"], rows["m/events"])


def test_without_the_old_key_nothing_is_rewritten_and_nothing_is_lost(settings, capsys):
    tables = ParquetTables(root=settings.tables)
    filled(tables, settings, DAYS[:1])
    content = settings.keys.read_bytes()
    settings.keys.unlink()
    for purpose in ("tables", "personal", "artifacts"):
        KeyFile(settings.keys).create(purpose)
    before = tables.files.read("m/events/2026-01-01.parquet")
    assert main(["keys", "rewrite"]) == 1
    assert "m/events of 2026-01-01 is encrypted, and the key " in capsys.readouterr().err
    assert tables.files.read("m/events/2026-01-01.parquet") == before
    settings.keys.write_bytes(content)
    assert len(tables.read(TABLES[0])) == 200


def test_a_file_that_is_replaced_while_it_is_rewritten_keeps_its_new_rows(settings, monkeypatch):
    tables = ParquetTables(root=settings.tables)
    filled(tables, settings, DAYS[:1])
    KeyFile(settings.keys).rotate("tables")
    new = pd.DataFrame({"n": [1, 2, 3]})
    encrypted, once = ParquetTables._encrypted, []

    def while_another_writes(self, *given):
        content = encrypted(self, *given)
        if not once:
            once.append(1)
            time.sleep(0.01)
            tables.write(TABLES[0], new, DAYS[0])
        return content

    monkeypatch.setattr(ParquetTables, "_encrypted", while_another_writes)
    tables.rewrite(TABLES[0], DAYS[0], (), in_use.ring())
    assert tables.read(TABLES[0]).to_dict("list") == {"n": [1, 2, 3]}


def test_keys_that_are_needed_stay(settings, capsys):
    first = KeyFile(settings.keys).read()["backups"][0]
    KeyFile(settings.keys).rotate("backups")
    KeyFile(settings.keys).create("pseudonyms")
    old = KeyFile(settings.keys).read()["pseudonyms"][0]
    KeyFile(settings.keys).rotate("pseudonyms")
    assert main(["keys", "remove", "pseudonyms", old.id]) == 1
    assert "a key for pseudonyms stays" in capsys.readouterr().err
    assert main(["keys", "remove", "backups", first.id]) == 0
    assert main(["keys", "remove", "backups", "nothing"]) == 1
    assert "the key nothing for backups is not in" in capsys.readouterr().err

"""Tables with versions: the promises of plain files, one commit for each day, and the rows as of a version."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from cli import main
from metadata.table_sql import ask
from resources import tables_delta
from resources.backup import tables_left_out
from resources.settings import Settings, SettingsError
from resources.tables import ParquetTables, TableError
from resources.tables_delta import DeltaFiles
from tests.buckets import new_bucket, reached
from tests.resources.test_tables import events, frame, sums

KEY = dg.AssetKey(["m", "events"])
DAYS = ["2026-01-01", "2026-01-02", "2026-01-03"]


@pytest.fixture(params=["folder", "bucket"])
def tables(request, tmp_path):
    with reached():
        if request.param == "folder":
            yield ParquetTables(root=f"delta+file://{tmp_path}/tables")
        else:
            yield ParquetTables(root=f"delta+s3://{new_bucket()}/prefix")
    tables_delta.forget_tables()


@pytest.fixture
def local(tmp_path) -> ParquetTables:
    return ParquetTables(root=f"delta+file://{tmp_path}/tables")


def numbers(value: int, rows: int = 3) -> pd.DataFrame:
    return pd.DataFrame({"n": np.full(rows, value)})


def as_of(tables: ParquetTables, when: str) -> ParquetTables:
    return ParquetTables(root=tables.root, as_of=when)


def test_it_behaves_as_plain_files_do(tables):
    assert tables.days(KEY) == [] == tables.names()
    assert tables.stamp(KEY) is None
    tables.remove(KEY, DAYS[0])
    with pytest.raises(TableError, match="there is no file for 2026-01-01"):
        tables.read(KEY, DAYS[:1])
    stamps = {day: tables.write(KEY, numbers(i), day, code_version="c") for i, day in enumerate(DAYS)}
    whole = dg.AssetKey(["m", "whole"])
    tables.write(whole, numbers(7))
    assert tables.days(KEY) == DAYS
    assert tables.days(whole) == ["all"]
    assert tables.names() == ["m/events", "m/whole"]
    assert tables.stamps(KEY) == stamps
    assert tables.read(KEY)["n"].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [len(part) for part in tables.batches(KEY, DAYS[0], rows=2)] == [2, 1]
    before = tables.states(KEY)
    other = tables.write(KEY, numbers(9), DAYS[0])
    assert tables.stamp(KEY, DAYS[0]) == other
    assert [day for day in DAYS if before[day].token != tables.states(KEY)[day].token] == [DAYS[0]]
    tables.remove(KEY, DAYS[1])
    assert tables.days(KEY) == [DAYS[0], DAYS[2]]
    link = tables.keep_report(KEY, DAYS[0], "<html>")
    assert tables.report(link) == b"<html>"
    assert tables.has_report(link)
    assert tables.names() == ["m/events", "m/whole"]


def test_the_rows_as_of_a_version_and_as_of_a_time(tables):
    for i, day in enumerate([DAYS[0], DAYS[1], DAYS[0]]):
        tables.write(KEY, numbers(i), day)
        time.sleep(0.01)  # a commit has milliseconds
    tables.remove(KEY, DAYS[1])
    history = tables.history(KEY)
    assert [(one.version, one.day, one.rows) for one in history] == [
        (0, DAYS[0], 3), (1, DAYS[1], 3), (2, DAYS[0], 3), (3, DAYS[1], None)
    ]  # fmt: skip
    assert history[2].data_version == tables.stamp(KEY, DAYS[0]).data_version
    seen = [[0], [0, 1], [2, 1], [2]]
    for one, values in zip(history, seen, strict=True):
        for when in (str(one.version), one.at.isoformat(), one.at.replace(tzinfo=None).isoformat()):
            assert list(as_of(tables, when).read(KEY)["n"].unique()) == values, when
    assert as_of(tables, "2020-01-01").days(KEY) == []
    with pytest.raises(TableError, match="m/events has no version 4; its latest is 3"):
        as_of(tables, "4").days(KEY)
    with pytest.raises(TableError, match="'yesterday' is neither a version nor a time; give a number, or 2026-"):
        as_of(tables, "yesterday").days(KEY)
    for change in (lambda t: t.write(KEY, numbers(1)), lambda t: t.remove(KEY, DAYS[0])):
        with pytest.raises(TableError, match="tables as of 1 are read only"):
            change(as_of(tables, "1"))
    assert len(tables.history(KEY)) == 4


def test_sql_asks_the_rows_as_of_a_version(tables, tmp_path):
    for value in (1, 2):
        tables.write(KEY, numbers(value), DAYS[0])
    rows = lambda of, sql: ask(of, sql, cache=tmp_path / "cache").rows  # noqa: E731
    assert rows(tables, "select distinct n from m.events") == [(2,)]
    assert rows(as_of(tables, "0"), "select distinct n from m.events") == [(1,)]
    stamps = rows(tables, "select version, day, rows from assetline.versions where table_name = 'm.events' order by 1")
    assert stamps == [(0, DAYS[0], 3), (1, DAYS[0], 3)]
    assert rows(tables, "select day, rows from assetline.files") == [(DAYS[0], 3)]


def test_a_version_of_plain_files_is_refused_with_what_has_versions(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))
    assert main(["sql", "--as-of", "1", "select 1"]) == 1
    assert capsys.readouterr().err == (
        f"assetline sql: {tmp_path}/tables keeps no versions of tables; only ASSETLINE_TABLES=delta+s3://… does\n"
    )


def test_files_have_the_same_bytes_as_without_delta(local, tmp_path):
    plain = ParquetTables(root=str(tmp_path / "plain"))
    for tables in (local, plain):
        tables.write(KEY, frame(DAYS[0]), DAYS[0], code_version="c", inputs={"up": {"d": "1"}})
    assert local.read_bytes(KEY, DAYS[0]) == plain.read_bytes(KEY, DAYS[0])


def test_runs_read_and_write_it_through_the_io_manager(local):
    tables = local
    tags = {"dagster/asset_partition_range_start": DAYS[0], "dagster/asset_partition_range_end": DAYS[-1]}
    for _ in range(2):
        assert dg.materialize([events, sums], resources={"io_manager": tables}, tags=tags).success
    assert tables.days(dg.AssetKey(["m", "sums"])) == DAYS
    assert set(tables.stamp(dg.AssetKey(["m", "sums"]), DAYS[1]).inputs["m/events"]) == set(DAYS[:2])
    assert [one.version for one in tables.history(KEY)] == list(range(6)), "one commit for each day"


def test_days_may_have_other_columns_and_types(local):
    first = pd.DataFrame({"n": [1], "at": [pd.Timestamp("2026-01-01")], "empty": [None]})
    second = pd.DataFrame({"n": [1.5], "late": pd.array(["x"], dtype="string[pyarrow]"), "empty": ["known"]})
    local.write(KEY, first, DAYS[0])
    local.write(KEY, second, DAYS[1])
    local.write(KEY, first, DAYS[2])
    assert local.read(KEY)["n"].tolist() == [1, 1.5, 1]
    local.write(KEY, second, DAYS[0])
    assert local.read(KEY, [DAYS[0]])["late"].tolist() == ["x"]
    # Another program reads it as the Delta table that it is.
    from deltalake import DeltaTable

    table = DeltaTable(f"{local.root.removeprefix('delta+file://')}/m/events")
    read = table.to_pandas().sort_values("_day")
    assert read["_day"].tolist() == DAYS
    assert read["n"].tolist() == [1.5, 1.5, 1]
    assert set(read) == {"n", "at", "empty", "late", "_day"}


def test_all_days_are_read_of_one_version(local, monkeypatch):
    for day in DAYS:
        local.write(KEY, numbers(0), day)
    whole = ParquetTables._load

    def slow(self, files, key, day, columns=None):
        if day == DAYS[0]:  # a run replaces the others while the first is read
            monkeypatch.setattr(ParquetTables, "_load", whole)
            for other in DAYS:
                local.write(KEY, numbers(1), other)
        return whole(self, files, key, day, columns)

    monkeypatch.setattr(ParquetTables, "_load", slow)
    assert local.read(KEY)["n"].unique().tolist() == [0]
    assert local.read(KEY)["n"].unique().tolist() == [1]


WRITERS = """
import sys, dagster as dg, pandas as pd
from resources.tables import ParquetTables
tables, me, days = ParquetTables(root=sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(",")
sys.stdin.readline()
for turn in range(3):
    for day in days:
        tables.write(dg.AssetKey(["m", "events"]), pd.DataFrame({"n": [me] * (me + 1), "turn": turn}), day)
"""


def together(tables: ParquetTables, days: list[list[str]]) -> None:
    """Writes by several processes at once, each three times to each of its days."""
    env = {**os.environ, "PYTHONPATH": "."}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITERS, tables.root, str(i), ",".join(own)], stdin=subprocess.PIPE, env=env
        )
        for i, own in enumerate(days)
    ]
    for writer in writers:
        writer.stdin.write(b"\n")
        writer.stdin.flush()
    assert [writer.wait(120) for writer in writers] == [0] * len(writers)


def check_writers(tables: ParquetTables, writers: int) -> None:
    """Of other days no commit is lost; of the same day, one wins whole."""
    days = [[f"2026-0{month}-01", f"2026-0{month}-02", DAYS[2]] for month in range(1, writers + 1)]
    together(tables, days)
    own = sorted({day for days_of_one in days for day in days_of_one})
    assert tables.days(KEY) == own
    assert tables.read(KEY)["turn"].unique().tolist() == [2]
    assert len([one for one in tables.history(KEY) if one.day]) == 9 * writers
    rows = tables.read(KEY, [DAYS[2]])
    assert rows["n"].nunique() == rows["turn"].nunique() == 1
    assert len(rows) == rows["n"][0] + 1
    files = tables.files
    assert isinstance(files, DeltaFiles)
    assert len(tables_delta._live(files._opened("m/events"), DAYS[2])) == 1


def test_two_writers_at_once_lose_no_commit(local):
    check_writers(local, 2)


@pytest.mark.slow
def test_four_writers_at_once_lose_no_commit(tables):
    check_writers(tables, 4)


def test_two_first_files_of_a_day_leave_one(local):
    """What two processes leave that both found no file of the day."""
    local.write(KEY, numbers(1), DAYS[1])
    local.write(KEY, numbers(1), DAYS[0])
    opened = local.files._opened("m/events")
    from deltalake.transaction import AddAction

    path = "_day=2026-01-01/other.parquet"
    content = local.read_bytes(KEY, DAYS[0])
    local.files.plain.replace(f"m/events/{path}", content)
    add = AddAction(path, len(content), {"_day": DAYS[0]}, int(time.time() * 1000) + 5, True, "{}")
    opened.create_write_transaction([add], mode="append", schema=opened.schema(), partition_by=["_day"])
    assert local.states(KEY)[DAYS[0]].token == path, "the newer one counts"
    local.files._end_doubles("m/events", DAYS[0])
    assert len(tables_delta._live(local.files._opened("m/events"), DAYS[0])) == 1
    assert local.states(KEY)[DAYS[0]].token == path


def test_an_attempt_that_committed_and_failed_afterwards_is_not_committed_again(local, monkeypatch):
    from deltalake.exceptions import CommitFailedError

    failures = [CommitFailedError("a concurrent transaction deleted data this operation read")]
    whole = DeltaFiles._end_doubles

    def failing_once(self, table, day):
        if failures:
            raise failures.pop()
        whole(self, table, day)

    local.write(KEY, numbers(1), DAYS[0])
    monkeypatch.setattr(DeltaFiles, "_end_doubles", failing_once)
    local.write(KEY, numbers(2), DAYS[0])
    assert len(local.history(KEY)) == 2
    assert local.read(KEY)["n"].unique().tolist() == [2]


def test_a_table_that_was_removed_and_made_again_is_read_anew(local):
    for value in (1, 2):
        local.write(KEY, numbers(value), DAYS[0])
    shutil.rmtree(f"{local.root.removeprefix('delta+file://')}/m/events")
    assert local.days(KEY) == []
    local.write(KEY, numbers(3), DAYS[1])
    assert local.days(KEY) == [DAYS[1]]
    assert local.read(KEY)["n"].unique().tolist() == [3]


def test_a_writer_looks_for_a_second_file_of_its_day(local, monkeypatch):
    looked = []
    monkeypatch.setattr(DeltaFiles, "_end_doubles", lambda self, table, day: looked.append((table, day)))
    local.write(KEY, numbers(1), DAYS[0])
    assert looked == [("m/events", DAYS[0])]


KILLED = """
import sys, dagster as dg, numpy as np, pandas as pd
from resources.tables import ParquetTables
tables, n = ParquetTables(root=sys.argv[1]), 0
while True:
    n += 1
    tables.write(dg.AssetKey(["m", "events"]), pd.DataFrame({"n": np.full(200_000, n)}), "2026-01-01")
    print(n, flush=True)
"""


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_a_killed_writer_leaves_the_old_version_or_the_new_one(local, kills):
    for number in range(kills):
        writer = subprocess.Popen(
            [sys.executable, "-c", KILLED, local.root], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}
        )
        writer.stdout.readline()
        time.sleep(0.003 * number)
        writer.kill()
        writer.communicate()
        rows = local.read(KEY)["n"]
        assert len(rows) == 200_000
        assert rows.nunique() == 1
    local.write(KEY, numbers(1), DAYS[0])
    assert len(local.read(KEY)) == 3


@pytest.mark.parametrize(
    ("root", "mend"),
    [
        (
            "delta+gs://bucket/x",
            "delta+gs://bucket/x is not a place for tables with versions; give delta+s3://bucket/pr",
        ),
        ("delta+/srv/x", "is not a place for tables with versions"),
        ("delta+s3://", "names no bucket"),
        ("delta+s3://a:hush@b/x", "holds a key"),
        ("delta+file:///srv/state/tables", "lies in the state folder /srv/state; give a folder outside of it"),
    ],
)
def test_a_root_that_cannot_work_is_refused(root, mend):
    with pytest.raises(SettingsError) as error:
        Settings.from_env({"ASSETLINE_TABLES": root, "ASSETLINE_HOME": "/srv/state"})
    assert mend in str(error.value)
    assert "hush" not in str(error.value)


def test_a_missing_bucket_and_a_missing_package_are_named(monkeypatch):
    with reached(), pytest.raises(TableError, match="there is no bucket 'no-such-bucket'"):
        ParquetTables(root="delta+s3://no-such-bucket/x").days(KEY)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"needs the package deltalake; pip install 'assetline\[stores\]'"):
        Settings.from_env({"ASSETLINE_TABLES": "delta+file:///srv/x"})


def test_a_vacuum_removes_old_versions_and_no_current_file(local):
    from deltalake import DeltaTable

    for value in (1, 2):
        local.write(KEY, numbers(value), DAYS[0])
    link = local.keep_report(KEY, DAYS[0], "<html>")
    table = DeltaTable(f"{local.root.removeprefix('delta+file://')}/m/events")
    assert len(table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True)) == 1
    assert local.read(KEY)["n"].unique().tolist() == [2]
    assert local.report(link) == b"<html>"
    with pytest.raises(
        TableError, match="m/events: there is no file for 2026-01-01 as of 0, or a vacuum has removed it"
    ):
        as_of(local, "0").read(KEY)
    local.write(KEY, numbers(3), DAYS[0])
    assert [one.day for one in local.history(KEY)] == [DAYS[0], DAYS[0], "", "", DAYS[0]]


def test_a_damaged_log_is_named(local):
    local.write(KEY, numbers(1), DAYS[0])
    log = Path(local.root.removeprefix("delta+file://")) / "m" / "events" / "_delta_log"
    (log / "00000000000000000000.json").write_text("damaged")
    tables_delta.forget_tables()
    with pytest.raises(TableError, match=r"the Delta log of .*/tables/m/events cannot be used now: "):
        local.days(KEY)
    shutil.rmtree(log)
    assert local.days(KEY) == []


def test_a_backup_says_that_they_are_not_in_it(tmp_path):
    settings = Settings.from_env({"ASSETLINE_TABLES": "delta+file:///srv/x", "ASSETLINE_HOME": str(tmp_path)})
    assert tables_left_out(settings) == (
        "the tables in delta+file:///srv/x. Copy that folder with your own tools at the same time."
    )

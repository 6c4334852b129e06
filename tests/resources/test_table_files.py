"""Tables in a bucket keep the promises of tables in a folder; what is wrong with a bucket is told without keys."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from resources import table_files
from resources.settings import Settings, SettingsError
from resources.table_files import BucketFiles, FileState, _said, checked_root, files_of
from resources.tables import WHOLE, ParquetTables, TableError
from tests.buckets import KEYS, Holding, asking_for_keys, environment, new_bucket, reached
from tests.resources.test_tables import events, sums

KEY = dg.AssetKey(["m", "events"])
DAYS = ["2026-01-01", "2026-01-02", "2026-01-03"]
SECRET = KEYS["AWS_SECRET_ACCESS_KEY"]


@pytest.fixture
def tables():
    with reached():
        yield ParquetTables(root=f"s3://{new_bucket()}/prefix")


def frame(n: int = 50, value: float = 0) -> pd.DataFrame:
    return pd.DataFrame({"n": np.arange(n), "value": np.full(n, float(value))})


# -- the same as in a folder -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_a_folder_and_a_bucket_behave_alike(place, tables, tmp_path):
    if place == "folder":
        tables = ParquetTables(root=str(tmp_path / "tables"))
    assert tables.days(KEY) == [] == tables.names()
    assert tables.stamp(KEY) is None
    assert tables.size(KEY) == 0
    with pytest.raises(TableError, match="m/events: there is no file for all"):
        tables.read_bytes(KEY)
    with pytest.raises(TableError, match="m/events: there is no file for 2026-01-01"):
        tables.read(KEY, DAYS[:1])
    stamps = {day: tables.write(KEY, frame(value=i), day, code_version="c") for i, day in enumerate(DAYS)}
    tables.write(dg.AssetKey(["m", "whole"]), frame(10))
    assert tables.days(KEY) == DAYS
    assert tables.names() == ["m/events", "m/whole"]
    assert tables.stamps(KEY) == stamps
    assert tables.stamps(KEY, [DAYS[1], "2026-02-01"]) == {DAYS[1]: stamps[DAYS[1]]}
    assert tables.versions(KEY, DAYS[:1]) == {DAYS[0]: stamps[DAYS[0]].data_version}
    assert list(tables.read(KEY)["value"].unique()) == [0, 1, 2]
    assert list(tables.read(KEY, [DAYS[2]], ["value"])["value"].unique()) == [2]
    assert [len(part) for part in tables.batches(KEY, DAYS[0], ["n"], rows=30)] == [30, 20]
    assert tables.size(KEY, DAYS[0]) == len(tables.read_bytes(KEY, DAYS[0])) == tables.states(KEY)[DAYS[0]].size
    before = tables.states(KEY)
    other = tables.write(KEY, frame(value=9), DAYS[0])
    assert tables.stamp(KEY, DAYS[0]) == other == tables.stamps(KEY)[DAYS[0]]
    after = tables.states(KEY)
    assert [day for day in DAYS if before[day].token != after[day].token] == [DAYS[0]]
    for _ in range(2):  # what is gone already is no error
        tables.remove(KEY, DAYS[0])
    assert tables.days(KEY) == DAYS[1:]
    link = tables.keep_report(KEY, DAYS[1], "<html>é</html>")
    assert link == f"{tables.root}/m/events/reports/{DAYS[1]}.html"
    assert tables.has_report(link)
    assert tables.report(link) == "<html>é</html>".encode()
    assert tables.days(KEY) == DAYS[1:], "a page is no day"
    for wrong in (
        tables.path(KEY, DAYS[1]),
        f"{tables.root}/reports/../x.html",
        "/etc/reports/x.html",
        link + "x.html",
    ):
        assert tables.report(wrong) is None
        assert not tables.has_report(wrong)


def test_runs_read_and_write_through_the_io_manager(tables):
    tags = {"dagster/asset_partition_range_start": DAYS[0], "dagster/asset_partition_range_end": DAYS[-1]}
    assert dg.materialize([events, sums], resources={"io_manager": tables}, tags=tags).success
    assert tables.days(dg.AssetKey(["m", "sums"])) == DAYS
    assert set(tables.stamp(dg.AssetKey(["m", "sums"]), DAYS[1]).inputs["m/events"]) == set(DAYS[:2])


def test_a_damaged_object_is_named_with_its_mend(tables):
    tables.write(KEY, frame(), DAYS[0])
    for content in (tables.read_bytes(KEY, DAYS[0])[:200], b"", b"PAR1"):
        tables.files.replace(f"m/events/{DAYS[0]}.parquet", content)
        for look in (lambda: tables.read(KEY, [DAYS[0]]), lambda: tables.stamp(KEY, DAYS[0])):
            with pytest.raises(
                TableError, match=r"2026-01-01.parquet is damaged .* materialise m/events of 2026-01-01"
            ):
                look()


def test_a_footer_longer_than_the_first_look_is_read(tables, monkeypatch):
    written = tables.write(KEY, frame(), inputs={"up": {f"day-{i}": "x" * 16 for i in range(50)}})
    monkeypatch.setattr(table_files, "FOOTER", 100)
    assert tables.stamp(KEY) == written


def test_what_another_process_writes_is_seen_at_once(tables):
    tables.write(KEY, frame(), DAYS[0])
    assert tables.days(KEY) == DAYS[:1]
    script = (
        "import sys, dagster as dg, pandas as pd\nfrom resources.tables import ParquetTables\n"
        "tables = ParquetTables(root=sys.argv[1])\n"
        f"for day in {DAYS[:2]}: tables.write(dg.AssetKey(['m', 'events']), pd.DataFrame({{'n': [7]}}), day)\n"
    )
    subprocess.run([sys.executable, "-c", script, tables.root], check=True, env={**os.environ, "PYTHONPATH": "."})
    assert tables.days(KEY) == DAYS[:2]
    assert tables.read(KEY)["n"].tolist() == [7, 7]
    assert tables.stamp(KEY, DAYS[0]).rows == 1


def test_who_reads_while_another_writes_gets_the_old_rows_or_the_new_ones(tables):
    sizes = {1.0: 200_000, 2.0: 120_000}
    tables.write(KEY, frame(sizes[1.0], 1))
    ended = threading.Event()

    def writing() -> None:
        own = ParquetTables(root=tables.root)
        for i in range(12):
            own.write(KEY, frame(sizes[1.0 + i % 2], 1 + i % 2))
        ended.set()

    writer = threading.Thread(target=writing)
    writer.start()
    seen = 0
    while not ended.is_set() or seen < 3:
        rows = tables.read(KEY)["value"]
        assert rows.nunique() == 1
        assert len(rows) == sizes[rows[0]]
        assert tables.stamp(KEY).rows in sizes.values()
        assert sum(len(part) for part in tables.batches(KEY, rows=50_000)) in sizes.values()
        seen += 1
    writer.join()


def test_an_object_is_read_by_one_request_however_large_it_is(tables, monkeypatch):
    tables.files.replace("m/events/all.bin", b"x" * 3_000)
    fs = tables.files.filesystem()
    fs.default_block_size = 1_000  # otherwise 50 MB
    asked = []
    whole = fs._call_s3

    async def counted(method, *given, **arguments):
        asked.append(method)
        return await whole(method, *given, **arguments)

    monkeypatch.setattr(fs, "_call_s3", counted)
    assert tables.files.read("m/events/all.bin") == b"x" * 3_000
    assert asked == ["get_object"], "two requests may see two versions"


def test_a_stamp_is_that_of_the_new_object_if_it_is_replaced_between_two_requests(tables):
    old = tables.write(KEY, frame(20_000))
    state = tables.files.state("m/events/all.parquet")
    for rows in (10, 60_000):
        new = tables.write(KEY, frame(rows, rows))
        assert new != old
        assert tables._stamp(tables.files, KEY, WHOLE, state) == new, "the listing is older than the object"


# -- a killed writer -------------------------------------------------------------------------------------------------

WRITER = """
import sys
from resources.table_files import files_of
sys.stdin.readline()
files_of(sys.argv[1]).replace("m/events/all.bin", sys.argv[2].encode() * int(sys.argv[3]))
"""


def killed_in_the_middle(files: BucketFiles, size: int, part: float) -> bytes:
    """What the object holds after its writer was killed when a part of the new bytes was on its way."""
    proxy = Holding()
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, files.root, "N", str(size)], stdin=subprocess.PIPE,
        env={**os.environ, **environment(proxy.address), "PYTHONPATH": "."},
    )  # fmt: skip
    proxy.hold_after(part * size)
    writer.stdin.write(b"\n")
    writer.stdin.flush()
    assert proxy.held.wait(60)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    proxy.close()
    return files.read("m/events/all.bin")


@pytest.mark.parametrize("part", [0.3, 0.95])
def test_a_writer_killed_in_the_middle_of_an_upload_leaves_the_old_object(tables, part):
    files = tables.files
    files.replace("m/events/all.bin", b"old")
    assert killed_in_the_middle(files, 3_000_000, part) == b"old"
    assert list(files.states("m/events")) == ["all.bin"], "and nothing beside it"


@pytest.mark.slow
def test_twenty_of_twenty_kills_leave_the_old_object_or_the_new_one(tables):
    files, size = tables.files, 4_000_000
    files.replace("m/events/all.bin", b"old")
    left = [killed_in_the_middle(files, size, part) for part in np.linspace(0.001, 0.999, 20)]
    assert all(content in (b"old", b"N" * size) for content in left)
    assert left.count(b"old") >= 19, "the kills were in the middle"


@pytest.mark.slow
def test_a_writer_killed_between_the_parts_of_a_large_upload_leaves_the_old_object(tables):
    files = tables.files
    files.replace("m/events/all.bin", b"old")
    assert killed_in_the_middle(files, 105 << 20, 0.8) == b"old", "two of three parts were complete"


# -- what is wrong ---------------------------------------------------------------------------------------------------


def every_way(root: str):
    """Each way to use the tables under a root."""
    tables = ParquetTables(root=root)
    return {
        "days": lambda: tables.days(KEY), "names": tables.names, "stamp": lambda: tables.stamp(KEY),
        "stamps": lambda: tables.stamps(KEY, DAYS), "read": lambda: tables.read(KEY, DAYS),
        "batches": lambda: list(tables.batches(KEY)), "write": lambda: tables.write(KEY, frame()),
        "bytes": lambda: tables.read_bytes(KEY), "remove": lambda: tables.remove(KEY),
        "report": lambda: tables.keep_report(KEY, "x", "<html>"),
    }  # fmt: skip


@pytest.mark.parametrize("way", every_way("/none"))
def test_a_bucket_that_does_not_exist_is_named_and_not_created(way):
    with reached():
        with pytest.raises(TableError) as error:
            every_way("s3://no-such-bucket/prefix")[way]()
        assert str(error.value) == (
            "s3://no-such-bucket/prefix: there is no bucket 'no-such-bucket'; create it, or correct ASSETLINE_TABLES"
        )
        new_bucket()
        assert not BucketFiles("s3://x").filesystem().exists("no-such-bucket")


@pytest.mark.parametrize("way", ["days", "stamp", "read", "write"])
def test_wrong_keys_are_named_without_them(way):
    bucket = new_bucket()
    with reached(), asking_for_keys(), pytest.raises(TableError) as error:
        every_way(f"s3://{bucket}/prefix")[way]()
    said = str(error.value)
    assert said.startswith(f"s3://{bucket}/prefix refuses the access (")
    assert said.endswith(
        "; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the role of this machine, and what they may do"
    )
    assert SECRET not in said


def test_missing_keys_are_named(monkeypatch, tmp_path):
    bucket = new_bucket()
    with reached(AWS_EC2_METADATA_DISABLED="true", AWS_CONFIG_FILE=str(tmp_path), AWS_SHARED_CREDENTIALS_FILE="/none"):
        for name in KEYS:
            monkeypatch.delenv(name)
        with pytest.raises(TableError, match=r"refuses the access \(NoCredentialsError.*check AWS_ACCESS_KEY_ID"):
            ParquetTables(root=f"s3://{bucket}").days(KEY)


def test_a_server_that_is_down_is_named(unused_port):
    address = f"http://127.0.0.1:{unused_port}"
    with reached(AWS_ENDPOINT_URL=address, AWS_MAX_ATTEMPTS="1"), pytest.raises(TableError) as error:
        ParquetTables(root="s3://bucket/prefix").read(KEY, DAYS[:1])
    said = str(error.value)
    assert said.startswith("s3://bucket/prefix cannot be read or written now (EndpointConnectionError: ")
    assert said.endswith("); check the network and the endpoint")


def test_what_a_store_says_is_repeated_without_keys(monkeypatch):
    for name in ("AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_SAS_TOKEN"):
        monkeypatch.setenv(name, SECRET)
        said = _said(OSError(f"no answer from http://me:other@host for {SECRET}\nand more"))
        assert said == "OSError: no answer from http://***@host for ***"
        monkeypatch.delenv(name)


@pytest.fixture
def unused_port():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return port


WRONG = [
    ("s3://", "names no bucket; write one like s3://bucket/prefix"),
    ("s3:///prefix", "names no bucket"),
    ("sftp://host/tables", "is not a place for tables; give a folder, or a URL of s3://, gs://, az://"),
    (f"s3://key:{SECRET}@bucket/x", "holds a key; write the URL without it, the keys come from AWS_ACCESS_KEY_ID"),
    (f"az://container/x?sig={SECRET}", "holds a key; write the URL without it, the keys come from AZURE_STORAGE"),
]


@pytest.mark.parametrize(("root", "mend"), WRONG)
def test_a_root_that_cannot_work_is_refused_without_its_key(root, mend):
    with pytest.raises(TableError) as error:
        ParquetTables(root=root).days(KEY)
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({"ASSETLINE_TABLES": root})
    for said in (str(error.value), str(refused.value)):
        assert mend in said
        assert SECRET not in said
        assert "\n" not in said
    assert str(refused.value).startswith("ASSETLINE_TABLES: ")


@pytest.mark.parametrize(
    ("root", "mend"),
    [("s3://bucket", "s3fs; pip install 'assetline[stores]'"), ("gs://bucket", "gcsfs; pip install gcsfs"),
     ("az://container", "adlfs; pip install adlfs")],
)  # fmt: skip
def test_a_missing_package_is_named_with_what_installs_it(root, mend, monkeypatch):
    monkeypatch.setattr(table_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=f"{root} needs the package {mend}".replace("[", r"\[")):
        Settings.from_env({"ASSETLINE_TABLES": root})


def test_the_setting_is_a_folder_or_a_bucket(tmp_path):
    read = lambda value: Settings.from_env({"ASSETLINE_TABLES": value, "ASSETLINE_HOME": str(tmp_path)})  # noqa: E731
    assert read("s3://bucket/prefix/").tables == "s3://bucket/prefix"
    assert read(f"file://{tmp_path}/x").tables == read(f"{tmp_path}/x").tables == f"{tmp_path}/x"
    assert Settings.from_env({"ASSETLINE_HOME": str(tmp_path)}).tables == str(tmp_path / "tables")
    assert [read(v).tables_elsewhere for v in ("s3://bucket", str(tmp_path / "x"), "/srv/x")] == [True, False, True]
    with pytest.raises(SettingsError, match="is a file; give a folder"):
        read(str(Path(__file__).resolve()))
    assert isinstance(files_of("s3://bucket"), BucketFiles)
    assert checked_root("file:///srv/x") == "/srv/x"


def test_times_of_a_listing_and_of_a_request_make_the_same_state(tables):
    tables.write(KEY, frame())
    [listed] = tables.states(KEY).values()
    assert listed == tables.files.state("m/events/all.parquet")
    assert isinstance(listed, FileState)

"""Files of a pattern, here and elsewhere: whole tables and days, and what stops them."""

import datetime as dt
import gzip
import json
import os
import random
import threading
import time
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from resources.sources import Files, FilesByDay, SourceError, SourceUnavailable
from tests.resources.sources.api import Answer, Api, cut_off, served
from tests.resources.sources.conftest import CANARY, old

DAY = dt.date(2020, 5, 7)
NEXT = DAY + dt.timedelta(days=1)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return old(path)


# -- whole tables ------------------------------------------------------------------------------------------------------


def test_columns_of_several_files_are_joined_by_name(tmp_path):
    write(tmp_path, "a.csv", "k,v\n1,x\n2,\n")
    write(tmp_path, "b.csv", "v,k\ny,3\n")
    write(tmp_path, "c.tsv.gz", gzip.compress(b"k\tv\n4\tz\n"))
    write(tmp_path, "_SUCCESS.csv", "")
    assert Files(path=f"{tmp_path}/*").read().to_dict("list") == {"k": ["1", "2", "3", "4"], "v": ["x", "", "y", "z"]}


def test_files_of_several_kinds_are_one_table(tmp_path):
    write(tmp_path, "a.jsonl", '{"k": 1.50, "v": "x"}\n{"v": "y", "k": null}\n')
    pd.DataFrame({"k": [2.5], "v": ["z"]}).to_parquet(tmp_path / "b.parquet")
    pd.DataFrame({"k": [3], "v": ["u"]}).to_excel(tmp_path / "c.xlsx", index=False)
    for name in ("b.parquet", "c.xlsx"):
        old(tmp_path / name)
    rows = Files(path=f"{tmp_path}/*").read()
    assert list(rows["k"].fillna("missing")) == ["1.50", "missing", "2.5", "3"]
    assert set(map(str, rows.dtypes)) == {"string"}


def test_the_forms_of_csv_files_are_kept(tmp_path):
    for name in ("a", "b"):
        write(tmp_path, f"{name}.csv", "Report\nk;v\n1;ä\nTotal;1\n".encode("cp1252"))
    source = Files(path=f"{tmp_path}/*.csv", separator=";", encoding="cp1252", header=2, foot=["Total"])
    assert source.read().to_dict("list") == {"k": ["1", "1"], "v": ["ä", "ä"]}


def test_a_file_with_other_columns_is_named(tmp_path):
    write(tmp_path, "a.csv", "k,v\n1,x\n")
    write(tmp_path, "b.csv", "k,w\n1,x\n")
    with pytest.raises(SourceError, match=r"b\.csv lacks v and has also w, compared with a\.csv; give all files"):
        Files(path=f"{tmp_path}/*.csv").read()
    rows = Files(path=f"{tmp_path}/*.csv", optional=["v", "w"]).read()
    assert rows["w"].isna().tolist() == [True, False]


def test_json_lines_may_leave_out_what_is_null(tmp_path):
    write(tmp_path, "a.jsonl", '{"k": 1, "v": "x"}\n')
    write(tmp_path, "b.jsonl", '{"k": 2}\n')
    assert Files(path=f"{tmp_path}/*.jsonl").read()["v"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("b.csv", "k,v\n1,x\n2,", r"b\.csv ends in the middle of a line, and other files do not"),
        ("b.csv", "", r"b\.csv is incomplete \(it is empty\)"),
        ("b.csv.gz", gzip.compress(b"k,v\n1,x\n" * 999)[:-20], r"b\.csv\.gz is incomplete"),
        ("b.jsonl", '{"k": 1, "v": 2}\n{"k": 1', r"b\.jsonl is incomplete \(its last line \(2\)"),
        ("b.parquet", b"PAR1" + b"0" * 99, r"b\.parquet is incomplete \(it has no footer\)"),
        ("b.xlsx", b"PK\x03\x04" + b"0" * 99, r"b\.xlsx is incomplete"),
    ],
)
def test_an_incomplete_file_is_named_and_asked_again(tmp_path, name, content, words):
    write(tmp_path, "a.csv", "k,v\n1,x\n")
    write(tmp_path, name, content)
    with pytest.raises(SourceUnavailable, match=f"{words}.*write it again"):
        Files(path=f"{tmp_path}/*").read()


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.json", "write one object per line"), ("a.ods", "save the sheet as .xlsx"), ("a.csv.7z", "unpack it")],
)
def test_files_that_are_not_read_say_what_to_do(tmp_path, name, words):
    write(tmp_path, name, "[]")
    with pytest.raises(SourceError, match=f"files are not read; {words}"):
        Files(path=f"{tmp_path}/a.*").read()


def test_no_file_is_one_clear_error(tmp_path):
    with pytest.raises(SourceError, match=r"none\*\.csv: no such file; set the source's path to the files to read"):
        Files(path=f"{tmp_path}/none*.csv").read()
    with pytest.raises(SourceError, match="there is no storage ftpz://; use a path or one of"):
        Files(path="ftpz://host/x.csv").read()


class Writer(threading.Thread):
    """Appends to a file until it is told to stop."""

    def __init__(self, path: Path, pause: float) -> None:
        super().__init__()
        self.path, self.pause, self.ended = path, pause, threading.Event()

    def run(self) -> None:
        with self.path.open("a") as file:
            while not self.ended.wait(self.pause):
                file.write("1,x\n")
                file.flush()


@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 22))])
def test_a_file_that_grows_while_it_is_read_is_never_half_read(tmp_path, seed):
    rng = random.Random(seed)
    print("seed", seed)
    path = tmp_path / "a.csv"
    path.write_text("k,v\n" + "1,x\n" * rng.randint(1, 20_000))
    writer = Writer(path, rng.uniform(0.001, 0.05))
    writer.start()
    try:
        with pytest.raises(SourceUnavailable, match=r"a\.csv (changed while the files were read|is incomplete)"):
            Files(path=str(path), settle_seconds=0.3).read()
    finally:
        writer.ended.set()
        writer.join()
    assert len(Files(path=str(path), settle_seconds=0).read()) == path.read_text().count("\n") - 1


def test_a_young_file_is_looked_at_again_and_an_old_one_is_not(tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr("resources.sources.storage.time.sleep", waits.append)
    path = write(tmp_path, "a.csv", "k,v\n1,x\n")
    Files(path=str(path), settle_seconds=5).read()
    assert not waits
    os.utime(path)
    Files(path=str(path), settle_seconds=5).read()
    assert 0 < waits[0] <= 5


def test_a_file_that_comes_or_goes_meanwhile_is_named(tmp_path, monkeypatch):
    path = write(tmp_path, "a.csv", "k,v\n1,x\n")
    other = tmp_path / "b.csv"
    for change, words in ((lambda: write(tmp_path, "b.csv", "k,v\n2,y\n"), "came"), (other.unlink, "was removed")):
        monkeypatch.setattr("resources.sources.storage.time.sleep", lambda _, change=change: change())
        os.utime(path)
        with pytest.raises(SourceUnavailable, match=rf"b\.csv {words} while the files were read"):
            Files(path=f"{tmp_path}/*.csv").read()


# -- elsewhere ---------------------------------------------------------------------------------------------------------


def test_objects_of_s3_are_one_table(s3):
    s3.pipe_file("shop/rows/a.csv", b"k,v\n1,x\n")
    s3.pipe_file("shop/rows/b.csv", b"v,k\ny,2\n")
    s3.pipe_file("shop/rows/_SUCCESS", b"")
    assert Files(path="s3://shop/rows/*").read().to_dict("list") == {"k": ["1", "2"], "v": ["x", "y"]}


def test_options_may_come_from_the_environment(s3, s3_server, monkeypatch):
    s3.pipe_file("shop/a.csv", b"k,v\n1,x\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("SHOP_SECRET", CANARY)
    options = {"key": "test", "secret": dg.EnvVar("SHOP_SECRET"), "endpoint_url": s3_server}
    source = Files(path="s3://shop/a.csv", options=options)
    assert len(source.read()) == len(source.process_config_and_initialize().read()) == 1
    assert CANARY not in repr(source.process_config_and_initialize())
    monkeypatch.delenv("SHOP_SECRET")
    with pytest.raises(SourceError, match="the environment variable SHOP_SECRET is not set"):
        source.read()


def test_a_bucket_that_does_not_exist_and_missing_credentials_are_named(s3, monkeypatch):
    with pytest.raises(
        SourceError, match=r"s3://nobody/x/.*: there is no bucket 'nobody' at this storage; set the source"
    ):
        Files(path="s3://nobody/x/*.csv").read()
    with pytest.raises(SourceError, match=r"s3://shop/x/.*: no such file; set the source"):
        Files(path="s3://shop/x/*.csv").read()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    with pytest.raises(SourceError, match=r"access is refused .*; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        Files(path="s3://shop/x/*.csv").read()


def test_a_storage_without_its_package_names_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(SourceError, match="gs:// needs another package: pip install 'gcsfs'"):
        Files(path="gs://bucket/x.csv").read()


def test_a_server_of_files_is_read_by_url_and_by_pattern(web):
    url, folder = web
    write(folder, "a.csv", "k,v\n1,x\n")
    write(folder, "b.csv.gz", gzip.compress(b"k,v\n2,y\n"))
    assert list(Files(path=f"{url}/a.csv").read()["k"]) == ["1"]
    assert list(Files(path=f"{url}/*").read()["k"]) == ["1", "2"]
    with pytest.raises(SourceError, match=r"/no\.csv: no such file"):
        Files(path=f"{url}/no.csv").read()


def test_a_download_that_ends_early_is_no_file():
    whole = lambda *_: Answer(b"k,v\n1,x\n2,y\n")  # noqa: E731
    shorter = lambda *_: Answer(b"k,v\n1,x\n")  # noqa: E731
    server = Api([])
    server.faults = {0: whole, **dict.fromkeys(range(1, 9), shorter)}
    with served(server), pytest.raises(SourceUnavailable, match=r"x\.csv has 12 bytes, but 8 came"):
        Files(path=f"{server.url}/x.csv").read()
    server.requests.clear()
    server.faults = dict.fromkeys(range(9), cut_off)
    server.rows = [{"id": n} for n in range(9)]
    with served(server), pytest.raises(SourceUnavailable, match="cannot be read now"):
        Files(path=f"{server.url}/v1/payments").read()


def test_a_host_that_does_not_exist_or_does_not_answer_is_named():
    with pytest.raises(SourceError, match=r"there is no host 'nowhere\.invalid'"):
        Files(path=f"https://nowhere.invalid/x.csv?sig={CANARY}").read()
    with pytest.raises(SourceUnavailable, match="cannot be read now") as refused:
        Files(path=f"https://ann:{CANARY}@127.0.0.1:1/x.csv?sig={CANARY}").read()
    assert CANARY not in str(refused.value)
    assert refused.value.__cause__ is None
    with pytest.raises(SourceError, match="give the source a token, or its URL a user, but not both"):
        Files(path=f"https://ann:{CANARY}@127.0.0.1:1/x.csv", token=CANARY).read()


def test_files_come_by_sftp_from_a_host_whose_key_is_known(sftp):
    write(sftp.folder, "out/a.csv", "k,v\n1,x\n")
    write(sftp.folder, "out/b.csv.gz", gzip.compress(b"k,v\n2,y\n"))
    login = {"password": CANARY, "known_hosts": str(sftp.known_hosts)}
    assert list(Files(path=f"{sftp.url}/out/*", options=login).read()["k"]) == ["1", "2"]
    with pytest.raises(SourceError, match="no such file"):
        Files(path=f"{sftp.url}/in/*", options=login).read()
    with pytest.raises(SourceError, match=r"access is refused .*; set options=") as refused:
        Files(path=f"{sftp.url}/out/*", options={**login, "password": f"{CANARY}x"}).read()
    assert CANARY not in str(refused.value)
    sftp.known_hosts.write_text("")
    for options in (login, {"password": CANARY}):  # the second looks into ~/.ssh/known_hosts
        with pytest.raises(SourceError, match=r"the host's key is not known .*ssh-keyscan -p \d+ 127\.0\.0\.1"):
            Files(path=f"{sftp.url}/out/*", options=options).read()


# -- days --------------------------------------------------------------------------------------------------------------


def by_path(folder: Path, **given) -> FilesByDay:
    return FilesByDay(path=f"{folder}/{{day:%Y/%m/%d}}/*.csv", **given)


def test_a_day_is_the_files_of_its_folder(tmp_path):
    write(tmp_path, "2020/05/07/a.csv", "k,v\n1,x\n")
    write(tmp_path, "2020/05/07/b.csv", "k,v\n2,y\n")
    write(tmp_path, "2020/05/08/a.csv", "k,v\n3,z\n")
    write(tmp_path, "2020/13/08/a.csv", "no day")
    source = by_path(tmp_path)
    assert list(source.land(DAY)["k"]) == ["1", "2"]
    assert source.landed_until() == NEXT
    with pytest.raises(SourceError, match="its labels land together with its rows"):
        source.land_labels(DAY)


def test_the_latest_days_are_found_without_listing_all(tmp_path):
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    for back in (0, 3, 400):
        write(tmp_path, f"{yesterday - dt.timedelta(days=back):%Y/%m/%d}/a.csv", "k,v\n1,x\n")
    assert by_path(tmp_path, settle_minutes=0).landed_until() in (yesterday, yesterday - dt.timedelta(days=3))


def test_a_day_without_files_is_late_unless_days_are_quiet(tmp_path):
    write(tmp_path, "2020/05/08/a.csv", "k,v\n3,z\n")
    with pytest.raises(SourceUnavailable, match=r"2020/05/07.*: no file yet; if days without files are usual"):
        by_path(tmp_path).land(DAY)
    assert by_path(tmp_path, quiet_days=True).land(DAY).to_dict("list") == {"k": [], "v": []}


def test_a_day_is_complete_with_its_marker(tmp_path):
    write(tmp_path, "2020/05/07/a.csv", "k,v\n1,x\n")
    write(tmp_path, "2020/05/07/_SUCCESS", "")
    write(tmp_path, "2020/05/08/a.csv", "k,v\n3,z\n")
    source = by_path(tmp_path, marker="_SUCCESS")
    assert source.landed_until() == DAY
    assert len(source.land(DAY)) == 1
    with pytest.raises(SourceUnavailable, match=r"2020/05/08.*: there is no _SUCCESS yet"):
        source.land(NEXT)
    (tmp_path / "2020/05/07/_SUCCESS").unlink()
    with pytest.raises(SourceUnavailable, match=r"no day is complete yet .*there is no _SUCCESS yet"):
        source.landed_until()


def test_a_marker_is_in_the_folder_of_the_day(tmp_path):
    write(tmp_path, "2020-05-07/north/a.csv", "k\n1\n")
    source = FilesByDay(path=f"{tmp_path}/{{day}}/*/*.csv", marker="_SUCCESS")
    with pytest.raises(SourceUnavailable, match="there is no _SUCCESS yet"):
        source.land(DAY)
    write(tmp_path, "2020-05-07/_SUCCESS", "")
    assert len(source.land(DAY)) == 1


def test_a_day_whose_files_were_changed_just_now_is_not_complete(tmp_path):
    path = write(tmp_path, "2020/05/07/a.csv", "k,v\n1,x\n")
    os.utime(path)
    with pytest.raises(SourceUnavailable, match=r"a\.csv was changed less than 60 minutes ago"):
        by_path(tmp_path, settle_minutes=60).land(DAY)
    with pytest.raises(SourceUnavailable, match="no day is complete yet"):
        by_path(tmp_path, settle_minutes=60).landed_until()
    assert by_path(tmp_path, settle_minutes=0, settle_seconds=0).landed_until() == DAY


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"path": "data/*.csv"}, "comes from nowhere; declare one of"),
        ({"path": "data/{day:%Y}/*.csv"}, "a day in a path needs %Y, %m and %d"),
        ({"path": "data/{day}/*.csv", "time": "at"}, "comes from path and time"),
        ({"path": "data/{day}/no*.csv"}, "no such file; set the source's path"),
    ],
)
def test_a_stream_that_does_not_say_which_day_is_refused(given, words):
    with pytest.raises(SourceError, match=words):
        FilesByDay(**given).landed_until()


def test_rows_of_all_files_land_by_their_time(tmp_path):
    write(tmp_path, "a.csv", "at,k\n2020-05-07T10:00:00Z,1\n2020-05-08T23:00:00-02:00,3\n")
    write(tmp_path, "b.csv", "at,k\n2020-05-07T11:00:00Z,2\nnever,9\n")
    source = FilesByDay(path=f"{tmp_path}/*.csv", time="at")
    assert list(source.land(DAY)["k"]) == ["1", "2"]
    assert len(source.land(NEXT)) == 0
    assert source.landed_until() == dt.date(2020, 5, 9)
    with pytest.raises(SourceError, match=r"no column 'att'; is it 'at'\?"):
        FilesByDay(path=f"{tmp_path}/*.csv", time="att").land(DAY)


def test_the_day_on_which_files_were_written_last_is_not_complete(tmp_path):
    path = write(tmp_path, "a.csv", "at,k\n2020-05-06T10:00:00Z,1\n2020-05-07T10:00:00Z,2\n")
    at = dt.datetime(2020, 5, 7, 12, tzinfo=dt.UTC).timestamp()
    os.utime(path, (at, at))
    source = FilesByDay(path=str(path), time="at")
    assert source.landed_until() == DAY - dt.timedelta(days=1)
    os.utime(path, (at + 86_400, at + 86_400))
    assert source.landed_until() == DAY


def test_files_arrive_on_the_day_of_their_change(tmp_path):
    for name, day in (("a", DAY), ("b", DAY), ("c", NEXT)):
        path = write(tmp_path, f"{name}.csv", f"k\n{name}\n")
        at = dt.datetime.combine(day, dt.time(23, 59), dt.UTC).timestamp()
        os.utime(path, (at, at))
    source = FilesByDay(path=f"{tmp_path}/*.csv", modified=True)
    assert source.land(DAY).to_dict("list") == {"k": ["a", "b"], "arrived_at": ["2020-05-07 23:59:00"] * 2}
    assert list(source.land(NEXT)["k"]) == ["c"]
    assert source.land(DAY - dt.timedelta(days=1)).to_dict("list") == {"k": [], "arrived_at": []}
    yesterday = dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)
    assert source.landed_until() - yesterday in (dt.timedelta(0), dt.timedelta(days=-1))


def test_labels_have_a_pattern_of_their_own(tmp_path):
    write(tmp_path, "2020/05/07/a.csv", "k,v\n1,x\n")
    write(tmp_path, "labels/2020-05-07.jsonl", json.dumps({"k": 1, "fraud": True}))
    source = by_path(tmp_path, labels=f"{tmp_path}/labels/{{day}}.jsonl")
    assert source.land_labels(DAY).to_dict("list") == {"k": ["1"], "fraud": ["True"]}
    with pytest.raises(SourceError, match="put the day into the pattern"):
        by_path(tmp_path, labels="labels.csv").land_labels(DAY)


@pytest.mark.parametrize("shift_h", [-2, 2])
def test_a_day_is_over_by_both_clocks(tmp_path, monkeypatch, shift_h):
    write(tmp_path, "2020/05/07/a.csv", "k,v\n1,x\n")
    write(tmp_path, "2020/05/06/a.csv", "k,v\n0,x\n")
    ours = dt.datetime(2020, 5, 8, 1, tzinfo=dt.UTC)
    monkeypatch.setattr("resources.sources.files.utc_now", lambda: ours)
    theirs = ours + dt.timedelta(hours=shift_h)
    monkeypatch.setattr("resources.sources.storage.Storage.clock", lambda self: theirs)
    source = by_path(tmp_path, settle_minutes=0)
    for path in tmp_path.glob("2020/05/0*/a.csv"):
        os.utime(path, (0, 0))
    assert source.landed_until() == (DAY if shift_h > 0 else DAY - dt.timedelta(days=1))


def test_storages_with_a_clock_tell_it(s3, web):
    s3.pipe_file("shop/2020/05/07/a.csv", b"k,v\n1,x\n")
    url, folder = web
    write(folder, "a.csv", "k,v\n1,x\n")
    for path in ("s3://shop/{day:%Y/%m/%d}/*.csv", f"{url}/*.csv"):
        clock = FilesByDay(path=path, modified=True)._storage().clock()
        assert clock is not None
        assert abs(clock.timestamp() - time.time()) < 600
    assert FilesByDay(path="s3://shop/{day:%Y/%m/%d}/*.csv", settle_minutes=0).landed_until() == DAY

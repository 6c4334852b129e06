"""The log of requests: what was acknowledged is there, what is lost shows, and every process sees all of it."""

import datetime as dt
import json
import subprocess
import sys

import pytest

from resources.request_log import COLUMNS, LogError, RequestLog, RequestRecord
from resources.settings import project_root

NOON = dt.datetime(2026, 3, 2, 12)
DAY = dt.timedelta(days=1)


def record(number: int = 1, at: dt.datetime = NOON, **other) -> RequestRecord:
    facts = {
        "request_id": f"r{number}", "at": at, "model": "meter", "version": "3", "role": "champion", "key": number,
        "entity": "north", "row": {"reading_id": number, "level": 1e-7}, "score": 0.1 + number / 3, "alert": True,
        "latency_ms": 1.25, "outcome": "ok",
    }  # fmt: skip
    return RequestRecord(**{**facts, **other})


@pytest.fixture
def log(tmp_path) -> RequestLog:
    return RequestLog(folder=str(tmp_path))


def another(log: RequestLog) -> RequestLog:
    """The log as another process has it."""
    return RequestLog(folder=log.folder)


def test_what_is_appended_is_read_by_others_as_it_was(log):
    log.append([record(1), record(2, score=[0.25, 0.75], alert=None)])
    log.append([record(3, outcome="refused", score=None, alert=None, row=None, key=None, problem="no row")])
    found = another(log).read("meter", NOON, NOON + DAY)
    assert tuple(found.columns) == COLUMNS
    assert found["request_id"].tolist() == ["r1", "r2", "r3"]
    assert found["score"].tolist() == [0.1 + 1 / 3, [0.25, 0.75], None]
    assert found["row"].tolist() == [{"reading_id": 1, "level": 1e-7}, {"reading_id": 2, "level": 1e-7}, None]
    assert found["alert"].tolist() == [True, None, None]
    assert found["outcome"].tolist() == ["ok", "ok", "refused"]
    assert found["problem"].tolist() == ["", "", "no row"]
    assert found["n"].tolist() == [1, 2, 3]
    assert found["at"].tolist() == [NOON] * 3
    assert found.attrs == {"torn": 0}


def test_a_window_has_only_what_arrived_in_it(log):
    for hours in (-13, -1, 0, 1, 13):
        log.append([record(hours, at=NOON + dt.timedelta(hours=hours))])
    assert log.days("meter") == ["2026-03-01", "2026-03-02", "2026-03-03"]
    hour = dt.timedelta(hours=1)
    assert log.read("meter", NOON - hour, NOON + hour)["key"].tolist() == [-1, 0]
    zone = dt.timezone(dt.timedelta(hours=2))
    assert log.read("meter", dt.datetime(2026, 3, 2, 15, tzinfo=zone), NOON + DAY)["key"].tolist() == [1, 13]
    assert log.read("other", NOON - DAY, NOON + DAY).empty
    assert log.read("meter", NOON + 5 * DAY, NOON + 6 * DAY).empty


def test_a_torn_line_is_counted_and_the_others_are_read(log, tmp_path):
    log.append([record(1), record(2)])
    (path,) = tmp_path.rglob("*.jsonl")
    path.write_bytes(path.read_bytes() + b'{"n":3,"request_id":"r3","at":"2026-03-02T12:0')
    day = another(log).day("meter", "2026-03-02")
    assert (len(day.records), day.torn, day.missing, day.writers) == (2, 1, {}, 1)
    assert another(log).read("meter", NOON, NOON + DAY).attrs == {"torn": 1}


def test_lost_lines_show_as_a_gap_and_each_day_and_writer_counts_from_one(log, tmp_path):
    for number in range(1, 6):
        log.append([record(number)])
    another(log).append([record(6)])
    log.append([record(7, at=NOON + DAY)])
    log.append([record(8)])  # it arrived before midnight, and was answered after others of the next day
    assert log.day("meter", "2026-03-02").missing == {}
    assert log.day("meter", "2026-03-03").missing == {}
    path = max(tmp_path.rglob("2026-03-02/*.jsonl"), key=lambda path: path.stat().st_size)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:1] + lines[3:]))
    day = log.day("meter", "2026-03-02")
    assert (day.missing, day.writers, len(day.records)) == ({path.stem: 2}, 2, 5)


def test_a_record_that_cannot_be_written_is_an_error_and_leaves_a_gap(log, tmp_path, monkeypatch):
    log.append([record(1)])
    write = sys.modules["os"].write
    monkeypatch.setattr("resources.request_log.os.write", lambda file, content: write(file, content[:40]))
    with pytest.raises(LogError, match=r"cannot be written \(.*only part of a line.*nothing was recorded; send"):
        log.append([record(2)])
    monkeypatch.undo()
    log.append([record(3)])
    day = another(log).day("meter", "2026-03-02")
    assert day.records["key"].tolist() == [1, 3]
    assert (day.torn, list(day.missing.values())) == (1, [1])


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "meter").write_text("a file where the folder should be")
    with pytest.raises(LogError, match="cannot be written"):
        RequestLog(folder=str(tmp_path)).append([record()])


def now_record(number: int) -> RequestRecord:
    return record(number, at=dt.datetime.now(dt.UTC).replace(tzinfo=None))


def test_a_follower_sees_each_line_of_every_process_once_and_leaves_out_what_it_is_told(log):
    now = now_record(2)
    log.append([record(1, at=NOON), now])
    follower, other = log.follow("meter"), another(log)
    assert [line["key"] for line in follower.fetch()] == [1, 2]
    assert follower.fetch() == []
    other.append([now_record(3)])
    follower.passed(log.append([now_record(4)]))
    assert [line["key"] for line in follower.fetch()] == [3]
    assert sorted(line["key"] for line in log.follow("meter", str(now.at.date())).fetch()) == [2, 3, 4]


def test_a_follower_waits_for_the_rest_of_a_line(log, tmp_path):
    log.append([now_record(1)])
    (path,) = tmp_path.rglob("*.jsonl")
    whole, follower = path.read_bytes(), log.follow("meter")
    path.write_bytes(whole[:30])
    assert follower.fetch() == []
    path.write_bytes(whole)
    assert [line["key"] for line in follower.fetch()] == [1]


def test_the_state_of_a_day_changes_with_its_lines_only(log):
    log.append([record(1)])
    before = log.state("meter", "2026-03-02")
    log.append([record(2, at=NOON + DAY), record(2, model="other")])
    assert another(log).state("meter", "2026-03-02") == before
    log.append([record(3)])
    assert log.state("meter", "2026-03-02") != before


CHILD = """
import sys
from tests.resources.test_request_log import record
from resources.request_log import RequestLog
log = RequestLog(folder=sys.argv[1])
for number in range(1_000_000):
    log.append([record(number)])
    print(number, flush=True)
"""


def test_a_killed_process_loses_no_acknowledged_record_while_another_appends(log):
    command = [sys.executable, "-c", CHILD, log.folder]
    with subprocess.Popen(command, cwd=project_root(), stdout=subprocess.PIPE, text=True) as child:
        acknowledged = -1
        for line in child.stdout:
            acknowledged = int(line)
            log.append([record(acknowledged, version="mine")])
            if acknowledged == 200:
                child.kill()
                break
        acknowledged = max([acknowledged, *(int(line) for line in child.stdout if line.endswith("\n"))])
    day = log.day("meter", "2026-03-02")
    found = day.records[day.records["version"] == "3"]["key"].tolist()
    assert found[: acknowledged + 1] == list(range(acknowledged + 1))
    assert (day.records["version"] == "mine").sum() == 201
    assert day.missing == {}


def test_a_line_is_json_that_any_tool_reads(log, tmp_path):
    log.append([record(1, row={"text": "a\nb \ud800 é"})])
    (path,) = tmp_path.rglob("*.jsonl")
    (line,) = path.read_bytes().splitlines()
    assert json.loads(line)["row"] == {"text": "a\nb \ud800 é"}

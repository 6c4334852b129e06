"""Faults of a source in the middle of landings, through the real asset: every row lands exactly once, none half.

Each fault comes at a random moment, whose seed is printed. The quick tests try one moment, the slow ones eight, and
`make long` twenty.
"""

import datetime as dt
import json
import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import dagster as dg
import pytest

from assets.lifecycle.data import landing
from resources.sources import Files, FilesByDay, HttpApiByDay, Snapshot, Stream
from resources.sources.storage import Storage, StoredFile
from resources.tables import WHOLE
from tests.declarations.readings import plain, stream
from tests.resources.sources.api import Answer, Api, Fault, Request, broken, cut_off, served, too_many
from tests.resources.sources.conftest import CANARY, old
from tests.stages import Stages

DAYS = [dt.date(2026, 1, day) for day in (10, 11, 12)]
MOMENTS = pytest.mark.parametrize(
    "seeds",
    [
        range(1),
        pytest.param(range(1, 9), marks=pytest.mark.slow),
        pytest.param(range(1, 21), marks=[pytest.mark.slow, pytest.mark.long]),
    ],
    ids=["1", "8", "20"],
)


@pytest.fixture(autouse=True)
def no_wait(monkeypatch):
    monkeypatch.setattr(landing, "FIRST_WAIT_S", 0)


def stages_of(source: Stream | Snapshot, folder) -> Stages:
    model = stream() if isinstance(source, Stream) else plain()
    folder.mkdir(parents=True, exist_ok=True)
    return Stages(replace(model, table=replace(model.table, source=source)), folder)


def payments(rng: random.Random) -> list[dict[str, Any]]:
    """Rows of three days, in the order of arrival."""
    times = sorted(
        dt.datetime.combine(day, dt.time()) + dt.timedelta(seconds=rng.randrange(86_400))
        for day in DAYS for _ in range(rng.randint(15, 40))
    )  # fmt: skip
    return [{"id": n, "at": at.strftime("%Y-%m-%dT%H:%M:%SZ"), "level": n / 2} for n, at in enumerate(times)]


def api_of(url: str, **given: Any) -> HttpApiByDay:
    fixed = {"url": url, "path": "/v1/payments", "records": "data.items", "key": "id", "backoff_s": 0.001}
    return HttpApiByDay(**{**fixed, "arrived": "at", **given})


def ids_of(stages: Stages, day: dt.date) -> list[int]:
    rows = stages.tables.read(stages.model.key("raw_readings"), [str(day)])
    return [int(name) for name in rows["id"]]


def expected(rows: list[dict[str, Any]], day: dt.date) -> list[int]:
    return [row["id"] for row in rows if row["at"].startswith(str(day))]


def twice(request: Request, answer: Answer) -> Answer:
    """The page comes again under the next link."""
    again = str(int(request.query.get("again", 0)) + 1)
    query = urlencode({**request.query, "offset": request.query.get("offset", "0"), "again": again})
    return Answer(answer.body, 200, {"Link": f'<http://{request.headers["host"]}/v1/payments?{query}>; rel="next"'})


def cut_at(rng: random.Random) -> Fault:
    share = rng.random()
    return lambda _, answer: Answer(answer.body, 200, answer.headers, cut=int(share * len(answer.body)))


FAULTS: dict[str, Callable[[random.Random], Fault]] = {
    "cut": cut_at,
    "500": lambda rng: broken,
    "429": lambda rng: too_many,
    "twice": lambda rng: twice,
}


@MOMENTS
@pytest.mark.parametrize("fault", FAULTS)
def test_rows_land_once_whatever_goes_wrong_between_the_pages(tmp_path, seeds, fault):
    with served(Api([], size=7)) as server:
        stages = stages_of(api_of(server.url, since="since", until="until"), tmp_path)
        for seed in seeds:
            rng = random.Random(seed)
            print("seed", seed)
            server.rows = payments(rng)
            server.requests.clear()
            server.faults = {number: FAULTS[fault](rng) for number in rng.sample(range(0, 20, 2), 5)}
            made = stages.make("raw_readings", *map(str, DAYS))
            assert made.success, made.why
            assert [ids_of(stages, day) for day in DAYS] == [expected(server.rows, day) for day in DAYS]


@pytest.mark.parametrize("fault", [cut_off, broken, too_many])
def test_nothing_is_half_landed_while_a_source_is_down(tmp_path, fault):
    rows = payments(random.Random(0))
    with served(Api(rows, size=7)) as server:
        stages = stages_of(api_of(server.url, tries=2), tmp_path)
        server.faults = dict.fromkeys(range(2, 200), fault)
        made = stages.make("raw_readings", str(DAYS[0]))
        assert not made.success
        assert " answer" in made.why
        assert not stages.has("raw_readings", str(DAYS[0]))
        server.faults = {}
        assert stages.make("raw_readings", str(DAYS[0])).success
    assert ids_of(stages, DAYS[0]) == expected(rows, DAYS[0])


@MOMENTS
def test_a_row_that_comes_while_pages_are_read_lands_once_on_its_own_day(tmp_path, seeds):
    """The newest row is the first, so each new one moves a row to the next page."""
    server = Api([], style="offset", size=7)

    def inserted(request: Request, answer: Answer) -> Answer:
        server.rows.insert(0, {"id": 1000 + len(server.rows), "at": "2026-01-13T08:00:00Z", "level": 1.0})
        return answer

    with served(server):
        stages = stages_of(api_of(server.url, offset_param="offset"), tmp_path)
        for seed in seeds:
            rng = random.Random(seed)
            print("seed", seed)
            rows = payments(rng)
            server.rows = rows[::-1]
            server.requests.clear()
            server.faults = dict.fromkeys(rng.sample(range(1, 30), 8), inserted)
            made = stages.make("raw_readings", *map(str, DAYS))
            assert made.success, made.why
            assert len(server.rows) > len(rows)
            assert [sorted(ids_of(stages, day)) for day in DAYS] == [expected(rows, day) for day in DAYS]
            server.faults = {}
            assert stages.make("raw_readings", "2026-01-13").success
            assert ids_of(stages, dt.date(2026, 1, 13)) == expected(server.rows, dt.date(2026, 1, 13))


@MOMENTS
def test_a_skewed_clock_neither_loses_rows_nor_lands_them_twice(tmp_path, seeds, monkeypatch):
    """The server stamps rows by its own clock, up to two hours off, and shows those that have arrived."""
    with served(Api([], size=20)) as server:
        source = api_of(server.url, since="since", until="until", settle_minutes=10)
        stages = stages_of(source, tmp_path)
        for seed in seeds:
            rng = random.Random(seed)
            skew = dt.timedelta(seconds=rng.uniform(-7200, 7200))
            print("seed", seed, "skew", skew)
            rows = payments(rng)
            now = dt.datetime.combine(DAYS[0], dt.time(22), dt.UTC)
            for day in DAYS:
                while True:
                    theirs = now + skew
                    server.shift_s = theirs.timestamp() - time.time()
                    server.rows = [row for row in rows if row["at"] <= theirs.strftime("%Y-%m-%dT%H:%M:%SZ")]
                    monkeypatch.setattr("resources.sources.http_api.utc_now", lambda now=now: now)
                    if source.landed_until() >= day:
                        break
                    now += dt.timedelta(minutes=rng.uniform(5, 90))
                made = stages.make("raw_readings", str(day))
                assert made.success, made.why
            assert [ids_of(stages, day) for day in DAYS] == [expected(rows, day) for day in DAYS]


@MOMENTS
def test_a_growing_column_lands_each_row_once_whatever_goes_wrong(tmp_path, seeds):
    for seed in seeds:
        rng = random.Random(seed)
        print("seed", seed)
        rows = payments(rng)
        faults = {number: FAULTS[rng.choice(list(FAULTS))](rng) for number in rng.sample(range(0, 20, 2), 5)}
        with served(Api(rows, faults=faults, size=7)) as server:
            source = api_of(server.url, arrived="", cursor="id", time="at", after="after")
            stages = stages_of(source, tmp_path / str(seed))
            for days in ([DAYS[0]], DAYS[1:], [rng.choice(DAYS)]):  # one of them again
                made = stages.make("raw_readings", *map(str, days))
                assert made.success, made.why
        assert [ids_of(stages, day) for day in DAYS] == [expected(rows, day) for day in DAYS]


@MOMENTS
def test_a_column_that_changes_upstream_is_named_before_it_spoils_the_table(tmp_path, seeds):
    for seed in seeds:
        rng = random.Random(seed)
        print("seed", seed)
        changed = DAYS[rng.randint(1, 2)]
        rows = payments(rng)
        for row in rows:
            if row["at"] >= str(changed):
                row["levl"] = row.pop("level")
        with served(Api(rows)) as server:
            stages = stages_of(api_of(server.url, since="since", until="until"), tmp_path / str(seed))
            before = [str(day) for day in DAYS if day < changed]
            assert stages.make("raw_readings", *before).success
            made = stages.make("raw_readings", str(changed))
            assert not made.success
            assert "no column 'level' any more; is it 'levl' now?" in made.why
            assert [stages.has("raw_readings", str(day)) for day in DAYS] == [day < changed for day in DAYS]


@MOMENTS
def test_an_object_that_is_replaced_while_it_is_read_lands_whole(tmp_path, seeds, s3, monkeypatch):
    """Four files that belong together are replaced at a random moment; the landing has all old or all new rows."""
    rows, find = 20_000, Storage.find

    def put(state: str) -> None:
        for name in range(4):
            s3.pipe_file(f"shop/rows/{name}.csv", b"k,v\n" + f"{name},{state}\n".encode() * rows)

    stages = stages_of(Files(path="s3://shop/rows/*.csv"), tmp_path)
    put("0")
    assert stages.make("raw_readings").success
    for seed in seeds:
        rng = random.Random(seed)
        print("seed", seed)
        pause, found = rng.uniform(0, 0.4), threading.Event()

        def listed(storage: Storage, pattern: str, found: threading.Event = found) -> list[StoredFile]:
            files = find(storage, pattern)
            found.set()
            return files

        def replace_all(seed: int = seed, pause: float = pause, found: threading.Event = found) -> None:
            assert found.wait(60)
            time.sleep(pause)
            put(str(seed + 1))

        monkeypatch.setattr(Storage, "find", listed)
        writer = threading.Thread(target=replace_all)
        writer.start()
        made = stages.make("raw_readings")
        writer.join()
        assert made.success or "while the files were read" in made.why
        landed = stages.tables.read(stages.model.key("raw_readings"), [WHOLE])
        assert landed["v"].nunique() == 1  # all files before, or all after
        assert landed["k"].value_counts().to_dict() == dict.fromkeys("0123", rows)
    assert stages.make("raw_readings").success
    assert set(stages.tables.read(stages.model.key("raw_readings"), [WHOLE])["v"]) == {str(seed + 1)}


def test_days_of_files_land_once_and_a_late_folder_is_asked_for_again(tmp_path):
    folder = tmp_path / "files"
    for day in DAYS:
        path = folder / f"{day}.jsonl"
        path.parent.mkdir(exist_ok=True)
        if day != DAYS[1]:
            path.write_text("".join(json.dumps({"id": n, "at": str(day)}) + "\n" for n in range(5)))
            old(path)
    stages = stages_of(FilesByDay(path=f"{folder}/{{day}}.jsonl", settle_minutes=0), tmp_path / "var")
    made = [stages.make("raw_readings", str(day)) for day in DAYS]
    assert [one.success for one in made] == [True, False, True]
    assert "2026-01-11.jsonl: no file yet" in made[1].why
    (folder / f"{DAYS[1]}.jsonl").write_text('{"id": 7, "at": "x"}\n')
    assert stages.make("raw_readings", str(DAYS[1])).success
    assert ids_of(stages, DAYS[1]) == [7]


def test_secrets_are_in_no_log_and_no_event(tmp_path, monkeypatch, capfd, caplog):
    monkeypatch.setenv("SHOP_TOKEN", CANARY)
    with served(Api([], token="another")) as server:
        sources = [
            api_of(server.url, token=dg.EnvVar("SHOP_TOKEN")),
            api_of(server.url.replace("//", f"//ann:{CANARY}@") + "0", headers={"X-Key": dg.EnvVar("SHOP_TOKEN")}),
            FilesByDay(path=f"{server.url}/{{day}}.csv?sig={CANARY}", token=dg.EnvVar("SHOP_TOKEN")),
            FilesByDay(path=f"sftp://ann:{CANARY}@127.0.0.1:1/{{day}}.csv"),
        ]
        for number, source in enumerate(sources):
            stages = stages_of(source, tmp_path / str(number))
            assert not stages.make("raw_readings", str(DAYS[0])).success
            events = "".join(str(record) for record in stages.instance.all_logs(stages.instance.get_runs()[0].run_id))
            assert CANARY not in events
            assert "raw_readings" in events
    out, err = capfd.readouterr()
    assert CANARY not in out + err + caplog.text

"""A person is forgotten everywhere; a killed run goes on; a landing does not bring them back."""

import datetime as dt
import gzip
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from assets.lifecycle.erasure.forget import Erasure, ErasureError
from assets.lifecycle.erasure.search import search
from cli import main
from resources import home as home_of
from resources.audit import AuditLog
from resources.request_log import RequestLog, RequestRecord
from resources.settings import Settings, project_root
from resources.tables import ParquetTables
from resources.tombstones import Tombstones
from tests.declarations.visits import START, model
from tests.worlds import World, why

pytestmark = pytest.mark.slow  # a model is trained first

PERSON = 7
DAYS = [str(day.date()) for day in pd.date_range(START, periods=17)]
SCORED = DAYS[15:17]


def record(number: int, customer: int, at: dt.datetime, **given) -> RequestRecord:
    row = {"visit_id": number, "made_at": str(at), "Customer No.": customer, "spent": 5.0}
    facts = {
        "request_id": f"r{number % 1000}", "at": at, "model": "visit", "version": "1", "role": "champion",
        "key": number, "entity": customer, "row": row, "score": 0.5, "alert": False, "latency_ms": 1.0, "outcome": "ok",
    }  # fmt: skip
    return RequestRecord(**{**facts, **given})


@pytest.fixture(scope="module")
def lived(make_world, tmp_path_factory) -> World:
    """A trained, deployed and scored model; requests of two days, one of which has its table."""
    world = make_world(model, tmp_path_factory.mktemp("lived"))
    for work, days in {"land": DAYS, "clean": DAYS, "label": DAYS[:16], "features": DAYS}.items():
        result = world.run(work, days)
        assert result.success, (work, why(result))
    result = world.run("train", training_set={"as_of": DAYS[15]})
    assert result.success, why(result)
    world.ledger.promote("visit", "1", reason="the first", verdicts={}, dagster_run="run-1", who="ada")
    world.mlflow.set_alias("visit", "champion", "1")
    log = RequestLog(folder=str(world.settings.serving))
    morning = dt.datetime(2026, 1, 18, 9)
    log.append([record(10**15 + n, PERSON if n % 3 == 0 else 8, morning + dt.timedelta(seconds=n)) for n in range(9)])
    log.append([record(10**15 + 9, PERSON, morning, outcome="refused", score=None, problem="no", key=None)])
    log.append([record(10**15 + 20 + n, PERSON, morning + dt.timedelta(days=1)) for n in range(2)])
    log.close()
    for work, days in {"daily": SCORED, "requests": ["2026-01-18"]}.items():
        result = world.run(work, days)
        assert result.success, (work, why(result))
    return world


@pytest.fixture
def copied(lived, tmp_path, monkeypatch):
    """Copies the state folder, and opens the copy: settings, tables and Dagster's instance."""
    opened = []

    def copy(of: Path = lived.settings.home, **changed) -> Copy:
        folder = tmp_path / f"home{len(opened)}"
        shutil.copytree(of, folder)
        monkeypatch.setenv("ASSETLINE_HOME", str(folder))
        settings = replace(Settings.from_env(), **changed)
        home_of.prepare(settings)
        opened.append(dg.DagsterInstance.get())
        return Copy(settings, opened[-1])

    yield copy
    for instance in opened:
        instance.dispose()


class Copy:
    """A state folder, and what is in it."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self.settings, self.instance = settings, instance
        self.tables = ParquetTables(root=settings.tables)

    def erasure(self, value: str = str(PERSON)) -> Erasure:
        return Erasure(self.settings, [model], self.instance, column="customer_id", value=value)

    def files(self) -> dict[str, bytes]:
        """Every file but those that SQLite makes when a database is read."""
        return {
            str(path.relative_to(self.settings.home)): path.read_bytes()
            for path in sorted(self.settings.home.rglob("*"))
            if path.is_file() and not path.name.endswith(("-wal", "-shm", ".lock"))
        }

    def world(self) -> World:
        return World(model, self.settings, self.instance)

    def frame(self, name: str, day: str = "*") -> pd.DataFrame:
        """The rows of a table, read without the project's code."""
        paths = sorted((self.settings.home / "tables" / "visit" / name).glob(f"{day}.parquet"))
        return pd.concat([pd.read_parquet(path) for path in paths], ignore_index=True)


def keys_of(copy: Copy) -> set[int]:
    """Keys of the person's visits, from the source itself."""
    from tests.declarations.visits import visits

    landed = pd.concat([visits(dt.date.fromisoformat(day)) for day in DAYS])
    return set(landed.loc[landed["customer_id"] == PERSON, "visit_id"])


OF_ROWS = ("raw_visits", "visits", "quarantine", "raw_labels", "labels", "features", "training_set", "predictions")


@pytest.fixture(scope="module")
def forgotten(lived, tmp_path_factory) -> Path:
    """A copy of the state folder after the removal."""
    folder = tmp_path_factory.mktemp("forgotten") / "home"
    shutil.copytree(lived.settings.home, folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ASSETLINE_HOME", str(folder))
        settings = Settings.from_env()
        home_of.prepare(settings)
        with dg.DagsterInstance.get() as instance:
            Copy(settings, instance).erasure().forget("ada")
    return folder


def test_looking_changes_nothing_and_counts_all_that_is_theirs(lived, copied):
    copy, keys = copied(), keys_of(lived)
    before = copy.files()
    found = copy.erasure().find()
    assert copy.files() == before
    assert sum(found.rows["visit/raw_visits"].values()) == len(keys)
    refused = sum(copy.frame("quarantine")["Customer No."] == str(PERSON))
    assert refused > 0
    assert sum(found.rows["visit/quarantine"].values()) == refused
    assert sum(found.rows["visit/visits"].values()) == len(keys) - refused
    assert sum(found.rows["visit/raw_labels"].values()) == sum(
        copy.frame("raw_labels")["visit_id"].astype(int).isin(keys)
    )
    assert found.rows["visit/requests"] == {"2026-01-18": 4}, "one of them could not be typed"
    assert found.lines == {"visit, 2026-01-18": 4, "visit, 2026-01-19": 2}
    assert found.samples, "the version keeps rows for explanations"
    assert found.events > 0, "Dagster's events have samples"


def test_all_of_theirs_goes_and_nothing_of_others(lived, copied, forgotten):
    keys = {str(key) for key in keys_of(lived)} | {str(10**15 + n) for n in (0, 3, 6, 9, 20, 21)}
    before, after = copied(), copied(forgotten)
    for name in OF_ROWS:
        was, now = before.frame(name), after.frame(name)
        kept = was[~was["visit_id"].astype(str).isin(keys)].reset_index(drop=True)
        assert len(kept) < len(was), name
        pd.testing.assert_frame_equal(now, kept)
    assert len(after.frame("requests")) == len(before.frame("requests")) - 4
    lines = "".join(path.read_text() for path in (forgotten / "serving").rglob("*.jsonl"))
    assert lines.count('"forgotten":true') == 6
    assert not [
        line for line in lines.splitlines() if f'"Customer No.":{PERSON},' in line or any(k in line for k in keys)
    ]
    for file, content in after.files().items():
        if not file.endswith(".parquet"):
            assert not [key for key in keys if key.encode() in content], f"a key is in {file}"
    [sample] = (forgotten / "mlflow" / "artifacts").rglob("background.npy")
    features = before.frame("features")
    mine = {row.tobytes() for row in features[features["visit_id"].astype(str).isin(keys)][["spent", "before"]]
            .to_numpy(np.float32)}  # fmt: skip
    assert not mine & {row.tobytes() for row in np.load(sample)}


def test_the_ledger_and_the_audit_log_stay_and_the_tombstone_holds_no_plain_value(lived, copied, forgotten):
    for table in ("promotions", "audit_log"):
        was, now = (
            sqlite3.connect(folder / "assetline.db").execute(f"SELECT * FROM {table}").fetchall()
            for folder in (lived.settings.home, forgotten)
        )
        assert was == now
        assert len(was) > 0
    stored = json.loads((forgotten / "tables" / "forgotten.json").read_text())
    [one] = stored["people"]
    assert (one["state"], one["column"], one["who"]) == ("done", "customer_id", "ada")
    assert one["trained"] == [{"model": "visit", "version": "1", "days": 14, "rows": one["trained"][0]["rows"]}]
    assert str(PERSON) not in (one["digest"], *one["keys"])
    assert not [key for key in keys_of(lived) if str(key) in json.dumps(stored)]


def test_the_log_counts_no_record_as_lost_and_its_table_can_be_made_again(copied, forgotten):
    copy = copied(forgotten)
    log = RequestLog(folder=str(copy.settings.serving))
    logged = log.day("visit", "2026-01-18")
    assert (len(logged.records), logged.missing, logged.torn) == (6, {}, 0)
    result = copy.world().run("requests", ["2026-01-18"])
    assert result.success, why(result)
    assert len(copy.frame("requests")) == 6


def test_a_landing_does_not_bring_them_back_and_without_the_tombstone_it_does(lived, copied, forgotten):
    copy, keys = copied(forgotten), keys_of(lived)
    for work in ("land", "clean", "label", "features"):
        result = copy.world().run(work, DAYS[3:5])
        assert result.success, why(result)
    for name in ("raw_visits", "visits", "raw_labels", "labels", "features"):
        assert not set(copy.frame(name)["visit_id"].astype(int)) & keys, name
    assert len(copy.frame("raw_visits", DAYS[3])) == 87, "the others of the day landed"
    (copy.settings.home / "tables" / "forgotten.json").unlink()
    assert copy.world().run("land", DAYS[3:5]).success
    assert set(copy.frame("raw_visits")["visit_id"].astype(int)) & keys
    assert set(copy.frame("raw_labels")["visit_id"].astype(int)) & keys


def test_rows_of_days_after_the_removal_land(copied, forgotten):
    copy = copied(forgotten)
    path = copy.settings.home / "tables" / "forgotten.json"
    stored = json.loads(path.read_text())
    stored["people"][0]["until"] = DAYS[4]
    path.write_text(json.dumps(stored))
    assert copy.world().run("land", DAYS[4:6]).success
    landed = copy.frame("raw_visits")
    of_person = landed.loc[landed["Customer No."] == str(PERSON), "landing_day"]
    assert set(of_person.astype(str)) == {DAYS[5]}


def test_a_damaged_tombstone_lets_nothing_land(copied, forgotten):
    copy = copied(forgotten)
    (copy.settings.home / "tables" / "forgotten.json").write_text("{}")
    result = copy.world().run("land", DAYS[3:4])
    assert "forgotten.json beside the tables is damaged" in why(result)
    with pytest.raises(ErasureError, match="is damaged"):
        copy.erasure()


KILLED = """
import os, signal, sys
import dagster as dg
from resources.tables import ParquetTables
from tests.assets.lifecycle.erasure.test_forget import Copy
from resources import home
from resources.settings import Settings
from assets.lifecycle.erasure import forget

left = int(sys.argv[1])
keep_rows = ParquetTables.keep_rows

def killed(*given):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return keep_rows(*given)

ParquetTables.keep_rows = killed
if left > 1_000:
    forget.events_with = lambda *given, remove: os.kill(os.getpid(), signal.SIGKILL) if remove else 0
settings = Settings.from_env()
home.prepare(settings)
with dg.DagsterInstance.get() as instance:
    Copy(settings, instance).erasure().forget("ada")
"""


@pytest.mark.parametrize("after", [0, 40, 10_000], ids=["before the first file", "amid the tables", "amid the events"])
def test_a_killed_removal_goes_on_to_the_same_end(lived, copied, forgotten, after):
    copy, whole = copied(), copied(forgotten)
    environment = {**os.environ, "ASSETLINE_HOME": str(copy.settings.home), "PYTHONPATH": str(project_root())}
    environment.pop("DAGSTER_HOME", None)
    done = subprocess.run([sys.executable, "-c", KILLED, str(after)], env=environment, cwd=project_root(), check=False,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    [tombstone] = Tombstones.read(copy.tables.files).people
    assert tombstone.state == "removing"
    found = copy.erasure().forget("ada")
    [tombstone] = Tombstones.read(copy.tables.files).people
    assert tombstone.state == "done"
    assert found.trained == Tombstones.read(whole.tables.files).people[0].trained, "as they were before the kill"
    for name in OF_ROWS:
        pd.testing.assert_frame_equal(copy.frame(name), whole.frame(name))


PLANTED = {
    "a table that nobody declares": ("tables/old/copy/all.parquet", lambda key: parquet(customer_id=[PERSON])),
    "a file with a key": ("scratch/.left.tmp", lambda key: parquet(visit_id=[key])),
    "a text in a file": ("mlflow/notes.parquet", lambda key: parquet(note=[f"see {key}"])),
    "a note": ("notes.txt", lambda key: b"customer_id = 7, please call"),
    "a packed note": ("old.log.gz", lambda key: gzip.compress(f"visit {key}".encode())),
    "JSON": ("serving/dump.json", lambda key: b'{"customer_id": "7"}'),
}


def parquet(**columns) -> bytes:
    content = io.BytesIO()
    pd.DataFrame(columns).to_parquet(content)
    return content.getvalue()


def test_the_search_finds_what_was_left_behind(lived, copied, forgotten):
    copy, key = copied(forgotten), min(keys_of(lived))
    person = copied().erasure()
    person.find()

    def found() -> list[str]:
        one = copy.erasure()
        known = replace(person.person, tombstones=one.tombstones, digests=one.person.digests)
        return search(copy.settings, copy.tables, one.log, one.scope, one.names, known)

    assert found() == []
    for what, (name, content) in PLANTED.items():
        path = copy.settings.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(key))
        assert len(found()) >= 1, what
        path.unlink()
    with sqlite3.connect(copy.settings.home / "assetline.db") as connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
        connection.execute(f"INSERT INTO notes VALUES ('visit {key}')")
    assert found() == ["assetline.db: a row of notes"]


def test_a_search_that_finds_something_leaves_the_removal_open(copied):
    copy = copied()
    (copy.settings.home / "dump.json").write_text('{"customer_id": 7}')
    with pytest.raises(ErasureError, match=r"not everything is gone.*\n  dump.json: a value of theirs"):
        copy.erasure().forget("ada")
    assert Tombstones.read(copy.tables.files).people[0].state == "removing"
    (copy.settings.home / "dump.json").unlink()
    copy.erasure().forget("ada")
    assert Tombstones.read(copy.tables.files).people[0].state == "done"


def test_who_cannot_be_forgotten_is_refused_in_one_sentence(copied, monkeypatch, capsys):
    copy = copied()
    before = copy.files()
    monkeypatch.setattr("assets.models.declared_models", lambda: [model])
    for arguments, said in (
        (["--entity", "customer_id=99", "--why", "asked"], "nothing that is stored has this customer_id"),
        (["--entity", "colour=7", "--why", "asked"], "no declared model has a column 'colour'"),
        (["--entity", "customer_id", "--why", "asked"], "names nobody; write COLUMN=VALUE"),
        (["--entity", "customer_id=7"], "say why with --why"),
        (["--entity", "customer_id=4711", "--why", "4711 asked"], "--why holds the value itself"),
        (["--entity", "customer_id=7", "--model", "none", "--why", "asked"], "no model 'none' is declared"),
    ):
        assert main(["forget", *arguments]) == 1
        assert said in capsys.readouterr().err
    assert main(["forget", "--entity", "customer_id=7", "--dry-run"]) == 0
    assert "visit/raw_visits: " in capsys.readouterr().out
    changed = {name for name, content in copy.files().items() if content != before.get(name)}
    assert not [name for name in changed if not name.endswith(".db")]
    assert sum(copy.erasure().find().rows["visit/raw_visits"].values()) == len(keys_of(copy))
    details = " ".join(line.details for line in AuditLog(copy.settings.database_url).lines())
    assert '"person":' in details
    assert "4711" not in details


def test_an_active_run_is_waited_for(copied):
    copy = copied()
    job = copy.world().defs.resolve_job_def("visit_land")
    run = copy.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    with pytest.raises(ErasureError, match=f"run {run.run_id}.*is active"):
        copy.erasure().forget("ada")

"""Nothing that the lifecycle leaves holds a value of a tagged column: canaries are planted, and searched everywhere.

The same search finds them when the tags are taken out.
"""

import gzip
import importlib
import io
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from assets.lifecycle.monitoring.requests import table_of
from metadata.facts import Metadata
from resources.audit import AuditLog
from resources.backup import back_up
from resources.keys import KeyFile
from resources.request_log import RequestLog
from runner import Runner
from sensors.alerts import alerts_sensor
from serving.watch.alerts_page import create_app
from tests.declarations import members
from tests.declarations.canaries import CANARIES, visits
from tests.serving.processes import Service
from tests.worlds import World, why

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


# -- the search -------------------------------------------------------------------------------------------------------


def contents(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """A file as it is, and what is packed or encoded in it, at any depth."""
    yield name, data
    if data[:4] == b"PAR1":
        frame = pd.read_parquet(io.BytesIO(data))
        yield (
            f"{name} (decoded)",
            "\n".join(str(value) for column in frame for value in frame[column].dropna().unique().tolist()).encode(),
        )
    elif data[:2] == b"\x1f\x8b":
        yield from contents(f"{name} (unpacked)", gzip.decompress(data))
    elif data[:6] == b"\x93NUMPY":
        yield f"{name} (decoded)", str(np.load(io.BytesIO(data), allow_pickle=False).ravel().tolist()).encode()
    elif data[:2] == b"PK" and zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            for inner in packed.namelist():
                yield from contents(f"{name}:{inner}", packed.read(inner))
    elif data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as packed:
            for inner in packed:
                if (file := packed.extractfile(inner)) is not None:
                    yield from contents(f"{name}:{inner.name}", file.read())
    elif data[:16] == b"SQLite format 3\0":
        database = sqlite3.connect(":memory:")
        database.deserialize(data.replace(b"\x02\x02", b"\x01\x01", 1) if data[18:20] == b"\x02\x02" else data)
        yield f"{name} (dumped)", "\n".join(database.iterdump()).encode("utf-8", "surrogateescape")
        for [table] in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in database.execute(f'SELECT * FROM "{table}"'):
                for value in row:
                    if isinstance(value, bytes):
                        yield from unpacked(f"{name}:{table}", value)


def unpacked(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """A value of a database, which Dagster may compress."""
    try:
        yield f"{name} (unpacked)", zlib.decompress(data)
    except zlib.error:
        yield name, data


def found(folder: Path, pages: dict[str, str]) -> dict[str, set[str]]:
    """The canaries that are anywhere in a folder or on a page, each with the places; the source's own file aside."""
    hits: dict[str, set[str]] = {}
    parts = [(name, text.encode()) for name, text in pages.items()]
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "upstream" not in path.parts:
            parts += contents(str(path.relative_to(folder)), path.read_bytes())
    for name, data in parts:
        text = data.lower()
        for canary in CANARIES:
            if canary.encode() in text or canary.encode("utf-16-le") in text:
                hits.setdefault(canary, set()).add(name)
    return hits


# -- the life of a model with tags -------------------------------------------------------------------------------------


def lived(make_world, folder: Path, monkeypatch) -> tuple[World, dict[str, str]]:
    """Everything that can happen to the model. Returns its state folder, and the pages and outputs seen."""
    home, upstream = folder / "home", folder / "upstream"
    upstream.mkdir(parents=True)
    rows = visits()
    rows.to_csv(upstream / "visits.csv", index=False)
    model = members.members(str(upstream / "visits.csv"))
    monkeypatch.setenv("MEMBERS_FILE", str(upstream / "visits.csv"))
    world = make_world(model, home)
    KeyFile(world.settings.keys).create("pseudonyms")
    pages: dict[str, str] = {}

    def say(text: str) -> None:
        pages["lines of the runner"] = pages.get("lines of the runner", "") + text + "\n"

    runner = Runner(model, world.settings, world.instance)
    runner.live(say)
    last = str(pd.to_datetime(rows["at"]).dt.date.max())
    assert runner.attempt("daily", [last]) is None
    # Days that are refused: too many rows that break the contract, a column that is gone, a file that is no CSV.
    for name, broken in {
        "quoted": rows.assign(minutes=rows["E-Mail"]),
        "renamed": rows.rename(columns={"E-Mail": "Mail"}),
        "retyped": rows.assign(minutes=rows["Full Name"], plan=rows["diagnosis"]),
    }.items():
        broken.to_csv(upstream / "visits.csv", index=False)
        said = [world.run(work, [last]) for work in ("land", "clean")]
        pages[f"refused: {name}"] = "\n".join(map(why, said))
        assert not all(result.success for result in said), name
    with dg.build_sensor_context(
        instance=world.instance, resources={"alerts": world.alerts, "ledger": world.ledger}
    ) as context:
        alerts_sensor([model]).evaluate_tick(context)
    assert world.alerts.store.open_alerts(), "the refusals opened no alert"
    (upstream / "visits.csv").write_bytes(
        rows.to_csv(index=False).encode() + b"zqxmail1@zqxmail.example.org,\xff\xfe\n"
    )
    damaged = world.run("land", [last])
    pages["refused: damaged"] = why(damaged)
    assert not damaged.success
    rows.to_csv(upstream / "visits.csv", index=False)
    assert world.run("land", [last]).success
    pages |= asked(world, rows)
    log = RequestLog(folder=str(world.settings.serving))
    for day in log.days("members"):  # what the asset `requests` writes, once the day is over
        world.tables.write(model.key("requests"), table_of(model, log.day("members", day).records), day)
    pages |= watched(world)
    (folder / "backups").mkdir()
    back_up(world.settings, folder / "backups" / "backup.tar.gz")
    return world, pages


def asked(world: World, rows: pd.DataFrame) -> dict[str, str]:
    """The real service: rows that are scored, refused, nested, unreadable, and sent under wrong names."""
    service = Service(world.settings.home, "--bundle", str(world.mlflow.download("members", "1")), "--version", "1")
    try:
        sent = rows.drop(columns="returned").iloc[-40:].to_dict("records")
        plain = [row for row in sent if float(row["minutes"]) < 600 and row["Card No"].isdigit()]
        answers = service.predict(plain[:20], "members")
        assert answers.status_code == 200, answers.text
        assert [str(one["visit_no"]) for one in answers.json()] == [row["visit_no"] for row in plain[:20]]
        bad = [
            {**plain[0], "minutes": "-1"},
            {**plain[0], "Card No": "zqxmail"},
            {**plain[0], "E-Mail": ["zqxmail", {"a": "zqxname"}]},
            {**plain[0], "notes": {"zqxnote": 1}},
            {**plain[0], "at": "2199-01-01 00:00:00"},
            {name: value for name, value in plain[0].items() if name != "minutes"},
        ]
        said = [service.predict(row, "members") for row in bad]
        assert {answer.status_code for answer in said} == {422}, [answer.text for answer in said]
        more = [
            service.client.post("/models/members/predict", content=b'{"E-Mail": "zqxmail', headers=JSON),
            service.client.get("/models/members"),
            service.client.get("/openapi.json"),
            service.client.get("/health"),
            service.client.post("/models/members/predict?explain=true", json=plain[0]),
        ]
        pages = {f"answer {n}": answer.text for n, answer in enumerate([*said, *more])}
        pages["output of the service"] = service.said()
        return pages
    finally:
        service.end()


JSON = {"content-type": "application/json"}


def watched(world: World) -> dict[str, str]:
    """All pages of the watch that a person can open."""
    app = create_app(
        world.alerts.store, "a-token-of-enough-letters", reports=world.tables, ledger=world.ledger,
        models=[world.model], metadata=lambda: Metadata(world.settings, [world.model], world.instance),
        audit=AuditLog(world.settings.database_url),
    )  # fmt: skip
    client = TestClient(app, headers={"authorization": "Bearer a-token-of-enough-letters"})
    paths = ["/", "/catalogue", "/catalogue.json", "/audit", "/approvals", "/versions/members/1", "/compliance/members",
             "/versions/members", "/api/alerts", "/versions"]  # fmt: skip
    paths += [f"/alerts/{alert.id}{end}" for alert in world.alerts.store.open_alerts() for end in ("", "/report")]
    pages = {path: client.get(path) for path in paths}
    assert pages["/"].status_code == pages["/catalogue"].status_code == 200
    return {path: page.text for path, page in pages.items()}


def test_no_value_of_a_tagged_column_is_left_anywhere(make_world, tmp_path_factory, monkeypatch, capfd):
    folder = tmp_path_factory.mktemp("protected")
    world, pages = lived(make_world, folder, monkeypatch)
    pages["output of this process"] = "".join(capfd.readouterr())
    hits = found(folder, pages)
    assert not hits, {canary: sorted(places)[:8] for canary, places in hits.items()}
    assert "visits.csv" in pages["refused: damaged"] or "withheld" in pages["refused: damaged"]
    assert "'email' did not land" in pages["refused: renamed"]
    landed = world.tables.read(world.model.key("raw_visits"))
    assert landed["E-Mail"].nunique() == 60, "one member has one pseudonym, however the address is written"
    assert landed["E-Mail"].str.fullmatch("p_[0-9a-f]{32}").all()
    assert landed["diagnosis"].isna().all()
    assert (landed["phone"].fillna("") == "").sum() == visits()["phone"].isna().sum(), "missing stays missing"
    assert (world.tables.read(world.model.key("features"))["visits"] > 0).any()


def test_the_search_finds_what_the_tags_hide(make_world, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("MEMBERS_UNPROTECTED", "1")
    importlib.reload(members)
    try:
        folder = tmp_path_factory.mktemp("plain")
        _, pages = lived(make_world, folder, monkeypatch)
        hits = found(folder, pages)
    finally:
        monkeypatch.delenv("MEMBERS_UNPROTECTED")
        importlib.reload(members)
    assert set(hits) == set(CANARIES)
    places = " ".join(sorted({place for of_canary in hits.values() for place in of_canary}))
    for place in ("tables/members/raw_visits", "quarantine", "serving/members", "dagster/", "answer", "backup"):
        assert place in places, place

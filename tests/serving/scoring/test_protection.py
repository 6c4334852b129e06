"""The service takes rows as people write them, keeps protected ones only, and finds the history by the pseudonym."""

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient

from assets.lifecycle.data.landing import number_rows
from assets.lifecycle.data.protection import Protection, pseudonym_of
from assets.lifecycle.data.row_outcomes import type_and_refuse
from assets.lifecycle.model.objectives import ScoreTransform
from assets.lifecycle.model.version.bundle import Bundle
from resources.keys import KeyFile, KeyRing
from resources.pseudonyms import InForce, record
from resources.request_log import RequestLog
from resources.settings import Settings
from resources.tables import ParquetTables
from serving.scoring import service
from serving.scoring.service import Endpoint, Served
from tests.declarations.canaries import visits
from tests.declarations.members import members, model
from tests.serving.conftest import Toy, app_of

NOW = dt.datetime.now(dt.UTC).replace(tzinfo=None, microsecond=0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("members") / "1"
    names = model.features.names
    Bundle.save(folder, module=Toy(1, len(names)), model=model, feature_names=names, head=ScoreTransform(),
                threshold=0.5, fitted={})  # fmt: skip
    return folder


class Running:
    """A service in this process on a state folder whose table has visits of today."""

    def __init__(self, folder: Path, bundle: Path, *, has_version: bool = True) -> None:
        self.settings = Settings.from_env({"ASSETLINE_HOME": str(folder)})
        KeyFile(self.settings.keys).create("pseudonyms")
        self.keys = KeyRing.of(self.settings).versions("pseudonyms")
        self.log = RequestLog(folder=str(self.settings.serving))
        tables = ParquetTables(root=self.settings.tables)
        rows = visits(days=1).astype("string[pyarrow]")
        yesterday = NOW - dt.timedelta(days=1)
        landed = Protection(model, self.keys).frame(rows.assign(at=str(yesterday)))
        accepted, _ = type_and_refuse(number_rows({str(yesterday.date()): landed}), model.table)
        tables.write(model.key("visits"), accepted, str(yesterday.date()))
        served = Served.prepare("1", bundle, tables, self.log)
        self.endpoint = Endpoint("members", tables, log=self.log, served=served, settings=self.settings)
        if not has_version:
            self.endpoint.served = None
        self.client = TestClient(app_of(self.endpoint))

    def ask(self, **other):
        return self.client.post("/models/members/predict", json={**sent(), **other})

    def logged(self) -> pd.DataFrame:
        return self.log.read("members", NOW - dt.timedelta(days=1), NOW + dt.timedelta(days=2))


def sent() -> dict:
    """A visit as a client sends it."""
    row = visits(days=1).drop(columns="returned").iloc[1].to_dict()
    return {**row, "visit_no": 77, "Card No": 7310000001, "minutes": 30, "at": str(NOW)}


@pytest.fixture
def running(tmp_path, bundle) -> Running:
    return Running(tmp_path, bundle)


def test_a_plain_row_is_scored_by_its_history_and_only_its_protected_form_is_kept(running):
    running.ask().raise_for_status()
    [logged] = running.logged().to_dict("records")
    who = pseudonym_of(model, "email", sent()["E-Mail"], running.keys)
    assert logged["entity"] == logged["row"]["E-Mail"] == who
    assert logged["key"] == pseudonym_of(model, "visit_no", 77, running.keys)
    assert logged["row"]["diagnosis"] is None
    assert "zqx" not in str(logged).lower()
    known = running.endpoint.tables.read(model.key("visits"))
    before = int((known["email"] == who).sum())
    assert before > 0
    rows = running.endpoint.served.parser.parse([running.endpoint.protected([sent()])[0]], NOW)
    again = {**rows, "visit_no": rows["visit_no"] + 1, "at": rows["at"] + np.timedelta64(1, "s")}
    assert running.endpoint.served.features(again)[0][0] == before + 1, "the table's visits, and the one just scored"


def test_the_answer_has_the_key_as_it_was_sent(running):
    assert running.ask().json()["visit_no"] == 77
    several = running.client.post("/models/members/predict", json=[sent(), {**sent(), "visit_no": "78"}])
    assert [one["visit_no"] for one in several.json()] == [77, "78"]


@pytest.mark.parametrize(
    "other",
    [{"minutes": -1}, {"Card No": "zqxmail"}, {"E-Mail": ["zqxmail"]}, {"notes": {"zqxnote": 1}},
     {"at": "2199-01-01"}, {"phone": {"zqx": 1}}, {"postcode": None}],
)  # fmt: skip
def test_what_is_refused_is_neither_quoted_nor_kept(running, other):
    answer = running.ask(**other)
    assert answer.status_code == 422, answer.text
    assert "zqx" not in answer.text.lower()
    [logged] = running.logged().to_dict("records")
    assert logged["outcome"] == "refused"
    assert "zqx" not in str(logged).lower()


def test_while_no_version_serves_rows_are_protected_as_well(tmp_path, bundle, monkeypatch):
    monkeypatch.setattr(service, "declared_models", lambda: [model])
    running = Running(tmp_path, bundle, has_version=False)
    assert running.ask().status_code == 503
    [logged] = running.logged().to_dict("records")
    assert logged["entity"] is None or logged["entity"].startswith("p_")
    assert "zqx" not in str(logged).lower()


def test_without_its_key_the_service_refuses_and_keeps_nothing(running):
    running.settings.keys.unlink()
    running.endpoint._protection = None
    answer = running.ask()
    assert answer.status_code == 503
    assert "the rows of 'members' have pseudonyms: there is no key for pseudonyms" in answer.json()["detail"]
    assert running.logged()["row"].isna().all()
    assert "zqx" not in str(running.logged().to_dict("records")).lower()


def test_while_pseudonyms_get_a_newer_key_the_service_refuses(running):
    import asyncio

    running.ask().raise_for_status()
    record(running.settings.tables, InForce((running.keys[0].fingerprint,), becoming=("a", "b")))
    asyncio.run(running.endpoint.follow())
    assert "run `assetline rekey` to its end" in running.endpoint.problem
    assert running.ask().status_code == 503
    record(running.settings.tables, InForce((running.keys[0].fingerprint,)))
    asyncio.run(running.endpoint.follow())
    assert running.endpoint.problem is None
    running.ask().raise_for_status()


def test_a_table_without_tags_is_taken_as_it_is(running):
    assert members("x.csv").name == "members"
    raw = [{"a": 1}]
    running.endpoint._tagged = None
    running.endpoint._looked_at = running.endpoint.served.model
    assert running.endpoint.protected(raw) is raw

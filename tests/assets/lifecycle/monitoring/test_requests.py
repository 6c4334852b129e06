"""The asset `requests`: a day of the log as a table, and what its checks say."""

import datetime as dt
import json
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from assets.lifecycle.monitoring.requests import requests_asset
from resources.request_log import RequestLog, RequestRecord
from tests.declarations.readings import VARIANTS, plain, stream
from tests.stages import Stages

DAY = "2026-03-02"
NOON = dt.datetime(2026, 3, 2, 12)


def reading(number: int, **other) -> dict:
    return {"reading_id": 2**60 + number, "read_at": "2026-03-01 09:00:00", "site": "south", "level": "12.5", **other}


def answered(number: int, **other) -> RequestRecord:
    facts = {
        "request_id": f"r{number}", "at": NOON + dt.timedelta(seconds=number), "model": "meter", "version": "1",
        "role": "champion", "key": 2**60 + number, "entity": "south", "row": reading(number), "score": 0.25,
        "alert": False, "latency_ms": float(number), "outcome": "ok",
    }  # fmt: skip
    return RequestRecord(**{**facts, **other})


def failed(number: int, outcome: str, problem: str, **other) -> RequestRecord:
    return answered(number, outcome=outcome, problem=problem, score=None, alert=None, **other)


@pytest.fixture
def stages(tmp_path) -> Stages:
    made = Stages(stream(), tmp_path)
    made.mlflow.folders = {"1": tmp_path, "2": tmp_path}
    return made


def log_of(stages: Stages) -> RequestLog:
    return RequestLog(folder=str(stages.folder / "serving"))


def test_a_day_has_what_was_sent_and_what_was_answered(stages):
    log_of(stages).append([
        answered(1), answered(2, version="2", role="canary", alert=True, score=0.75), answered(3, role="shadow"),
        failed(4, "refused", "level=-1 breaks the rule", row=reading(4, level=-1)),
        failed(5, "refused", "the body cannot be read", row=None),
    ])  # fmt: skip
    log_of(stages).append([answered(6, at=NOON + dt.timedelta(days=1))])
    made = stages.make("requests", DAY)
    assert made.success, made.why
    rows = stages.tables.read(stages.model.key("requests"), [DAY])
    assert rows["request_id"].tolist() == ["r1", "r2", "r3", "r4", "r5"]
    assert rows["role"].tolist() == ["champion", "canary", "shadow", "champion", "champion"]
    assert rows["probability"].tolist()[:3] == [0.25, 0.75, 0.25]
    assert rows["alert"].tolist()[:3] == [False, True, False]
    assert rows["probability"].isna().tolist() == [False] * 3 + [True] * 2
    assert rows["row_level"].tolist()[:3] == [12.5] * 3
    assert rows["row_read_at"].tolist()[:3] == [pd.Timestamp("2026-03-01 09:00:00")] * 3
    assert [json.loads(sent) if pd.notna(sent) else None for sent in rows["sent"]] == [None] * 3 + [
        reading(4, level=-1), None,
    ]  # fmt: skip
    assert {c for c in rows if c.startswith("row_")} == {"row_reading_id", "row_read_at", "row_site", "row_level"}

    (event,) = made.result.asset_materializations_for_node("meter__requests")
    told = {name: value.value for name, value in event.metadata.items()}
    assert told["rows_by_version"] == {"1": 4, "2": 1}
    assert told["rows_by_role"] == {"champion": 3, "canary": 1, "shadow": 1}
    assert told["rows_by_outcome"] == {"ok": 3, "refused": 2}
    assert (told["requests"], told["processes"], told["latency_p50_ms"]) == (5, 1, 2.0)
    for name in ("errors", "versions", "complete"):
        assert made.check(name, DAY).passed, made.check(name, DAY).description
    assert made.check("versions", DAY).description == "version 1, 2 answered"


def test_whole_numbers_stay_whole_beside_rows_that_have_none(stages):
    import pyarrow.parquet as pq

    log_of(stages).append([answered(1), failed(2, "refused", "no row", row=None)])
    assert stages.make("requests", DAY).success
    table = pq.read_table(Path(stages.tables.path(stages.model.key("requests"), DAY)))
    assert table["row_reading_id"].to_pylist() == [2**60 + 1, None]


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_every_kind_of_model_has_its_days_of_requests(name, tmp_path):
    stages = Stages(VARIANTS[name], tmp_path)
    sent = {"reading_id": 1, "read_at": "2026-03-01 09:00:00", "site": "south", "level": 1.5, "faulty": "true"}
    log_of(stages).append([
        answered(1, row={c: sent[c] for c in stages.model.table.columns if c != stages.model.target},
                 score=[0.2, 0.3, 0.5] if "classes" in name else 0.5, alert=None if "classes" in name else True),
        failed(2, "error", "no version", version="", row=None),
    ])  # fmt: skip
    made = stages.make("requests", DAY, "2026-03-03")
    assert made.success, made.why
    assert len(stages.tables.read(stages.model.key("requests"), [DAY])) == 2
    assert stages.tables.read(stages.model.key("requests"), ["2026-03-03"]).empty
    assert made.check("complete", "2026-03-03").passed
    assert made.check("errors", "2026-03-03").passed


def test_rows_that_the_contract_no_longer_accepts_are_kept_as_they_were_sent(stages):
    log_of(stages).append([answered(1), answered(2, row=reading(2, site="west"))])
    assert stages.make("requests", DAY).success
    rows = stages.tables.read(stages.model.key("requests"), [DAY])
    assert rows["row_site"].fillna("").tolist() == ["south", ""]
    assert json.loads(rows["sent"][1])["site"] == "west"
    assert rows["probability"].tolist() == [0.25, 0.25]


@pytest.mark.closes("requests", "errors")
@pytest.mark.parametrize(
    ("errors", "severity"), [(2, dg.AssetCheckSeverity.WARN), (20, dg.AssetCheckSeverity.ERROR)]
)  # fmt: skip
def test_more_than_one_percent_of_errors_warns_and_more_than_ten_is_an_error(stages, errors, severity):
    log = log_of(stages)
    log.append([answered(n) for n in range(99)])
    log.append([failed(100, "error", "the disk is full"), failed(101, "refused", "no row")])
    log.append([failed(102, "error", "a shadow's", role="shadow"), failed(1, "error", "not finite", role="canary")])
    few = stages.make("requests", DAY).check("errors", DAY)
    assert few.passed
    assert few.description == "1 of 101 rows got no score because of an error"
    log.append([failed(n, "error", "no version of 'meter' is deployed") for n in range(200, 200 + errors)])
    many = stages.make("requests", DAY).check("errors", DAY)
    assert (many.passed, many.severity) == (False, severity)
    said = f"{errors + 1} of {errors + 101} rows got no score because of an error, most of them: no version of 'meter'"
    assert many.description.startswith(said)


@pytest.mark.closes("requests", "versions")
def test_a_version_that_the_registry_does_not_know_is_reported(stages):
    log_of(stages).append([answered(1), answered(2, version="7"), failed(3, "error", "none yet", version="")])
    found = stages.make("requests", DAY).check("versions", DAY)
    assert not found.passed
    assert found.description.startswith("the registry does not know version 7;")


@pytest.mark.closes("requests", "complete")
def test_a_record_that_the_log_lost_shows_and_a_torn_line_is_counted(stages, tmp_path):
    log_of(stages).append([answered(n) for n in range(1, 4)])
    (path,) = tmp_path.rglob("*.jsonl")
    whole = path.read_bytes()
    path.write_bytes(b"".join(line for line in whole.splitlines(keepends=True) if b'"n":2' not in line))
    lost = stages.make("requests", DAY).check("complete", DAY)
    assert not lost.passed
    assert lost.description.startswith("1 records of 1 processes are missing, and 2 are there;")
    assert lost.metadata["missing"].value == {path.stem: 1}
    path.write_bytes(whole + b'{"n":4,"requ')
    killed = stages.make("requests", DAY).check("complete", DAY)
    assert killed.passed
    said = "3 records of 1 processes, none is missing; 1 lines are incomplete, as after a kill"
    assert killed.description == said


def test_a_table_is_kept_where_the_log_has_lost_records_of_its_day(stages, tmp_path):
    log_of(stages).append([answered(1), answered(2)])
    assert stages.make("requests", DAY).success
    (path,) = tmp_path.rglob("*.jsonl")
    path.unlink()
    again = stages.make("requests", DAY)
    assert not again.success
    assert again.why.startswith(f"the log has 0 records of {DAY}, and the table has 2; the table is kept")
    assert len(stages.tables.read(stages.model.key("requests"), [DAY])) == 2


def test_the_sample_shows_no_column_that_the_contract_does_not_have(stages):
    log_of(stages).append([answered(1, row=reading(1, card="4111 1111"))])
    made = stages.make("requests", DAY)
    (event,) = made.result.asset_materializations_for_node("meter__requests")
    assert "4111" not in event.metadata["sample"].value
    assert b"4111" not in Path(stages.tables.path(stages.model.key("requests"), DAY)).read_bytes()


def test_the_days_of_a_table_without_time_are_those_of_arrival():
    for model in (plain(), stream()):
        assert DAY in requests_asset(model).partitions_def.get_partition_keys(current_time=NOON + dt.timedelta(days=9))

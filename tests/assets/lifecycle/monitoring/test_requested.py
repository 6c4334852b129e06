"""The drift check on requests: rows that were answered, whether they land or not."""

import datetime as dt
from dataclasses import replace

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from assets.declaration import DeclarationError, Drift
from assets.lifecycle.data.features import compute_features, events_of, features_of
from assets.lifecycle.jobs import DAILY, REQUESTS, assets_of_jobs
from assets.lifecycle.model.version.bundle import REFERENCE
from assets.lifecycle.monitoring.requested import answers_of, features_of_answers
from assets.lifecycle.prediction_format import SCORE
from assets.lifecycle.profile.reference import ReferenceProfile
from resources.request_log import RequestLog, RequestRecord
from resources.tables import InBatches
from tests.declarations.readings import plain, readings, stream
from tests.stages import Stages, copied_bundle

DAYS = ["2026-01-12", "2026-01-13", "2026-01-14"]
MODEL = stream(drift=Drift(source="requests", columns=("level",)))


def typed(day: str, rows: int = 400) -> pd.DataFrame:
    return readings(rows, dt.date.fromisoformat(day)).drop(columns="faulty")


def put_requests(stages: Stages, day: str, rows: pd.DataFrame, later_s: int = 0, **other) -> None:
    """Logs a day of requests and makes its table. They arrive ``later_s`` seconds after they were read."""
    records = [
        RequestRecord(**{
            "request_id": f"{row.reading_id}", "at": (row.read_at + pd.Timedelta(seconds=later_s)).to_pydatetime(),
            "model": "meter", "version": "1",
            "role": "champion", "key": row.reading_id, "entity": row.site, "score": 0.5, "alert": False,
            "row": {"reading_id": row.reading_id, "read_at": f"{row.read_at:%Y-%m-%d %H:%M:%S}", "site": row.site,
                    "level": row.level}, "latency_ms": 1.0, "outcome": "ok", **other,
        })
        for row in rows.itertuples()
    ]  # fmt: skip
    RequestLog(folder=str(stages.folder / "serving")).append(records)
    made = stages.make("requests", day)
    assert made.success, made.why


@pytest.fixture
def stages(tmp_path, toy_bundle) -> Stages:
    """Version 1, whose reference is two weeks of the same readings, and the landed table of the days before."""
    made = Stages(MODEL, tmp_path)
    folder = copied_bundle(toy_bundle, tmp_path / "bundle")
    past = pd.concat([typed(f"2026-02-{n:02}") for n in range(1, 16)])[["level"]]
    profile = ReferenceProfile.build(past, {SCORE: np.full(len(past), 0.5)}, rows_of_weekday=[400.0] * 7)
    profile.save(folder / REFERENCE)
    made.mlflow.folders["1"] = folder
    for day in ("2026-01-10", "2026-01-11"):
        made.put("readings", typed(day), day)
    return made


@pytest.mark.closes("drift", "drift")
def test_a_shift_in_what_is_asked_warns_and_then_pages_before_anything_has_landed(stages):
    for day, scale in zip(DAYS, (1.0, 0.5, 0.5), strict=True):
        put_requests(stages, day, typed(day).assign(level=lambda rows, scale=scale: rows["level"] * scale))
    made = stages.make("drift", *DAYS)
    assert made.success, made.why
    calm, first, second = (made.check("drift", day) for day in DAYS)
    assert calm.passed, calm.description
    assert calm.description == "400 rows look like the reference of version 1"
    assert (first.passed, first.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert first.description.startswith("1 of 2 columns drifted from the reference of version 1: level")
    assert (second.passed, second.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert not stages.has("features", DAYS[0])
    assert all(made.check("quality", day).passed for day in DAYS)


def test_a_day_without_requests_is_not_judged(stages):
    made = stages.make("drift", DAYS[0])
    assert made.success, made.why
    assert made.check("drift", DAYS[0]).description == "0 rows are too few to judge"


def test_features_of_answers_are_those_of_the_service(stages):
    """Of the rows of a day, some have landed as they were sent, and some of the day before were only answered."""
    put_requests(stages, DAYS[0], typed(DAYS[0]))
    put_requests(stages, DAYS[1], typed(DAYS[1], 100))
    stages.put("readings", typed(DAYS[1], 60), DAYS[1])
    requests = InBatches(stages.tables, MODEL.key("requests"), tuple(DAYS[:2]))
    answers = answers_of(requests, MODEL, DAYS[1])
    found = features_of_answers(answers, stages.tables, MODEL, MODEL)
    events = pd.concat([typed(d) for d in ("2026-01-10", "2026-01-11", DAYS[0])] + [typed(DAYS[1], 100)])
    wanted = np.arange(len(events) - 100, len(events))
    expected = compute_features(features_of(MODEL), events_of(events, None, MODEL), wanted)
    np.testing.assert_array_equal(found.frame.to_numpy(), expected)


def test_only_scores_of_production_count_and_each_key_once(stages):
    rows = typed(DAYS[0], 20)
    put_requests(stages, DAYS[0], rows.iloc[:10])
    # Sent again later. At the same microsecond, the order of two processes' requests is not known.
    put_requests(stages, DAYS[0], rows.iloc[:4], later_s=1, score=0.25)
    put_requests(stages, DAYS[0], rows.iloc[:10], role="shadow", version="2", score=0.9)
    put_requests(stages, DAYS[0], rows.iloc[10:12], role="canary", version="2", score=0.9)
    put_requests(stages, DAYS[0], rows.iloc[10:12], role="shadow", score=0.75)
    put_requests(stages, DAYS[0], rows.iloc[12:14], outcome="refused", score=None, alert=None)
    answers = answers_of(InBatches(stages.tables, MODEL.key("requests"), (DAYS[0],)), MODEL, DAYS[0])
    assert sorted(answers.frame["row_reading_id"]) == sorted(rows["reading_id"][:12])
    assert sorted(answers.frame["probability"]) == [0.25] * 4 + [0.5] * 6 + [0.75] * 2


def test_the_drift_of_requests_belongs_to_their_job():
    jobs, usual = assets_of_jobs(MODEL), assets_of_jobs(replace(MODEL, drift=Drift()))
    assert (jobs[REQUESTS], usual[REQUESTS]) == (["requests", "drift"], ["requests"])
    assert ("drift" in jobs[DAILY], "drift" in usual[DAILY]) == (False, True)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: stream(drift=Drift(source="landing")), "drift.source='landing' is invalid: choose one of table, req"),
        (lambda: plain(drift=Drift(source="requests")), "requests need a table with `time`"),
    ],
)
def test_a_source_that_cannot_work_is_refused(make, said):
    with pytest.raises(DeclarationError, match=said):
        make()

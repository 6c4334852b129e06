"""The asset `drift` on days of a toy stream: what its two checks say."""

import datetime as dt
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from assets.declaration import Drift
from assets.lifecycle.monitoring.drift import moment_after
from assets.lifecycle.prediction_format import SCORE
from assets.lifecycle.profile.reference import ReferenceProfile
from tests.declarations.readings import readings, stream
from tests.stages import Stages

DAYS = ["2026-01-12", "2026-01-13", "2026-01-14"]


def features_of_a_day(day: str, rows: int = 400, scale: float = 1.0) -> pd.DataFrame:
    made = readings(rows, dt.date.fromisoformat(day))
    before = np.random.default_rng(int(day.replace("-", ""))).normal(size=rows)
    return made[["reading_id", "read_at"]].assign(level=made["level"] * scale, before=before)


def put(stages: Stages, day: str, features: pd.DataFrame) -> None:
    """A day with its predictions."""
    stages.put("features", features, day)
    said = features[["reading_id", "read_at"]].assign(probability=0.5, alert=False, version="1")
    stages.put("predictions", said, day)


def watched(tmp_path, **drift) -> Stages:
    """Version 1, whose reference is three weeks of the same readings."""
    stages = Stages(stream(drift=Drift(**drift)), tmp_path)
    past = pd.concat([features_of_a_day(f"2026-02-{n:02}") for n in range(1, 22)])[["level", "before"]]
    profile = ReferenceProfile.build(past, {SCORE: np.full(len(past), 0.5)}, rows_of_weekday=[400.0] * 7)
    profile.save(tmp_path / "bundle" / "reference")
    stages.mlflow.folders["1"] = tmp_path / "bundle"
    return stages


@pytest.mark.closes("drift", "drift")
def test_a_first_window_that_drifted_warns_and_the_next_pages(tmp_path):
    stages = watched(tmp_path)
    for day, scale in zip(DAYS, (1, 0.5, 0.5), strict=True):
        put(stages, day, features_of_a_day(day, scale=scale))
    made = stages.make("drift", *DAYS)
    assert made.success, made.why
    calm, first, second = (made.check("drift", day) for day in DAYS)
    assert calm.passed
    assert calm.description == "400 rows look like the reference of version 1"
    assert not first.passed
    assert first.severity == dg.AssetCheckSeverity.WARN
    words = "1 of 3 columns drifted from the reference of version 1: level"
    assert first.description == f"{words}; watch the next window"
    assert not second.passed
    assert second.severity == dg.AssetCheckSeverity.ERROR
    assert second.description == f"{words}; since {DAYS[1]}"
    assert [stages.row("drift", day)["level"] for day in DAYS] == ["ok", "warn", "page"]
    assert "<html" in Path(second.metadata["report"].value).read_text()[:2_000].lower()
    assert all(made.check("quality", day).passed for day in DAYS)


@pytest.mark.closes("drift", "quality")
def test_a_day_with_a_fault_in_a_column_warns_and_the_next_with_it_pages(tmp_path):
    stages = watched(tmp_path, min_rows=10_000, window_days=1)  # too few to judge a drift, enough to see a fault
    for number, day in enumerate(DAYS):
        features = features_of_a_day(day)
        put(
            stages, day, features if number == 0 else features.assign(level=features["level"].mask(features.index < 80))
        )
    made = stages.make("drift", *DAYS)
    assert made.success, made.why
    calm, first, second = (made.check("quality", day) for day in DAYS)
    assert calm.passed
    assert not first.passed
    assert first.severity == dg.AssetCheckSeverity.WARN
    assert first.description == "level: 20.0% are missing, 0.0% in the reference"
    assert first.metadata["columns"].value == {"level": "20.0% are missing, 0.0% in the reference"}
    assert not second.passed
    assert second.severity == dg.AssetCheckSeverity.ERROR
    assert [made.check("drift", day).description for day in DAYS] == ["400 rows are too few to judge"] * 3


@pytest.mark.closes("drift", "quality")
def test_a_day_with_far_fewer_rows_than_usual_warns(tmp_path):
    stages = watched(tmp_path, min_rows=10_000, window_days=1)
    put(stages, DAYS[0], features_of_a_day(DAYS[0], rows=150))
    made = stages.make("drift", DAYS[0])
    assert not made.check("quality", DAYS[0]).passed
    assert made.check("quality", DAYS[0]).description == "150 rows, 400 are usual on this weekday"


NOON = dt.datetime(2026, 10, 3, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("last", "now"),
    [
        ("2026-10-03 12:00:00.000", NOON),  # two landings within a millisecond
        ("2026-10-03 12:00:00.000", NOON + dt.timedelta(microseconds=999)),
        ("2026-10-03 12:00:00.900", NOON),  # the clock was set back
        ("2026-10-04 00:00:00.999", NOON),
        ("2026-10-03 12:00:00", NOON),  # as versions before wrote it
    ],
)
def test_a_check_is_later_than_the_check_before_whatever_the_clock_says(last, now):
    """The time tells landings apart: of two at the same second, one line was lost."""
    moment = moment_after(last, now)
    assert moment > last
    assert dt.datetime.fromisoformat(moment) - dt.datetime.fromisoformat(last) == dt.timedelta(milliseconds=1)


def test_a_check_has_the_time_of_the_clock():
    assert moment_after("", NOON) == "2026-10-03 12:00:00.000"
    assert moment_after("2026-10-03 11:59:59.999", NOON) == "2026-10-03 12:00:00.000"

"""`new-model … FORECAST=24h`: the series of a table, the split by time, and what is refused."""

import datetime as dt

import pandas as pd
import pytest

from assets.forecast import Forecast
from scaffold.new_model import new_model
from scaffold.report import format_report
from scaffold.tables import ScaffoldError
from tests.declarations.loads import loads
from tests.scaffold.test_new_model import csv, declared, root

__all__ = ["root"]

FIRST = dt.date(2026, 1, 5)


def table(days: int = 60) -> pd.DataFrame:
    rows = pd.concat([loads(FIRST + dt.timedelta(days=n)) for n in range(days)], ignore_index=True)
    return rows.drop(columns="load_id")


def test_the_column_that_tells_the_series_apart_is_found(root):
    model, guess, _ = declared(root, table(), "megawatts", time="hour", forecast="24h")
    assert model.forecast == Forecast(series="station", horizon_hours=24)
    assert model.evaluation.entity is None
    assert "not read, because their values are not known ahead: temperature, holiday" in guess.notes[-1]
    assert model.training.window_days + 3 * model.training.test_days + 2 == 60


def test_a_table_of_one_series_gets_a_column_for_it(root):
    rows = table().query("station == 'north'").drop(columns="station")
    model, _, text = declared(root, rows, "megawatts", time="hour", forecast="7d")
    assert model.forecast == Forecast(series="one_series", horizon_hours=168)
    assert 'one_series="all"' in text
    raw = rows.head(3).astype("string[pyarrow]")
    assert model.table.clean(raw)["one_series"].tolist() == ["all"] * 3


def test_a_numbered_series_is_found_and_another_can_be_named(root):
    rows = table().assign(depot=lambda frame: frame["station"].map({"north": 17, "south": 4, "east": 230}))
    model, _, _ = declared(root, rows.drop(columns="station"), "megawatts", time="hour", forecast="24h")
    assert model.forecast.series == "depot"
    model, _, _ = declared(root, rows, "megawatts", time="hour", forecast="24h", series="depot")
    assert model.forecast.series == "depot"


def test_the_report_names_the_series_and_the_horizon(root):
    made = new_model(root, "demand", csv(root, table()), "megawatts", time="hour", forecast="2d")
    said = format_report(made, root)
    assert "a measured value" in said
    assert "forecast 48 hours ahead" in said
    assert "← the series" in said


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"forecast": "24h"}, "FORECAST: give TIME=column, the time of each measurement"),
        ({"forecast": "soon", "time": "hour"}, "FORECAST=soon: give hours or days ahead, from 1h to 28d"),
        ({"forecast": "0h", "time": "hour"}, "FORECAST=0h: give hours or days"),
        ({"forecast": "29d", "time": "hour"}, "FORECAST=29d: give hours or days ahead, from 1h to 28d"),
        ({"forecast": "24h", "time": "hour", "series": "depot"}, "SERIES=depot"),
        ({"forecast": "28d", "time": "hour"}, "28 days ahead need at least"),
    ],
)
def test_what_cannot_be_forecast_is_refused_with_the_fix(root, how, said):
    with pytest.raises(ScaffoldError, match=said):
        declared(root, table(), "megawatts", **how)
    assert not list((root / "assets" / "models").glob("[a-z]*"))


def test_classes_are_not_forecast(root):
    with pytest.raises(ScaffoldError, match="'holiday' has classes, but only measured values are forecast"):
        declared(root, table(), "holiday", time="hour", forecast="24h")


def test_rows_of_one_time_that_nothing_tells_apart_are_refused(root):
    with pytest.raises(ScaffoldError, match="no column tells their series apart; give SERIES=column"):
        declared(root, table().drop(columns="station"), "megawatts", time="hour", forecast="24h")

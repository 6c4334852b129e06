"""The features of a forecast: which earlier values a row gets, and that none is younger than the horizon."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from assets.declaration import DeclarationError, Features
from assets.forecast import Forecast
from assets.lifecycle.data.features import compute_features, events_of, features_of, sees_the_future
from assets.lifecycle.data.forecasting import lag_days, naive_names
from assets.lifecycle.dry_run import dry_run
from tests.declarations.loads import START, loads, loads_model

DAYS = 45


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return pd.concat([loads(START + dt.timedelta(days=n)) for n in range(DAYS)], ignore_index=True)


def events(rows: pd.DataFrame, model) -> dict[str, np.ndarray]:
    return events_of(rows, rows[["load_id", "megawatts"]], model)


def made(rows: pd.DataFrame, model, at: pd.Series | None = None) -> pd.DataFrame:
    wanted = np.arange(len(rows)) if at is None else np.flatnonzero(at)
    features = features_of(model)
    values = compute_features(features, events(rows, model), wanted)
    return pd.DataFrame(values, columns=list(features.names), index=rows.index[wanted])


@pytest.mark.parametrize(
    ("hours", "lags", "naive"),
    [
        (1, (1, 2, 3, 7, 14, 21), ("lag_1d", "lag_7d")),
        (24, (1, 2, 3, 7, 14, 21), ("lag_1d", "lag_7d")),
        (25, (2, 3, 4, 7, 14, 21), ("lag_2d", "lag_7d")),
        (168, (7, 8, 9, 14, 21), ("lag_7d", "lag_7d")),
        (169, (8, 9, 10, 14, 21, 28), ("lag_8d", "lag_14d")),
    ],
)
def test_no_lag_is_shorter_than_the_horizon(hours, lags, naive):
    forecast = Forecast(series="station", horizon_hours=hours)
    assert lag_days(forecast) == lags
    assert naive_names(forecast) == naive
    assert min(lags) * 24 >= hours


def test_a_row_gets_the_values_of_its_own_series(rows):
    model = loads_model()
    own = rows[rows["station"] == "north"].set_index("hour")["megawatts"]
    at = pd.Timestamp(START) + pd.Timedelta(days=40, hours=13)
    found = made(rows, model, (rows["station"] == "north") & (rows["hour"] == at)).iloc[0]

    for days in (1, 2, 3, 7, 14, 21):
        assert found[f"lag_{days}d"] == pytest.approx(own[at - pd.Timedelta(days=days)], rel=1e-6)
    assert found["last"] == found["lag_1d"]
    assert found["same_time_of_week"] == pytest.approx(found[["lag_7d", "lag_14d", "lag_21d"]].mean(), rel=1e-6)
    known = own[own.index <= at - pd.Timedelta(hours=24)]
    assert found["mean_1d"] == pytest.approx(known.iloc[-24:].mean(), rel=1e-6)
    assert found["mean_7d"] == pytest.approx(known.iloc[-168:].mean(), rel=1e-6)
    assert found["spread_7d"] == pytest.approx(known.iloc[-168:].std(ddof=0), rel=1e-5)
    assert (found["hour.hour"], found["hour.weekday"]) == (13, at.weekday())


@pytest.mark.parametrize("hours", [1, 6, 24, 40, 168])
def test_no_feature_sees_a_value_younger_than_the_horizon(rows, hours):
    model = loads_model(forecast=Forecast(series="station", horizon_hours=hours, known=("holiday",)))
    cut = np.datetime64(START + dt.timedelta(days=40)) + np.timedelta64(47_000, "s")
    features = features_of(model)

    assert sees_the_future(features, events(rows, model), "hour", model.label_age, cut) == []
    younger = model.label_age + dt.timedelta(hours=1)
    assert "last" in sees_the_future(features, events(rows, model), "hour", younger, cut), "the probe itself works"


def test_the_order_and_the_rest_of_the_rows_change_no_bit(rows):
    model = loads_model()
    last = rows["hour"] >= pd.Timestamp(START) + pd.Timedelta(days=44)
    whole = made(rows, model, last)
    mixed = rows.sample(frac=1, random_state=1)
    again = made(mixed, model, last.loc[mixed.index]).loc[whole.index]
    short = rows[rows["hour"] >= pd.Timestamp(START) + pd.Timedelta(days=44 - features_of(model).lookback_days)]

    pd.testing.assert_frame_equal(whole, again)
    pd.testing.assert_frame_equal(whole, made(short, model, last.loc[short.index]))


def test_what_is_not_known_ahead_is_no_feature(rows):
    names = features_of(loads_model()).names
    assert not {"temperature", "holiday"} & set(names)
    known = features_of(loads_model(forecast=Forecast(series="station", known=("holiday",)))).names
    assert set(known) - set(names) == {"holiday"}


def test_a_series_without_a_past_has_no_lags_and_others_keep_theirs(rows):
    model = loads_model()
    new = rows.iloc[[-1]].assign(station="west", load_id="west")
    both = pd.concat([rows, new], ignore_index=True)
    found = made(both, model)
    assert found.iloc[-1][["last", "lag_7d", "mean_7d", "spread_7d"]].isna().all()
    pd.testing.assert_frame_equal(found.iloc[:-1], made(rows, model), check_index_type=False)


def test_gaps_leave_what_is_too_old_missing(rows):
    model = loads_model()
    at = pd.Timestamp(START) + pd.Timedelta(days=44)
    gap = rows[(rows["hour"] < at - pd.Timedelta(days=9)) | (rows["hour"] >= at)]
    found = made(gap, model, gap["hour"] == at)
    assert found[["last", "lag_1d", "lag_7d", "mean_7d"]].isna().all(axis=None)
    assert found[["lag_14d", "lag_21d"]].notna().all(axis=None)


def test_a_dry_run_has_the_lags_and_finds_no_leak_in_them(rows):
    from assets.lifecycle.model.leakage import leaks
    from assets.lifecycle.model.training_set import fit_rows
    from assets.lifecycle.model.training_set import test_rows as rows_of_test

    model = loads_model(training=loads_model().training.with_values({}))
    tried = dry_run(model, rows.astype("string[pyarrow]"))
    frozen = tried.frozen()
    assert frozen["x_lag_7d"].notna().mean() > 0.8
    assert leaks(frozen, model, fit=fit_rows(frozen, model), test=rows_of_test(frozen, model)) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"forecast": Forecast(series="depot")}, "forecast.series='depot' is invalid: name a column of the contract"),
        ({"forecast": Forecast(series="hour")}, "forecast.series='hour' is invalid"),
        ({"forecast": Forecast(series="station", horizon_hours=0)}, "forecast.horizon_hours=0 is invalid: give 1 to"),
        ({"forecast": Forecast(series="station", horizon_hours=673)}, "give 1 to 672 hours"),
        ({"forecast": Forecast(series="station", known=("megawatts",))}, "forecast.known='megawatts' is invalid"),
        ({"forecast": Forecast(series="station", known="holiday")}, "name the columns in a tuple"),
        ({"forecast": Forecast(series="station", coverage=1.0)}, "forecast.coverage=1.0 is invalid: give a share"),
        ({"target": "holiday"}, "a forecast needs a column of measured values"),
        (
            {"features": Features(compute=lambda events, wanted: {}, lookback_days=1, names=("a",))},
            "leave out `features` and `language`",
        ),
    ],
)
def test_a_wrong_declaration_is_refused(changed, said):
    with pytest.raises(DeclarationError, match="is invalid") as refused:
        loads_model(**changed)
    assert said in str(refused.value)

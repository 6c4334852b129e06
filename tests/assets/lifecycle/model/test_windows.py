"""The calendar of a training run: later rows report, earlier ones choose, and nobody knows a label too early."""

import datetime as dt

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from assets.declaration import Training
from assets.lifecycle.model.windows import holdout_rows, iso_days, rows_of, windows_of
from assets.models.fraud import model as fraud

AS_OF = dt.date(2026, 10, 14)


@given(
    window=st.integers(1, 60), test=st.integers(1, 28), folds=st.integers(0, 6), delay=st.integers(0, 30)
)  # fmt: skip
def test_no_fit_knows_a_label_that_was_not_there_when_its_rows_are_judged(window, test, folds, delay):
    split = windows_of(AS_OF, Training(window_days=window, test_days=test, folds=folds), delay)
    assert split.test[1] == AS_OF
    for fit, judged in [(split.fit, split.test), *split.folds]:
        # A label lands `delay` days after its row: the last fitted row's is there on the first judged day.
        assert fit[1] + dt.timedelta(days=delay) < judged[0]
        assert (fit[1] - fit[0]).days + 1 == window
    for fit, judged in split.folds:
        assert judged[1] <= split.fit[1], "what chooses is not what reports"
        assert split.first <= fit[0]


def test_the_fraud_models_calendar_in_days():
    split = windows_of(AS_OF, fraud.training, fraud.label_delay_days)
    assert split.test == (dt.date(2026, 10, 8), AS_OF)
    assert split.fit == (dt.date(2026, 9, 3), dt.date(2026, 9, 30))
    assert len(split.folds) == 2


def test_rows_of_days_include_the_last_second():
    times = pd.Series(pd.to_datetime(["2026-09-30 23:59:59", "2026-10-01 00:00:00", "2026-10-02 23:59:59",
                                      "2026-10-03 00:00:00"]))  # fmt: skip
    days = (dt.date(2026, 10, 1), dt.date(2026, 10, 2))
    assert rows_of(times, days).tolist() == [False, True, True, False]
    assert iso_days(days) == ["2026-10-01", "2026-10-02"]


def test_the_holdout_is_a_fifth_by_the_seed():
    one, same, other = (holdout_rows(1000, Training(seed=seed)) for seed in (0, 0, 1))
    assert one.sum() == 200
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)

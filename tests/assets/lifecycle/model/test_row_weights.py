"""A recipe with a half life: older rows weigh less; without one, no row does."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from assets.lifecycle.model.candidate import row_weights
from assets.models.fraud import model as fraud


def test_a_row_has_half_the_weight_of_one_that_is_a_half_life_younger():
    model = replace(fraud, training=replace(fraud.training, half_life_days=14.0))
    rows = pd.DataFrame({"paid_at": pd.to_datetime(["2026-03-01", "2026-03-29", "2026-03-15", "2026-03-22"])})
    assert row_weights(rows, model) == pytest.approx(np.array([0.25, 1.0, 0.5, 0.5**0.5]))


def test_without_a_half_life_rows_have_no_weights():
    rows = pd.DataFrame({"paid_at": pd.to_datetime(["2026-03-01", "2026-03-29"])})
    assert row_weights(rows, replace(fraud, training=replace(fraud.training, half_life_days=None))) is None

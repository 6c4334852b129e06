"""The quality benchmark holds for a candidate that is near the ceiling and not behind XGBoost, and for no other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.quality import interval, judged


def weeks(torch: float, xgboost: float, spread: float = 0.0005, n: int = 12) -> pd.DataFrame:
    """Tables of the backtest in which the ceiling reaches .76; ``spread`` is that of the difference."""
    rows = []
    for week in range(n):
        noise = spread * (-1) ** week
        for score, value in (("torch", torch + noise), ("xgboost", xgboost), ("ceiling", 0.76)):
            rows.append({"seed": week // 4, "round": f"week {week % 4}", "score": score, "rows": 60_000,
                         "average_precision": value, "roc_auc": 0.88, "cp_at_k": 0.3, "brier": 0.004})  # fmt: skip
    return pd.DataFrame(rows)


def test_near_the_ceiling_and_level_with_xgboost(capsys: pytest.CaptureFixture[str]) -> None:
    assert judged(weeks(torch=0.7541, xgboost=0.754))
    assert "torch / ceiling 0.9922 (at least 0.99); XGBoost / ceiling 0.9921" in capsys.readouterr().out


@pytest.mark.parametrize(
    "found",
    [
        weeks(torch=0.751, xgboost=0.75),  # .988 of the ceiling
        weeks(torch=0.7531, xgboost=0.7555),  # behind XGBoost
        weeks(torch=0.754, xgboost=0.754, spread=0.004),  # level, but the interval is too wide to say so
        weeks(torch=0.7541, xgboost=0.754, n=1),  # one week says nothing
    ],
)
def test_too_far_from_the_ceiling_behind_xgboost_or_uncertain(found: pd.DataFrame) -> None:
    assert not judged(found)


def test_the_interval_is_students() -> None:
    low, mean, high = interval(np.array([1.0, 2.0, 3.0]))
    assert (low, mean, high) == pytest.approx((2 - 4.3027 / 3**0.5, 2, 2 + 4.3027 / 3**0.5), abs=1e-3)
    assert np.isnan(interval(np.array([1.0]))[0])

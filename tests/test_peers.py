"""The comparison with peers: errors as ratios, on splits on which all were measured, and what counts as a tie."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from benchmarks.peers import Figure, compared


def figures(ours: Sequence[float], peers: Sequence[float], metric: str = "roc_auc") -> list[Figure]:
    found = []
    for table, (own, other) in enumerate(zip(ours, peers, strict=True)):
        for who, value in (("torch", own), ("RealMLP", other), ("TabM", other)):
            found.append(Figure(f"table {table}", 0, who, metric, value, 2.0 if who == "torch" else 8.0))
    return found


def test_a_smaller_error_is_ahead_and_a_difference_within_one_standard_error_is_a_tie(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert compared(figures([0.92, 0.94], [0.9, 0.9]))
    printed = capsys.readouterr().out
    assert "error of torch / TabM: 0.693 in the mean of 2 tables" in printed  # the root of .8 · .6
    assert "CPU time × 0.25: at least a tie" in printed
    assert compared(figures([0.9, 0.9], [0.9, 0.9]))
    assert compared(figures([0.86, 0.91], [0.9, 0.9]))  # 12 % more on average, with a standard error of 22 %


@pytest.mark.parametrize("metric", ["roc_auc", "log_loss"])
def test_a_larger_error_on_all_tables_is_behind(metric: str, capsys: pytest.CaptureFixture[str]) -> None:
    worse, better = (0.88, 0.9) if metric == "roc_auc" else (0.9, 0.88)
    assert not compared(figures([worse, worse], [better, better], metric))
    assert "behind" in capsys.readouterr().out


def test_only_splits_on_which_all_were_measured_count() -> None:
    half = [one for one in figures([0.99, 0.7], [0.9, 0.9]) if (one.table, one.who) != ("table 1", "TabM")]
    assert compared(half)
    with pytest.raises(SystemExit, match="no split has figures of all models yet"):
        compared(half[:2])

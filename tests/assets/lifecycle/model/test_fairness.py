"""Figures by group, worked out by hand, and which groups are compared."""

import math

import numpy as np
import pytest

from assets.lifecycle.model.fairness import fairness_of
from assets.task import BINARY, Task

CLASSES, NUMBER = Task("multiclass", ("a", "b", "c")), Task("regression")


def rows_of(*, positives, found, negatives, false):
    """Labels and alerts of a group with these counts."""
    y = np.repeat([1.0, 0.0], [positives, negatives])
    alert = np.zeros(len(y), dtype=bool)
    alert[:found] = True
    alert[positives : positives + false] = True
    return y, alert


def joined(**groups):
    """Labels, alerts and group of the rows of several groups."""
    parts = {name: rows_of(**counts) for name, counts in groups.items()}
    y, alert = (np.concatenate([part[i] for part in parts.values()]) for i in (0, 1))
    return y, alert, np.repeat(list(parts), [len(part[0]) for part in parts.values()])


def gaps(y, alert, group, **how):
    found = fairness_of(y, alert.astype(float), alert, {"sex": group}, task=BINARY, **how)
    return {gap.figure: gap for gap in found}


def test_the_rates_of_two_groups_are_those_counted_by_hand():
    found = gaps(
        *joined(
            f={"positives": 40, "found": 30, "negatives": 160, "false": 16},
            m={"positives": 50, "found": 25, "negatives": 350, "false": 7},
        )
    )
    assert list(found) == ["selection_rate", "true_positive_rate", "false_positive_rate"]
    chosen, true, false = found.values()
    assert chosen.by_group == pytest.approx({"f": 46 / 200, "m": 32 / 400})
    assert chosen.rows == {"f": 200, "m": 400}
    assert (chosen.gap, chosen.ratio) == (pytest.approx(0.15), pytest.approx(0.08 / 0.23))
    assert (chosen.worst_group, chosen.best_group) == ("f", "m"), "an alert is a burden"
    assert true.by_group == pytest.approx({"f": 0.75, "m": 0.5})
    assert true.rows == {"f": 40, "m": 50}
    assert (true.worst_group, true.best_group, true.gap) == ("m", "f", pytest.approx(0.25))
    assert false.by_group == pytest.approx({"f": 0.1, "m": 0.02})
    assert (false.worst_group, false.gap) == ("f", pytest.approx(0.08))
    for gap in found.values():
        assert gap.low < gap.gap < gap.high
        assert gap.column == "sex"


def test_the_interval_is_that_of_two_independent_rates():
    y, alert, group = joined(
        f={"positives": 100, "found": 60, "negatives": 0, "false": 0},
        m={"positives": 400, "found": 160, "negatives": 0, "false": 0},
    )
    gap = gaps(y, alert, group, resamples=2000)["true_positive_rate"]
    half = 1.96 * math.sqrt(0.6 * 0.4 / 100 + 0.4 * 0.6 / 400)
    assert (gap.high - gap.low) / 2 == pytest.approx(half, rel=0.08)


def test_rows_of_one_entity_are_drawn_together():
    y, alert, group = joined(
        f={"positives": 100, "found": 60, "negatives": 0, "false": 0},
        m={"positives": 100, "found": 40, "negatives": 0, "false": 0},
    )
    alone = gaps(y, alert, group)["true_positive_rate"]
    together = gaps(y, alert, group, cluster=np.arange(len(y)) // 10)["true_positive_rate"]
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_a_small_group_is_reported_and_not_compared():
    y, alert, group = joined(
        f={"positives": 40, "found": 20, "negatives": 40, "false": 0},
        m={"positives": 40, "found": 20, "negatives": 40, "false": 0},
        x={"positives": 29, "found": 0, "negatives": 0, "false": 0},
    )
    gap = gaps(y, alert, group)["true_positive_rate"]
    assert gap.by_group["x"] == 0.0
    assert gap.rows["x"] == 29
    assert (gap.gap, gap.compared) == (0.0, ["f", "m"])
    assert {gap.worst_group, gap.best_group} == {"f", "m"}


def test_a_group_without_positives_has_no_true_positive_rate():
    y, alert, group = joined(
        f={"positives": 40, "found": 20, "negatives": 40, "false": 4},
        m={"positives": 0, "found": 0, "negatives": 80, "false": 4},
    )
    found = gaps(y, alert, group)
    gap = found["true_positive_rate"]
    assert gap.by_group == {"f": 0.5}
    assert (gap.gap, gap.worst_group, gap.low, gap.ratio) == (None, None, None, None)
    assert found["false_positive_rate"].gap == pytest.approx(0.05)


def test_rows_without_a_value_are_a_group():
    y, alert, _ = joined(f={"positives": 40, "found": 20, "negatives": 40, "false": 0})
    group = np.array(["f", None] * 40, dtype=object)
    assert set(gaps(y, alert, group)["selection_rate"].by_group) == {"f", "missing"}


def test_classes_are_compared_by_accuracy():
    y = np.tile([0.0, 1.0, 2.0], 40)
    score = np.eye(3)[y.astype(int)]
    group = np.repeat(["a", "b"], 60)
    score[60:90] = score[60:90][:, [1, 2, 0]]  # all wrong in half of b
    (gap,) = fairness_of(y, score, None, {"site": group}, task=CLASSES)
    assert (gap.figure, gap.by_group) == ("accuracy", {"a": 1.0, "b": 0.5})
    assert (gap.worst_group, gap.best_group, gap.ratio) == ("b", "a", 0.5)


def test_measured_values_are_compared_by_mean_error_and_the_worst_is_further_from_zero():
    y = np.linspace(0, 10, 120)
    error = np.repeat([0.5, -2.0], 60)
    (gap,) = fairness_of(y, y + error, None, {"site": np.repeat([1, 2], 60)}, task=NUMBER)
    assert (gap.figure, gap.gap, gap.ratio) == ("mean_error", pytest.approx(2.5), None)
    assert (gap.worst_group, gap.best_group) == ("2", "1")


def test_a_column_of_many_values_is_refused_with_the_fix():
    y = np.tile([0.0, 1.0], 60)
    with pytest.raises(ValueError, match=r"'zip' has 120 values.*evaluation\.groups"):
        fairness_of(y, y, y > 0, {"zip": np.arange(120)}, task=BINARY)


def test_arrays_that_do_not_fit_are_refused():
    y = np.tile([0.0, 1.0], 60)
    with pytest.raises(ValueError, match=r"'zip'.*one value for each of 120 rows"):
        fairness_of(y, y, y > 0, {"zip": np.arange(3)}, task=BINARY)
    with pytest.raises(ValueError, match="needs `alert`"):
        fairness_of(y, y, None, {"zip": y}, task=BINARY)

"""The facts of each metric, and its value where the gate may ask for it."""

import numpy as np
import pytest

from assets.lifecycle.model.metrics.figures import Rows, figures_of, headline
from assets.lifecycle.ranking.measures import BOUNDS
from assets.metrics import DEFAULT_METRIC, METRICS, gate_metrics, lower_is_better
from assets.task import BINARY, Task

CLASSES, MEASURED = Task("multiclass", ("a", "b", "c")), Task("regression")
NEEDS_MORE_THAN_SCORES = {"cp_at_k": "entities and days", "saved": "amounts", "saved_share": "amounts",
                          "alert_rate": "amounts"}  # fmt: skip


def rows_and_scores(task: Task) -> tuple[Rows, np.ndarray]:
    rng = np.random.default_rng(0)
    n = 200
    if task.kind == "binary":
        y, score = (rng.random(n) < 0.3).astype(float), rng.random(n)
    elif task.kind == "multiclass":
        y, score = rng.integers(0, 3, n).astype(float), rng.dirichlet(np.ones(3), n)
    else:
        y, score = rng.normal(size=n), rng.normal(size=n)
    return Rows(task=task, y=y, cluster=np.arange(n), clusters=n, day=np.repeat(np.arange(20), 10),
                amount=np.full(n, 9.0), review_cost=2.0, top_k=3), score  # fmt: skip


@pytest.mark.parametrize("task", [BINARY, CLASSES, MEASURED], ids=lambda task: task.kind)
def test_each_metric_that_is_computed_is_declared_and_the_gates_are_all_computed(task):
    rows, score = rows_and_scores(task)
    values = figures_of(rows, score).compute(np.ones(rows.clusters))
    assert set(values) <= set(METRICS)
    assert set(gate_metrics(task.kind)) <= set(values)
    for name, value in values.items():
        assert METRICS[name].low <= value <= METRICS[name].high, name


@pytest.mark.parametrize("task", [BINARY, CLASSES, MEASURED], ids=lambda task: task.kind)
def test_live_rows_give_each_metric_of_the_gate_that_needs_only_labels_and_scores(task):
    rows, score = rows_and_scores(task)
    live = headline(task, rows.y, score)
    assert set(live) == set(gate_metrics(task.kind)) - set(NEEDS_MORE_THAN_SCORES)
    whole = figures_of(rows, score).compute(np.ones(rows.clusters))
    assert live == pytest.approx({name: whole[name] for name in live})


def test_every_metric_is_computed_for_some_kind_of_target():
    computed: set[str] = set()
    for task in (BINARY, CLASSES, MEASURED):
        rows, score = rows_and_scores(task)
        computed |= set(figures_of(rows, score).compute(np.ones(rows.clusters)))
    of_lists = {*BOUNDS, "coverage"}  # tests/assets/lifecycle/ranking computes them
    assert computed | of_lists == set(METRICS)


def test_the_default_metric_of_a_kind_has_a_floor():
    for kind, name in DEFAULT_METRIC.items():
        assert name in gate_metrics(kind)
        assert METRICS[name].floor is not None


def test_errors_are_better_low_and_gains_are_better_high():
    assert all(map(lower_is_better, ("brier", "log_loss", "rmse", "mae")))
    assert not any(map(lower_is_better, ("roc_auc", "average_precision", "accuracy", "r2", "saved")))

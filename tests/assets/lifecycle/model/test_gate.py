"""The gate: each rule closing, each letting the good case through, and nothing unknown passing."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.declaration import Gate
from assets.lifecycle.model.gate import judge
from assets.lifecycle.model.metrics.intervals import Estimate

GATE = Gate(metric="average_precision", floor=0.7, margin=-0.005, baseline_margin=0.02)
BRIER = Gate(metric="brier", floor=0.01, margin=-0.001, baseline_margin=0.0)


def ap(value):
    return {"average_precision": value, "roc_auc": 0.5}


def failed(verdict):
    return [reason.rule for reason in verdict.reasons if not reason.passed]


def test_a_good_candidate_passes_every_rule():
    verdict = judge(GATE, candidate=ap(0.76), baseline=ap(0.6), champion=ap(0.75))
    assert verdict.passed
    assert [reason.rule for reason in verdict.reasons] == ["floor", "baseline", "champion"]
    assert verdict.reasons[2].value == pytest.approx(0.01)
    assert verdict.reasons[2].limit == -0.005


@pytest.mark.closes("gate", "floor")
def test_the_floor_closes():
    verdict = judge(GATE, candidate=ap(0.69), baseline=ap(0.6), champion=ap(0.5))
    assert failed(verdict) == ["floor"]
    assert verdict.message.startswith("average_precision 0.6900 misses the floor 0.7000")


@pytest.mark.closes("gate", "baseline")
def test_the_baseline_closes():
    assert failed(judge(GATE, candidate=ap(0.76), baseline=ap(0.75), champion=None)) == ["baseline"]


@pytest.mark.closes("gate", "champion")
def test_the_champion_closes():
    assert failed(judge(GATE, candidate=ap(0.76), baseline=ap(0.6), champion=ap(0.77))) == ["champion"]


def test_exactly_at_every_limit_passes_whatever_floating_point_says():
    assert 0.745 - 0.75 < -0.005
    gate = Gate(metric="average_precision", floor=0.745, margin=-0.005, baseline_margin=-0.005)
    assert judge(gate, candidate=ap(0.745), baseline=ap(0.75), champion=ap(0.75)).passed


@pytest.mark.parametrize(("short", "passed"), [(1e-9, True), (1.5e-9, False)])
def test_a_billionth_is_rounding_and_more_is_not(short, passed):
    assert 0.0 - short == -short
    gate = Gate(metric="average_precision", floor=short, margin=0.0, baseline_margin=0.0)
    verdict = judge(gate, candidate=ap(0.0), baseline=ap(short), champion=ap(short))
    assert [reason.passed for reason in verdict.reasons] == [passed] * 3


def test_the_ends_of_a_metric_are_figures():
    gate = Gate(metric="average_precision", floor=0.0, margin=-1.0, baseline_margin=-1.0)
    assert judge(gate, candidate=ap(1.0), baseline=ap(0.0), champion=ap(1.0)).passed
    assert judge(gate, candidate=ap(0.0), baseline=ap(1.0), champion=ap(0.0)).passed


def test_a_first_model_has_no_champion_to_beat():
    verdict = judge(GATE, candidate=ap(0.76), baseline=ap(0.6), champion=None)
    assert verdict.passed
    assert [reason.rule for reason in verdict.reasons] == ["floor", "baseline"]


@pytest.mark.parametrize("bad", [{}, ap(math.nan), ap(None), ap(math.inf), ap(-math.inf), ap(1.7), ap(-0.1)])
@pytest.mark.parametrize(
    ("role", "closed"),
    [("candidate", ["floor", "baseline", "champion"]), ("baseline", ["baseline"]), ("champion", ["champion"])],
)
def test_a_figure_that_is_missing_or_no_figure_closes_never_opens(role, closed, bad):
    figures = {"candidate": ap(0.76), "baseline": ap(0.6), "champion": ap(0.7)} | {role: bad}
    verdict = judge(GATE, **figures)
    assert failed(verdict) == closed
    assert verdict.message.count(f"the {role} has no usable average_precision") == len(closed)
    assert [reason.value is None for reason in verdict.reasons] == [reason.rule in closed for reason in verdict.reasons]
    json.dumps(verdict.to_dict(), allow_nan=False)


def test_limits_that_are_no_numbers_close():
    gate = Gate(metric="average_precision", floor=math.nan, margin=math.nan, baseline_margin=math.nan)
    assert failed(judge(gate, candidate=ap(0.9), baseline=ap(0.1), champion=ap(0.1))) == [
        "floor",
        "baseline",
        "champion",
    ]


def test_lower_brier_is_better():
    good = {"brier": 0.005}
    assert judge(BRIER, candidate=good, baseline={"brier": 0.006}, champion={"brier": 0.0045}).passed
    assert failed(judge(BRIER, candidate={"brier": 0.011}, baseline={"brier": 0.02}, champion=None)) == ["floor"]
    assert failed(judge(BRIER, candidate=good, baseline={"brier": 0.004}, champion=None)) == ["baseline"]
    assert failed(judge(BRIER, candidate=good, baseline={"brier": 0.006}, champion={"brier": 0.003})) == ["champion"]


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_a_better_candidate_never_fares_worse(one, other, baseline, champion):
    worse, better = sorted((one, other))
    if judge(GATE, candidate=ap(worse), baseline=ap(baseline), champion=ap(champion)).passed:
        assert judge(GATE, candidate=ap(better), baseline=ap(baseline), champion=ap(champion)).passed


def test_a_gain_is_in_the_metrics_own_unit_whichever_way_is_better():
    higher = judge(GATE, candidate=ap(0.76), baseline=ap(0.6), champion=ap(0.75))
    assert [reason.value for reason in higher.reasons] == [0.76, pytest.approx(0.16), pytest.approx(0.01)]
    lower = judge(BRIER, candidate={"brier": 0.005}, baseline={"brier": 0.006}, champion={"brier": 0.0045})
    assert [reason.value for reason in lower.reasons] == [0.005, pytest.approx(0.001), pytest.approx(-0.0005)]
    assert [reason.limit for reason in lower.reasons] == [0.01, 0.0, -0.001]
    assert lower.message == (
        "brier 0.0050 meets the highest allowed 0.0100; "
        "brier 0.0050 against the baseline's 0.0060: gain +0.0010, at least +0.0000 required; "
        "brier 0.0050 against the champion's 0.0045: gain -0.0005, at least -0.0010 required"
    )


def test_the_verdict_as_plain_values():
    verdict = judge(GATE, candidate=ap(0.69), baseline=ap(0.6), champion=None)
    said = verdict.to_dict()
    assert said["passed"] is False
    assert [(reason["rule"], reason["passed"]) for reason in said["reasons"]] == [("floor", False), ("baseline", True)]


# -- a loss against the simple baseline that may be chance -------------------------------------------------------------


def against_baseline(low, high, candidate=0.74, baseline=0.75, champion=None):
    paired = {"average_precision": Estimate(candidate - baseline, low, high), "roc_auc": Estimate(-0.1, -0.2, 0.1)}
    gate = Gate(metric="average_precision", floor=0.7, margin=-0.005, baseline_margin=0.0)
    return judge(gate, candidate=ap(candidate), baseline=ap(baseline), champion=champion and ap(champion),
                 against_baseline=paired)  # fmt: skip


@pytest.mark.parametrize(("low", "high"), [(-0.03, 0.01), (-0.03, 0.0), (0.0, 0.01)])
def test_one_whose_interval_holds_zero_passes_and_says_so(low, high):
    verdict = against_baseline(low, high)
    assert verdict.passed
    assert f"95 % interval {low:+.4f} to {high:+.4f} includes zero" in verdict.message


@pytest.mark.closes("gate", "baseline")
@pytest.mark.parametrize(("low", "high"), [(-0.03, -0.001), (0.001, 0.03)])
def test_one_whose_interval_does_not_closes_with_it(low, high):
    verdict = against_baseline(low, high)
    assert failed(verdict) == ["baseline"]
    assert verdict.message.startswith(
        "average_precision 0.7400 against the baseline's 0.7500: gain -0.0100, at least +0.0000 required, 95 % "
        f"interval {low:+.4f} to {high:+.4f};"
    )


@pytest.mark.closes("gate", "baseline")
@pytest.mark.parametrize(("low", "high"), [(None, None), (None, 0.01), (-0.03, None)])
def test_without_an_interval_nothing_is_taken_for_chance(low, high):
    assert failed(against_baseline(low, high)) == ["baseline"]


def test_a_gain_needs_no_interval():
    verdict = against_baseline(0.001, 0.03, candidate=0.76)
    assert verdict.passed
    assert "interval" not in verdict.message


@pytest.mark.closes("gate", "champion")
def test_a_loss_against_the_champion_is_never_taken_for_chance():
    verdict = against_baseline(-0.03, 0.01, candidate=0.76, baseline=0.75, champion=0.77)
    assert failed(verdict) == ["champion"]

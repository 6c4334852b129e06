"""The gate: each rule closing, each letting the good case through, and nothing unknown passing."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.declaration import Gate
from assets.lifecycle.gate import judge

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
    assert verdict.words.startswith("average_precision 0.6900 misses the floor 0.7000")


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
    assert f"the {role} has no usable average_precision" in verdict.words
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

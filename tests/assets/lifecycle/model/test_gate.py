"""The gate: each rule closing, each letting the good case through, and nothing unknown passing."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.declaration import Gate
from assets.lifecycle.model import gate as rules
from assets.lifecycle.model.fairness import GroupGap
from assets.lifecycle.model.gate import Evidence
from assets.lifecycle.model.latency import Latency
from assets.lifecycle.model.metrics.calibration import CalibrationError
from assets.lifecycle.model.metrics.intervals import Estimate

ONLY = {"calibration_error": None, "latency_ms": None}
"""Leaves the rules on calibration and latency out."""
GATE = Gate(metric="average_precision", floor=0.7, margin=-0.005, baseline_margin=0.02, **ONLY)
BRIER = Gate(metric="brier", floor=0.01, margin=-0.001, baseline_margin=0.0, **ONLY)


def judge(gate, *, candidate, champion=None, against_champion=None, **evidence):
    """The verdict; without ``against_champion`` the difference to the champion is exact."""
    if champion is not None and against_champion is None:
        value, other = candidate.get(gate.metric), champion.get(gate.metric)
        gap = math.nan if value is None or other is None else value - other
        against_champion = {gate.metric: Estimate(gap, gap, gap)}
    return rules.judge(
        gate, Evidence(candidate=candidate, champion=champion, against_champion=against_champion or {}, **evidence)
    )


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
    gate = Gate(metric="average_precision", floor=0.745, margin=-0.005, baseline_margin=-0.005, **ONLY)
    assert judge(gate, candidate=ap(0.745), baseline=ap(0.75), champion=ap(0.75)).passed


@pytest.mark.parametrize(("short", "passed"), [(1e-9, True), (1.5e-9, False)])
def test_a_billionth_is_rounding_and_more_is_not(short, passed):
    assert 0.0 - short == -short
    gate = Gate(metric="average_precision", floor=short, margin=0.0, baseline_margin=0.0, **ONLY)
    verdict = judge(gate, candidate=ap(0.0), baseline=ap(short), champion=ap(short))
    assert [reason.passed for reason in verdict.reasons] == [passed] * 3


def test_the_ends_of_a_metric_are_figures():
    gate = Gate(metric="average_precision", floor=0.0, margin=-1.0, baseline_margin=-1.0, **ONLY)
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
    gate = Gate(metric="average_precision", floor=math.nan, margin=math.nan, baseline_margin=math.nan, **ONLY)
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
        "brier 0.0050 against the champion's 0.0045: gain -0.0005, at least -0.0005 with 95 % confidence, -0.0010 "
        "required"
    )


def test_the_verdict_as_plain_values():
    verdict = judge(GATE, candidate=ap(0.69), baseline=ap(0.6), champion=None)
    said = verdict.to_dict()
    assert said["passed"] is False
    assert [(reason["rule"], reason["passed"]) for reason in said["reasons"]] == [("floor", False), ("baseline", True)]


# -- a loss against the simple baseline that may be chance -------------------------------------------------------------


def against_baseline(low, high, candidate=0.74, baseline=0.75, champion=None):
    paired = {"average_precision": Estimate(candidate - baseline, low, high), "roc_auc": Estimate(-0.1, -0.2, 0.1)}
    gate = Gate(metric="average_precision", floor=0.7, margin=-0.005, baseline_margin=0.0, **ONLY)
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


# -- against the champion: non-inferiority ----------------------------------------------------------------------------


def against_champion(low, high, candidate=0.76, champion=0.76, gate=GATE):
    paired = {gate.metric: Estimate(candidate - champion, low, high)}
    return judge(gate, candidate=ap(candidate), baseline=ap(0.6), champion=ap(champion), against_champion=paired)


def test_an_equal_candidate_passes_where_the_rows_are_enough_to_be_sure():
    verdict = against_champion(-0.005, 0.005)
    assert verdict.passed
    assert verdict.message.endswith(
        "average_precision 0.7600 against the champion's 0.7600: gain +0.0000, at least -0.0042 with 95 % confidence, "
        "-0.0050 required"
    )


@pytest.mark.closes("gate", "champion")
def test_an_equal_candidate_on_too_few_rows_is_refused():
    verdict = against_champion(-0.05, 0.05)
    assert failed(verdict) == ["champion"]
    assert verdict.message.startswith(
        "average_precision 0.7600 against the champion's 0.7600: gain +0.0000, at least -0.0420 with 95 % confidence, "
        "-0.0050 required (the test rows are too few to be sure);"
    )


@pytest.mark.closes("gate", "champion")
@pytest.mark.parametrize(("low", "high"), [(None, None), (None, 0.01)])
def test_without_an_interval_there_is_no_evidence(low, high):
    verdict = against_champion(low, high, candidate=0.9)
    assert failed(verdict) == ["champion"]
    assert "the test rows are too few for an interval" in verdict.message


@pytest.mark.closes("gate", "champion")
def test_a_loss_against_the_champion_is_never_taken_for_chance():
    assert failed(against_champion(-0.03, 0.01, champion=0.77)) == ["champion"]


@pytest.mark.parametrize(("half", "passed"), [(0.0059, True), (0.0060, False)])
def test_the_bound_is_at_1645_standard_deviations(half, passed):
    assert -0.0059 * 1.645 / 1.96 > -0.005 > -0.0060 * 1.645 / 1.96
    assert against_champion(-half, half).passed is passed


@pytest.mark.closes("gate", "champion")
def test_where_lower_is_better_the_other_end_of_the_interval_decides():
    figures = {"candidate": {"brier": 0.005}, "baseline": {"brier": 0.006}, "champion": {"brier": 0.005}}
    sure = {"brier": Estimate(0.0, -0.1, 0.001)}
    unsure = {"brier": Estimate(0.0, -0.001, 0.1)}
    assert judge(BRIER, **figures, against_champion=sure).passed
    assert failed(judge(BRIER, **figures, against_champion=unsure)) == ["champion"]


# -- slices, calibration, latency, fairness: a breach that is more than chance -----------------------------------------


def of_slices(gate, **slices):
    return judge(gate, candidate=ap(0.76), baseline=ap(0.6), champion=ap(0.76), slice_metric="average_precision",
                 slices=slices)  # fmt: skip


@pytest.mark.closes("gate", "slices")
def test_a_slice_that_is_worse_by_more_than_its_allowance_closes():
    verdict = of_slices(GATE, online=Estimate(-0.06, -0.1, -0.02), abroad=Estimate(-0.05, -0.08, -0.01))
    assert failed(verdict) == ["slices"]
    assert verdict.message.startswith(
        "average_precision in slice 'online': gain -0.0600 over the champion, at least -0.0500 required, 95 % interval "
        "-0.1000 to -0.0200;"
    )


@pytest.mark.parametrize(
    ("difference", "message"),
    [(Estimate(-0.06, -0.13, 0.01), "includes zero"), (Estimate(-0.9), "too few rows"), (None, "too few rows")],
)
def test_a_slice_whose_loss_may_be_chance_passes_and_says_so(difference, message):
    verdict = of_slices(GATE, online=difference)
    assert verdict.passed
    assert message in verdict.reasons[-1].message
    assert verdict.message.endswith("; 1 slice is within the allowance")


@pytest.mark.closes("gate", "slices")
def test_allowances_by_name():
    gate = replace(GATE, slice_allowance={"online": 0.01})
    worse = Estimate(-0.06, -0.1, -0.02)
    assert failed(of_slices(gate, online=worse, abroad=worse)) == ["slices"]
    assert of_slices(gate, online=Estimate(0.0, -0.1, 0.1), abroad=worse).passed
    verdict = of_slices(gate, abroad=worse)
    assert failed(verdict) == ["slices"]
    assert verdict.message.startswith("there is no slice 'online'; slices: abroad")


@pytest.mark.closes("gate", "slices")
def test_in_a_slice_lower_is_better_where_it_is():
    gate = Gate(metric="log_loss", floor=1.0, **ONLY)
    figures = {role: {"log_loss": 0.5} for role in ("candidate", "baseline", "champion")}
    for difference, closed in [(Estimate(0.2, 0.1, 0.3), ["slices"]), (Estimate(-0.2, -0.3, -0.1), [])]:
        verdict = judge(gate, **figures, slice_metric="log_loss", slices={"north": difference})
        assert failed(verdict) == closed


def alone(gate, **evidence):
    return judge(gate, candidate=ap(0.76), baseline=ap(0.6), **evidence)


@pytest.mark.closes("gate", "calibration")
@pytest.mark.parametrize(
    ("error", "by_chance", "closed"),
    [
        (0.09, 0.01, []),
        (0.1, 0.01, []),
        (0.11, 0.01, ["calibration"]),
        (0.11, 0.12, []),
        (math.nan, 0.01, ["calibration"]),
    ],
)
def test_a_calibration_error_beyond_the_limit_and_beyond_chance_closes(error, by_chance, closed):
    gate = replace(GATE, calibration_error=0.1)
    verdict = alone(gate, calibration=CalibrationError(error, by_chance))
    assert failed(verdict) == closed


def test_a_measured_value_has_no_calibration():
    verdict = alone(replace(GATE, calibration_error=0.1), calibration=None)
    assert [reason.rule for reason in verdict.reasons] == ["floor", "baseline"]


@pytest.mark.closes("gate", "latency")
@pytest.mark.parametrize(
    ("found", "closed"), [(Latency(5.0, 90.0), []), (Latency(5.1, 5.2), ["latency"]), (None, ["latency"])]
)
def test_a_slow_candidate_closes(found, closed):
    assert failed(alone(replace(GATE, latency_ms=5.0), latency=found)) == closed


def gap(value, low, high, figure="selection_rate"):
    by_group = {"f": 0.1, "m": 0.1 + value}
    return GroupGap("sex", figure, value, "m", "f", low, high, by_group, {"f": 90, "m": 90})


@pytest.mark.closes("gate", "fairness")
@pytest.mark.parametrize(
    ("found", "closed"),
    [
        (gap(0.2, 0.15, 0.25), []),
        (gap(0.3, 0.21, 0.4), ["fairness"]),
        (gap(0.3, 0.19, 0.4), []),
        (gap(0.3, None, None), ["fairness"]),
        (gap(0.3, 0.21, 0.4, "true_positive_rate"), ["fairness"]),  # the limited figure was not compared
    ],
)
def test_a_gap_between_groups_beyond_its_limit_and_beyond_chance_closes(found, closed):
    verdict = alone(replace(GATE, fairness={"selection_rate": 0.2}), fairness=[found])
    assert failed(verdict) == closed


def test_groups_too_small_to_compare_do_not_close():
    found = GroupGap("sex", "selection_rate", None, None, None, None, None, {"f": 0.1}, {"f": 9})
    verdict = alone(replace(GATE, fairness={"selection_rate": 0.2}), fairness=[found])
    assert verdict.passed
    assert "selection_rate by sex: fewer than two groups have enough rows to compare" in verdict.message


# -- advice ------------------------------------------------------------------------------------------------------------


def test_a_gate_that_advises_refuses_nothing_and_says_so():
    figures = {"candidate": ap(0.69), "baseline": ap(0.6)}
    enforced, advised = judge(GATE, **figures), judge(replace(GATE, mode="advise"), **figures)
    assert (enforced.passed, enforced.refused) == (False, True)
    assert (advised.passed, advised.refused) == (False, False)
    assert advised.message.startswith("advice only (gate.mode is 'advise'): average_precision 0.6900 misses the floor")
    assert advised.to_dict()["mode"] == "advise"
    good = judge(replace(GATE, mode="advise"), candidate=ap(0.76), baseline=ap(0.6))
    assert good.passed
    assert "advice" not in good.message

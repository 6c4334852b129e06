"""The gate: decides whether a candidate may be staged.

A candidate has to *show* that it is not inferior to the champion: the lower end of the paired difference decides, so
the champion stays if there are too few rows. The other requirements close only on evidence of a breach: a figure has to
be beyond its limit by more than chance. ``docs/gate.md`` gives the error rates.

Belongs here: the rules, and the reasons of a verdict. Does not belong here: the metrics (``metrics``), the enforcement
of the verdict (the blocking check, and promotion, which reads the verdict again).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from assets.declaration import Gate, GateMode
from assets.lifecycle.model.fairness import GroupGap
from assets.lifecycle.model.latency import Latency
from assets.lifecycle.model.metrics.calibration import CalibrationError
from assets.lifecycle.model.metrics.intervals import Estimate
from assets.metrics import METRICS, lower_is_better

ROUNDING = 1e-9
"""Tolerance for rounding errors: .745 − .75 is slightly below −.005 in floating point."""

Rule = Literal["floor", "baseline", "champion", "slices", "calibration", "latency", "fairness"]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the gate decides on, all of it measured on the same test rows.

    Attributes:
        candidate, baseline: values by metric (``Report.numbers``).
        champion: the champion's values; ``None`` only if there is no champion yet.
        against_baseline, against_champion: candidate minus the other by metric, with intervals
            (``Report.differences``).
        slice_metric: metric by which slices are compared.
        slices: candidate minus champion by slice; ``None`` for a slice with too few rows to compare.
        calibration: of the candidate; ``None`` for measured values.
        latency: time to score one row; ``None`` if it was not measured.
        fairness: gaps between groups by column and figure.
    """

    candidate: Mapping[str, float]
    baseline: Mapping[str, float]
    champion: Mapping[str, float] | None = None
    against_baseline: Mapping[str, Estimate] = field(default_factory=dict)
    against_champion: Mapping[str, Estimate] = field(default_factory=dict)
    slice_metric: str = ""
    slices: Mapping[str, Estimate | None] = field(default_factory=dict)
    calibration: CalibrationError | None = None
    latency: Latency | None = None
    fairness: Sequence[GroupGap] = ()


@dataclass(frozen=True)
class Reason:
    """The result of one rule.

    Attributes:
        rule: name of the rule.
        figure: what was judged: the gate's metric, or another figure with its slice or column.
        value: for a comparison, the candidate's gain (negative: worse), otherwise the candidate's figure, in its own
            unit. None if it is missing or not a number.
        limit: the worst value that passes.
        passed: whether the rule passed; False without a value.
        message: the result as a sentence.
    """

    rule: Rule
    figure: str
    value: float | None
    limit: float
    passed: bool
    message: str


@dataclass(frozen=True)
class Verdict:
    """The verdict of the gate; it passes only if every rule passes."""

    reasons: tuple[Reason, ...]
    mode: GateMode = "enforce"

    @property
    def passed(self) -> bool:
        """Whether the candidate passed every rule; False without rules."""
        return bool(self.reasons) and all(reason.passed for reason in self.reasons)

    @property
    def refused(self) -> bool:
        """Whether the candidate must not be staged. A gate that only advises refuses nothing."""
        return not self.passed and self.mode != "advise"

    @property
    def sentences(self) -> list[str]:
        """The verdict, a sentence for each rule, failed rules first; the slices within their allowance are counted."""
        slices = sum(reason.rule == "slices" and reason.passed for reason in self.reasons)
        shown = sorted(
            (reason for reason in self.reasons if reason.rule != "slices" or not reason.passed),
            key=lambda reason: reason.passed,
        )
        counted = [f"{slices} {'slice is' if slices == 1 else 'slices are'} within the allowance"] if slices else []
        return [*(reason.message for reason in shown), *counted]

    @property
    def message(self) -> str:
        """The sentences in one line."""
        reasons = "; ".join(self.sentences)
        return reasons if self.passed or self.refused else f"advice only (gate.mode is 'advise'): {reasons}"

    def to_dict(self) -> dict[str, Any]:
        """Returns the verdict as plain values for JSON."""
        return {
            "passed": self.passed,
            "mode": self.mode,
            "message": self.message,
            "reasons": [asdict(reason) for reason in self.reasons],
        }


def judge(gate: Gate, evidence: Evidence) -> Verdict:
    """Applies every rule of the gate.

    A figure that is missing, not a number or outside its bounds fails its rule. The comparison with the champion and
    with its slices applies only if there is a champion.
    """
    reasons = [_floor(gate, evidence), _baseline(gate, evidence)]
    if evidence.champion is not None:
        reasons += [_champion(gate, evidence, evidence.champion), *_slices(gate, evidence)]
    return Verdict((*reasons, *_calibration(gate, evidence), *_latency(gate, evidence), *_fairness(gate, evidence)),
                   gate.mode)  # fmt: skip


def _figure(figures: Mapping[str, float], metric: str) -> float | None:
    """The value if it is a finite number within the metric's bounds, otherwise None."""
    value = figures.get(metric)
    low, high = METRICS[metric].low, METRICS[metric].high
    return float(value) if value is not None and low <= value <= high and math.isfinite(value) else None


def _floor(gate: Gate, evidence: Evidence) -> Reason:
    metric, value = gate.metric, _figure(evidence.candidate, gate.metric)
    if value is None:
        return Reason("floor", metric, None, gate.floor, False, f"the candidate has no usable {metric}")
    higher = not lower_is_better(metric)
    passed = (value - gate.floor if higher else gate.floor - value) >= -ROUNDING
    limit = "floor" if higher else "highest allowed"
    message = f"{metric} {value:.4f} {'meets' if passed else 'misses'} the {limit} {gate.floor:.4f}"
    return Reason("floor", metric, value, gate.floor, passed, message)


def _baseline(gate: Gate, evidence: Evidence) -> Reason:
    """A loss that may be chance passes: on a hundred rows a linear model wins by a tiny margin half of the time."""
    metric, margin = gate.metric, gate.baseline_margin
    value, other = _figure(evidence.candidate, metric), _figure(evidence.baseline, metric)
    if value is None or other is None:
        return _unusable("baseline", metric, margin, value)
    gain = _gain(metric, Estimate(value - other)).value
    passed = gain >= margin - ROUNDING
    message = (
        f"{metric} {value:.4f} against the baseline's {other:.4f}: gain {gain:+.4f}, at least {margin:+.4f} required"
    )
    paired = evidence.against_baseline.get(metric)
    if not passed and paired is not None and paired.low is not None and paired.high is not None:
        passed = paired.low <= 0 <= paired.high
        message += f", 95 % interval {paired.low:+.4f} to {paired.high:+.4f}" + (" includes zero" if passed else "")
    return Reason("baseline", metric, gain, margin, passed, message)


def _champion(gate: Gate, evidence: Evidence, champion: Mapping[str, float]) -> Reason:
    """Non-inferiority: the gain is above the margin with 95 % confidence."""
    metric, margin = gate.metric, gate.margin
    value, other = _figure(evidence.candidate, metric), _figure(champion, metric)
    if value is None or other is None:
        return _unusable("champion", metric, margin, value)
    gain = _gain(metric, evidence.against_champion.get(metric, Estimate(value - other)))
    least = gain.at_least
    message = f"{metric} {value:.4f} against the champion's {other:.4f}: gain {gain.value:+.4f}"
    if least is None:
        message += ", but the test rows are too few for an interval; test on more days or a larger holdout"
        return Reason("champion", metric, gain.value, margin, False, message)
    passed = least >= margin - ROUNDING
    message += f", at least {least:+.4f} with 95 % confidence, {margin:+.4f} required"
    if not passed and gain.value >= margin:
        message += " (the test rows are too few to be sure)"
    return Reason("champion", metric, gain.value, margin, passed, message)


def _slices(gate: Gate, evidence: Evidence) -> Iterator[Reason]:
    """A slice closes on a loss beyond its allowance that is more than chance."""
    metric = evidence.slice_metric
    named = gate.slice_allowance if isinstance(gate.slice_allowance, Mapping) else {}
    for name in [name for name in named if name not in evidence.slices]:
        message = f"there is no slice '{name}'; slices: {', '.join(evidence.slices) or 'none'}"
        yield Reason("slices", name, None, -named[name], False, message)
    for name, difference in evidence.slices.items():
        allowance = gate.allowance(name)
        if allowance is None:
            continue
        what = f"{metric} in slice '{name}'"
        if difference is None or difference.low is None or difference.high is None:
            yield Reason("slices", what, None, -allowance, True, f"{what}: too few rows to compare with the champion")
            continue
        gain = _gain(metric, difference)
        assert gain.low is not None
        assert gain.high is not None
        beyond = gain.value < -allowance - ROUNDING
        passed = not (beyond and gain.high < 0)
        message = f"{what}: gain {gain.value:+.4f} over the champion, at least {-allowance:+.4f} required"
        if beyond:
            message += f", 95 % interval {gain.low:+.4f} to {gain.high:+.4f}" + (" includes zero" if passed else "")
        yield Reason("slices", what, gain.value, -allowance, passed, message)


def _calibration(gate: Gate, evidence: Evidence) -> Iterator[Reason]:
    limit, found = gate.calibration_error, evidence.calibration
    if limit is None or found is None:
        return
    name = "expected calibration error"
    beyond = not found.error <= limit + ROUNDING
    passed = not beyond or found.error <= found.by_chance
    message = f"{name} {found.error:.4f}, at most {limit:.4f} allowed"
    if beyond:
        message += f"; calibrated probabilities reach {found.by_chance:.4f} by chance on so many rows"
    yield Reason("calibration", name, found.error, limit, passed, message)


def _latency(gate: Gate, evidence: Evidence) -> Iterator[Reason]:
    limit, found = gate.latency_ms, evidence.latency
    if limit is None:
        return
    name = "one-row latency (ms)"
    if found is None:
        yield Reason("latency", name, None, limit, False, f"the {name} was not measured")
        return
    message = f"{name}: median {found.median_ms:.2f}, 95th percentile {found.p95_ms:.2f}, median of {limit:g} allowed"
    yield Reason("latency", name, found.median_ms, limit, found.median_ms <= limit, message)


def _fairness(gate: Gate, evidence: Evidence) -> Iterator[Reason]:
    """A gap closes beyond its limit if it is more than chance."""
    for figure, limit in gate.fairness.items():
        found = [gap for gap in evidence.fairness if gap.figure == figure]
        if not found:
            yield Reason("fairness", figure, None, limit, False, f"the {figure} was not compared between groups")
        for gap in found:
            what = f"{figure} by {gap.column}"
            if gap.gap is None or gap.worst_group is None or gap.best_group is None:
                message = f"{what}: fewer than two groups have enough rows to compare"
                yield Reason("fairness", what, None, limit, True, message)
                continue
            beyond = not gap.gap <= limit + ROUNDING
            by_chance = gap.low is not None and gap.low <= limit
            passed = not beyond or by_chance
            worst, best = gap.by_group[gap.worst_group], gap.by_group[gap.best_group]
            message = (
                f"{what}: {worst:.4f} for {gap.worst_group}, {best:.4f} for {gap.best_group}; "
                f"gap {gap.gap:.4f}, at most {limit:.4f} allowed"
            )
            if beyond and gap.low is not None:
                message += f", 95 % interval {gap.low:.4f} to {gap.high:.4f}" + (
                    " includes the limit" if passed else ""
                )
            yield Reason("fairness", what, gap.gap, limit, passed, message)


def _gain(metric: str, difference: Estimate) -> Estimate:
    """A difference of a metric as a gain: positive is better."""
    return -difference if lower_is_better(metric) else difference


def _unusable(rule: Rule, metric: str, margin: float, candidate: float | None) -> Reason:
    whose = "candidate" if candidate is None else rule
    return Reason(rule, metric, None, margin, False, f"the {whose} has no usable {metric}")

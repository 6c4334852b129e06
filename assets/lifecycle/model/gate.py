"""The gate: decides whether a candidate may be staged.

Belongs here: the verdict on the metrics, and its reasons. Does not belong here: the metrics (``metrics.py``), the
enforcement of the verdict (the blocking check, and promotion, which reads the verdict again).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from assets.declaration import Gate
from assets.lifecycle.model.metrics.intervals import Estimate
from assets.metrics import METRICS, lower_is_better

ROUNDING = 1e-9
"""Tolerance for rounding errors: .745 − .75 is slightly below −.005 in floating point."""

Rule = Literal["floor", "baseline", "champion"]


@dataclass(frozen=True)
class Reason:
    """The result of one rule.

    Attributes:
        rule: name of the rule.
        metric: the gate's metric.
        value: for the floor, the candidate's metric; otherwise the candidate's gain over the other score (negative:
            worse), in the metric's own unit. None if a metric is missing or not a number.
        limit: the worst value that passes.
        passed: whether the rule passed; False without a value.
        message: the result as a sentence.
    """

    rule: Rule
    metric: str
    value: float | None
    limit: float
    passed: bool
    message: str


@dataclass(frozen=True)
class Verdict:
    """The verdict of the gate; it passes only if every rule passes."""

    reasons: tuple[Reason, ...]

    @property
    def passed(self) -> bool:
        """Whether the candidate passed every rule; False without rules."""
        return bool(self.reasons) and all(reason.passed for reason in self.reasons)

    @property
    def message(self) -> str:
        """The verdict in sentences, failed rules first."""
        return "; ".join(reason.message for reason in sorted(self.reasons, key=lambda reason: reason.passed))

    def to_dict(self) -> dict[str, Any]:
        """Returns the verdict as plain values for JSON."""
        return {"passed": self.passed, "reasons": [asdict(reason) for reason in self.reasons]}


def judge(
    gate: Gate,
    *,
    candidate: Mapping[str, float],
    baseline: Mapping[str, float],
    champion: Mapping[str, float] | None,
    against_baseline: Mapping[str, Estimate] | None = None,
) -> Verdict:
    """Compares the candidate with the floor, the simple baseline and the champion, all on the same rows.

    A metric that is missing, not a number or outside its bounds fails the gate. A loss against the simple baseline
    passes if its 95 % interval contains zero, because on a hundred rows a linear model wins by a tiny margin half of
    the time.

    Args:
        gate: metric and limits.
        candidate, baseline: values by metric (``Report.numbers``).
        champion: the champion's values; ``None`` only if there is no champion yet.
        against_baseline: candidate minus baseline with intervals (``Report.differences``).
    """
    better = -1 if lower_is_better(gate.metric) else 1
    value = _figure(candidate, gate.metric)
    reasons = [
        _floor(gate, value, better),
        _versus(
            "baseline",
            gate,
            value,
            baseline,
            margin=gate.baseline_margin,
            better=better,
            paired=(against_baseline or {}).get(gate.metric),
        ),
    ]
    if champion is not None:
        reasons.append(_versus("champion", gate, value, champion, margin=gate.margin, better=better))
    return Verdict(tuple(reasons))


def _figure(figures: Mapping[str, float], metric: str) -> float | None:
    """The value if it is a finite number within the metric's bounds, otherwise None."""
    value = figures.get(metric)
    low, high = METRICS[metric].low, METRICS[metric].high
    return float(value) if value is not None and low <= value <= high and math.isfinite(value) else None


def _floor(gate: Gate, value: float | None, better: int) -> Reason:
    if value is None:
        return Reason("floor", gate.metric, None, gate.floor, False, f"the candidate has no usable {gate.metric}")
    passed = better * (value - gate.floor) >= -ROUNDING
    limit = "floor" if better > 0 else "highest allowed"
    message = f"{gate.metric} {value:.4f} {'meets' if passed else 'misses'} the {limit} {gate.floor:.4f}"
    return Reason("floor", gate.metric, value, gate.floor, passed, message)


def _versus(
    rule: Rule,
    gate: Gate,
    value: float | None,
    figures: Mapping[str, float],
    *,
    margin: float,
    better: int,
    paired: Estimate | None = None,
) -> Reason:
    other = _figure(figures, gate.metric)
    if value is None or other is None:
        whose = "candidate" if value is None else rule
        return Reason(rule, gate.metric, None, margin, False, f"the {whose} has no usable {gate.metric}")
    gain = better * (value - other)
    passed = gain >= margin - ROUNDING
    message = (
        f"{gate.metric} {value:.4f} against the {rule}'s {other:.4f}: gain {gain:+.4f}, at least {margin:+.4f} required"
    )
    if not passed and paired is not None and paired.low is not None and paired.high is not None:
        passed = paired.low <= 0 <= paired.high
        message += f", 95 % interval {paired.low:+.4f} to {paired.high:+.4f}" + (" includes zero" if passed else "")
    return Reason(rule, gate.metric, gain, margin, passed, message)

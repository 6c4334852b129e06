"""Whether a candidate may be staged.

Belongs here: the judgement on numbers, and its reasons. Does not belong here: how the numbers were found
(``metrics.py``), or who enforces the verdict (the blocking check, and the promotion, which looks it up again).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from assets.declaration import Gate
from assets.lifecycle.model.metrics.evaluate import BOUNDS
from assets.lifecycle.model.metrics.intervals import Estimate
from assets.task import LOWER_IS_BETTER

ROUNDING = 1e-9
"""A difference this small is no difference: .745 − .75 is a hair below −.005 in floating point."""

Rule = Literal["floor", "baseline", "champion"]


@dataclass(frozen=True)
class Reason:
    """One rule and how it went.

    Attributes:
        rule: what was asked.
        metric: the gate's metric.
        value: the candidate's figure for the floor, else how much better than the other it is (negative: worse), in
            the metric's own unit; None where a figure is missing or no number.
        limit: the worst value that passes.
        passed: whether it did; never without a value.
        words: the same as a sentence.
    """

    rule: Rule
    metric: str
    value: float | None
    limit: float
    passed: bool
    words: str


@dataclass(frozen=True)
class Verdict:
    """The gate's answer: open only if every rule passed."""

    reasons: tuple[Reason, ...]

    @property
    def passed(self) -> bool:
        """Whether the candidate may go on."""
        return bool(self.reasons) and all(reason.passed for reason in self.reasons)

    @property
    def words(self) -> str:
        """The verdict in sentences, what failed first."""
        return "; ".join(reason.words for reason in sorted(self.reasons, key=lambda reason: reason.passed))

    def to_dict(self) -> dict[str, Any]:
        """As plain values, fit for JSON."""
        return {"passed": self.passed, "reasons": [asdict(reason) for reason in self.reasons]}


def judge(
    gate: Gate,
    *,
    candidate: Mapping[str, float],
    baseline: Mapping[str, float],
    champion: Mapping[str, float] | None,
    against_baseline: Mapping[str, Estimate] | None = None,
) -> Verdict:
    """Hold the candidate against the floor, the simple baseline and the champion, all on the same rows.

    A figure that is missing, no number or outside its metric's bounds closes the gate: nothing unknown passes. A loss
    against the simple baseline that may be chance does not: on a hundred rows a linear model wins by a hair half of the
    time.

    Args:
        gate: metric and limits.
        candidate, baseline: figures by metric (``Report.numbers``).
        champion: the champion's figures; ``None`` only if there is no champion yet.
        against_baseline: candidate minus baseline with intervals (``Report.differences``).
    """
    better = -1 if gate.metric in LOWER_IS_BETTER else 1
    mine = _figure(candidate, gate.metric)
    reasons = [
        _floor(gate, mine, better),
        _versus(
            "baseline",
            gate,
            mine,
            baseline,
            margin=gate.baseline_margin,
            better=better,
            paired=(against_baseline or {}).get(gate.metric),
        ),
    ]
    if champion is not None:
        reasons.append(_versus("champion", gate, mine, champion, margin=gate.margin, better=better))
    return Verdict(tuple(reasons))


def _figure(figures: Mapping[str, float], metric: str) -> float | None:
    """The figure if it is a number that the metric can have."""
    value = figures.get(metric)
    low, high = BOUNDS.get(metric, (0.0, 1.0))
    return float(value) if value is not None and low <= value <= high and math.isfinite(value) else None


def _floor(gate: Gate, mine: float | None, better: int) -> Reason:
    if mine is None:
        return Reason("floor", gate.metric, None, gate.floor, False, f"the candidate has no usable {gate.metric}")
    passed = better * (mine - gate.floor) >= -ROUNDING
    limit = "floor" if better > 0 else "highest allowed"
    words = f"{gate.metric} {mine:.4f} {'meets' if passed else 'misses'} the {limit} {gate.floor:.4f}"
    return Reason("floor", gate.metric, mine, gate.floor, passed, words)


def _versus(
    rule: Rule,
    gate: Gate,
    mine: float | None,
    figures: Mapping[str, float],
    *,
    margin: float,
    better: int,
    paired: Estimate | None = None,
) -> Reason:
    other = _figure(figures, gate.metric)
    if mine is None or other is None:
        whose = "candidate" if mine is None else rule
        return Reason(rule, gate.metric, None, margin, False, f"the {whose} has no usable {gate.metric}")
    gain = better * (mine - other)
    passed = gain >= margin - ROUNDING
    words = f"{gate.metric} {mine:.4f} against the {rule}'s {other:.4f}: gain {gain:+.4f}, at least {margin:+.4f} asked"
    if not passed and paired is not None and paired.low is not None and paired.high is not None:
        passed = paired.low <= 0 <= paired.high
        words += f", 95 % interval {paired.low:+.4f} to {paired.high:+.4f}" + (" holds zero" if passed else "")
    return Reason(rule, gate.metric, gain, margin, passed, words)

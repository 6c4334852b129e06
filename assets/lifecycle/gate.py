"""Whether a candidate may be staged.

Belongs here: the judgement on numbers, and its reasons. Does not belong here: how the numbers were found
(``metrics.py``), or who enforces the verdict (the blocking check, and the promotion, which looks it up again).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from assets.declaration import Gate

LOWER_IS_BETTER = frozenset({"brier"})
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
) -> Verdict:
    """Hold the candidate against the floor, the simple baseline and the champion, all on the same rows.

    A figure that is missing, NaN or outside 0…1 closes the gate: nothing unknown passes.

    Args:
        gate: metric and limits.
        candidate, baseline: figures by metric (``Report.numbers``).
        champion: the champion's figures; ``None`` only if there is no champion yet.
    """
    better = -1 if gate.metric in LOWER_IS_BETTER else 1
    mine = _figure(candidate, gate.metric)
    reasons = [
        _floor(gate, mine, better),
        _versus("baseline", gate, mine, baseline, margin=gate.baseline_margin, better=better),
    ]
    if champion is not None:
        reasons.append(_versus("champion", gate, mine, champion, margin=gate.margin, better=better))
    return Verdict(tuple(reasons))


def _figure(figures: Mapping[str, float], metric: str) -> float | None:
    """The figure if it is a number between 0 and 1, which every gate metric is."""
    value = figures.get(metric)
    return float(value) if value is not None and 0 <= value <= 1 else None  # NaN fails the comparison


def _floor(gate: Gate, mine: float | None, better: int) -> Reason:
    if mine is None:
        return Reason("floor", gate.metric, None, gate.floor, False, f"the candidate has no usable {gate.metric}")
    passed = better * (mine - gate.floor) >= -ROUNDING
    limit = "floor" if better > 0 else "highest allowed"
    words = f"{gate.metric} {mine:.4f} {'meets' if passed else 'misses'} the {limit} {gate.floor:.4f}"
    return Reason("floor", gate.metric, mine, gate.floor, passed, words)


def _versus(
    rule: Rule, gate: Gate, mine: float | None, figures: Mapping[str, float], *, margin: float, better: int
) -> Reason:
    other = _figure(figures, gate.metric)
    if mine is None or other is None:
        whose = "candidate" if mine is None else rule
        return Reason(rule, gate.metric, None, margin, False, f"the {whose} has no usable {gate.metric}")
    gain = better * (mine - other)
    passed = gain >= margin - ROUNDING
    words = f"{gate.metric} {mine:.4f} against the {rule}'s {other:.4f}: gain {gain:+.4f}, at least {margin:+.4f} asked"
    return Reason(rule, gate.metric, gain, margin, passed, words)

"""The time that a version takes to score one row, as the gate judges it.

Belongs here: that measurement. Does not belong here: the latency of the service (``serving/scoring/metrics.py``), the
limit (``gate.py``).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np

WARM_UP, TIMED = 10, 100
"""Numbers of scores before the measurement, and in it."""
LONGEST_S = 2.0
"""Time after which no further score is taken, so that a slow model does not hold up its evaluation."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds to score one row: the median and the 95th percentile of all timed scores."""

    median_ms: float
    p95_ms: float


class _Scores(Protocol):
    def predict(self, X: np.ndarray) -> np.ndarray: ...


def latency_of(version: _Scores, row: np.ndarray) -> Latency:
    """Times the score of ``row``, float32 ``[1, n_features]``, in this process.

    Of wall time and processor time, the shorter one counts: on a crowded machine a score waits for its turn, and a
    model with several threads takes more than one processor. The median is hardly moved by what remains.
    """
    begin, _ = _clocks()
    times: list[float] = []
    for number in range(WARM_UP + TIMED):
        before = _clocks()
        version.predict(row)
        after = _clocks()
        last = after[0] - begin > LONGEST_S
        if number >= WARM_UP or last:
            times.append(1000 * min(after[0] - before[0], after[1] - before[1]))
        if last:
            break
    return Latency(float(np.median(times)), float(np.quantile(times, 0.95)))


def _clocks() -> tuple[float, float]:
    """Wall time and this process's processor time, in seconds."""
    return time.perf_counter(), time.process_time()

"""The time of a score, which other work on the machine and further threads do not make longer."""

import numpy as np
import pytest

from assets.lifecycle.model import latency
from assets.lifecycle.model.latency import TIMED, WARM_UP, latency_of

ROW = np.zeros((1, 2), dtype=np.float32)


class Clocks:
    """Wall and processor time, of which each score takes a given part."""

    def __init__(self, wall: float, processor: float) -> None:
        self.each, self.now, self.scores = (wall, processor), (0.0, 0.0), 0

    def predict(self, X: np.ndarray) -> np.ndarray:
        self.scores += 1
        self.now = (self.now[0] + self.each[0], self.now[1] + self.each[1])
        return X[:, 0]


@pytest.mark.parametrize(
    ("wall", "processor", "ms"), [(0.004, 0.004, 4.0), (0.015, 0.004, 4.0), (0.004, 0.016, 4.0)],
    ids=["alone", "crowded", "two threads"],
)  # fmt: skip
def test_the_shorter_of_wall_and_processor_time_counts(monkeypatch, wall, processor, ms):
    clocks = Clocks(wall, processor)
    monkeypatch.setattr(latency, "_clocks", lambda: clocks.now)
    found = latency_of(clocks, ROW)
    assert (found.median_ms, found.p95_ms) == pytest.approx((ms, ms))
    assert clocks.scores == WARM_UP + TIMED


def test_a_slow_model_is_not_scored_for_long(monkeypatch):
    clocks = Clocks(1.5, 1.5)
    monkeypatch.setattr(latency, "_clocks", lambda: clocks.now)
    assert latency_of(clocks, ROW).median_ms == pytest.approx(1_500)
    assert clocks.scores == 2


def test_the_clocks_are_those_of_this_machine():
    wall, processor = latency._clocks()
    assert latency_of(Clocks(0, 0), ROW).median_ms < 1_000
    later = latency._clocks()
    assert later[0] > wall
    assert later[1] >= processor

"""When a process is ready: what keeps it away from requests, and what does not."""

from dataclasses import dataclass

from serving.scoring.probes import Readiness


@dataclass
class Model:
    name: str
    has_started: bool = False
    waiting_for: str = "no version"


def test_it_is_ready_once_each_model_serves_or_has_no_version_and_stays_so():
    a, b = Model("a"), Model("b")
    readiness = Readiness([a, b])
    assert readiness.reasons() == ["a: no version", "b: no version"]
    a.has_started = True
    assert readiness.reasons() == ["b: no version"]
    b.has_started = True
    assert readiness.reasons() == []
    a.has_started = False
    assert readiness.reasons() == [], "all replicas would leave together"


def test_a_process_that_is_to_stop_is_not_ready():
    readiness = Readiness([Model("a", has_started=True)])
    assert readiness.reasons() == []
    readiness.stopping = True
    assert readiness.reasons() == ["the process is stopping"]

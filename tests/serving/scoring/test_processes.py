"""Several processes behind one port, with workers that only say who they are. Real processes, on the loopback."""

import collections
import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resources.processes import free_port, still_runs
from resources.settings import project_root
from serving.scoring import processes
from serving.scoring.service import main

WAIT_S = 120
pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="several processes need Linux")]


class Toy:
    """The process that accepts, and clients of its workers."""

    def __init__(self, folder: Path, count: int, **settings: str) -> None:
        self.port, self.log, self.began = free_port(), folder / "log", time.time()
        command = [sys.executable, "-m", "tests.serving.toy_processes", str(self.port), str(count)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=project_root(),
                env={**os.environ, "TMPDIR": str(folder), **settings},
                stdout=log,
                stderr=log,
            )

    def said(self) -> str:
        return self.log.read_text()

    def until(self, holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def serves(self) -> "Toy":
        def serves() -> bool:
            assert self.process.poll() is None, self.said()
            with contextlib.suppress(ConnectionRefusedError):
                return bool(self.ask())
            return False

        self.until(serves)
        return self

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        connection.connect()
        return connection

    def ask(self, connection: http.client.HTTPConnection | None = None, path: str = "/") -> tuple[int, list[str]]:
        """The worker that answered, and the state of each."""
        own = connection or self.connect()
        own.request("GET", path)
        pid, *states = own.getresponse().read().decode().split()
        if connection is None:
            own.close()
        return int(pid), states

    def status(self, path: str) -> int:
        connection = self.connect()
        connection.request("GET", path)
        status = connection.getresponse().status
        connection.close()
        return status

    def workers(self) -> set[int]:
        """The process ids of all workers, by asking until nothing new comes."""
        connections = [self.connect() for _ in range(8)]
        found = {self.ask(one)[0] for one in connections}
        for one in connections:
            one.close()
        return found

    def all_gone(self, workers: set[int]) -> bool:
        return not any(still_runs(pid, self.began + WAIT_S) for pid in workers)


@pytest.fixture(scope="module")
def held(tmp_path_factory) -> Iterator[Toy]:
    """Two workers. A request of `/slow` waits until the file `hold` beside its log is gone."""
    folder = tmp_path_factory.mktemp("toy")
    toy = Toy(folder, 2, TOY_HOLD=str(folder / "hold"), TOY_STUCK="2").serves()
    yield toy
    (folder / "hold").unlink(missing_ok=True)
    toy.process.send_signal(signal.SIGTERM)
    toy.process.wait(WAIT_S)


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Toy]]:
    toys: list[Toy] = []

    def start(count: int, **settings: str) -> Toy:
        toys.append(Toy(tmp_path, count, **settings))
        return toys[-1]

    yield start
    for toy in toys:
        if toy.process.poll() is None:
            toy.process.send_signal(signal.SIGTERM)
            toy.process.wait(WAIT_S)


def test_connections_are_spread_evenly_and_a_stop_ends_all_after_the_draining(start, tmp_path):
    toy = start(2, TOY_DRAIN="600").serves()
    for _ in range(3):
        time.sleep(0.3)  # the workers report what was closed ten times a second
        connections = [toy.connect() for _ in range(8)]
        served = collections.Counter(toy.ask(one)[0] for one in connections)
        assert sorted(served.values()) == [4, 4]
        for one in connections:
            one.close()
    toy.process.send_signal(signal.SIGTERM)
    toy.until(lambda: toy.status("/readyz") == 503)
    assert toy.workers() == set(served), "while it drains, everything is answered"
    toy.process.send_signal(signal.SIGTERM)  # skips the rest of the draining
    assert toy.process.wait(WAIT_S) == -signal.SIGTERM
    assert toy.all_gone(set(served))
    with pytest.raises(ConnectionRefusedError):
        toy.connect()
    assert [path.name for path in tmp_path.iterdir()] == ["log"], "it left its folder behind"


def test_a_worker_that_is_killed_comes_back_and_only_its_own_requests_are_lost(held):
    toy, hold = held, held.log.with_name("hold")
    hold.touch()
    toy.until(lambda: len(toy.workers()) == 2)
    first = toy.connect()
    lost = toy.ask(first)[0]
    second = toy.connect()
    while (kept := toy.ask(second)[0]) == lost:  # until the last connections are reported as closed
        second = toy.connect()
    answers: list[object] = []

    def slow(connection: http.client.HTTPConnection) -> None:
        try:
            answers.append(toy.ask(connection, "/slow")[0])
        except (OSError, http.client.HTTPException) as error:
            answers.append(error)

    threads = [threading.Thread(target=slow, args=(one,)) for one in (first, second)]
    for thread in threads:
        thread.start()
    os.kill(lost, signal.SIGKILL)
    threads[0].join(WAIT_S)
    assert isinstance(answers[0], (OSError, http.client.HTTPException))
    # Every new connection is answered: by the other one, or by the one that takes the place.
    assert lost not in {toy.ask()[0] for _ in range(20)}
    hold.unlink()
    threads[1].join(WAIT_S)
    assert answers[1] == kept
    toy.until(lambda: len(toy.workers()) == 2)
    assert lost not in toy.workers()
    assert sum(int(state.partition(":")[2]) for state in toy.ask()[1]) >= 1, "restarts are counted"
    assert re.search(
        rf"process \d \(pid {lost}\) ended by SIGKILL with \d connections; it is started again", toy.said()
    )


def test_a_worker_that_is_asked_to_end_answers_what_it_has_and_is_replaced(held):
    toy, hold = held, held.log.with_name("hold")
    hold.touch()
    connection = toy.connect()
    leaving = toy.ask(connection)[0]
    connection.request("GET", "/slow")
    time.sleep(0.2)
    os.kill(leaving, signal.SIGTERM)
    toy.until(lambda: any(state.startswith("leaving") for state in toy.ask()[1]))
    for _ in range(20):
        assert toy.ask()[0] != leaving
    hold.unlink()
    assert connection.getresponse().read().decode().split()[0] == str(leaving)
    toy.until(lambda: len(toy.workers() - {leaving}) == 2)


def test_a_worker_that_is_stuck_is_killed_and_replaced(held):
    toy = held
    toy.until(lambda: len(toy.workers()) == 2)
    stuck, *_ = workers = sorted(toy.workers())
    os.kill(stuck, signal.SIGSTOP)
    toy.until(lambda: f"(pid {stuck}) ended by SIGKILL" in toy.said())
    assert re.search(rf"process \d \(pid {stuck}\) has been silent for [2-9] s; it is killed", toy.said())
    toy.until(lambda: len(found := toy.workers()) == 2 and found != set(workers))


def test_workers_end_when_the_process_that_started_them_is_killed(start):
    toy = start(2).serves()
    workers = toy.workers()
    assert len(workers) == 2
    toy.process.kill()
    toy.process.wait()
    toy.until(lambda: toy.all_gone(workers))


def test_a_worker_that_cannot_start_keeps_the_service_from_listening(start):
    toy = start(2, TOY_FAILS="1")
    assert toy.process.wait(WAIT_S) == 1
    assert "it cannot start\n" in toy.said()
    assert "a process of the service ended before all of them served; nothing listens" in toy.said()


def test_if_no_worker_can_be_started_again_the_service_ends(start, tmp_path, monkeypatch):
    fails = tmp_path / "fails"
    toy = start(1, TOY_FAILS_LATER=str(fails)).serves()
    worker = toy.ask()[0]
    fails.touch()
    os.kill(worker, signal.SIGKILL)
    assert toy.process.wait(WAIT_S) == 1
    assert toy.said().count("it cannot start") == processes.MOST_FAILED_STARTS
    assert "no process of the service can be started; it ends" in toy.said()


def test_another_system_is_refused_by_name(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))
    bundle = ["--bundle", str(tmp_path / "none"), "--version", "1", "--port", str(free_port())]
    with pytest.raises(SystemExit, match="--processes needs Linux, and this is darwin; start one process"):
        main([*bundle, "--processes", "2"])


@pytest.mark.parametrize("count", ["0", "65"])
def test_a_number_of_processes_that_is_out_of_range_is_refused(count, capsys):
    with pytest.raises(SystemExit):
        main(["--processes", count])
    assert f"--processes {count} is out of range; give 1 to 64" in capsys.readouterr().err

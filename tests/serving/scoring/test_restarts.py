"""Restarts under load: no request fails.

Clients ask all the time, with connections that stay open and with a new one for each request. They try again only what
is safe for any request: a connection that was refused, so that nothing was sent.
"""

import http.client
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from assets.models.fraud import model
from resources.processes import free_port
from resources.settings import project_root

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

HANDOVERS, RESTARTS = (5, pytest.param(20, marks=pytest.mark.long)), 4
BODY = json.dumps({"features": [[1.0] * len(model.features.names)]}).encode()
WAIT_S = 600
"""For a process to start or to end, on a machine that does much else."""
PAUSE_S = 0.01
"""Between two requests of a client, so that the processes that start get some of the machine."""


class Load:
    """Clients of the service at some ports, in turn."""

    def __init__(self, ports: list[int]) -> None:
        self.answered, self.failed, self.versions = 0, [], set()
        self._ports, self._done = itertools.cycle(ports), threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(keep,)) for keep in (True, True, False, False)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, keep: bool) -> None:
        connection = None
        while not self._done.is_set():
            time.sleep(PAUSE_S)
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", next(self._ports), timeout=30)
                    try:
                        connection.connect()
                    except ConnectionRefusedError:
                        connection = None
                        continue
                headers = {"Content-Type": "application/json"} | ({} if keep else {"Connection": "close"})
                connection.request("POST", "/models/fraud/score", BODY, headers)
                response = connection.getresponse()
                content = response.read()
                if response.status == 200:
                    self.answered += 1
                else:
                    self.failed.append(content.decode())
                if response.will_close:
                    connection.close()
                    connection = None
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(repr(error))
                connection = None


class Replica:
    """One process of the service, for a bundle."""

    def __init__(self, home: Path, bundle: Path, port: int, *arguments: str) -> None:
        command = [sys.executable, "-m", "serving.scoring.service", "--bundle", str(bundle), "--port", str(port)]
        self.port, self.log = port, home / "replicas.log"
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, *arguments], cwd=project_root(), env={**os.environ, "ASSETLINE_HOME": str(home)},
                stdout=log, stderr=log,
            )  # fmt: skip

    def until_ready(self) -> "Replica":
        for _ in range(10 * WAIT_S):
            assert self.process.poll() is None, self.log.read_text()
            if self.status("/readyz") == 200:
                return self
            time.sleep(0.1)
        raise AssertionError(f"not ready:\n{self.log.read_text()}")

    def status(self, path: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except ConnectionRefusedError:
            return 0
        finally:
            connection.close()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        return self.process.wait(WAIT_S)


@pytest.mark.parametrize("handovers", HANDOVERS)
def test_a_service_is_replaced_on_its_port_and_no_request_fails(world, bundles, tmp_path, handovers):
    port = free_port()
    ask_to_share = ("--reuse-port", "--drain", "0.2")
    current = Replica(tmp_path, bundles["1"], port, *ask_to_share).until_ready()
    try:
        with Load([port]) as load:
            for n in range(handovers):
                before = load.answered
                new = Replica(tmp_path, bundles[str(1 + n % 2)], port, *ask_to_share,
                              "--replace", str(current.process.pid))  # fmt: skip
                assert current.ended() in (0, -signal.SIGTERM)
                current = new
                assert load.answered > before
        assert load.failed == []
        assert load.answered > handovers * 10
    finally:
        current.stop()
        current.ended()


def test_two_replicas_are_restarted_in_turn_and_no_request_fails(world, bundles, tmp_path):
    replicas = [Replica(tmp_path, bundles["1"], free_port(), "--drain", "3") for _ in range(2)]
    try:
        for replica in replicas:
            replica.until_ready()
        with Load([replica.port for replica in replicas]) as load:
            for n in range(RESTARTS):
                old = replicas[n % 2]
                old.stop()
                # The balancer is told first, while everything is still answered.
                while old.status("/readyz") == 200:
                    time.sleep(0.02)
                assert (old.status("/readyz"), old.status("/livez")) == (503, 200)
                old.ended()
                replicas[n % 2] = Replica(tmp_path, bundles["1"], old.port, "--drain", "3").until_ready()
        assert load.failed == []
        assert load.answered > RESTARTS * 10
    finally:
        for replica in replicas:
            replica.stop()
            replica.ended()


def test_a_request_that_runs_is_finished(world, bundles, tmp_path):
    replica = Replica(tmp_path, bundles["1"], free_port()).until_ready()
    sent, answers = threading.Event(), []

    def slow_client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", replica.port, timeout=30)
        connection.putrequest("POST", "/models/fraud/score")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(BODY)))
        connection.endheaders(BODY[:20])
        sent.set()
        while replica.status("/livez"):  # until the port is closed
            time.sleep(0.05)
        connection.send(BODY[20:])
        answers.append(connection.getresponse().status)

    client = threading.Thread(target=slow_client)
    client.start()
    sent.wait(30)
    replica.stop()
    client.join()
    assert replica.ended() in (0, -signal.SIGTERM)
    assert answers == [200]

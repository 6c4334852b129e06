"""The scoring service with several processes behind its port, as its clients meet it."""

import http.client
import json
import os
import re
import shutil
import signal
import threading
import time

import pytest

from resources.ledger import CHAMPION, SHARE, Ledger
from resources.processes import still_runs
from resources.request_log import RequestLog
from resources.settings import Settings
from tests.serving.conftest import payment
from tests.serving.processes import Service
from tests.serving.scoring.test_replicas import sequence
from tests.serving.scoring.test_service import register, registry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]


@pytest.fixture(scope="module")
def several(tmp_path_factory, world, bundles):
    """A service of two processes, and the registry that it follows, with two versions."""
    home = tmp_path_factory.mktemp("several")
    shutil.copytree(world / "tables", home / "tables")
    mlflow = registry(home)
    versions = [register(mlflow, bundles[name]) for name in ("1", "2")]
    mlflow.set_alias("fraud", CHAMPION, versions[0])
    service = Service(home, "--model", "fraud", ASSETLINE_SERVICE_PROCESSES="2", ASSETLINE_RATE_LIMIT="0")
    service.until(lambda: service.health()["version"] == versions[0], seconds=180)
    service.mlflow, service.versions, service.logged = mlflow, versions, RequestLog(folder=str(home / "serving"))
    yield service
    service.end()


class Connection:
    """A connection that stays open, so that one process answers all that is asked over it."""

    def __init__(self, service: Service) -> None:
        url = service.client.base_url
        self._open = http.client.HTTPConnection(url.host, url.port, timeout=60)
        self._headers = {"Authorization": service.client.headers["Authorization"], "Content-Type": "application/json"}

    def predict(self, rows) -> tuple[int, bytes]:
        self._open.request("POST", "/models/fraud/predict", json.dumps(rows), self._headers)
        answer = self._open.getresponse()
        return answer.status, answer.read()

    def version(self, number: int) -> str:
        return json.loads(self.predict(payment(number))[1])["version"]

    def close(self) -> None:
        self._open.close()


@pytest.fixture
def connections(several):
    """Two connections, one to each process."""
    time.sleep(0.3)  # until the processes have reported that the last test's connections are closed
    both = [Connection(several) for _ in range(2)]
    yield both
    for one in both:
        one.close()


def counted(service: Service) -> float:
    page = service.client.get("/metrics", headers={"Connection": "close"}).text
    found = re.findall(r'^assetline_requests_total\{model="fraud",outcome="ok",version="\d+"\} (\S+)$', page, re.M)
    return sum(map(float, found))


def test_the_processes_answer_as_one_process_bit_for_bit_and_the_counts_add_up(
    several, connections, tmp_path, world, bundles
):
    shutil.copytree(world / "tables", tmp_path / "alone" / "tables")
    mlflow = registry(tmp_path / "alone")
    mlflow.set_alias("fraud", CHAMPION, register(mlflow, bundles["1"]))
    alone = Service(tmp_path / "alone", "--model", "fraud")
    try:
        alone.until(lambda: alone.health()["version"] == "1", seconds=180)
        before, requests = counted(several), sequence(40)
        expected = [alone.predict(rows).content for rows in requests]
    finally:
        alone.end()
    answers = [connections[number % 2].predict(rows) for number, rows in enumerate(requests)]
    assert [status for status, _ in answers] == [200] * len(requests)
    assert [content for _, content in answers] == expected
    day = several.logged.day("fraud", max(several.logged.days("fraud")))
    assert day.records["writer"].nunique() >= 2, "one process answered everything"
    assert day.missing == {}
    # Whichever process answers the scrape.
    assert {counted(several) - before for _ in range(8)} == {len(requests)}


def test_a_promotion_reaches_every_process_and_no_request_fails(several, connections):
    first, second = several.versions
    serving = {connection.version(10**6 + n) for n, connection in enumerate(connections)}
    assert serving == {first}
    several.mlflow.set_alias("fraud", CHAMPION, second)
    number, reached = 2 * 10**6, set()
    while len(reached) < 2:
        for n, connection in enumerate(connections):
            number += 1
            status, content = connection.predict(payment(number))
            assert status == 200, content
            if json.loads(content)["version"] == second:
                reached.add(n)
    several.until(lambda: several.health()["version"] == second)
    several.mlflow.set_alias("fraud", CHAMPION, first)
    several.until(lambda: several.health()["version"] == first)
    assert {connection.version(3 * 10**6 + n) for n, connection in enumerate(connections)} == {first}


def test_during_a_rollout_a_customer_is_on_one_side_whichever_process_answers(several, connections):
    second = several.versions[1]
    settings = Settings.from_env({"ASSETLINE_HOME": str(several.home)})
    ledger = Ledger(database_url=settings.database_url)
    facts = {"reason": "a test", "dagster_run": "", "who": "test"}
    ledger.record("canary", "fraud", second, verdicts={SHARE: 0.5}, **facts)
    number = 4 * 10**6

    def sides(connection: Connection) -> list[str]:
        nonlocal number
        found = []
        for customer in range(12):
            number += 1
            status, content = connection.predict(payment(number, customer_id=700 + customer))
            assert status == 200, content
            found.append(json.loads(content)["version"])
        return found

    several.until(lambda: all(second in sides(connection) for connection in connections), seconds=60)
    both = [sides(connection) for connection in connections]
    assert both[0] == both[1]
    assert set(both[0]) == {*several.versions}
    ledger.record("abort", "fraud", second, verdicts={}, **facts)
    several.until(lambda: all(second not in sides(connection) for connection in connections), seconds=60)


def test_a_process_that_is_killed_loses_no_answered_request_and_comes_back(several):
    processes = several.client.get("/health").json()["processes"]
    assert [(one["process"], one["state"]) for one in processes] == [(0, "serving"), (1, "serving")]
    before, restarts = counted(several), sum(one["restarts"] for one in processes)
    answered, lost, done = [], [], threading.Event()

    def ask(client: int) -> None:
        connection, number = Connection(several), client * 10**7
        while not done.is_set():
            number += 1
            try:
                status, content = connection.predict(payment(number, customer_id=300 + client))
                assert status == 200, content
                answered.append(10**15 + number)
            except (OSError, http.client.HTTPException):
                lost.append(10**15 + number)
                connection.close()
                connection = Connection(several)
            time.sleep(0.02)
        connection.close()

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    os.kill(processes[1]["pid"], signal.SIGKILL)

    def is_back() -> bool:
        found = several.client.get("/health", headers={"Connection": "close"}).json()["processes"]
        return sum(one["restarts"] for one in found) > restarts and all(one["state"] == "serving" for one in found)

    several.until(is_back, seconds=180)
    time.sleep(1)
    done.set()
    for thread in threads:
        thread.join()
    assert len(lost) <= len(threads), "each client has one request at a time in the hands of a process"
    logged = several.logged.day("fraud", max(several.logged.days("fraud"))).records
    assert set(answered) <= set(logged.loc[logged["outcome"] == "ok", "key"])
    # What the killed process had counted is still there; its last request may be counted without an answer.
    assert 0 <= counted(several) - before - len(answered) <= len(lost)


def test_a_stop_ends_all_processes(several):
    pids = [one["pid"] for one in several.client.get("/health").json()["processes"]]
    several.process.send_signal(signal.SIGTERM)
    assert several.process.wait(60) == -signal.SIGTERM
    assert not any(still_runs(pid, time.time()) for pid in pids)
    assert "Traceback" not in several.said()

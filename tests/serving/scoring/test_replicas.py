"""Services that share their history in a real PostgreSQL answer as one."""

import datetime as dt
import shutil
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from resources.ledger import CHAMPION
from resources.request_log import RequestLog
from tests.resources.conftest import POSTGRES
from tests.serving.conftest import payment
from tests.serving.processes import Service
from tests.serving.scoring.test_service import register, registry

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(POSTGRES is None, reason="needs the Debian package postgresql"),
    pytest.mark.timeout(1_800),
]
START = dt.datetime.now(dt.UTC).replace(tzinfo=None, microsecond=0) - dt.timedelta(hours=1)
URL = "ASSETLINE_HISTORY_URL"


@dataclass
class Replicas:
    """A service with a history of its own, and two that share one in PostgreSQL. All have the same tables."""

    alone: Service
    both: list[Service]
    url: str
    start: object

    def logged(self) -> pd.DataFrame:
        log = RequestLog(folder="/nowhere", url=self.url)
        return pd.concat([log.day("fraud", day).records for day in log.days("fraud")])


@pytest.fixture(scope="module")
def replicas(tmp_path_factory, world, bundles, postgres):
    home = tmp_path_factory.mktemp("replicas")
    shutil.copytree(world / "tables", home / "tables")
    mlflow, url, started = registry(home), postgres("replicas"), []
    mlflow.set_alias("fraud", CHAMPION, register(mlflow, bundles["1"]))

    def start(history: str = "") -> Service:
        with pytest.MonkeyPatch.context() as environment:
            environment.delenv(URL, raising=False)
            if history:
                environment.setenv(URL, history)
            started.append(Service(home, "--model", "fraud"))
        started[-1].until(lambda: started[-1].health()["version"] == "1", seconds=180)
        return started[-1]

    yield Replicas(start(), [start(url), start(url)], url, start)
    for service in started:
        service.end()


def sequence(n: int) -> list[list[dict]]:
    """Requests of a few customers at a few terminals, each with those before it as its past; the last is sent again.

    The moment of arrival is part of a row, so it is sent, to be the same for every service.
    """
    rng = np.random.default_rng(7)
    requests = []
    for number in range(n):
        at = str(START + dt.timedelta(seconds=7 * number))
        requests.append([
            payment(10 * number + i, paid_at=at, arrived_at=at, customer_id=int(rng.integers(3)),
                    terminal_id=int(rng.integers(2)), amount=round(float(rng.gamma(2, 40)), 2))
            for i in range(1 + number % 3)
        ])  # fmt: skip
    return [*requests, requests[1]]


def answers_of(services: list[Service], requests: list[list[dict]]) -> list[bytes]:
    """The bodies of the answers; the requests go to the services in turn."""
    answers = []
    for number, rows in enumerate(requests):
        answer = services[number % len(services)].predict(rows)
        assert answer.status_code == 200, answer.text
        answers.append(answer.content)
    return answers


def test_two_processes_on_one_postgresql_answer_as_one_process_bit_for_bit(replicas):
    requests = sequence(40)
    expected = answers_of([replicas.alone], requests)
    assert answers_of(replicas.both, requests) == expected

    # A process that starts later has all that both have answered.
    third = replicas.start(replicas.url)
    at = str(START + dt.timedelta(minutes=30))
    later = [[payment(10**6, paid_at=at, arrived_at=at, customer_id=n, terminal_id=0)] for n in range(3)]
    assert answers_of([third, *replicas.both], later) == answers_of([replicas.alone], later)
    third.kill()
    found = replicas.logged()
    keys = {row["transaction_id"] for rows in [*requests, *later] for row in rows}
    assert keys <= set(found["key"])
    assert found[found["key"].isin(keys)]["writer"].nunique() == 3


def test_while_postgresql_is_away_requests_are_refused_and_then_it_goes_on_by_itself(replicas, postgres):
    def own(number: int) -> dict:
        return payment(5 * 10**6 + number, customer_id=900, terminal_id=901)

    first, second = replicas.both
    assert [service.predict(own(n)).status_code for n, service in enumerate(replicas.both)] == [200, 200]
    rows = second.health()["past"]["rows"]
    postgres.stop()
    try:
        began = time.monotonic()
        for service in (first, second, first):
            refused = service.predict(own(2))
            assert refused.status_code == 503
            assert "the history that the services share cannot be read (postgresql+psycopg" in refused.json()["detail"]
            assert int(refused.headers["Retry-After"]) > 0
        assert time.monotonic() - began < 60, "each request waited for the database"
        assert second.health()["past"]["rows"] == rows
    finally:
        postgres.start()
    for number, service in enumerate(replicas.both, 3):
        service.until(lambda service=service, number=number: service.predict(own(number)).status_code == 200)
    found = replicas.logged()
    answered = found.loc[(found["outcome"] == "ok") & (found["entity"] == 900), "key"].tolist()
    assert answered == [own(n)["transaction_id"] for n in (0, 1, 3, 4)], "lost, or written twice"

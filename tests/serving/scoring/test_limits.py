"""The rate limit of a token, with a clock that the test moves."""

import asyncio
import json
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest

from resources.settings import project_root
from serving.scoring import limits
from serving.scoring.limits import OwnBuckets, RateLimit, SharedBuckets, make_buckets
from serving.scoring.metrics import ServiceMetrics


class Asked:
    """One limited application, and what it answers to a request of a token."""

    def __init__(self, per_minute: int, shared: Path | None = None) -> None:
        self.now, self.refused, self.reached = 1000.0, [], 0
        self.limited = RateLimit(self.app, per_minute, self.refused.append, clock=lambda: self.now, shared=shared)

    async def app(self, scope, receive, send) -> None:
        self.reached += 1
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
        await send({"type": "http.response.body", "body": b"{}"})

    def ask(self, token: str | None = "nightly") -> tuple[int, dict[str, str], bytes]:
        messages: list = []

        async def send(message) -> None:
            messages.append(message)

        scope = {"type": "http", "headers": [], "state": {} if token is None else {"token": token}}
        asyncio.run(self.limited(scope, None, send))
        headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        return messages[0]["status"], headers, messages[1]["body"]


@pytest.mark.closes("service", "rate_limited")
def test_beyond_the_limit_it_is_429_with_the_time_to_wait_and_works_again_after_it():
    asked = Asked(per_minute=60)  # one a second, ten at once
    assert [asked.ask()[0] for _ in range(10)] == [200] * 10
    status, headers, body = asked.ask()
    assert (status, headers["retry-after"], asked.refused) == (429, "1", ["rate_limited"])
    assert json.loads(body)["detail"] == (
        "the token 'nightly' has made more than 60 requests a minute; wait 1 s, or send several rows in one request"
    )
    assert asked.reached == 10
    asked.now += 1
    assert [asked.ask()[0] for _ in range(2)] == [200, 429]
    asked.now += 3600
    assert [asked.ask()[0] for _ in range(11)] == [200] * 10 + [429], "an idle hour saves up no more than ten seconds"


def test_one_token_takes_nothing_from_another():
    asked = Asked(per_minute=60)
    while asked.ask("greedy")[0] == 200:
        pass
    assert asked.ask("modest")[0] == 200


def test_the_headers_say_what_is_left():
    asked = Asked(per_minute=60)
    _, first, _ = asked.ask()
    assert first == {"x": "y", "ratelimit-policy": '"token";q=60;w=60', "ratelimit": '"token";r=9;t=1'}
    for _ in range(9):
        _, last, _ = asked.ask()
    assert last["ratelimit"] == '"token";r=0;t=10'
    assert asked.ask()[1]["ratelimit"] == '"token";r=0;t=10'


@pytest.mark.parametrize("per_minute", [1, 5, 59])
def test_less_than_one_a_second_is_possible(per_minute):
    asked = Asked(per_minute)
    burst = max(1, int(per_minute / 6))
    assert [asked.ask()[0] for _ in range(burst + 1)] == [200] * burst + [429]
    wait = int(asked.ask()[1]["retry-after"])
    assert wait <= math.ceil(60 / per_minute)
    asked.now += wait
    assert asked.ask()[0] == 200


def test_over_ten_minutes_of_asking_all_the_time_it_is_the_limit_and_one_burst():
    asked = Asked(per_minute=120)
    for _ in range(600 * 5):
        asked.ask()
        asked.now += 0.2
    assert asked.reached == pytest.approx(120 * 10 + 20, abs=2)


def test_without_a_token_nothing_is_limited():
    asked = Asked(per_minute=1)
    answers = [asked.ask(None) for _ in range(5)]
    assert [status for status, *_ in answers] == [200] * 5
    assert "ratelimit" not in answers[0][1]


def test_refusals_are_counted():
    metrics = ServiceMetrics()
    metrics.refused("rate_limited")
    assert metrics.registry.get_sample_value("assetline_refused_requests_total", {"reason": "rate_limited"}) == 1


@pytest.fixture
def shared(tmp_path):
    """The buckets of two processes, and of others that open the same file."""
    make_buckets(tmp_path / "buckets")
    return lambda: SharedBuckets(tmp_path / "buckets", most=10.0, per_second=1.0)


def test_processes_of_one_service_share_a_tokens_bucket(shared):
    first, second = shared(), shared()
    assert [int((first, second)[n % 2].take("nightly", 5.0)) for n in range(12)] == [
        10,
        9,
        8,
        7,
        6,
        5,
        4,
        3,
        2,
        1,
        0,
        0,
    ]
    assert second.take("other", 5.0) == 10, "another token has a bucket of its own"
    assert second.take("nightly", 7.5) == 2.5
    assert shared().take("nightly", 7.5) == 1.5, "a process that starts later goes on with it"
    assert shared().take("nightly", 3_600.0) == 10


def test_shared_buckets_take_as_those_of_one_process_do(shared):
    own, both = OwnBuckets(10.0, 1.0), (shared(), shared())
    rng = random.Random(0)
    now = 0.0
    for n in range(3_000):
        token, now = f"token {rng.randrange(40)}", now + rng.random() / 20
        assert both[n % 2].take(token, now) == pytest.approx(own.take(token, now), abs=1e-9)


def test_a_full_table_gives_places_of_full_buckets_to_other_tokens(shared, monkeypatch):
    monkeypatch.setattr(limits, "SHARED_BUCKETS", 8)
    buckets = shared()
    assert [buckets.take(f"token {n}", 1.0) for n in range(8)] == [10.0] * 8
    assert buckets.take("one too many", 1.0) == 9.0, "it shares a bucket"
    assert buckets.take("late", 100.0) == 10.0, "all are full again"
    assert buckets.take("late", 100.0) == 9.0


def test_requests_of_many_processes_at_once_are_all_counted(tmp_path):
    make_buckets(tmp_path / "buckets")
    each, script = 400, (
        "import sys; from pathlib import Path; from serving.scoring.limits import SharedBuckets; "
        "buckets = SharedBuckets(Path(sys.argv[1]), most=10_000.0, per_second=1.0); "
        "[buckets.take('nightly', 1.0) for _ in range(int(sys.argv[2]))]"
    )  # fmt: skip
    command = [sys.executable, "-c", script, str(tmp_path / "buckets"), str(each)]
    started = [subprocess.Popen(command, cwd=project_root()) for _ in range(2)]
    assert [one.wait() for one in started] == [0, 0]
    assert SharedBuckets(tmp_path / "buckets", 10_000.0, 1.0).take("nightly", 1.0) == 10_000 - 2 * each


def test_the_limit_holds_over_two_processes(tmp_path):
    make_buckets(tmp_path / "buckets")
    both = [Asked(per_minute=60, shared=tmp_path / "buckets") for _ in range(2)]
    answers = [both[n % 2].ask() for n in range(12)]
    assert [status for status, _, _ in answers] == [200] * 10 + [429] * 2
    assert answers[1][1]["ratelimit"] == '"token";r=8;t=2'

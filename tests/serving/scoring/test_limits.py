"""The rate limit of a token, with a clock that the test moves."""

import asyncio
import json
import math

import pytest

from serving.scoring.limits import RateLimit
from serving.scoring.metrics import ServiceMetrics


class Asked:
    """One limited application, and what it answers to a request of a token."""

    def __init__(self, per_minute: int) -> None:
        self.now, self.refused, self.reached = 1000.0, [], 0
        self.limited = RateLimit(self.app, per_minute, self.refused.append, clock=lambda: self.now)

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

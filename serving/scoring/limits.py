"""How often one token may ask, so that one client cannot take the service from the others.

Belongs here: limits over several requests. Does not belong here: limits of one request (``bodies.py``).

Each token has a bucket that holds ten seconds' worth of requests and fills steadily. A client that stays below the
limit on average is never refused for a short burst, and one that is refused may ask again soon. Each process counts for
itself: behind ``n`` replicas a token gets up to ``n`` times the limit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.scoring.access import Refusal
from serving.scoring.errors import Json

BURST_S = 10.0
"""Seconds whose requests may come at once."""


class RateLimit:
    """ASGI middleware: answers 429 to the requests of a token beyond the limit.

    It adds the headers ``RateLimit-Policy`` and ``RateLimit`` of the IETF draft to the responses of limited requests.
    Requests without a token (open paths, or a service without tokens) are not limited.

    Args:
        app: the application behind it.
        per_minute: requests a minute for each token, at least 1.
        refused: called for each refused request, e.g. to count it.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        app: ASGIApp,
        per_minute: int,
        refused: Callable[[Refusal], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app, self._refused, self._clock = app, refused, clock
        self._per_minute, self._per_second = per_minute, per_minute / 60
        self._most = max(1.0, self._per_second * BURST_S)
        self._policy = (b"ratelimit-policy", f'"token";q={per_minute};w=60'.encode())
        self._buckets: dict[str, tuple[float, float]] = {}  # by token: requests left, and when that was so

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI connection."""
        token = scope.get("state", {}).get("token")
        if token is None:
            await self._app(scope, receive, send)
            return
        left = self._left(token)
        allowed = left >= 1
        self._buckets[token] = (left - allowed, self._clock())
        full_after = math.ceil((self._most - left + allowed) / self._per_second)
        limit = (b"ratelimit", f'"token";r={int(left - allowed)};t={full_after}'.encode())

        async def send_with_limit(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], self._policy, limit]
            await send(message)

        if allowed:
            await self._app(scope, receive, send_with_limit)
            return
        self._refused("rate_limited")
        wait = max(1, math.ceil((1 - left) / self._per_second))
        detail = (
            f"the token '{token}' has made more than {self._per_minute} requests a minute; wait {wait} s, or send "
            "several rows in one request"
        )
        await Json({"detail": detail}, 429, headers={"Retry-After": str(wait)})(scope, receive, send_with_limit)

    def _left(self, token: str) -> float:
        """Requests that the token may make now, as a fraction."""
        left, at = self._buckets.get(token, (self._most, 0.0))
        return min(self._most, left + (self._clock() - at) * self._per_second)

"""How often one token may ask, so that one client cannot take the service from the others.

Belongs here: limits over several requests. Does not belong here: limits of one request (``bodies.py``).

Each token has a bucket that holds ten seconds' worth of requests and fills steadily. A client that stays below the
limit on average is never refused for a short burst, and one that is refused may ask again soon. The processes of one
service share the buckets, in a file. Each service counts for itself: behind ``n`` replicas a token gets up to ``n``
times the limit.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import mmap
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.scoring.access import Refusal
from serving.scoring.errors import Json

BURST_S = 10.0
"""Seconds whose requests may come at once."""
SHARED_BUCKETS = 4_096
"""Buckets in the file. Where more tokens than that ask within ten seconds, some of them share a bucket."""
_BUCKET = struct.Struct("<16sdd")
_UNUSED = bytes(16)


class Buckets(Protocol):
    """The buckets of all tokens."""

    def take(self, token: str, now: float) -> float:
        """Takes one request out of a token's bucket, if it has one.

        Args:
            token: name of the token.
            now: seconds that only grow, the same for all processes of the machine.

        Returns:
            The requests that the token might make before this one, as a fraction; below 1, nothing was taken.
        """


class OwnBuckets:
    """The buckets of one process. See :class:`Buckets`.

    Args:
        most: requests in a full bucket.
        per_second: requests that come back each second.
    """

    def __init__(self, most: float, per_second: float) -> None:
        self._most, self._per_second = most, per_second
        self._buckets: dict[str, tuple[float, float]] = {}  # by token: requests left, and when that was so

    def take(self, token: str, now: float) -> float:
        """See :class:`Buckets`."""
        left, at = self._buckets.get(token, (self._most, 0.0))
        left = min(self._most, left + (now - at) * self._per_second)
        self._buckets[token] = (left - (left >= 1), now)
        return left


def make_buckets(path: Path) -> None:
    """Makes the file of :class:`SharedBuckets`, with full buckets. Raises :class:`OSError` if the disk is full."""
    with path.open("wb") as file:
        file.write(bytes(SHARED_BUCKETS * _BUCKET.size))


class SharedBuckets:
    """The buckets of all processes that have opened the same file. See :class:`Buckets`.

    The file is a hash table of the tokens' names. A bucket that is full again is as good as none, so another token may
    have its place. The lock is the operating system's, which frees it if its process is killed.

    Args:
        path: a file by :func:`make_buckets`.
        most: requests in a full bucket.
        per_second: requests that come back each second.
    """

    def __init__(self, path: Path, most: float, per_second: float) -> None:
        self._most, self._per_second = most, per_second
        self._file = os.open(path, os.O_RDWR)
        self._table = mmap.mmap(self._file, SHARED_BUCKETS * _BUCKET.size)

    def take(self, token: str, now: float) -> float:
        """See :class:`Buckets`."""
        name = hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            at, left = self._find(name, now)
            _BUCKET.pack_into(self._table, at, name, left - (left >= 1), now)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
        return left

    def _find(self, name: bytes, now: float) -> tuple[int, float]:
        """The place of a token's bucket in the table, and what is in it now."""
        home, place = int.from_bytes(name[:8], "little") % SHARED_BUCKETS, None
        for step in range(SHARED_BUCKETS):
            at = (home + step) % SHARED_BUCKETS * _BUCKET.size
            whose, left, then = _BUCKET.unpack_from(self._table, at)
            if whose == _UNUSED:  # no token has come this far, so this one has no bucket
                return at if place is None else place, self._most
            left = min(self._most, left + (now - then) * self._per_second)
            if whose == name:
                return at, left
            if place is None and left >= self._most:
                place = at
        if place is not None:
            return place, self._most
        at = home * _BUCKET.size
        _, left, then = _BUCKET.unpack_from(self._table, at)
        return at, min(self._most, left + (now - then) * self._per_second)


class RateLimit:
    """ASGI middleware: answers 429 to the requests of a token beyond the limit.

    It adds the headers ``RateLimit-Policy`` and ``RateLimit`` of the IETF draft to the responses of limited requests.
    Requests without a token (open paths, or a service without tokens) are not limited.

    Args:
        app: the application behind it.
        per_minute: requests a minute for each token, at least 1.
        refused: called for each refused request, e.g. to count it.
        clock: seconds that only grow.
        shared: the file of :func:`make_buckets` if several processes count together.
    """

    def __init__(
        self,
        app: ASGIApp,
        per_minute: int,
        refused: Callable[[Refusal], None],
        clock: Callable[[], float] = time.monotonic,
        shared: Path | None = None,
    ) -> None:
        self._app, self._refused, self._clock = app, refused, clock
        self._per_minute, self._per_second = per_minute, per_minute / 60
        self._most = max(1.0, self._per_second * BURST_S)
        self._policy = (b"ratelimit-policy", f'"token";q={per_minute};w=60'.encode())
        self._buckets: Buckets = (
            OwnBuckets(self._most, self._per_second)
            if shared is None
            else SharedBuckets(shared, self._most, self._per_second)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI connection."""
        token = scope.get("state", {}).get("token")
        if token is None:
            await self._app(scope, receive, send)
            return
        left = self._buckets.take(token, self._clock())
        allowed = left >= 1
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

"""The audit log's lines about scores: which token asked which model how often, from where, one line a minute.

Belongs here: counting the answered requests and writing the lines. Does not belong here: the log
(``resources/audit.py``), single requests (``access_log.py``), and rows (the log of requests).

A line for each request would make all requests wait for one lock of the database. A killed process loses the counts of
its last minute; its requests are in the access log.
"""

from __future__ import annotations

import collections
import contextlib
import datetime as dt
import logging
import threading
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resources.audit import AuditError, AuditLog

EVERY_S = 60.0
_MOST_KEYS = 10_000
_log = logging.getLogger("assetline.service")

Key = tuple[str, str, str, str]
"""Token, address of the client, model, and what was asked: ``score``, ``predict`` or ``explain``."""


class ScoreAudit:
    """ASGI middleware: counts answered requests to models, and writes the counts to the audit log.

    Args:
        app: the application behind it.
        log: the audit log.
        every_s: seconds between two writes.
    """

    def __init__(self, app: ASGIApp, log: AuditLog, every_s: float = EVERY_S) -> None:
        self._app, self._log, self._every_s = app, log, every_s
        self._counts: collections.Counter[Key] = collections.Counter()
        self._since = dt.datetime.now(dt.UTC)
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._problem = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, self._until_shutdown(receive), send)
            return
        parts = scope["path"].split("/") if scope["type"] == "http" and scope["method"] == "POST" else []
        if len(parts) != 4 or parts[1] != "models":
            await self._app(scope, receive, send)
            return
        status = 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await self._app(scope, receive, watched)
        if status < 400:
            self._count(scope.get("state", {}), scope.get("client"), parts[2], parts[3])

    def write(self) -> None:
        """Writes what was counted since the last write. If the log cannot be written, the counts wait for the next."""
        now = dt.datetime.now(dt.UTC)
        with self._lock:
            counts, self._counts = self._counts, collections.Counter()
            since, self._since = self._since, now
        for (token, client, model, asked), requests in sorted(counts.items()):
            details = {"requests": requests, "asked": asked, "since": since.isoformat(timespec="seconds")}
            try:
                self._log.record("score", model, who=token, origin=f"{client} by the service", details=details)
            except AuditError as error:
                with self._lock:
                    self._counts[token, client, model, asked] += requests
                    self._since = min(self._since, since)
                if str(error) != self._problem:
                    self._problem = str(error)
                    _log.error("%s; the service goes on, and the counts are kept", error)
            else:
                self._problem = ""

    def _count(self, state: MutableMapping[str, Any], client: Any, model: str, asked: str) -> None:
        key = (str(state.get("token") or "no token"), str(client[0]) if client else "unknown", model, asked)
        with self._lock:
            if key not in self._counts and len(self._counts) >= _MOST_KEYS:
                key = (key[0], "many addresses", model, asked)
            self._counts[key] += 1
            if self._thread is None:  # here and not at the start: threads do not survive the fork of a process
                self._thread = threading.Thread(target=self._write_on, name="score audit", daemon=True)
                self._thread.start()

    def _write_on(self) -> None:
        while not self._stop.wait(self._every_s):
            self.write()

    def _until_shutdown(self, receive: Receive) -> Receive:
        async def received() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                self._stop.set()
                with contextlib.suppress(RuntimeError):  # no thread was started, or it ended
                    if self._thread is not None:
                        self._thread.join(timeout=5)
                self.write()
            return message

        return received

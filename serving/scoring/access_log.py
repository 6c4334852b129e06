"""Request ids, and the access log: one line of JSON for each request, without anything that a client invents.

    {"at": "2026-12-01T09:30:00.123+00:00", "request_id": "0f…", "client": "10.0.0.7", "token": "nightly",
     "method": "POST", "path": "/models/fraud/predict", "status": 200, "ms": 1.62, "bytes": 118}

Belongs here: what is logged of a request, and writing the lines. Does not belong here: rows and answers (they are the
log of requests, which has an owner and a retention of its own).

Never in the log: bodies, query strings, headers, tokens, and paths that no route serves (they are ``other``), because
any of them may hold personal data or a secret. The request id of a client is logged, in the narrow form that is
accepted.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import json
import logging
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 10 * 1024 * 1024
"""Size from which a file is rotated."""
KEPT_FILES = 5
"""Rotated files that are kept: ``access.jsonl.1`` is the newest."""
_LOOK_S = 1.0
_VALID_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_log = logging.getLogger("assetline.service")


class LineFile:
    """Appends lines to a file and rotates it; several processes may share the file.

    Each line is one write to a file opened for appending, so lines of two processes never mix. Once a second, the file
    is looked at: another process may have rotated it, or it may have become too large.

    Args:
        path: path of the file; its folder is made.
        most_bytes: size from which it is rotated.
        kept: number of rotated files that are kept.
    """

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES, kept: int = KEPT_FILES) -> None:
        self._path, self._most_bytes, self._kept = path, most_bytes, kept
        self._file, self._next_look = -1, 0.0

    def write(self, line: bytes) -> None:
        """Appends a line. Raises :class:`OSError` if the disk does not take it."""
        now = time.monotonic()
        if now >= self._next_look:
            self.look()
            self._next_look = now + _LOOK_S
        if os.write(self._file, line) != len(line):
            raise OSError(f"{self._path}: the disk took only part of a line; free some space")

    def look(self) -> None:
        """Rotates the file if it is too large, and opens the current one."""
        if self._file < 0:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        if os.fstat(self._file).st_size >= self._most_bytes:
            with self._locked():
                if self._is_current():  # otherwise another process has rotated it meanwhile
                    for n in reversed(range(1, self._kept)):
                        with contextlib.suppress(FileNotFoundError):
                            os.replace(self._rotated(n), self._rotated(n + 1))
                    os.replace(self._path, self._rotated(1))
        if not self._is_current():
            self._open()

    def close(self) -> None:
        """Closes the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file, self._next_look = -1, 0.0

    def _rotated(self, n: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{n}")

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file), os.stat(self._path))
        except FileNotFoundError:
            return False

    def _open(self) -> None:
        new = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        self.close()
        self._file = new

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = os.open(self._path.with_name(f".{self._path.name}.lock"), os.O_WRONLY | os.O_CREAT, 0o640)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def write_to_stdout(line: bytes) -> None:
    """Writes a line to the standard output, for a log collector."""
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


class AccessLog:
    """ASGI middleware: gives each request an id, returns it as ``X-Request-ID``, and writes a line when it has ended.

    A valid ``X-Request-ID`` of the client is kept. The id is in ``request.state.request_id`` for what comes after.

    Args:
        app: the application behind it.
        paths: paths that are logged as they are; any other one is ``other``.
        write: writes one line; ``None``: there is no log.
        failed: called when a line could not be written, e.g. to count it; the request goes on.
    """

    def __init__(
        self,
        app: ASGIApp,
        paths: Collection[str],
        write: Callable[[bytes], None] | None,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._app, self._paths, self._write, self._failed = app, frozenset(paths), write, failed
        self._problem = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        identity = _request_id(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = identity.decode()
        status, sent, took = 500, 0, 0.0

        async def send_with_id(message: Message) -> None:
            nonlocal status, sent, took
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", identity)]
            elif message["type"] == "http.response.body":
                sent += len(message.get("body", b""))
            await send(message)
            took = time.perf_counter() - began  # of the response; what runs after it does not count

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            if self._write is not None:
                self._note(scope, status, sent, 1e3 * (took or time.perf_counter() - began))

    def _note(self, scope: Scope, status: int, sent: int, ms: float) -> None:
        state, client, path, method = scope["state"], scope.get("client"), scope["path"], scope["method"]
        line = {
            "at": dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds"),
            "request_id": state["request_id"],
            "client": client[0] if client else None,
            "token": state.get("token"),
            "method": method if method in _METHODS else "other",
            "path": path if path in self._paths else "other",
            "status": status,
            "ms": round(ms, 3),
            "bytes": sent,
        }
        assert self._write is not None
        try:
            self._write(json.dumps(line).encode() + b"\n")
        except (OSError, ValueError) as error:  # a closed stream raises ValueError
            self._failed()
            if str(error) != self._problem:
                self._problem = str(error)
                _log.error("the access log cannot be written: %s; requests go on", error)


def _request_id(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _VALID_ID.fullmatch(value):
            return bytes(value)
    return secrets.token_hex(16).encode()

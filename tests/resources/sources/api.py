"""A real HTTP server on loopback that hands out rows page by page, and does wrong what a test asks for."""

import contextlib
import email.utils
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit


@dataclass
class Answer:
    """What a request gets; ``cut`` bytes of the body are sent before the connection is closed."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


@dataclass
class Request:
    """What a request asked for."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]


Fault = Callable[[Request, Answer], Answer]
"""Spoils an answer."""


@dataclass
class Api:
    """Rows by page, in one of five styles: ``link``, ``body``, ``page``, ``offset``, ``cursor``.

    ``faults`` spoil the answer to a request by its number, from 0. ``since`` and ``until`` in the query select rows by
    the field ``at``; ``after`` selects those with a greater ``id``. ``shift_s`` is how far the clock is ahead.
    """

    rows: list[dict[str, Any]]
    style: str = "link"
    size: int = 10
    token: str = ""
    shift_s: float = 0
    faults: dict[int, Fault] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: Request) -> Answer:
        with self.lock:
            number = len(self.requests)
            self.requests.append(request)
            answer = self._answer(request)
            fault = self.faults.get(number)
        return fault(request, answer) if fault else answer

    def _answer(self, request: Request) -> Answer:
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return Answer(b'{"message": "bad token"}', 401)
        if urlsplit(request.path).path != "/v1/payments":
            return Answer(b"no such thing", 404)
        given = request.query
        rows = [
            row for row in self.rows
            if ("since" not in given or given["since"] <= row["at"] < given["until"])
            and ("after" not in given or row["id"] > int(given["after"]))
        ]  # fmt: skip
        return self.page(rows, given)

    def page(self, rows: list[dict[str, Any]], given: dict[str, str]) -> Answer:
        size = int(given.get("limit", self.size))
        start = int(given.get("offset", 0)) or int(given.get("cursor", 0)) or (int(given.get("page", 1)) - 1) * size
        part, end = rows[start : start + size], start + size
        body: dict[str, Any] = {"data": {"items": part}, "total": len(rows)}
        headers = {}
        if end < len(rows):
            following = f"{self.url}/v1/payments?{urlencode({**given, 'offset': end})}"
            match self.style:
                case "link":
                    headers["Link"] = f'<{self.url}/other>; rel="first", <{following}>; rel="next"'
                case "body":
                    body["links"] = {"next": following}
                case "cursor":
                    body["next_cursor"] = str(end)
        return Answer(json.dumps(body).encode(), 200, headers)


@contextlib.contextmanager
def served(api: Api) -> Iterator[Api]:
    """Serves on a free port until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            headers = {name.lower(): text for name, text in self.headers.items()}
            answer = api.answer(Request(self.path, dict(parse_qsl(parts.query)), headers))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.send_response_only(answer.status)
                self.send_header("Date", email.utils.formatdate(time.time() + api.shift_s, usegmt=True))
                for name, text in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                    self.send_header(name, text)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(answer.body[: answer.cut])
                if answer.cut is not None:
                    self.wfile.flush()
                    self.close_connection = True

        do_HEAD = do_GET

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# -- faults ------------------------------------------------------------------------------------------------------------


def cut_off(request: Request, answer: Answer) -> Answer:
    """The connection ends in the middle of the page."""
    return Answer(answer.body, answer.status, answer.headers, cut=len(answer.body) // 2)


def broken(request: Request, answer: Answer) -> Answer:
    return Answer(b"oops", 500)


def too_many(request: Request, answer: Answer) -> Answer:
    return Answer(b"slow down", 429, {"Retry-After": "0"})

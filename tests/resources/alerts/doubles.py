"""Stand-ins for Slack and PagerDuty that speak the documented HTTP and remember what they were told.

    python -m tests.resources.alerts.doubles FILE [--fail SHARE]    until it is ended; each message is a line of FILE

Slack: 200 with the text ``ok`` for a message with ``text``, else 400 ``no_text``; 404 ``no_service`` for another hook.
PagerDuty: 202 with status, message and dedup_key; 400 ``invalid event`` with its errors.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from resources.alerts import Addresses

ADDRESSES = Addresses(ui="https://dagster", watch="https://alerts")
SLACK_PATH = "/services/T000/B000/secret-of-the-hook"
ROUTING_KEY = "r" * 32


def slack(body: Any) -> tuple[int, str]:
    if not isinstance(body, dict) or not body.get("text"):
        return 400, "no_text"
    if len(body.get("blocks", [])) > 50 or any(len(b["text"]["text"]) > 3000 for b in body.get("blocks", [])):
        return 400, "invalid_blocks"
    return 200, "ok"


def pagerduty(body: Any) -> tuple[int, str]:
    errors = []
    if body.get("routing_key") != ROUTING_KEY:
        errors.append("'routing_key' is not valid")
    if body.get("event_action") not in ("trigger", "acknowledge", "resolve"):
        errors.append("'event_action' is missing or wrong")
    if body.get("event_action") == "trigger":
        payload = body.get("payload", {})
        errors += [
            f"'payload.{name}' is missing or blank"
            for name in ("summary", "source", "severity")
            if not payload.get(name)
        ]
        if payload.get("severity") not in ("critical", "error", "warning", "info"):
            errors.append("'payload.severity' is not one of critical, error, warning, info")
    elif not body.get("dedup_key"):
        errors.append("'dedup_key' is missing")
    if errors:
        return 400, json.dumps({"status": "invalid event", "message": "Event object is invalid", "errors": errors})
    return 202, json.dumps({"status": "success", "message": "Event processed", "dedup_key": body["dedup_key"]})


class Doubles(ThreadingHTTPServer):
    """``told``: (path, body) of what was taken, in order. ``fail``: share of messages that get a 503."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, file: Path | None = None, fail: float = 0.0, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.told: list[tuple[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.file, self.fail = file.open("a", buffering=1) if file else None, fail
        self.random, self.lock = random.Random(0), threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def bodies(self, path: str) -> list[Any]:
        return [body for at, body in self.told if at == path]


class _Handler(BaseHTTPRequestHandler):
    server: Doubles
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            fails = self.server.random.random() < self.server.fail
            status, said = 503, "service unavailable"
            if not fails and self.path == SLACK_PATH:
                status, said = slack(body)
            elif not fails and self.path.startswith("/services/"):
                status, said = 404, "no_service"
            elif not fails and self.path == "/v2/enqueue":
                status, said = pagerduty(body)
            elif not fails and self.path.startswith("/hook"):
                status, said = 200, "{}"
            if status < 300:
                self.server.told.append((self.path, body))
                self.server.headers.append(dict(self.headers))
                if self.server.file:
                    self.server.file.write(json.dumps([self.path, body]) + "\n")
        self.send_response(status)
        self.send_header("Content-Length", str(len(said.encode())))
        self.end_headers()
        self.wfile.write(said.encode())

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # a client that was killed
            super().handle()

    def log_message(self, *_: Any) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--fail", type=float, default=0.0)
    given = parser.parse_args()
    server = Doubles(given.file, given.fail)
    print(server.url, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()

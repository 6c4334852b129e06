"""Stands for the scoring service: the same flags, nothing behind them. A file in the bundle says how to misbehave."""

import argparse
import http.server
import json
import signal
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--bundle", type=Path, required=True)
parser.add_argument("--host", required=True)
parser.add_argument("--port", type=int, required=True)


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers what the bundle's ``answers.json`` says (``{"GET /health": [status, body]}``), else its facts."""

    def do_GET(self):
        given = self.server.bundle / "answers.json"
        if given.exists():
            self.answer(*json.loads(given.read_text())[f"{self.command} {self.path}"])
        else:
            self.answer(200 if self.path == "/health" else 404, (self.server.bundle / "bundle.json").read_text())

    def do_POST(self):
        rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["features"]
        given = json.loads((self.server.bundle / "bundle.json").read_text())
        if any(len(row) != len(given["feature_names"]) for row in rows):
            self.answer(422, "other features")
        else:
            self.do_GET()

    def answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())


if __name__ == "__main__":
    arguments = parser.parse_args()
    if (arguments.bundle / "crash").exists():
        sys.exit("network.pt2 is damaged")
    if (arguments.bundle / "garbled").exists():
        sys.stdout.buffer.write(b"\xff\xfe")
        sys.exit(1)
    if (arguments.bundle / "deaf").exists():
        print("still loading", flush=True)
        time.sleep(60)
    if (arguments.bundle / "stubborn").exists():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server = http.server.HTTPServer((arguments.host, arguments.port), Handler)
    server.bundle = arguments.bundle
    server.serve_forever()

"""Stands for the scoring service: the same flags, nothing behind them. A file in the bundle says how to misbehave."""

import argparse
import http.server
import signal
import sys
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--bundle", type=Path, required=True)
parser.add_argument("--host", required=True)
parser.add_argument("--port", type=int, required=True)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = (self.server.bundle / "bundle.json").read_bytes()
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    arguments = parser.parse_args()
    if (arguments.bundle / "crash").exists():
        sys.exit("network.pt2 is damaged")
    if (arguments.bundle / "deaf").exists():
        print("still loading", flush=True)
        time.sleep(60)
    if (arguments.bundle / "stubborn").exists():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server = http.server.HTTPServer((arguments.host, arguments.port), Handler)
    server.bundle = arguments.bundle
    server.serve_forever()

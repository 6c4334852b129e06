"""Two processes that answer, under the real supervisor: `python -m tests.serving.toy_supervisor PORT PORT`.

The second one has a child of its own, which ignores SIGTERM and holds its output open.
"""

import http.server
import signal
import subprocess
import sys
import time
import urllib.request

from resources.settings import Settings
from serving import supervisor


class Ok(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok")


def program(name: str, port: str, setting: str) -> supervisor.Program:
    return supervisor.Program(
        name=name,
        command=[sys.executable, "-m", "tests.serving.toy_supervisor", name, port],
        ready=lambda: bool(urllib.request.urlopen(f"http://127.0.0.1:{port}").read()),
        port=int(port),
        setting=setting,
        label=name.capitalize(),
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["child"]:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        case ["one" | "two" as name, port]:
            print(f"I am {name}")
            if name == "two":
                subprocess.Popen([sys.executable, "-m", "tests.serving.toy_supervisor", "child"])
            http.server.HTTPServer(("127.0.0.1", int(port)), Ok).serve_forever()
        case [first, second]:
            toys = [program("one", first, "ui_port"), program("two", second, "mlflow_port")]
            sys.exit(supervisor.supervise(Settings.from_env(), toys))

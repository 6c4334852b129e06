"""The scoring service as the process that it is, and a client of it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from resources.processes import free_port
from resources.settings import project_root


class Service:
    """The real process, and a client of it."""

    def __init__(self, home: Path, *arguments: str, **settings: str) -> None:
        self.home, port = home, str(free_port())
        command = [sys.executable, "-m", "serving.scoring.service", "--port", port, *arguments]
        environment = {**os.environ, "ASSETLINE_HOME": str(home), "OMP_NUM_THREADS": "1", **settings}
        self.output = (home / f"service-{port}.log").open("w+")
        self.process = subprocess.Popen(
            command, cwd=project_root(), env=environment, stdout=self.output, stderr=subprocess.STDOUT
        )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60)
        self.until(lambda: self.client.get("/health").status_code == 200, seconds=180)
        if (token := home / "service-token").exists():
            self.client.headers["Authorization"] = f"Bearer {token.read_text().strip()}"

    def until(self, holds, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.said()
            with contextlib.suppress(httpx.TransportError):
                if holds():
                    return
            time.sleep(0.05)
        raise AssertionError(f"not within {seconds} s:\n{self.said()}")

    def said(self) -> str:
        self.output.seek(0)
        return self.output.read()

    def health(self, model: str = "fraud") -> dict:
        return self.client.get("/health").json()["models"][model]

    def predict(self, row, model: str = "fraud") -> httpx.Response:
        return self.client.post(f"/models/{model}/predict", json=row)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
        self.output.close()

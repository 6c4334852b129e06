"""A throw-away service: one bundle in a process of its own, on the loopback interface.

Belongs here: starting and ending the process. Does not belong here: requests to it (``assets/lifecycle/release``).
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from resources.processes import free_port, tied_to_parent
from resources.settings import project_root
from resources.targets.base import DeploymentError, Staged

SERVICE = "serving.scoring.service"
"""Module of the scoring service."""


@contextlib.contextmanager
def throwaway_service(bundle: Path, *, service: str = SERVICE, start_timeout_s: float = 180.0) -> Iterator[Staged]:
    """Serves a bundle and yields the address; the process is ended after the block, also if this process is killed.

    Args:
        bundle: folder of the bundle.
        service: module started as ``python -m MODULE --bundle DIR --host 127.0.0.1 --port N``.
        start_timeout_s: seconds it has to become healthy.

    Raises:
        DeploymentError: it does not become healthy; the message has its last output.
    """
    port = free_port()
    address = ["--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", service, "--bundle", str(bundle.resolve()), *address]
    with running(command, f"http://127.0.0.1:{port}", f"{service} of {bundle}", start_timeout_s) as staged:
        yield staged


@contextlib.contextmanager
def running(command: Sequence[str], url: str, what: str, start_timeout_s: float) -> Iterator[Staged]:
    """Runs a command until ``/health`` of ``url`` answers, yields the address, and ends the process after the block.

    Raises:
        DeploymentError: it does not become healthy; the message names ``what`` and has the last output.
    """
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            tied_to_parent(list(command)),
            cwd=project_root(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_until_healthy(process, url, what, start_timeout_s, output)
            yield Staged(url)
        finally:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_healthy(
    process: subprocess.Popen[bytes], url: str, what: str, start_timeout_s: float, output: IO[str]
) -> None:
    # Ignore proxies from the environment for requests to this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + start_timeout_s
    last_error = "no answer yet"
    while time.monotonic() < deadline:
        if (code := process.poll()) is not None:
            raise DeploymentError(f"{what} exited with status {code} before it was healthy:\n{_tail(output)}")
        try:
            with opener.open(f"{url}/health", timeout=2):
                return
        except OSError as error:  # refused, reset, timed out, or an HTTP error status
            last_error = str(error)
        time.sleep(0.05)
    raise DeploymentError(
        f"{what} was not healthy after {start_timeout_s:g} s ({url}/health: {last_error}); raise start_timeout_s if "
        f"the machine is slow. Its last output:\n{_tail(output)}"
    )


def _tail(output: IO[str], lines: int = 20) -> str:
    output.seek(0)
    return "".join(output.readlines()[-lines:]).strip() or "(no output)"

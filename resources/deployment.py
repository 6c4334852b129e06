"""Deployment targets: places where model versions run.

Belongs here: targets. Does not belong here: the record of promotions (``ledger.py``), the decision to promote
(``assets/lifecycle``), the service (``serving/``).
"""

# No `from __future__ import annotations`: Dagster needs the evaluated annotations for ResourceDependency.
import abc
import contextlib
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import dagster as dg
from pydantic import Field

from resources.ledger import CHAMPION
from resources.mlflow import MlflowTracking
from resources.processes import free_port, tied_to_parent
from resources.settings import project_root

STAGED = "staged"
"""Version reported by a staged process, which has a bundle folder but no version number."""


class DeploymentError(Exception):
    """A version cannot be staged or promoted. The message gives the version and the fix."""


class DeploymentTarget(dg.ConfigurableResource, abc.ABC):
    """A place where model versions run."""

    @abc.abstractmethod
    def stage(self, bundle: Path) -> AbstractContextManager[str]:
        """Runs the bundle in a temporary service and yields its base URL; the service is removed after the block.

        Raises :class:`DeploymentError` if it does not become healthy.
        """

    @abc.abstractmethod
    def promote(self, model: str, version: str) -> None:
        """Makes this version the one that serves. Write the ledger entry first: see :class:`Ledger`."""


class LocalTarget(DeploymentTarget):
    """Runs model versions as processes on this machine; the scoring service follows the alias ``champion``."""

    mlflow: dg.ResourceDependency[MlflowTracking]
    service: str = Field(
        default="serving.scoring.service",
        description="Module started as `python -m MODULE --bundle DIR --host 127.0.0.1 --port N` to stage a candidate.",
    )
    start_timeout_s: float = Field(default=60.0, gt=0, description="Seconds a staged candidate has to become healthy.")

    @contextlib.contextmanager
    def stage(self, bundle: Path) -> Iterator[str]:
        """See :meth:`DeploymentTarget.stage`."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        address = ["--host", "127.0.0.1", "--port", str(port)]
        command = [sys.executable, "-m", self.service, "--bundle", str(bundle.resolve()), *address]
        with tempfile.TemporaryFile("w+", errors="replace") as output:
            process = subprocess.Popen(
                tied_to_parent(command),
                cwd=project_root(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                self._wait_until_healthy(process, url, bundle, output)
                yield url
            finally:
                process.terminate()
                try:
                    process.wait(timeout=5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def promote(self, model: str, version: str) -> None:
        """See :meth:`DeploymentTarget.promote`."""
        self.mlflow.set_alias(model, CHAMPION, version)

    def _wait_until_healthy(self, process: subprocess.Popen[bytes], url: str, bundle: Path, output: IO[str]) -> None:
        # Ignore proxies from the environment for requests to this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        deadline = time.monotonic() + self.start_timeout_s
        last_error = "no answer yet"
        while time.monotonic() < deadline:
            if (code := process.poll()) is not None:
                raise DeploymentError(
                    f"{self.service} of {bundle} exited with status {code} before it was healthy:\n{_tail(output)}"
                )
            try:
                with opener.open(f"{url}/health", timeout=2):
                    return
            except OSError as error:  # refused, reset, timed out, or an HTTP error status
                last_error = str(error)
            time.sleep(0.05)
        raise DeploymentError(
            f"{self.service} of {bundle} was not healthy after {self.start_timeout_s:g} s "
            f"({url}/health: {last_error}); raise start_timeout_s if the machine is slow. Its "
            f"last output:\n{_tail(output)}"
        )


def _tail(output: IO[str], lines: int = 20) -> str:
    output.seek(0)
    return "".join(output.readlines()[-lines:]).strip() or "(no output)"

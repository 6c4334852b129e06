"""A bucket for tests: moto's server speaks the S3 protocol on loopback, in a process of its own, without a key.

And a proxy before it that stops in the middle of an upload, so that a test can kill the writer exactly there.
"""

import atexit
import contextlib
import functools
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from unittest import mock

from resources.processes import free_port
from resources.table_files import forget_connections

KEYS = {"AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": "hush-hush-hush", "AWS_DEFAULT_REGION": "us-east-1"}
_numbers = itertools.count(1)


@functools.cache
def endpoint() -> str:
    """Address of the server, which starts at the first call and ends with this process.

    It is not in this process, because delta-rs waits for answers while no other thread of Python may run.
    """
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(server.kill)
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"{address}/moto-api/", timeout=10).close()
            return address
        except OSError:
            assert server.poll() is None
            assert time.monotonic() < deadline, "moto's server does not answer"
            time.sleep(0.05)


def environment(address: str = "") -> dict[str, str]:
    """Variables with which this and other processes reach the server."""
    return {**KEYS, "AWS_ENDPOINT_URL": address or endpoint()}


@contextlib.contextmanager
def reached(**changes: str) -> Iterator[None]:
    """Sets the variables in this process, with changes, and forgets connections before and after."""
    with mock.patch.dict(os.environ, {**environment(), **changes}):
        forget_connections()
        try:
            yield
        finally:
            forget_connections()


def new_bucket(*, versioned: bool = False) -> str:
    """Makes an empty bucket and returns its name."""
    import boto3

    name = f"tables-{next(_numbers)}"
    client = boto3.client(
        "s3", endpoint_url=endpoint(), aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1"
    )
    client.create_bucket(Bucket=name)
    if versioned:
        client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name


@contextlib.contextmanager
def asking_for_keys() -> Iterator[None]:
    """Makes the server check keys, of which it knows none."""

    def after(requests: str) -> None:
        headers = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(f"{endpoint()}/moto-api/reset-auth", requests.encode(), headers))

    after("0")
    try:
        yield
    finally:
        after("inf")


class Holding:
    """A proxy to the server that lets through ``limit`` bytes of the clients' requests, and then no more."""

    def __init__(self) -> None:
        self.limit: float = float("inf")
        self.held = threading.Event()
        self._passed = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def hold_after(self, limit: float) -> None:
        """Starts to count again."""
        with self._lock:
            self.limit, self._passed = limit, 0
            self.held.clear()

    def close(self) -> None:
        """Accepts no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        host, port = endpoint().removeprefix("http://").split(":")
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection((host, int(port)))
                threading.Thread(target=self._pass, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(1 << 16):
                if counted:
                    with self._lock:
                        allowed = int(min(len(block), max(0, self.limit - self._passed)))
                        self._passed += len(block)
                    if allowed < len(block):
                        sink.sendall(block[:allowed])
                        self.held.set()
                        while source.recv(1 << 16):  # until the client is dead; nothing goes on to the server
                            pass
                        break
                sink.sendall(block)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

"""Real storages on loopback: S3 by moto's server, SFTP by asyncssh's."""

import asyncio
import functools
import http.server
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CANARY = "canary-7f3a"
"""A secret that no output may have."""


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch) -> Any:
    """A file system with an empty bucket ``shop``; the environment has what reads it."""
    import fsspec

    for name, value in {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": CANARY, "AWS_REGION": "us-east-1",
                        "AWS_ENDPOINT_URL": s3_server, "AWS_EC2_METADATA_DISABLED": "true"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    system = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
    system.mkdir("shop")
    yield system
    system.rm("shop", recursive=True)


@dataclass
class Sftp:
    """A server that shows ``folder``; its user is ``ann``, its password :data:`CANARY`."""

    url: str
    folder: Path
    known_hosts: Path


@pytest.fixture
def sftp(tmp_path) -> Iterator[Sftp]:
    import asyncssh

    folder = tmp_path / "sftp"
    folder.mkdir()
    ready, stop = threading.Event(), []
    made: list[tuple[int, str]] = []

    class Login(asyncssh.SSHServer):
        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == ("ann", CANARY)

    async def serve() -> None:
        key = asyncssh.generate_private_key("ssh-ed25519")
        server = await asyncssh.create_server(
            Login, "127.0.0.1", 0, server_host_keys=[key],
            sftp_factory=functools.partial(asyncssh.SFTPServer, chroot=str(folder)),
        )  # fmt: skip
        ended = asyncio.Event()
        stop.append((asyncio.get_running_loop(), ended))
        made.append((server.sockets[0].getsockname()[1], key.export_public_key().decode()))
        ready.set()
        await ended.wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(60)
    (port, key), (loop, ended) = made[0], stop[0]
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {key}\n")
    yield Sftp(f"sftp://ann@127.0.0.1:{port}", folder, known)
    loop.call_soon_threadsafe(ended.set)
    thread.join()


@pytest.fixture
def web(tmp_path) -> Iterator[tuple[str, Path]]:
    """URL and folder of a plain web server, which lists its folders as HTML."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    folder = tmp_path / "web"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()
    thread.join()


def old(path: Path, days: float = 30) -> Path:
    """The path of a file that was changed so long ago that nobody is writing it any more."""
    at = path.stat().st_mtime - days * 86_400
    os.utime(path, (at, at))
    return path

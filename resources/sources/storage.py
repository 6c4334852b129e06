"""Files on any file system that fsspec knows, found by pattern and copied here to be read.

Belongs here: connecting, listing, copying, the storage's clock, and the errors of all these. Does not belong here: what
is in a file (``resources/files.py``), which files make up a table or a day (``files.py``).
"""

from __future__ import annotations

import datetime as dt
import email.utils
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from resources.settings import project_root
from resources.sources.base import SourceError, SourceUnavailable, hidden
from resources.sources.environment import is_long

CONNECT_S, READ_S = 10, 60
"""Timeouts of a connection and of a read without an answer, in seconds."""
OBJECTS = frozenset(("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss"))
"""Schemes of stores whose objects appear whole or not at all, so that none is seen while it is written."""
PACKAGES = {
    "s3": "assetline[files]", "s3a": "assetline[files]", "http": "assetline[files]", "https": "assetline[files]",
    "sftp": "assetline[files]", "ssh": "assetline[files]", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs",
    "abfs": "adlfs", "abfss": "adlfs",
}  # fmt: skip
"""What to install for a scheme."""
PUBLIC = frozenset(("anon", "endpoint_url", "known_hosts", "port", "profile", "project", "region", "username"))
"""Options that are no secrets; the values of all others are hidden in messages."""
_CREDENTIALS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY")
_REFUSED = frozenset(
    ("PermissionError", "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "PermissionDenied")
)
"""Names of errors of missing or wrong credentials. They are compared by name, because the packages are optional."""
_AWAY = frozenset(("aiohttp", "aiobotocore", "asyncssh", "botocore", "fsspec", "s3fs", "sshfs", "urllib3"))
"""Packages whose other errors mean that the storage cannot be reached now."""
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class StoredFile:
    """One file of a storage as it was at one moment; two of them are equal if the file has not changed between.

    Args:
        path: path for the file system.
        size: bytes; ``None`` if the server does not say.
        modified: time of the last change, UTC with zone; ``None`` if the server does not say.
        tag: what else tells two states of the file apart: an ETag, or the number of a local file.
    """

    path: str
    size: int | None
    modified: dt.datetime | None
    tag: str

    @property
    def name(self) -> str:
        """Last part of the path, without a query."""
        return unquote(urlsplit(self.path).path if "://" in self.path else self.path).rstrip("/").rpartition("/")[2]


class Storage:
    """The file system of a URL or path, which is opened at the first use.

    Args:
        url: URL or path of a pattern; a path may be relative to the project's root.
        options: options of fsspec's file system.
        token: bearer token of an ``http(s)://`` URL.

    All methods raise :class:`SourceError` (no such bucket or host, wrong or missing credentials, missing package) and
    :class:`SourceUnavailable` (no connection, too busy, changed meanwhile). No message has a secret.
    """

    def __init__(self, url: str, options: Mapping[str, str], token: str = "") -> None:
        parts = urlsplit(url)
        self.scheme = parts.scheme.lower() if "://" in url else "file"
        if self.scheme == "file":
            path = url.removeprefix("file://")
            url = os.path.normpath(project_root() / path)
            self.shown = path
        else:
            user = f"{parts.username}@" if parts.username else ""
            host = parts.hostname or ""
            port = f":{parts.port}" if parts.port else ""
            # Not the query: it may hold a signature. Not the password either.
            self.shown = f"{self.scheme}://{user}{host}{port}{parts.path}"
        self.url = url
        self._parts, self._options, self._token = parts, dict(options), token
        self._opened: Any = None

    def find(self, pattern: str) -> list[StoredFile]:
        """The files that match a pattern of this storage now, by path; hidden ones (``.name``, ``_name``) are left out.

        A path without a wildcard matches its file, hidden or not.
        """
        wild = _WILD.search(pattern.partition("?")[0] if self._is_http else pattern)
        with self._reported():
            system = self._system()
            system.invalidate_cache()
            path = pattern if self._is_http else system._strip_protocol(pattern)
            if wild:
                paths = system.glob(path, detail=True)
                found = [self._info(name) if self._is_http else info for name, info in paths.items()]
            else:
                try:
                    found = [self._info(path)]
                except FileNotFoundError as error:
                    # fsspec says so of an http:// URL for whatever reason.
                    if self._is_http and getattr(error.__cause__, "status", None) != 404:
                        raise (error.__cause__ or error) from None
                    found = []
        files = [_stored(info) for info in found if info["type"] == "file"]
        if wild:
            files = [file for file in files if not file.name.startswith((".", "_"))]
        return sorted(files, key=lambda file: file.path)

    def missing(self) -> str:
        """Why nothing matches: the bucket is not there, or just no file."""
        if self.scheme in OBJECTS:
            bucket = self._parts.netloc
            with self._reported():
                if not self._system().exists(bucket):
                    return f"there is no bucket '{bucket}' at this storage"
        return "no such file"

    @contextmanager
    def copied(self, file: StoredFile) -> Iterator[Path]:
        """Yields the file on this machine: itself if it is local, else a copy that is deleted afterwards."""
        if self.scheme == "file":
            yield Path(file.path)
            return
        with tempfile.TemporaryDirectory(prefix="assetline-") as folder:
            copy = Path(folder) / file.name
            with self._reported(file.name):
                self._system().get_file(file.path, str(copy))
            size = copy.stat().st_size
            if file.size is not None and size != file.size:
                raise SourceUnavailable(
                    f"{self.shown}: {file.name} has {file.size:,} bytes, but {size:,} came; it changes or was cut off"
                )
            yield copy

    def clock(self) -> dt.datetime | None:
        """The storage's time now, UTC with zone; ``None`` if it has no clock of its own or does not tell it."""
        date = None
        with self._reported():
            if self.scheme in ("s3", "s3a"):
                answer = self._system().call_s3("head_bucket", Bucket=self._parts.netloc)
                date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
            elif self._is_http:
                import httpx

                folder = _WILD.split(self.url.partition("?")[0])[0].rpartition("/")[0]
                date = httpx.head(f"{folder}/", timeout=CONNECT_S).headers.get("date")
        return email.utils.parsedate_to_datetime(date).astimezone(dt.UTC) if date else None

    def wait_until_settled(self, files: list[StoredFile], since: float, seconds: float) -> None:
        """Waits until ``seconds`` after ``since`` if a file was changed shortly before, and may still be written.

        Args:
            files: the files as they were found.
            since: ``time.time()`` when they were found.
            seconds: how long a file that was written shortly before is watched.
        """
        if self.scheme in OBJECTS:
            return
        young = [f for f in files if f.modified is not None and since - f.modified.timestamp() < seconds]
        if young and (left := since + seconds - time.time()) > 0:
            time.sleep(left)

    @property
    def _is_http(self) -> bool:
        return self.scheme in ("http", "https")

    def _info(self, path: str) -> dict[str, Any]:
        return self._system().info(path)

    def _system(self) -> Any:
        if self._opened is None:
            self._opened = self._connected()
        return self._opened

    def _connected(self) -> Any:
        import fsspec

        given: dict[str, Any] = {
            name: {"true": True, "false": False}.get(text.lower(), text) for name, text in self._options.items()
        }
        match self.scheme:
            case "s3" | "s3a":
                given.setdefault("config_kwargs", {"connect_timeout": CONNECT_S, "read_timeout": READ_S})
            case "http" | "https":
                import aiohttp

                if self._token and self._parts.username:
                    raise SourceError(f"{self.shown}: give the source a token, or its URL a user, but not both")
                timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=READ_S)
                given["client_kwargs"] = {"timeout": timeout, "trust_env": True}
                if self._token:
                    given["headers"] = {"Authorization": f"Bearer {self._token}"}
            case "sftp" | "ssh":
                from sshfs import SSHFileSystem

                parts = self._parts
                login = {"username": parts.username, "password": parts.password and unquote(parts.password)}
                given = {name: text for name, text in login.items() if text} | given
                # (): the file ~/.ssh/known_hosts. Without this, the host's key would not be checked at all.
                given = {"known_hosts": (), "connect_timeout": CONNECT_S, **given}
                port = int(given.pop("port", parts.port or 22))
                return SSHFileSystem(parts.hostname, port=port, skip_instance_cache=True, **given)
        return fsspec.filesystem(self.scheme, skip_instance_cache=True, use_listings_cache=False, **given)

    @contextmanager
    def _reported(self, name: str = "") -> Iterator[None]:
        """Turns errors of a file system into those of a source, without their causes: these may hold secrets."""
        what = f"{self.shown}: {name}: " if name else f"{self.shown}: "
        try:
            yield
        except SourceError:
            raise
        except ImportError:
            package = PACKAGES.get(self.scheme, "")
            mend = f"pip install '{package}'" if package else f"use one of {', '.join(sorted(PACKAGES))}"
            raise SourceError(f"{what}{self.scheme}:// needs another package: {mend}") from None
        except ValueError as error:
            if "Protocol not known" not in str(error):
                raise
            known = ", ".join(f"{scheme}://" for scheme in sorted(PACKAGES))
            raise SourceError(f"{what}there is no storage {self.scheme}://; use a path or one of {known}") from None
        except Exception as error:
            said = self._said(error)
            if said is None:
                raise
            kind, message = said
            raise kind(hidden(f"{what}{message}", *self._secrets())) from None

    def _said(self, error: Exception) -> tuple[type[SourceError], str] | None:
        """The kind of source error that an error is, and its message; ``None`` for a bug."""
        name, package = type(error).__name__, type(error).__module__.partition(".")[0]
        status = getattr(error, "status", None)
        text = " ".join(str(error).split()) or name
        cause = getattr(error, "os_error", error)
        kind, message = SourceError, ""
        if name in _REFUSED or status in (401, 403):
            message = f"access is refused ({text}); {self._mend_of_access()}"
        elif name == "HostKeyNotVerifiable":
            port = f"-p {self._parts.port} " if self._parts.port else ""
            known = f"`ssh-keyscan {port}{self._parts.hostname} >> ~/.ssh/known_hosts`"
            message = f"the host's key is not known ({text}); compare it with its owner's, then {known}"
        elif isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN:
            message = f"there is no host '{self._parts.hostname}' ({cause.strerror}); check the source's path"
        elif status is not None and status < 500 and status not in (408, 425, 429):
            message = f"the server answers {status} ({getattr(error, 'message', '')}); check the source's path"
        elif isinstance(error, FileNotFoundError):
            kind, message = SourceUnavailable, "it was removed while it was read"
        elif isinstance(error, (OSError, TimeoutError)) or package in _AWAY:
            kind, message = SourceUnavailable, f"it cannot be read now ({name}: {text})"
        return (kind, message) if message else None

    def _mend_of_access(self) -> str:
        match self.scheme:
            case "s3" | "s3a":
                return (
                    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or options={'anon': 'true'} for a public bucket"
                )
            case "http" | "https":
                return "set the source's token=dg.EnvVar(…), and check that it may read this"
            case "sftp" | "ssh":
                return "set options={'password': dg.EnvVar(…)}, or give the host a key of yours"
        return "check the rights of this user, and the source's options"

    def _secrets(self) -> list[str]:
        options = [text for name, text in self._options.items() if name not in PUBLIC]
        query = [pair.partition("=")[2] for pair in self._parts.query.split("&")]
        given = [self._token, *options, *(os.environ.get(name, "") for name in _CREDENTIALS)]
        return [self.url, *given, *filter(is_long, query)]


def _stored(info: Mapping[str, Any]) -> StoredFile:
    modified = next((info[key] for key in ("LastModified", "mtime", "last_modified", "Last-Modified", "updated")
                     if info.get(key)), None)  # fmt: skip
    if isinstance(modified, str):
        modified = email.utils.parsedate_to_datetime(modified)
    elif isinstance(modified, (int, float)):
        modified = dt.datetime.fromtimestamp(modified, dt.UTC)
    tag = next((str(info[key]) for key in ("ETag", "etag", "Content-MD5", "Digest", "ino") if info.get(key)), "")
    return StoredFile(info["name"], info.get("size"), modified and modified.astimezone(dt.UTC), tag)

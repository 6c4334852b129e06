"""The files of the tables under one root: a folder of this machine, or a prefix of a bucket.

Belongs here: list, read, replace and remove files, and clear errors of a bucket. Does not belong here: what a file
holds (``tables.py``).

Both kinds keep one promise: a file is replaced whole or not at all. Whoever reads while another process writes gets the
old file or the new one, and a killed writer leaves the old one.

- A folder: the new file is written under a temporary name and renamed, which is atomic. Who has the old file open goes
  on reading the old one.
- A bucket: there is no rename, and none is needed, because a store shows an object only when its upload is complete.
  An object is written by one request, or in parts that one last request joins (S3: ``CompleteMultipartUpload``,
  GCS: the end of a resumable upload, Azure: ``Put Block List``). A killed upload leaves nothing under the name. An
  object is read by one request, so its bytes are of one version. S3, GCS and Azure show a finished write to all later
  reads and listings, so the listings cache of fsspec is switched off.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import importlib.util
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 16
"""Requests to a bucket at the same time; one takes tens of milliseconds, nearly all of it waiting."""


class TableError(Exception):
    """A table cannot be read or written. The message gives the file and the fix."""


class TableKeyError(TableError):
    """A table is encrypted, or should be, and a key is missing or wrong. Nothing is lost; the message says which."""


@dataclass(frozen=True)
class Scheme:
    """A kind of bucket: the package that speaks its protocol, how to install it, and where its keys come from."""

    package: str
    install: str
    keys: str
    options: Mapping[str, Any]


SCHEMES: Mapping[str, Scheme] = {
    "s3": Scheme(
        "s3fs",
        "'assetline[stores]'",
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the role of this machine",
        # With more than one, an object above 50 MB is read by several requests, which may see different versions of it.
        {"max_concurrency": 1},
    ),
    "gs": Scheme("gcsfs", "gcsfs", "GOOGLE_APPLICATION_CREDENTIALS, or the account of this machine", {}),
    "az": Scheme("adlfs", "adlfs", "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY", {}),
}
"""Kinds of buckets by the scheme of their URL. Each replaces an object whole; SFTP and WebDAV, for example, do not."""

SECRET_VARIABLES = (
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_CLIENT_SECRET",
)  # fmt: skip
"""Variables from which the packages read their keys; no message shows their values."""


DELTA = "delta+"
"""Begins the URL of tables with versions, e.g. ``delta+s3://bucket/prefix``; see ``tables_delta.py``."""


def is_url(root: str) -> bool:
    """Whether a root is a URL, and not a folder."""
    return "://" in root and not root.startswith("file://")


def checked_root(root: str) -> str:
    """The root as a folder's path or a bucket's URL without a slash at its end.

    Raises:
        TableError: a URL of an unknown scheme, without a bucket, with a key in it, or whose package is not installed.
            The message has no name of a setting, and no key.
    """
    if root.startswith(DELTA):
        return DELTA + _checked_for_delta(root.removeprefix(DELTA))
    if not is_url(root):
        return root.removeprefix("file://")
    scheme, _, rest = root.partition("://")
    shown = hidden_key(root)
    if scheme not in SCHEMES:
        known = ", ".join([*(f"{name}://" for name in SCHEMES), f"{DELTA}s3://", f"{DELTA}file://"])
        raise TableError(f"{shown} is not a place for tables; give a folder, or a URL of {known}")
    kind = SCHEMES[scheme]
    if "?" in rest or re.search(r"^[^/]*:[^/]*@", rest):
        raise TableError(f"{shown} holds a key; write the URL without it, the keys come from {kind.keys}")
    if not rest.strip("/") or rest.startswith("/"):
        raise TableError(f"{shown} names no bucket; write one like {scheme}://bucket/prefix")
    if importlib.util.find_spec(kind.package) is None:
        raise TableError(f"{shown} needs the package {kind.package}; pip install {kind.install}")
    return root.rstrip("/")


def _checked_for_delta(root: str) -> str:
    if importlib.util.find_spec("deltalake") is None:
        raise TableError(f"{DELTA}{hidden_key(root)} needs the package deltalake; pip install 'assetline[stores]'")
    if root.startswith("file://") and (path := root.removeprefix("file://")).startswith("/"):
        return "file://" + (path.rstrip("/") or "/")
    if not root.startswith("s3://"):
        raise TableError(
            f"{DELTA}{hidden_key(root)} is not a place for tables with versions; give {DELTA}s3://bucket/prefix or "
            f"{DELTA}file:///folder"
        )
    return checked_root(root)


def hidden_key(url: str) -> str:
    """A URL without user, password and query, any of which may be a key."""
    shown = re.sub(r"://[^/@\s]*:[^/@\s]*@", "://***@", url)
    return re.sub(r"\?.*", "?***", shown)


@dataclass(frozen=True)
class FileState:
    """What a listing knows of a file. ``token`` is another one as soon as the file was replaced."""

    size: int
    token: str
    written_at: dt.datetime


class TableFiles(Protocol):
    """The files under a root, by their name below it, with ``/``."""

    def states(self, folder: str) -> dict[str, FileState]:
        """The files of a folder by name, hidden ones excluded; empty if there is no such folder."""

    def state(self, name: str) -> FileState | None:
        """The state of one file; ``None`` if there is none."""

    def pages(self, folder: str) -> list[str]:
        """Sorted names of the files of a folder that holds pages, hidden ones excluded."""

    def footer(self, name: str, state: FileState) -> Any:
        """A file object that holds at least the Parquet footer. Raises :class:`FileNotFoundError`."""

    def opened(self, name: str) -> contextlib.AbstractContextManager[Any]:
        """A file object that stays what it was while others replace the file. Raises :class:`FileNotFoundError`."""

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises :class:`FileNotFoundError`."""

    def local_path(self, name: str, state: FileState) -> str | None:
        """Path of a file in a state on this machine; ``None`` if it is elsewhere."""

    def replace(self, name: str, content: bytes) -> None:
        """Replaces a file whole or not at all."""

    def remove(self, name: str) -> None:
        """Removes a file; one that is gone already is no error."""

    def folders(self) -> list[str]:
        """Sorted names of all folders that hold Parquet files."""

    def each(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """The results of a function that reads one file, in the order of the items."""

    def pinned(self, folder: str) -> TableFiles:
        """The files, those of a folder as they are now, if old states are kept; else the files as they are."""

    def __hash__(self) -> int: ...


def files_of(root: str, as_of: str = "") -> TableFiles:
    """The files under a folder or URL.

    Args:
        root: the folder or URL.
        as_of: for tables with versions, the version or time as of which they are read; empty: as they are now.

    Raises:
        TableError: the URL cannot be used, or keeps no versions.
    """
    root = checked_root(root)
    if root.startswith(DELTA):
        from resources.tables_delta import DeltaFiles

        return DeltaFiles(files_of(root.removeprefix(DELTA)), as_of)
    if as_of:
        raise TableError(f"{hidden_key(root)} keeps no versions of tables; only ASSETLINE_TABLES={DELTA}s3://… does")
    return BucketFiles(root) if is_url(root) else LocalFiles(root)


@dataclass(frozen=True)
class LocalFiles:
    """Files in a folder of this machine."""

    root: str

    def states(self, folder: str) -> dict[str, FileState]:
        """See :class:`TableFiles`."""
        try:
            with os.scandir(self._path(folder)) as entries:
                names = [entry.name for entry in entries if not entry.name.startswith(".")]
        except (FileNotFoundError, NotADirectoryError):
            return {}
        found = {name: self.state(posixpath.join(folder, name)) for name in names}
        return {name: state for name, state in found.items() if state is not None}

    def state(self, name: str) -> FileState | None:
        """See :class:`TableFiles`."""
        try:
            found = os.stat(self._path(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        # A rename puts another inode in place.
        token = f"{found.st_mtime_ns}-{found.st_size}-{found.st_ino}"
        return FileState(found.st_size, token, dt.datetime.fromtimestamp(found.st_mtime, dt.UTC))

    def pages(self, folder: str) -> list[str]:
        """See :class:`TableFiles`."""
        return sorted(self.states(folder))

    def footer(self, name: str, state: FileState) -> Any:
        """See :class:`TableFiles`."""
        return self._path(name)

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[IO[bytes]]:
        """See :class:`TableFiles`."""
        with open(self._path(name), "rb") as file:
            yield file

    def read(self, name: str) -> bytes:
        """See :class:`TableFiles`."""
        return Path(self._path(name)).read_bytes()

    def local_path(self, name: str, state: FileState) -> str | None:
        """See :class:`TableFiles`."""
        return self._path(name)

    def replace(self, name: str, content: bytes) -> None:
        """See :class:`TableFiles`."""
        path = self._path(name)
        folder, file_name = posixpath.split(path)
        os.makedirs(folder, exist_ok=True)
        # Each process uses its own temporary name.
        scratch = posixpath.join(folder, f".{file_name.removesuffix('.parquet')}.{os.getpid()}.tmp")
        with open(scratch, "wb") as file:
            file.write(content)
        os.replace(scratch, path)

    def remove(self, name: str) -> None:
        """See :class:`TableFiles`."""
        Path(self._path(name)).unlink(missing_ok=True)

    def folders(self) -> list[str]:
        """See :class:`TableFiles`."""
        root = Path(self.root)
        files = (path for path in root.rglob("*.parquet") if not path.name.startswith("."))
        return sorted({path.parent.relative_to(root).as_posix() for path in files})

    def each(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """See :class:`TableFiles`."""
        return [function(item) for item in items]

    def pinned(self, folder: str) -> TableFiles:
        """See :class:`TableFiles`."""
        return self

    def _path(self, name: str) -> str:
        return posixpath.join(self.root, name)


FOOTER = 64 * 1024
"""Bytes at the end of an object that are read for its footer; longer footers take a second request."""


@dataclass(frozen=True)
class BucketFiles:
    """Objects in a bucket, by fsspec. All errors but a missing object are :class:`TableError` with the bucket's URL."""

    root: str

    def states(self, folder: str) -> dict[str, FileState]:
        """See :class:`TableFiles`."""
        fs = self._fs()
        try:
            with self._in_words():
                found = fs.ls(self._path(folder), detail=True)
        except FileNotFoundError:
            return {}
        named = {posixpath.basename(str(info["name"])): info for info in found if info["type"] == "file"}
        return {name: _state_of(info) for name, info in named.items() if name and not name.startswith(".")}

    def state(self, name: str) -> FileState | None:
        """See :class:`TableFiles`."""
        fs = self._fs()
        try:
            with self._in_words():
                info = fs.info(self._path(name))
        except FileNotFoundError:
            return None
        return _state_of(info) if info["type"] == "file" else None

    def pages(self, folder: str) -> list[str]:
        """See :class:`TableFiles`."""
        return sorted(self.states(folder))

    def footer(self, name: str, state: FileState) -> Any:
        """See :class:`TableFiles`."""
        import pyarrow as pa

        end = self._end(name, state.size, FOOTER)
        needed = int.from_bytes(end[-8:-4], "little") + 8
        if end[-4:] == b"PAR1" and len(end) < needed <= state.size:
            end = self._end(name, state.size, needed)
        return pa.BufferReader(end)

    def _end(self, name: str, size: int, length: int) -> bytes:
        """The last bytes of an object of a size; other bytes, or none, if one of another size has replaced it."""
        fs, path = self._fs(), self._path(name)
        with self._in_words():
            try:
                start = max(0, size - length)
                end = bytes(fs.cat_file(path, start=start, end=size)) if size else b""
                return end if len(end) == size - start else b""
            except Exception as error:
                if _code(error) in ("InvalidRange", "416"):
                    return b""
                raise

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[Any]:
        """See :class:`TableFiles`. The whole object is read by one request, so it is of one version."""
        import pyarrow as pa

        yield pa.BufferReader(self.read(name))

    def read(self, name: str) -> bytes:
        """See :class:`TableFiles`."""
        fs = self._fs()
        with self._in_words():
            return bytes(fs.cat_file(self._path(name)))

    def local_path(self, name: str, state: FileState) -> str | None:
        """See :class:`TableFiles`."""
        return None

    def replace(self, name: str, content: bytes) -> None:
        """See :class:`TableFiles`."""
        fs = self._fs()
        try:
            with self._in_words():
                # No makedirs: buckets have no folders, and it would create a bucket whose name is misspelled.
                fs.pipe_file(self._path(name), content)
        except FileNotFoundError as error:
            raise self._failed(error) from error

    def remove(self, name: str) -> None:
        """See :class:`TableFiles`."""
        fs = self._fs()
        with contextlib.suppress(FileNotFoundError), self._in_words():
            fs.rm_file(self._path(name))

    def folders(self) -> list[str]:
        """See :class:`TableFiles`."""
        fs = self._fs()
        base = self._path("").rstrip("/")
        try:
            with self._in_words():
                paths = fs.find(base)
        except FileNotFoundError:
            return []
        if not paths:
            self._require_bucket()
        names = [str(path)[len(base) :].strip("/") for path in paths]
        kept = [n for n in names if n.endswith(".parquet") and not posixpath.basename(n).startswith(".")]
        return sorted({posixpath.dirname(name) for name in kept})

    def each(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """See :class:`TableFiles`."""
        todo = list(items)
        if len(todo) < 2:
            return [function(item) for item in todo]
        with ThreadPoolExecutor(min(AT_ONCE, len(todo))) as pool:
            return list(pool.map(function, todo))

    def pinned(self, folder: str) -> TableFiles:
        """See :class:`TableFiles`."""
        return self

    def filesystem(self) -> Any:
        """The fsspec file system, for programs that read by themselves, such as DuckDB."""
        return self._fs()

    def keeps_versions(self) -> bool | None:
        """Whether the bucket keeps replaced and removed objects; ``None`` if that is not known."""
        fs = self._fs()
        if not hasattr(fs, "is_bucket_versioned"):
            return None
        with self._in_words():
            return bool(fs.is_bucket_versioned(self._bucket))

    def _fs(self) -> Any:
        return _filesystem(self.root.partition("://")[0], os.getpid())

    @property
    def _bucket(self) -> str:
        return self._path("").partition("/")[0]

    def _path(self, name: str) -> str:
        return str(self._fs()._strip_protocol(posixpath.join(self.root, name)))

    def _require_bucket(self) -> None:
        """Raises :class:`TableError` if the bucket does not exist: its absence must not look like an empty one."""
        if self.root in _FOUND:
            return
        try:
            self._fs().info(self._bucket)
        except FileNotFoundError as error:
            raise TableError(
                f"{hidden_key(self.root)}: there is no bucket '{self._bucket}'; create it, or correct ASSETLINE_TABLES"
            ) from error
        except Exception as error:
            if not _is_refused(error):  # to look at the bucket itself may need a right that nothing else needs
                raise self._failed(error) from error
        _FOUND.add(self.root)

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            self._require_bucket()
            raise
        except TableError:
            raise
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> TableError:
        scheme = SCHEMES[self.root.partition("://")[0]]
        where, said = hidden_key(self.root), _said(error)
        if _is_refused(error):
            return TableError(f"{where} refuses the access ({said}); check {scheme.keys}, and what they may do")
        return TableError(f"{where} cannot be read or written now ({said}); check the network and the endpoint")


_FOUND: set[str] = set()
"""Roots whose bucket was seen by this process."""


@functools.lru_cache(maxsize=8)
def _filesystem(scheme: str, _process: int) -> Any:
    """One file system for all threads of a process. fsspec makes one per thread, each with connections of its own."""
    import fsspec

    # fsspec loads its defaults once, so an instance must not be shared with others that keep a listings cache.
    return fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True, **SCHEMES[scheme].options)


def forget_connections() -> None:
    """Forgets the open file systems, so that the next access reads keys and endpoints again."""
    _filesystem.cache_clear()
    _FOUND.clear()


def _state_of(info: Mapping[str, Any]) -> FileState:
    stamps = ("ETag", "etag", "generation", "LastModified", "updated", "last_modified")
    written = info.get("LastModified") or info.get("last_modified") or info.get("updated") or info.get("mtime")
    if isinstance(written, str):
        written = dt.datetime.fromisoformat(written.replace("Z", "+00:00"))
    if not isinstance(written, dt.datetime):
        written = dt.datetime.fromtimestamp(0, dt.UTC)
    size = int(info["size"])
    token = "-".join(str(_in_utc(info[name])) for name in stamps if info.get(name))
    return FileState(size, f"{size}-{token}", written.astimezone(dt.UTC))


def _in_utc(value: Any) -> Any:
    """A listing and a single request give the same time in different zones, and not both with milliseconds."""
    return value.astimezone(dt.UTC).replace(microsecond=0) if isinstance(value, dt.datetime) else value


def _code(error: BaseException) -> str:
    """The error code of the store, e.g. ``AccessDenied``; empty if there is none."""
    for one in (error, error.__cause__):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


_REFUSED = ("NoCredentials", "CredentialsError", "ClientAuthentication", "RefreshError", "PartialCredentials")


def _is_refused(error: BaseException) -> bool:
    codes = ("403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")
    return isinstance(error, PermissionError) or _code(error) in codes or type(error).__name__.startswith(_REFUSED)


def _said(error: BaseException) -> str:
    """What the store said, in one line, without keys."""
    lines = str(error).splitlines() or [""]
    said = ": ".join(part for part in (_code(error) or type(error).__name__, lines[0]) if part)
    for name in SECRET_VARIABLES:
        if secret := os.environ.get(name):
            said = said.replace(secret, "***")
    return hidden_key(said)

"""Sealed files in the clear, for programs that need a path.

Copies are in memory (``/dev/shm``) where the machine has that, else in the folder for temporary files, readable by the
owner only. They are removed when the process ends; those that a killed process left are removed by the next one.

Belongs here: those copies. Does not belong here: the format (``sealed.py``), and where sealed files are kept.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from resources.encryption import in_use
from resources.encryption.sealed import HEAD, SealError, Sealing, Unsealing, is_sealed
from resources.keys import KeyProblem
from resources.processes import still_runs

_PREFIX = "assetline-artifacts-"
_BLOCK = 1 << 20


class ArtifactKeyError(KeyProblem):
    """A file is encrypted, or should be, and cannot be read or written. The message names the file and the key."""


def in_the_clear(path: Path) -> Path:
    """A file or folder whose files are in the clear: itself if none is sealed, else a copy that this process keeps.

    Raises:
        ArtifactKeyError: a file is sealed, and its key is missing, or the file is damaged.
    """
    files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
    sealed = {file for file in files if file_is_sealed(file)}
    if not sealed:
        return path
    state = tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size, file.stat().st_ino) for file in files)
    with _LOCK:
        root = _folder_of_process()  # a forked child forgets the copies of its parent here
        if state not in _COPIES or not _COPIES[state].exists():
            folder = Path(tempfile.mkdtemp(dir=root))
            try:
                _COPIES[state] = _copied(path, files, sealed, folder / path.name)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        return _COPIES[state]


def _copied(path: Path, files: Sequence[Path], sealed: Collection[Path], copy: Path) -> Path:
    for file in files:
        to = copy / file.relative_to(path) if path.is_dir() else copy
        to.parent.mkdir(parents=True, exist_ok=True)
        if file in sealed:
            unseal_file(file, to)
        else:
            shutil.copy2(file, to)
    return copy


_SPACE = 256 << 20
"""Bytes that must be free in memory for copies to be there; a container may have less."""
_LOCK = threading.Lock()
_COPIES: dict[tuple[Any, ...], Path] = {}
"""Copies in the clear that this process has made, by the state of what they were made from."""
_FOLDERS: dict[int, Path] = {}
"""The folder of this process; a forked child has its own."""


def _folder_of_process() -> Path:
    pid = os.getpid()
    if pid not in _FOLDERS:
        _COPIES.clear()  # those of the parent are removed with the parent
        memory = Path("/dev/shm")
        fits = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free >= _SPACE
        root = memory if fits else Path(tempfile.gettempdir())
        _remove_left(root)
        _FOLDERS[pid] = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{pid}-{int(time.time())}-", dir=root))
        atexit.register(_remove_own, pid)
    return _FOLDERS[pid]


def _remove_own(pid: int) -> None:
    if pid == os.getpid():  # not in a forked child that ends before its parent
        shutil.rmtree(_FOLDERS[pid], ignore_errors=True)


def _remove_left(root: Path) -> None:
    """Removes the folders of processes of this user that were killed."""
    for folder in root.glob(f"{_PREFIX}*-*-*"):
        pid, at, *_ = folder.name.removeprefix(_PREFIX).split("-")
        if pid.isdigit() and at.isdigit() and folder.stat().st_uid == os.getuid() and not still_runs(int(pid), int(at)):
            shutil.rmtree(folder, ignore_errors=True)


def file_is_sealed(file: Path) -> bool:
    """Whether a file is sealed."""
    with file.open("rb") as source:
        return is_sealed(source.read(HEAD))


def seal_file(source: IO[bytes], out: IO[bytes], file: Path) -> None:
    """Seals what is read from ``source``; ``file`` names it in messages. Raises :class:`ArtifactKeyError`."""
    try:
        key = in_use.ring().newest("artifacts")
    except KeyProblem as error:
        raise ArtifactKeyError(f"{file.name} cannot be encrypted: {error}") from error
    with Sealing(out, "artifacts", key) as sealing:
        shutil.copyfileobj(source, sealing, _BLOCK)


@contextlib.contextmanager
def in_clear(stored: IO[bytes], file: Path) -> Iterator[IO[bytes]]:
    """What an open file holds, in the clear, whether it is sealed or not.

    Args:
        stored: the file, at its beginning; it can seek.
        file: its path, for messages.

    Raises:
        ArtifactKeyError: it is sealed, and its key is missing, or it was altered; also while it is read.
    """
    head = stored.read(HEAD)
    stored.seek(0)
    if not is_sealed(head):
        yield stored
        return
    try:
        yield io.BufferedReader(Unsealing(stored, in_use.ring()), _BLOCK)
    except SealError as error:
        raise ArtifactKeyError(f"{file}: {error}") from error
    except KeyProblem as error:
        raise ArtifactKeyError(f"{file} is encrypted, and {error}") from error


def unseal_file(file: Path, to: Path) -> None:
    """Writes the content of a file in the clear; if that fails, nothing is left of it. See :func:`in_clear`."""
    try:
        with file.open("rb") as stored, in_clear(stored, file) as content, to.open("wb") as out:
            shutil.copyfileobj(content, out, _BLOCK)
    except KeyProblem:
        to.unlink(missing_ok=True)
        raise
    shutil.copystat(file, to)

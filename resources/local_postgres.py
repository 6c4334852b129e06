"""A PostgreSQL server inside the state folder, for ``ASSETLINE_STACK=postgres``.

Belongs here: its files, starting and stopping it, and its URLs. Does not belong here: what the databases hold, and a
server that somebody else runs (``ASSETLINE_DATABASE_URL`` and the like).

The server listens on a Unix socket only, in a folder that nobody else may enter, so it needs no port and no password.
It runs while any process uses it: each holds a shared lock, and the last one to end stops the server. After a kill the
server may stay; the next process uses it and stops it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.util
import os
import pwd
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

USER = "assetline"
OWN, MLFLOW, DAGSTER = "assetline", "mlflow", "dagster"
DATABASES = (OWN, MLFLOW, DAGSTER)
MOST_CONNECTIONS = 200
_LONGEST_SOCKET = 90
"""Maximum length of the socket's folder; the kernel allows 107 bytes for the whole path."""
_START_TIMEOUT_S = 120


class LocalPostgresError(Exception):
    """The server cannot be made or started. The message gives the reason and the fix."""


def exists(home: Path) -> bool:
    """Whether a state folder has a server of its own."""
    return (_folder(home) / "data").exists()


def url(home: Path, database: str) -> str:
    """The SQLAlchemy URL of one of :data:`DATABASES`. It holds no secret."""
    return f"postgresql+psycopg://{USER}@/{database}?host={quote(str(_socket(home)), safe='/')}"


@contextlib.contextmanager
def in_use(home: Path) -> Iterator[None]:
    """Starts the server if it does not run, and stops it at the end if no other process uses it.

    Raises:
        LocalPostgresError: PostgreSQL or its drivers are not installed, or it does not start.
    """
    if missing := [name for name in ("psycopg", "dagster_postgres") if importlib.util.find_spec(name) is None]:
        raise LocalPostgresError(f"{', '.join(missing)} is not installed; run `pip install 'assetline[postgres]'`")
    home.mkdir(parents=True, exist_ok=True)
    with (home / "postgres.users").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        _start(home)
        try:
            yield
        finally:
            # Two processes that end together must not wait for each other: each gives up its share first.
            fcntl.flock(users, fcntl.LOCK_UN)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _pg_ctl(home, "stop", "-m", "fast")


def is_running(home: Path) -> bool:
    """Whether the server's main process is alive."""
    return exists(home) and _pg_ctl(home, "status").returncode == 0


def watch(home: Path) -> None:
    """Returns when the server has ended; for the supervisor, which stops all processes when one ends."""
    while is_running(home):
        time.sleep(1)


def _start(home: Path) -> None:
    from filelock import FileLock

    with FileLock(home / ".postgres.lock", timeout=_START_TIMEOUT_S):
        if is_running(home):
            return
        folder, socket = _folder(home), _socket(home)
        for path in (folder, socket):
            _make_private(path)
        if not exists(home):
            _create(folder)
        log = folder / "log"
        options = f"-k {shlex.quote(str(socket))} -c listen_addresses='' -c max_connections={MOST_CONNECTIONS}"
        ended = _pg_ctl(home, "start", "-w", "-t", str(_START_TIMEOUT_S), "-l", str(log), "-o", options)
        if ended.returncode:
            last = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
            reason = (last or ended.stderr.strip().splitlines()[-1:] or ["no reason is given"])[0]
            raise LocalPostgresError(f"PostgreSQL in {folder} does not start: {reason}; {log} has more")
        _create_databases(home)


def _create(folder: Path) -> None:
    """Creates the server's files aside and moves them into place, because a kill could leave half of them."""
    for left in folder.glob(".data-*"):
        shutil.rmtree(left)
    aside = Path(tempfile.mkdtemp(prefix=".data-", dir=folder))
    _give(aside)
    # The socket's folder is closed to others, so whoever reaches the socket is trusted.
    ended = _run(["initdb", "-D", str(aside), "-U", USER, "--auth=trust", "--encoding=UTF8", "--locale=C"], folder)
    if ended.returncode:
        shutil.rmtree(aside)
        reason = ended.stderr.strip().splitlines()[-1]
        if _user() and "Permission denied" in reason:
            reason += f"; as root, PostgreSQL runs as the user {_user()}, who must be able to enter the folders above"
        raise LocalPostgresError(f"PostgreSQL cannot be set up in {folder}: {reason}")
    os.replace(aside, folder / "data")


def _create_databases(home: Path) -> None:
    import psycopg

    with psycopg.connect(host=str(_socket(home)), user=USER, dbname="postgres", autocommit=True) as connection:
        there = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
        for database in DATABASES:
            if database not in there:
                connection.execute(f"CREATE DATABASE {database}")


def _pg_ctl(home: Path, action: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    folder = _folder(home)
    return _run(["pg_ctl", "-D", str(folder / "data"), *arguments, action], folder)


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    # pg_ctl hands its output to the server, which would keep a pipe open; so the output goes to files.
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        ended = subprocess.run(
            [str(programs() / command[0]), *command[1:]],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            check=False,
            user=_user(),
            group=_user() and pwd.getpwnam(_user() or "").pw_gid,
            extra_groups=[] if _user() else None,
            env={**os.environ, "LC_ALL": "C", "PGTZ": "UTC"},
        )
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(command, ended.returncode, output.read(), errors.read())


@functools.cache
def programs() -> Path:
    """Folder of PostgreSQL's programs: those of the system, else those in the package ``pgserver``.

    Raises:
        LocalPostgresError: there are none.
    """
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    on_path = [Path(found).resolve().parent for found in [shutil.which("initdb")] if found]
    package = importlib.util.find_spec("pgserver")
    wheel = (
        [Path(place) / "pginstall" / "bin" for place in (package.submodule_search_locations or [])] if package else []
    )
    for folder in (*debian, *on_path, *wheel):
        if (folder / "initdb").exists():
            return folder
    raise LocalPostgresError(
        "PostgreSQL is not installed; install the Debian package postgresql, or `pip install pgserver`, or unset "
        "ASSETLINE_STACK"
    )


@functools.cache
def _user() -> str | None:
    """The user that the server runs as where this process is root, whom PostgreSQL refuses; ``None``: this user."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def _make_private(path: Path) -> None:
    """Creates a folder that only the server's user and this one may enter. Refuses one that somebody else has made."""
    path.mkdir(mode=0o700, exist_ok=True)
    allowed = {os.getuid(), pwd.getpwnam(user).pw_uid if (user := _user()) else os.getuid()}
    if path.is_symlink() or path.stat().st_uid not in allowed:
        raise LocalPostgresError(f"{path} belongs to somebody else; remove it, or move ASSETLINE_HOME")
    _give(path)


def _give(path: Path) -> None:
    if user := _user():
        shutil.chown(path, user, pwd.getpwnam(user).pw_gid)


def _folder(home: Path) -> Path:
    return home / "postgres"


def _socket(home: Path) -> Path:
    inside = _folder(home) / "run"
    if len(os.fsencode(inside)) <= _LONGEST_SOCKET:
        return inside
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"assetline-postgres-{digest}"


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
    sys.exit(f"the PostgreSQL server in {_folder(Path(sys.argv[1]))} has ended; its log is there")

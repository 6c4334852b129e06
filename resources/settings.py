"""What an operator may set: the ``ASSETLINE_*`` environment variables, typed, with their defaults.

Belongs here: reading and refusing settings, the paths that follow from them, and the switches that keep libraries from
calling home. Does not belong here: making anything on disk (``home.py``), or what a model declares.
"""

from __future__ import annotations

import ctypes
import difflib
import functools
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

PREFIX = "ASSETLINE_"


class SettingsError(Exception):
    """A setting that cannot work; one sentence with the variable, its value and the mend."""


def project_root() -> Path:
    """Folder of ``definitions.py``; relative paths in settings and sources start here."""
    return Path(__file__).resolve().parent.parent


@functools.cache
def project_name() -> str:
    """What people call this project: the ``location_name`` of ``workspace.yaml``, the one place for it."""
    import yaml

    said = yaml.safe_load((project_root() / "workspace.yaml").read_text(encoding="utf-8"))
    return str(said["load_from"][0]["python_module"]["location_name"])


def quiet_telemetry() -> None:
    """Keeps Dagster, MLflow and Evidently (and the processes started from here) from calling home.

    Call it before any of them is imported. What the operator has set already stands.
    """
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "1")


def one_thread_each() -> None:
    """Keeps the libraries that compute (and the processes started from here) to one thread each.

    Call it before any of them is imported. What the operator has set already stands. Nearly all that is computed here
    is many short steps, and threads that share a short step wait for one another by computing: on two busy cores the
    figures of an evaluation took 6.9 CPU seconds with two threads and .8 with one, the fit of a table of 600 rows 35
    and 1.
    """
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")


def give_memory_back() -> None:
    """Lets this process and its libraries return memory that they have freed to the system.

    Call it before pyarrow is imported. A run reads hundreds of day files and frees them; Arrow's own pool and glibc's
    heap would keep most of it: `make run` peaked at 1.75 GB with them and at 1.4 GB without.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc's; elsewhere the heap is what it is
        for option, value in _GLIBC_OPTIONS.items():
            mallopt(option, value)


_GLIBC_OPTIONS = {-8: 2, -1: 32 << 20, -3: 8 << 20}
"""Of ``malloc.h``: M_ARENA_MAX, M_TRIM_THRESHOLD and M_MMAP_THRESHOLD; the two thresholds in bytes. glibc would raise
them by itself to 64 and 32 MiB, with which a story peaks at 1.5 GB; at its first values, 128 KiB, it spends 30 CPU
seconds more on fresh pages. Tensors of a few MiB, as each step on a wide table makes, stay below the second."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings; each field is the variable of that name in upper case after ``ASSETLINE_``.

    Args:
        home: absolute folder in which all state lives.
        database_url: SQLAlchemy URL of the tables of our own: alerts, and the ledger of promotions.
        ui_port: port of the Dagster UI.
        mlflow_port: port of the MLflow UI.
        service_port: port of the scoring service.
        watch_port: port of the watch: alerts' page and metrics.
        token: what people give to see and handle alerts; default: one drawn once, in ``token`` of the state folder.
        channels: file of the channels that are told of alerts.
        public_ui_url: address under which people reach the Dagster UI, for links in messages; default: its port here.
        public_watch_url: address under which they reach the alerts' page; default: its port here.
        test_data: folder with the real tables that some tests read.
    """

    home: Path
    database_url: str = field(repr=False)  # it may hold a password
    ui_port: int = 3000
    mlflow_port: int = 5000
    service_port: int = 8000
    watch_port: int = 8001
    token: str = field(default="", repr=False)
    channels: Path = field(default_factory=lambda: project_root() / "deploy" / "channels.toml")
    public_ui_url: str = ""
    public_watch_url: str = ""
    test_data: Path | None = None

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """The settings of the environment (``env``, or this process's).

        Raises :class:`SettingsError` for a variable that does not exist and for a value that cannot work.
        """
        given = {name: value for name, value in (os.environ if env is None else env).items() if name.startswith(PREFIX)}
        known = [PREFIX + f.name.upper() for f in fields(cls)]
        values: dict[str, Any] = {}
        for name, value in given.items():
            if name not in known:
                raise SettingsError(
                    f"{name}={_shown(value)} is not a setting; {_did_you_mean(name, known)}, or unset it"
                )
            if not value.strip():
                raise SettingsError(f"{name}={value!r} is empty; give it a value or unset it")
            key = name.removeprefix(PREFIX).lower()
            values[key] = _READERS[key](name, value.strip())
        home: Path = values.setdefault("home", project_root() / "var")
        values.setdefault("database_url", f"sqlite:///{home / 'assetline.db'}")
        settings = cls(**values)
        settings._refuse_shared_ports()
        return settings

    def _refuse_shared_ports(self) -> None:
        taken: dict[int, str] = {}
        for name in ("ui_port", "mlflow_port", "service_port", "watch_port"):
            port = getattr(self, name)
            if port in taken:
                raise SettingsError(
                    f"{PREFIX}{name.upper()}={port} is also {PREFIX}{taken[port].upper()}; give each its own port"
                )
            taken[port] = name

    @property
    def dagster_home(self) -> Path:
        """Dagster's own folder: ``dagster.yaml``, runs, events, schedules, logs of the steps."""
        return self.home / "dagster"

    @property
    def mlflow_database(self) -> Path:
        """MLflow's SQLite file."""
        return self.home / "mlflow" / "mlflow.db"

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking and registry URI."""
        return f"sqlite:///{self.mlflow_database}"

    @property
    def artifacts(self) -> Path:
        """Folder under which MLflow keeps the files of its runs and models."""
        return self.home / "mlflow" / "artifacts"

    @property
    def tables(self) -> Path:
        """Root of the Parquet tables."""
        return self.home / "tables"

    @property
    def serving(self) -> Path:
        """Folder of the scoring service's own state."""
        return self.home / "serving"

    @property
    def ui_url(self) -> str:
        """Address of the Dagster UI."""
        return f"http://127.0.0.1:{self.ui_port}"

    @property
    def mlflow_url(self) -> str:
        """Address of the MLflow UI."""
        return f"http://127.0.0.1:{self.mlflow_port}"

    @property
    def service_url(self) -> str:
        """Address of the scoring service."""
        return f"http://127.0.0.1:{self.service_port}"

    @property
    def watch_url(self) -> str:
        """Address of the watch."""
        return f"http://127.0.0.1:{self.watch_port}"

    @property
    def ui_link(self) -> str:
        """Address of the Dagster UI for people."""
        return self.public_ui_url or self.ui_url

    @property
    def watch_link(self) -> str:
        """Address of the alerts' page for people."""
        return self.public_watch_url or self.watch_url


def _folder(name: str, value: str) -> Path:
    if "://" in value:
        raise SettingsError(f"{name}={_shown(value)} is a URL; databases need a folder on this machine")
    path = (project_root() / Path(value).expanduser()).resolve()
    if path.exists() and not path.is_dir():
        raise SettingsError(f"{name}={_shown(value)} is a file; give a folder")
    return path


def _existing_file(name: str, value: str) -> Path:
    path = (project_root() / Path(value).expanduser()).resolve()
    if not path.is_file():
        raise SettingsError(f"{name}={_shown(value)} is no file; give the path of your channels.toml")
    return path


def _web_address(name: str, value: str) -> str:
    if not re.fullmatch(r"https?://[^/@\s]+(/[^\s]*)?", value):
        raise SettingsError(f"{name}={_shown(value)} is no web address; write one like https://alerts.example.org")
    return value.rstrip("/")


def _token(name: str, value: str) -> str:
    if len(value) < 16:
        raise SettingsError(f"{name} is shorter than 16 characters; `openssl rand -hex 16` draws one")
    return value


def _existing_folder(name: str, value: str) -> Path:
    path = _folder(name, value)
    if not path.is_dir():
        raise SettingsError(f"{name}={_shown(value)} does not exist; give the folder that holds the tables")
    return path


def _database_url(name: str, value: str) -> str:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError

    example = (
        f"write one like sqlite:///{project_root() / 'var' / 'assetline.db'} or postgresql://user:password@host/name"
    )
    try:
        url = make_url(value)
        url.get_dialect().import_dbapi()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise SettingsError(f"{name}={_shown(value)} is not a database URL; {example}") from error
    except ImportError as error:
        raise SettingsError(f"{name}={_shown(value)} needs a driver; pip install {error.name}") from error
    if url.get_backend_name() == "sqlite":
        if not url.database or url.database == ":memory:":
            raise SettingsError(f"{name}={_shown(value)} keeps nothing; {example}")
        # Processes start in different folders; a relative file would be a different one in each.
        url = url.set(database=str(project_root() / url.database))
    return url.render_as_string(hide_password=False)


def _port(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= 65535):
        raise SettingsError(f"{name}={_shown(value)} is not a port; give a whole number from 1 to 65535")
    return int(value)


_READERS: Mapping[str, Callable[[str, str], Any]] = {
    "home": _folder,
    "database_url": _database_url,
    "ui_port": _port,
    "mlflow_port": _port,
    "service_port": _port,
    "watch_port": _port,
    "token": _token,
    "channels": _existing_file,
    "public_ui_url": _web_address,
    "public_watch_url": _web_address,
    "test_data": _existing_folder,
}


def _did_you_mean(value: str, known: list[str] | tuple[str, ...]) -> str:
    close = difflib.get_close_matches(value, known, n=1, cutoff=0.8)
    return f"did you mean {close[0]}" if close else f"there are {', '.join(known)}"


def _shown(value: str) -> str:
    """The value as it may appear in a log: what a URL holds before its host is hidden."""
    return repr(re.sub(r"^(\w[\w+.-]*:/*)?.*@", r"\1***@", value))

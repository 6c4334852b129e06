"""Operator settings: the ``ASSETLINE_*`` environment variables, with types and defaults.

Belongs here: reading and validating settings, paths derived from them, and switches for telemetry, threads and memory.
Does not belong here: creating files (``home.py``), model declarations.
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
    """A setting is invalid. The message is one sentence with the variable, its value and the fix."""


def project_root() -> Path:
    """Folder of ``definitions.py``; relative paths in settings and sources are relative to it."""
    return Path(__file__).resolve().parent.parent


@functools.cache
def project_name() -> str:
    """Name of this project: the ``location_name`` in ``workspace.yaml``, the only place where it is set."""
    import yaml

    workspace = yaml.safe_load((project_root() / "workspace.yaml").read_text(encoding="utf-8"))
    return str(workspace["load_from"][0]["python_module"]["location_name"])


def quiet_telemetry() -> None:
    """Disables telemetry of Dagster, MLflow and Evidently, in this process and its child processes.

    Call it before any of them is imported. Values that the operator has set are kept.
    """
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "1")


def one_thread_each() -> None:
    """Limits numerical libraries to one thread each, in this process and its child processes.

    Call it before any of them is imported. Values that the operator has set are kept. Nearly all computations here
    consist of many short steps, and threads that share a short step spend CPU time waiting for each other. On two busy
    cores, the figures of an evaluation took 6.9 CPU seconds with two threads and .8 with one. The fit of a table of 600
    rows took 35 and 1.
    """
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")


def give_memory_back() -> None:
    """Makes this process and its libraries return freed memory to the system.

    Call it before pyarrow is imported. A run reads hundreds of day files and frees them. By default, Arrow's pool and
    glibc's heap keep most of that memory: `make run` peaked at 1.75 GB with the defaults and at 1.4 GB without.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # only glibc has it
        for option, value in _GLIBC_OPTIONS.items():
            mallopt(option, value)


_GLIBC_OPTIONS = {-8: 2, -1: 32 << 20, -3: 8 << 20}
"""Options of ``malloc.h``: M_ARENA_MAX, M_TRIM_THRESHOLD and M_MMAP_THRESHOLD; the thresholds are in bytes. By default
glibc raises the thresholds to 64 and 32 MiB, and a story then peaks at 1.5 GB. At their initial 128 KiB, a story spends
30 more CPU seconds on fresh pages. Tensors of a few MiB, which each step on a wide table creates, stay below the second
threshold."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings. The variable of each field is ``ASSETLINE_`` plus the field's name in upper case.

    Args:
        home: absolute path of the state folder.
        database_url: SQLAlchemy URL of the project's own tables: alerts and the ledger of promotions.
        ui_port: port of the Dagster UI.
        mlflow_port: port of the MLflow UI.
        service_port: port of the scoring service.
        watch_port: port of the watch, which serves the alerts' page and metrics.
        token: access token for the alerts; default: generated once, in the file ``token`` of the state folder.
        channels: path of the channels file, ``channels.toml``.
        public_ui_url: public address of the Dagster UI, for links in messages; default: its local address.
        public_watch_url: public address of the alerts' page; default: its local address.
        test_data: folder with real tables for some of the tests.
        history_url: SQLAlchemy URL of a PostgreSQL with the log of requests, which several scoring services share;
            default: files in the state folder.
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
    history_url: str = field(default="", repr=False)  # it may hold a password

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> Settings:
        """Reads the settings from ``env`` (default: the environment of this process).

        Raises:
            SettingsError: an unknown variable, or an invalid value.
        """
        given = {name: value for name, value in (os.environ if env is None else env).items() if name.startswith(PREFIX)}
        known = [PREFIX + f.name.upper() for f in fields(cls)]
        values: dict[str, Any] = {}
        for name, value in given.items():
            if name not in known:
                raise SettingsError(f"{name}={_shown(value)} is not a setting; unset it ({_did_you_mean(name, known)})")
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
        """Dagster's own folder: ``dagster.yaml``, runs, events, schedules, step logs."""
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
        """Root folder of the artifacts of MLflow's runs and models."""
        return self.home / "mlflow" / "artifacts"

    @property
    def tables(self) -> Path:
        """Root of the Parquet tables."""
        return self.home / "tables"

    @property
    def serving(self) -> Path:
        """Folder of the scoring service's state."""
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
        """Address of the Dagster UI for links: the public one if it is set."""
        return self.public_ui_url or self.ui_url

    @property
    def watch_link(self) -> str:
        """Address of the alerts' page for links: the public one if it is set."""
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
        raise SettingsError(f"{name}={_shown(value)} is not a file; give the path of your channels.toml")
    return path


def _web_address(name: str, value: str) -> str:
    if not re.fullmatch(r"https?://[^/@\s]+(/[^\s]*)?", value):
        raise SettingsError(f"{name}={_shown(value)} is not a web address; write one like https://alerts.example.org")
    return value.rstrip("/")


def _token(name: str, value: str) -> str:
    if len(value) < 16:
        raise SettingsError(f"{name} is shorter than 16 characters; generate one with `openssl rand -hex 16`")
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
            raise SettingsError(f"{name}={_shown(value)} stores nothing on disk; {example}")
        # Processes start in different folders, so a relative path would point to different files.
        url = url.set(database=str(project_root() / url.database))
    return url.render_as_string(hide_password=False)


def _history_url(name: str, value: str) -> str:
    from sqlalchemy import make_url

    url = _database_url(name, value)
    if make_url(url).get_backend_name() != "postgresql":
        raise SettingsError(
            f"{name}={_shown(value)} is not a PostgreSQL; write one like postgresql+psycopg://user:password@host/name, "
            "or unset it: then the log of requests is in the state folder"
        )
    return url


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
    "history_url": _history_url,
}


def _did_you_mean(value: str, known: list[str] | tuple[str, ...]) -> str:
    close = difflib.get_close_matches(value, known, n=1, cutoff=0.8)
    return f"did you mean {close[0]}?" if close else f"the settings are {', '.join(known)}"


def _shown(value: str) -> str:
    """The value for use in messages, with the user and password of a URL hidden."""
    return repr(re.sub(r"^(\w[\w+.-]*:/*)?.*@", r"\1***@", value))

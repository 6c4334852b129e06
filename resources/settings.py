"""Operator settings: defaults, the file of the environment, and the ``ASSETLINE_*`` variables, with types.

``ASSETLINE_ENV`` chooses the file: ``deploy/environments/<dev, staging or prod>.toml``. A variable overrides the file.

Belongs here: reading and validating settings, paths derived from them, and switches for telemetry, threads and memory.
Does not belong here: what production refuses (``production.py``), creating files (``home.py``), model declarations.
"""

from __future__ import annotations

import ctypes
import difflib
import functools
import gc
import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

PREFIX = "ASSETLINE_"

ENVIRONMENTS = ("dev", "staging", "prod")
"""Names of the environments; each has a file in ``deploy/environments``."""

DEFAULT = "default"
"""Origin of a value that neither the file nor a variable gives."""

LOOPBACK = "127.0.0.1"
RUNS_AT_ONCE = 4
"""Default number of runs in progress together where all databases are on PostgreSQL by ``stack = "postgres"``."""

Part = Literal["all", "service"]
"""Which processes a machine runs: all of them, or only the scoring service, which needs fewer settings in prod."""


class SettingsError(Exception):
    """Settings are invalid: a sentence for each one, with its name, its value without secrets, and the fix.

    One sentence is the whole message. Several follow a line with their number, each on a line of its own.
    """

    def __init__(self, problems: Sequence[str] | str, heading: str = "") -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        if len(self.problems) == 1 and not heading:
            super().__init__(self.problems[0])
        else:
            count = f"{len(self.problems)} setting{'s are' if len(self.problems) != 1 else ' is'} wrong"
            super().__init__("\n".join([f"{heading}{count}", *(f"  - {one}" for one in self.problems)]))


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


def collect_garbage_seldom() -> None:
    """Makes Python look for cyclic garbage less often in this process.

    Definitions and imported libraries are a million objects that stay. By default, a sixth of the time to load many
    models is spent on looking at all of them again and again.
    """
    gc.set_threshold(50_000, 20, 50)


_GLIBC_OPTIONS = {-8: 2, -1: 32 << 20, -3: 8 << 20}
"""Options of ``malloc.h``: M_ARENA_MAX, M_TRIM_THRESHOLD and M_MMAP_THRESHOLD; the thresholds are in bytes. By default
glibc raises the thresholds to 64 and 32 MiB, and a story then peaks at 1.5 GB. At their initial 128 KiB, a story spends
30 more CPU seconds on fresh pages. Tensors of a few MiB, which each step on a wide table creates, stay below the second
threshold."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings. The variable of each field is ``ASSETLINE_`` plus the field's name in upper case.

    A field with ``repr=False`` is a secret, or a URL that may hold one. It is hidden wherever settings are shown, and
    the file of an environment may not hold it.

    Args:
        home: absolute path of the state folder.
        env: the environment: ``dev``, ``staging`` or ``prod``.
        stack: where the databases are by default: ``sqlite`` (files of the state folder) or ``postgres`` (a PostgreSQL
            server of the state folder, which commands start and stop). A state folder with such a server keeps to it.
        runs_at_once: number of Dagster runs that may be in progress together; more than 1 needs all databases on
            PostgreSQL. Runs of one model still follow each other.
        database_url: SQLAlchemy URL of the project's own tables: alerts and the ledger of promotions.
        mlflow_store: PostgreSQL URL of MLflow's store; default: a SQLite file in the state folder.
        dagster_store: PostgreSQL URL of Dagster's runs, events and schedules; default: SQLite files there.
        backup: folder outside of the state folder for backups; ``None`` if there is none.
        tables: root of all tables: absolute path of a folder, or URL of a bucket; default: ``tables`` in the state
            folder.
        ui_port: port of the Dagster UI.
        mlflow_port: port of the MLflow UI.
        service_port: port of the scoring service.
        watch_port: port of the watch, which serves the alerts' page and metrics.
        ui_host, service_host, watch_host: address that each one listens on. MLflow has no login, so it is always local.
        secure: whether `make dev` puts a login in front of the UIs of Dagster and MLflow (docs/security.md).
        tls_certificate, tls_key: files of the certificate and its key for that login proxy; without them it does not
            encrypt.
        behind_proxy: whether a proxy or the network of a cluster encrypts and limits the access to these addresses.
        protected_branch: the branch whose versions may be promoted in prod.
        token: access token for the alerts; default: generated once, in the file ``token`` of the state folder.
        service_tokens: file with the hashes of the scoring service's tokens; default: in the state folder.
        encrypt: whether new files of tables, MLflow's artifacts and backups are encrypted (docs/encryption.md).
        keys: file with the keys of the project; default: in the state folder. See ``keys.py``.
        key_pseudonyms, key_tables, key_personal, key_artifacts, key_backups: the keys of a purpose, in base64, instead
            of those in the file; several with commas, the oldest first.
        channels: path of the channels file, ``channels.toml``.
        public_ui_url: public address of the Dagster UI, for links in messages; default: its local address.
        public_watch_url: public address of the alerts' page; default: its local address.
        test_data: folder with real tables for some of the tests.
        history_url: SQLAlchemy URL of a PostgreSQL with the log of requests, which several scoring services share;
            default: files in the state folder.
        service_auth: ``token``: each request to the scoring service needs a bearer token; ``off``: none does, which is
            allowed on a loopback interface only.
        service_processes: processes of the scoring service behind its port; each takes about one core.
        writer_url: base URL of an OpenAI-compatible endpoint whose language model words replies (docs/support.md);
            default: replies are composed of templates and passages.
        writer_model: name of that language model.
        writer_key: bearer token of that endpoint; default: none is sent.
        rate_limit: requests a minute that one token may make at one scoring service; 0: no limit.
        access_log: where the scoring service writes a line for each request: ``file`` (in its folder), ``stdout``, or
            ``off``.
        image_tool: what builds images of model versions: ``docker`` or ``buildah``; default: only the build context.
        image_base: image of the scoring service that they build on; default: ``assetline-service:latest``.
        image_repository: where they are pushed, without the model's name; default: they stay on this machine.
        namespace: namespace of the target ``kubernetes``.
        kubeconfig: its kubeconfig; default: the account of the pod that this process runs in.
        ray: where models that declare ``compute`` are fitted and scored: ``local`` (a Ray that each step starts on this
            machine), or the address host:port of a cluster's head; default: in the process of the run.
    """

    home: Path
    env: str = "dev"
    stack: str = "sqlite"
    runs_at_once: int = 1
    database_url: str = field(repr=False)  # it may hold a password
    mlflow_store: str = field(default="", repr=False)
    dagster_store: str = field(default="", repr=False)
    backup: Path | None = None
    tables: str = ""  # set in __post_init__
    ui_port: int = 3000
    mlflow_port: int = 5000
    service_port: int = 8000
    watch_port: int = 8001
    ui_host: str = LOOPBACK
    service_host: str = LOOPBACK
    watch_host: str = LOOPBACK
    secure: bool = False
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    behind_proxy: bool = False
    protected_branch: str = "main"
    token: str = field(default="", repr=False)
    service_tokens: Path = field(default=None)  # type: ignore[assignment]  # set in __post_init__
    encrypt: bool = False
    keys: Path = field(default=None)  # type: ignore[assignment]  # set in __post_init__
    key_pseudonyms: str = field(default="", repr=False)
    key_tables: str = field(default="", repr=False)
    key_personal: str = field(default="", repr=False)
    key_artifacts: str = field(default="", repr=False)
    key_backups: str = field(default="", repr=False)
    channels: Path = field(default_factory=lambda: project_root() / "deploy" / "channels.toml")
    public_ui_url: str = ""
    public_watch_url: str = ""
    test_data: Path | None = None
    history_url: str = field(default="", repr=False)  # it may hold a password
    service_auth: str = "token"
    service_processes: int = 1
    writer_url: str = ""
    writer_model: str = ""
    writer_key: str = field(default="", repr=False)
    rate_limit: int = 12_000
    access_log: str = "file"
    # The targets `image` and `kubernetes`
    image_tool: Literal["", "docker", "buildah"] = ""
    image_base: str = ""
    image_repository: str = ""
    namespace: str = "default"
    kubeconfig: Path | None = None
    ray: str = ""

    def __post_init__(self) -> None:
        if self.service_tokens is None:
            object.__setattr__(self, "service_tokens", self.home / "service-tokens.toml")
        if self.keys is None:
            object.__setattr__(self, "keys", self.home / "keys.toml")
        if not self.tables:
            object.__setattr__(self, "tables", str(self.home / "tables"))

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, part: Part = "all") -> Settings:
        """Reads the settings from ``env`` (default: the environment of this process) and the environment's file.

        Args:
            env: environment variables.
            part: which processes need the settings; prod requires fewer of the scoring service alone.

        Raises:
            SettingsError: unknown or invalid settings, or in prod settings that production refuses; it names all.
        """
        found = read(env, part)
        if found.settings is None or found.problems:
            raise found.error
        return found.settings

    @property
    def dagster_home(self) -> Path:
        """Dagster's own folder: ``dagster.yaml``, runs, events, schedules, step logs."""
        return self.home / "dagster"

    @property
    def mlflow_database(self) -> Path:
        """MLflow's SQLite file, which exists only without ``mlflow_store``."""
        return self.home / "mlflow" / "mlflow.db"

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking and registry URI; it may hold a password."""
        return self.mlflow_store or f"sqlite:///{self.mlflow_database}"

    @property
    def artifacts(self) -> Path:
        """Root folder of the artifacts of MLflow's runs and models."""
        return self.home / "mlflow" / "artifacts"

    @property
    def tables_elsewhere(self) -> bool:
        """Whether the tables are outside of the state folder: in a bucket, or in another folder."""
        from resources.table_files import is_url

        return is_url(self.tables) or not Path(self.tables).is_relative_to(self.home)

    @property
    def serving(self) -> Path:
        """Folder of the scoring service's state."""
        return self.home / "serving"

    @property
    def first_service_token(self) -> Path:
        """The file that shows the token made at the service's first start, readable only by its owner."""
        return self.home / "service-token"

    @property
    def ui_url(self) -> str:
        """Address of the Dagster UI."""
        return f"http://{address_of(self.ui_host)}:{self.ui_port}"

    @property
    def mlflow_url(self) -> str:
        """Address of the MLflow UI."""
        return f"http://127.0.0.1:{self.mlflow_port}"

    @property
    def service_url(self) -> str:
        """Address of the scoring service."""
        return f"http://{address_of(self.service_host)}:{self.service_port}"

    @property
    def watch_url(self) -> str:
        """Address of the watch."""
        return f"http://{address_of(self.watch_host)}:{self.watch_port}"

    @property
    def ui_link(self) -> str:
        """Address of the Dagster UI for links: the public one if it is set."""
        return self.public_ui_url or self.ui_url

    @property
    def watch_link(self) -> str:
        """Address of the alerts' page for links: the public one if it is set."""
        return self.public_watch_url or self.watch_url


@dataclass(frozen=True)
class Reading:
    """What was read: the environment, the settings (``None`` if a value is invalid), their origins, what is wrong.

    ``origins`` are by field: ``default``, the path of the environment's file, or the name of a variable.
    """

    environment: str
    settings: Settings | None
    origins: Mapping[str, str]
    problems: Sequence[str]

    @property
    def error(self) -> SettingsError:
        """The error that names all problems; prod always gets a list, because one problem is rarely the only one."""
        return SettingsError(self.problems, f"{PREFIX}ENV=prod: " if self.environment == "prod" else "")


def read(env: Mapping[str, str] | None = None, part: Part = "all") -> Reading:
    """Reads all settings, and finds all that is wrong with them; see :meth:`Settings.from_env`."""
    from resources.production import against_production

    env = os.environ if env is None else env
    known = {f.name: f for f in fields(Settings)}
    problems: list[str] = []
    invalid: set[str] = set()
    values: dict[str, Any] = {}
    origins = dict.fromkeys(known, DEFAULT)

    def take(name: str, label: str, text: str, origin: str) -> None:
        try:
            values[name], origins[name] = _READERS[name](label, text), origin
        except SettingsError as error:
            problems.extend(error.problems)
            invalid.add(name)

    given = {name: value for name, value in env.items() if name.startswith(PREFIX)}
    environment = given.get(f"{PREFIX}ENV", "").strip() or ENVIRONMENTS[0]
    if environment in ENVIRONMENTS:  # otherwise its reader refuses it below
        file = environment_file(environment)
        for name, text in _from_file(file, known, problems, invalid).items():
            if PREFIX + name.upper() not in given:
                take(name, f"{_relative(file)}: {name}", text, _relative(file))
    variables = {PREFIX + name.upper(): name for name in known}
    for variable, value in given.items():
        if variable not in variables:
            mend = did_you_mean(variable, list(variables))
            problems.append(f"{variable}={_shown(value)} is not a setting; unset it ({mend})")
        elif not value.strip():
            problems.append(f"{variable}={value!r} is empty; give it a value or unset it")
            invalid.add(variables[variable])
        else:
            take(variables[variable], variable, value.strip(), variable)
    home: Path = values.setdefault("home", project_root() / "var")
    _set_databases(values, origins, home)
    settings = Settings(**values)
    if not invalid:
        problems += [
            *_too_many_runs(settings, origins), *_shared_ports(settings), *_backup_in_home(settings, origins),
            *_delta_in_home(settings, origins),
        ]  # fmt: skip
    if settings.env == "prod":
        problems += against_production(settings, origins, env, part, invalid)
    return Reading(environment, None if invalid else settings, origins, problems)


def _set_databases(values: dict[str, Any], origins: dict[str, str], home: Path) -> None:
    """Adds the default URLs of the databases, and the stack of a state folder that has a server."""
    from resources import local_postgres

    if origins["stack"] == DEFAULT and local_postgres.exists(home):
        values["stack"], origins["stack"] = "postgres", "the state folder"
    if values.get("stack") == "postgres":
        values.setdefault("runs_at_once", RUNS_AT_ONCE)
        values.setdefault("mlflow_store", local_postgres.url(home, local_postgres.MLFLOW))
        values.setdefault("dagster_store", local_postgres.url(home, local_postgres.DAGSTER))
        values.setdefault("database_url", local_postgres.url(home, local_postgres.OWN))
    values.setdefault("database_url", f"sqlite:///{home / 'assetline.db'}")


def _too_many_runs(settings: Settings, origins: Mapping[str, str]) -> list[str]:
    if settings.runs_at_once < 1:
        return [f"{label('runs_at_once', origins)}={settings.runs_at_once} runs nothing; give 1 or more"]
    in_sqlite = [
        name for name in ("database_url", "mlflow_store", "dagster_store")
        if not str(getattr(settings, name)).startswith("postgresql")
    ]  # fmt: skip
    if settings.runs_at_once == 1 or not in_sqlite:
        return []
    return [
        f"{label('runs_at_once', origins)}={settings.runs_at_once} needs PostgreSQL, because SQLite locks when runs "
        f"write at the same time; unset it, or set {PREFIX}STACK=postgres (in SQLite now: {', '.join(in_sqlite)})"
    ]


def environment_file(environment: str) -> Path:
    """Path of the settings file of an environment."""
    return project_root() / "deploy" / "environments" / f"{environment}.toml"


def _from_file(file: Path, known: Mapping[str, Field[Any]], problems: list[str], invalid: set[str]) -> dict[str, str]:
    """The values of an environment's file as text, by field; adds what is wrong to ``problems`` and ``invalid``."""
    where = _relative(file)
    try:
        stored = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append(f"{where} is missing; restore it with `git checkout -- {where}`")
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{where} is not TOML ({error}); correct it")
        return {}
    found = {}
    for name, value in stored.items():
        mend = ""
        if name == "env":
            mend = f"the variable {PREFIX}ENV chooses the file, so the file cannot choose itself; remove the line"
        elif name not in known:
            mend = f"it is not a setting ({did_you_mean(name, list(known))}); remove or correct the line"
        elif is_secret(known[name]) or _holds_a_password(value):
            mend = f"it is a secret, and files hold none; remove the line and set {PREFIX}{name.upper()}"
        elif type(value) is not (wanted := _TYPES.get(str(known[name].type), str)):
            mend = f"{_shown(str(value))} is not a {_WORDS[wanted]}; write it as one"
        elif value == "":
            mend = "it is empty; give it a value or remove the line"
        if mend:
            problems.append(f"{where}: {name}: {mend}")
            invalid.add(name)
        else:
            found[name] = str(value)
    return found


_TYPES: Mapping[str, type] = {"int": int, "bool": bool, "float": float}
"""Types of values in the file by annotation of the field; all others are text."""

_WORDS: Mapping[type, str] = {int: "whole number", bool: "truth value", float: "number", str: "text in quotes"}


def _holds_a_password(value: Any) -> bool:
    return isinstance(value, str) and re.search(r"://[^/@\s]*:[^/@\s]*@", value) is not None


def is_secret(one: Field[Any]) -> bool:
    """Whether a field is a secret. A URL is not one as long as it holds no password."""
    return not one.repr and not one.name.endswith(("_url", "_store"))


def shown(one: Field[Any], value: Any) -> str:
    """A value for people: a secret only as `set`, and a URL without its user and password."""
    if value is None or value == "":
        return ""
    if is_secret(one):
        return "set"
    return hidden_user(str(value))


def hidden_user(url: str) -> str:
    """A URL without its user and password; other text as it is."""
    return re.sub(r"://[^/@\s]*@", "://***@", url)


def _relative(file: Path) -> str:
    return file.relative_to(project_root()).as_posix()


def address_of(host: str) -> str:
    """The host of a URL under which this machine reaches what listens on ``host``."""
    if host == "localhost":
        return host
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        return LOOPBACK if address.version == 4 else "[::1]"
    return f"[{host}]" if address.version == 6 else host


def _shared_ports(settings: Settings) -> list[str]:
    taken: dict[int, str] = {}
    problems = []
    for name in ("ui_port", "mlflow_port", "service_port", "watch_port"):
        port = getattr(settings, name)
        if port in taken:
            problems.append(
                f"{PREFIX}{name.upper()}={port} is also {PREFIX}{taken[port].upper()}; give each its own port"
            )
        taken[port] = name
    return problems


def _backup_in_home(settings: Settings, origins: Mapping[str, str]) -> list[str]:
    if settings.backup is None or not settings.backup.is_relative_to(settings.home):
        return []
    return [
        f"{label('backup', origins)}={_shown(str(settings.backup))} lies in the state folder {settings.home}; give a "
        "folder outside of it, best on another machine"
    ]


def _delta_in_home(settings: Settings, origins: Mapping[str, str]) -> list[str]:
    """A backup copies file after file, so the copy of a Delta log could name files that the copy does not have."""
    folder = settings.tables.removeprefix("delta+file://")
    if folder == settings.tables or not Path(folder).is_relative_to(settings.home):
        return []
    return [
        f"{label('tables', origins)}={settings.tables!r} lies in the state folder {settings.home}; give a folder "
        "outside of it, because a backup of the state folder cannot hold tables with versions"
    ]


def label(name: str, origins: Mapping[str, str]) -> str:
    """The name of a setting in messages, so that people find it: its variable, its line in the file, or its name."""
    origin = origins[name]
    return {DEFAULT: name, PREFIX + name.upper(): origin}.get(origin, f"{origin}: {name}")


def _folder(name: str, value: str) -> Path:
    if "://" in value:
        raise SettingsError(f"{name}={_shown(value)} is a URL; databases need a folder on this machine")
    path = (project_root() / Path(value).expanduser()).resolve()
    if path.exists() and not path.is_dir():
        raise SettingsError(f"{name}={_shown(value)} is a file; give a folder")
    return path


def _tables(name: str, value: str) -> str:
    from resources.table_files import DELTA, TableError, checked_root, is_url

    if not is_url(value) and not value.startswith(DELTA):
        return str(_folder(name, value.removeprefix("file://")))
    try:
        return checked_root(value)
    except TableError as error:
        raise SettingsError(f"{name}: {error}") from error


def _environment(name: str, value: str) -> str:
    if value not in ENVIRONMENTS:
        close = difflib.get_close_matches(value, ENVIRONMENTS, n=1, cutoff=0.5)
        mend = f"did you mean {close[0]}?" if close else f"the environments are {', '.join(ENVIRONMENTS)}"
        raise SettingsError(f"{name}={_shown(value)} is not an environment ({mend})")
    return value


def _host(name: str, value: str) -> str:
    if value == "localhost":
        return value
    try:
        return str(ipaddress.ip_address(value))
    except ValueError as error:
        raise SettingsError(
            f"{name}={_shown(value)} is not an address; give an IP address of this machine, e.g. {LOOPBACK}"
        ) from error


def _flag(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false", "1", "0"):
        raise SettingsError(f"{name}={_shown(value)} is not a truth value; give true or false")
    return value.lower() in ("true", "1")


def _branch(name: str, value: str) -> str:
    if re.search(r"[\s~^:?*\[\\]|\.\.", value):
        raise SettingsError(f"{name}={_shown(value)} is not the name of a branch; give one, e.g. main")
    return value


def _file(name: str, value: str) -> Path:
    path = (project_root() / Path(value).expanduser()).absolute()  # not resolved: a mounted Secret is a link that moves
    if path.is_dir():
        raise SettingsError(f"{name}={_shown(value)} is a folder; give the path of a file")
    return path


def _postgres(name: str, value: str) -> str:
    from sqlalchemy import make_url

    url = _database_url(name, value)
    if make_url(url).get_backend_name() != "postgresql":
        raise SettingsError(f"{name}={_shown(value)} is not PostgreSQL; unset it for SQLite, or give postgresql://…")
    return url


def _existing_file(name: str, value: str) -> Path:
    path = (project_root() / Path(value).expanduser()).resolve()
    if not path.is_file():
        raise SettingsError(f"{name}={_shown(value)} is not a file; give the path of your channels.toml")
    return path


def _web_address(name: str, value: str) -> str:
    if not re.fullmatch(r"https?://[^/@\s]+(/[^\s]*)?", value):
        raise SettingsError(f"{name}={_shown(value)} is not a web address; write one like https://alerts.example.org")
    return value.rstrip("/")


def _word(name: str, value: str) -> str:
    if re.search(r"\s", value) or len(value) > 1_000:
        raise SettingsError(f"{name} has blanks, or more than 1,000 characters; give one word")
    return value


def _token(name: str, value: str) -> str:
    if len(value) < 16:
        raise SettingsError(f"{name} is shorter than 16 characters; generate one with `openssl rand -hex 16`")
    return value


def _keys(name: str, value: str) -> str:
    from resources.keys import KeyProblem, keys_in

    try:
        keys_in(name, value)
    except KeyProblem as error:
        raise SettingsError(str(error)) from None
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


def _one_of(*choices: str) -> Callable[[str, str], str]:
    def read(name: str, value: str) -> str:
        if value not in choices:
            raise SettingsError(f"{name}={_shown(value)} is unknown; set it to one of {', '.join(choices)}")
        return value

    return read


def _count(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 9):
        raise SettingsError(f"{name}={_shown(value)} is not a whole number from 0 to 999999999")
    return int(value)


def _processes(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 2 and 1 <= int(value) <= 64):
        raise SettingsError(f"{name}={_shown(value)} is not a number of processes; give 1 to 64, one for each core")
    return int(value)


def _port(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= 65535):
        raise SettingsError(f"{name}={_shown(value)} is not a port; give a whole number from 1 to 65535")
    return int(value)


def _image_tool(name: str, value: str) -> str:
    if value not in ("docker", "buildah"):
        raise SettingsError(f"{name}={_shown(value)} is not known; give docker or buildah")
    return value


def _image_name(name: str, value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][\w.-]*(:\d+)?(/[a-z0-9][\w.-]*)*(:[\w.-]+)?(@sha256:[0-9a-f]{64})?", value):
        raise SettingsError(f"{name}={_shown(value)} is not a name of images; write one like registry.example.org/team")
    return value


def _namespace(name: str, value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", value):
        raise SettingsError(f"{name}={_shown(value)} is not a namespace; use lower-case letters, digits and hyphens")
    return value


def _kubeconfig(name: str, value: str) -> Path:
    path = (project_root() / Path(value).expanduser()).resolve()
    if not path.is_file():
        raise SettingsError(f"{name}={_shown(value)} is not a file; give the path of a kubeconfig")
    return path


def _ray(name: str, value: str) -> str:
    if value == "local":
        return value
    host, _, port = value.rpartition(":")
    if not re.fullmatch(r"[\w.-]+|\[[0-9a-fA-F:]+\]", host) or not (port.isascii() and port.isdigit()):
        raise SettingsError(
            f"{name}={_shown(value)} is not a Ray; give `local`, or the address of a cluster's head like ray-head:6379"
        )
    return f"{host}:{_port(name, port)}"


_READERS: Mapping[str, Callable[[str, str], Any]] = {
    "env": _environment,
    "home": _folder,
    "stack": _one_of("sqlite", "postgres"),
    "runs_at_once": _count,
    "database_url": _database_url,
    "mlflow_store": _postgres,
    "dagster_store": _postgres,
    "backup": _folder,
    "tables": _tables,
    "ui_port": _port,
    "mlflow_port": _port,
    "service_port": _port,
    "watch_port": _port,
    "ui_host": _host,
    "service_host": _host,
    "watch_host": _host,
    "secure": _flag,
    "tls_certificate": _existing_file,
    "tls_key": _existing_file,
    "behind_proxy": _flag,
    "protected_branch": _branch,
    "token": _token,
    "service_tokens": _file,
    "encrypt": _flag,
    "keys": _file,
    **dict.fromkeys(("key_pseudonyms", "key_tables", "key_personal", "key_artifacts", "key_backups"), _keys),
    "channels": _existing_file,
    "public_ui_url": _web_address,
    "public_watch_url": _web_address,
    "test_data": _existing_folder,
    "history_url": _history_url,
    "service_auth": _one_of("token", "off"),
    "service_processes": _processes,
    "writer_url": _web_address,
    "writer_model": _word,
    "writer_key": _word,
    "rate_limit": _count,
    "access_log": _one_of("file", "stdout", "off"),
    "image_tool": _image_tool,
    "image_base": _image_name,
    "image_repository": _image_name,
    "namespace": _namespace,
    "kubeconfig": _kubeconfig,
    "ray": _ray,
}


def did_you_mean(value: str, known: list[str] | tuple[str, ...]) -> str:
    """The nearest of the known names as a question, or all of them."""
    close = difflib.get_close_matches(value, known, n=1, cutoff=0.8)
    return f"did you mean {close[0]}?" if close else f"the settings are {', '.join(known)}"


def _shown(value: str) -> str:
    """The value for use in messages, with the user and password of a URL hidden."""
    return repr(re.sub(r"^(\w[\w+.-]*:/*)?.*@", r"\1***@", value))

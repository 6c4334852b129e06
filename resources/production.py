"""What the environment ``prod`` refuses: one list of all that is wrong, before anything starts.

Belongs here: the requirements of production. Does not belong here: reading and validating single settings
(``settings.py``).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from resources.settings import DEFAULT, PREFIX, hidden_user, label

if TYPE_CHECKING:
    from resources.settings import Part, Settings

DEBUG_VARIABLES = ("PYTHONDEVMODE", "PYTHONASYNCIODEBUG", "PYTHONINSPECT")
"""Variables of Python that make a server slow, or open a prompt in it."""

_POSTGRES = "postgresql+psycopg://user:password@host/name"


def against_production(
    settings: Settings,
    origins: Mapping[str, str],
    env: Mapping[str, str],
    part: Part = "all",
    invalid: Collection[str] = (),
) -> list[str]:
    """Returns what production refuses, a sentence each: the setting, its value without secrets, and the fix.

    Args:
        settings: the settings, with the default for an invalid one.
        origins: where each value is from; see :class:`~resources.settings.Reading`.
        env: environment variables, for debug switches.
        part: ``service`` leaves out what only the other processes need: Dagster's store, the alerts' token, backups,
            and the addresses of the other processes.
        invalid: settings whose value was refused already; nothing is said of them again.
    """
    everything = part == "all"
    stores = ("database_url", "mlflow_store", *(("dagster_store",) if everything else ()))
    hosts = ("service_host", *(("ui_host", "watch_host") if everything else ()))
    found = [
        *((name, _sqlite(settings, origins, name)) for name in stores),
        *([("token", _alerts_token(settings))] if everything else []),
        ("tables", _tables(settings, origins, env)),
        ("service_tokens", _service_tokens(settings, origins)),
        ("service_auth", _service_auth(settings, origins)),
        *((name, _open_host(settings, origins, name)) for name in hosts),
        *([("backup", _backup(settings, origins))] if everything else []),
        ("test_data", _test_data(settings, origins)),
        ("stack", _stack(settings, origins)),
        ("writer_url", _writer(settings, origins)),
        *([("ray", _ray(settings, origins, env))] if everything else []),
    ]
    debug = [f"{name}={env[name]!r} is a debug switch; unset it" for name in DEBUG_VARIABLES if env.get(name)]
    return [*(problem for name, problem in found if problem and name not in invalid), *debug]


def open_bind(settings: Settings, host: str) -> str:
    """Returns why production does not listen on ``host``; empty if it may, or in another environment.

    Loopback and private addresses are fine. An address that anybody may reach (all interfaces, or a public one) needs
    ``behind_proxy``, because none of the processes encrypts, and the Dagster UI has no login.
    """
    if settings.env != "prod" or settings.behind_proxy or host == "localhost":
        return ""
    address = ipaddress.ip_address(host)
    if not (address.is_unspecified or address.is_global):
        return ""
    which = "every interface" if address.is_unspecified else "a public address"
    return (
        f" listens on {which} without encryption; give 127.0.0.1 or a private address, or set "
        f"{PREFIX}BEHIND_PROXY=true if a proxy or the network of a cluster encrypts and limits the access"
    )


def _sqlite(settings: Settings, origins: Mapping[str, str], name: str) -> str:
    value = str(getattr(settings, name))
    if value and not value.startswith("sqlite"):
        return ""
    what = {"database_url": "the ledger and the alerts", "mlflow_store": "MLflow", "dagster_store": "Dagster"}[name]
    given = f"{label(name, origins)}={value!r}" if value else f"{name} is not set, so {what} would use SQLite"
    given += f" keeps {what} in SQLite" if value else ""
    return f"{given}; set {PREFIX}{name.upper()}={_POSTGRES}"


def _open_host(settings: Settings, origins: Mapping[str, str], name: str) -> str:
    host = str(getattr(settings, name))
    problem = open_bind(settings, host)
    return f"{label(name, origins)}={host!r}{problem}" if problem else ""


def _alerts_token(settings: Settings) -> str:
    if settings.token:
        return ""
    return f"token of the alerts is not set; set {PREFIX}TOKEN to the output of `openssl rand -hex 16`"


def _service_tokens(settings: Settings, origins: Mapping[str, str]) -> str:
    if settings.service_tokens.is_file():
        return ""
    return (
        f"{label('service_tokens', origins)}='{settings.service_tokens}' does not exist; put the file with the hashes "
        f"of the scoring service's tokens there, or set {PREFIX}SERVICE_TOKENS to its path"
    )


def _stack(settings: Settings, origins: Mapping[str, str]) -> str:
    if settings.stack != "postgres":
        return ""
    return (
        f"{label('stack', origins)}='postgres' is a server inside the state folder, for one machine; unset it and give "
        f"the three databases by URL, for example {PREFIX}DATABASE_URL={_POSTGRES}"
    )


def _writer(settings: Settings, origins: Mapping[str, str]) -> str:
    """Questions of customers, and the key, would travel readable."""
    address = urlsplit(settings.writer_url)
    if address.scheme != "http" or address.hostname in ("127.0.0.1", "::1", "localhost"):
        return ""
    return f"{label('writer_url', origins)}={settings.writer_url!r} is not encrypted; give an https:// address"


def _ray(settings: Settings, origins: Mapping[str, str], env: Mapping[str, str]) -> str:
    """A cluster without a token runs what anybody sends who reaches it."""
    if settings.ray in ("", "local") or env.get("RAY_AUTH_MODE") == "token":
        return ""
    return (
        f"{label('ray', origins)}={settings.ray!r} is reached without a token; start the cluster with one, and set "
        "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to its file"
    )


def _tables(settings: Settings, origins: Mapping[str, str], env: Mapping[str, str]) -> str:
    """An endpoint without encryption: rows would travel readable, and so would the signatures of requests."""
    if "s3://" not in settings.tables or settings.behind_proxy:
        return ""
    endpoint, name = "", ""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if endpoint := env.get(name, ""):
            break
    if not endpoint.startswith("http://") or _is_near(urlsplit(endpoint).hostname or ""):
        return ""
    return (
        f"{label('tables', origins)}={settings.tables!r} is reached without encryption, because "
        f"{name}={hidden_user(endpoint)!r}; give an address with https://, or set {PREFIX}BEHIND_PROXY=true if the "
        "network of a cluster encrypts and limits the access"
    )


def _is_near(host: str) -> bool:
    """Whether a host is this machine or an address of a private network; a name of another host is not."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False


def _service_auth(settings: Settings, origins: Mapping[str, str]) -> str:
    if settings.service_auth != "off":
        return ""
    return f"{label('service_auth', origins)}='off' lets the scoring service answer anybody; unset it"


def _backup(settings: Settings, origins: Mapping[str, str]) -> str:
    if settings.backup is None:
        mend = f"set {PREFIX}BACKUP to a folder outside of {settings.home}, best on another machine"
        return f"backup is not set; {mend}"
    if not settings.backup.is_dir():
        return f"{label('backup', origins)}='{settings.backup}' is not a folder; mount or create it"
    return ""


def _test_data(settings: Settings, origins: Mapping[str, str]) -> str:
    if origins["test_data"] == DEFAULT:
        return ""
    return f"{label('test_data', origins)}='{settings.test_data}' is for tests; unset it"

"""The login in front of Dagster's and MLflow's UIs, the alerts' page and the service: nginx, for `make dev SECURE=1`.

    browser ──TLS──> nginx ──> Dagster (for readers: a second webserver with --read-only)
                       │  └──> MLflow (its own users: one for readers, one for operators)
                       └ asks the alerts' page for each request: who is this, and may they operate?

The programs listen on free ports of the loopback interface, and nginx on the ports of the settings. All of them share
one login, because a cookie belongs to a host and not to a port.

Belongs here: the configuration of nginx, the users of MLflow, and which programs run. Does not belong here: the login
itself (``watch/login.py``), starting and ending processes (``supervisor.py``).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template

from resources.processes import free_port
from resources.settings import LOOPBACK, Settings, address_of

READ_ONLY_UI = "ui-readonly"
AUTHORIZE = "/authorize"
"""Path of the alerts' page that nginx asks. Its answer is 204 with the right in :data:`RIGHT`, 401, or 403."""
RIGHT = "X-Assetline-Right"


class LoginProxyError(Exception):
    """The login proxy cannot be set up. The message gives the fix."""


@dataclass(frozen=True)
class Inside:
    """The settings of the programs behind the proxy, and what the proxy needs to know of them.

    Attributes:
        settings: the settings with the ports inside.
        read_only_port: port of the Dagster webserver for readers.
        users: MLflow's users with their passwords: ``operator`` and ``reader``.
    """

    settings: Settings
    read_only_port: int
    users: dict[str, str]


def inside_of(settings: Settings) -> Inside:
    """Chooses free ports for the programs, and passwords for MLflow's users, which stay the same once chosen.

    Raises:
        LoginProxyError: nginx or Flask-WTF is not installed, or one of the files of a certificate is missing.
    """
    _refuse_missing(settings)
    ui, mlflow, service, watch, read_only = _free_ports(5)
    scheme = "https" if settings.tls_certificate else "http"
    return Inside(
        replace(
            settings,
            ui_port=ui, mlflow_port=mlflow, service_port=service, watch_port=watch,
            ui_host=LOOPBACK, service_host=LOOPBACK, watch_host=LOOPBACK,
            public_ui_url=settings.public_ui_url or f"{scheme}://{address_of(settings.ui_host)}:{settings.ui_port}",
            public_watch_url=settings.public_watch_url
            or f"{scheme}://{address_of(settings.watch_host)}:{settings.watch_port}",
        ),
        read_only,
        _passwords(folder_of(settings) / "mlflow-users.json"),
    )  # fmt: skip


def folder_of(settings: Settings) -> Path:
    """Folder of the proxy's files; only its owner can read them."""
    return settings.home / "login-proxy"


def variables(inside: Inside) -> dict[str, str]:
    """The environment of the programs inside."""
    settings, auth = inside.settings, folder_of(inside.settings) / "mlflow-auth.ini"
    auth.write_text(
        "[mlflow]\ndefault_permission = READ\nadmin_username = operator\n"
        f"database_uri = sqlite:///{folder_of(settings) / 'mlflow-users.db'}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    ports = {name: str(getattr(settings, name)) for name in ("ui_port", "mlflow_port", "service_port", "watch_port")}
    hosts = {name: getattr(settings, name) for name in ("ui_host", "service_host", "watch_host")}
    links = {name: getattr(settings, name) for name in ("public_ui_url", "public_watch_url")}
    return {
        **{f"ASSETLINE_{name.upper()}": value for name, value in {**ports, **hosts, **links}.items()},
        "MLFLOW_AUTH_CONFIG_PATH": str(auth),
        "MLFLOW_AUTH_ADMIN_PASSWORD": inside.users["operator"],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": inside.users["session key"],
    }


def command_of(settings: Settings, inside: Inside) -> list[str]:
    """Writes the configuration of nginx, and returns the command that runs it until SIGTERM or SIGQUIT."""
    folder = folder_of(settings)
    file = folder / "nginx.conf"
    with open(file, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as out:
        out.write(configuration(settings, inside))
    return [_nginx(), "-p", str(folder), "-e", "stderr", "-c", str(file), "-g", "daemon off;"]


def provisioned(inside: Inside) -> bool:
    """Whether MLflow answers and has its users; creates the reader if it is missing."""
    import httpx

    address, reader = f"{inside.settings.mlflow_url}/api/2.0/mlflow/users", {"username": "reader"}
    with (
        contextlib.suppress(httpx.HTTPError),
        httpx.Client(auth=("operator", inside.users["operator"]), timeout=30, trust_env=False) as client,
    ):
        if client.get(f"{address}/get", params=reader).status_code != 200:
            client.post(f"{address}/create", json={**reader, "password": inside.users["reader"]})
        return client.get(f"{address}/get", params=reader).status_code == 200
    return False


def answers(settings: Settings) -> bool:
    """Whether the proxy passes requests on to the alerts' page."""
    import httpx

    scheme = "https" if settings.tls_certificate else "http"
    address = f"{scheme}://{address_of(settings.watch_host)}:{settings.watch_port}/health"
    # The certificate is for the name that others use, and not for this address.
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(address, verify=False, timeout=5, trust_env=False).status_code == 200
    return False


def configuration(settings: Settings, inside: Inside) -> str:
    """The configuration of nginx."""
    within = inside.settings
    tls = ""
    if settings.tls_certificate:
        tls = f"ssl_certificate {settings.tls_certificate}; ssl_certificate_key {settings.tls_key};"
    servers = (
        (settings.ui_host, settings.ui_port, "http://$dagster", True),
        (settings.ui_host, settings.mlflow_port, "http://$of_mlflow", True),
        (settings.watch_host, settings.watch_port, f"http://{LOOPBACK}:{within.watch_port}", False),
        (settings.service_host, settings.service_port, f"http://{LOOPBACK}:{within.service_port}", False),
    )
    ssl, watch = " ssl" if settings.tls_certificate else "", f"http://{LOOPBACK}:{within.watch_port}"
    return _CONFIGURATION.substitute(
        tls=tls,
        full=within.ui_port,
        mlflow=within.mlflow_port,
        read_only=inside.read_only_port,
        operator=_basic("operator", inside.users["operator"]),
        reader=_basic("reader", inside.users["reader"]),
        servers="".join(
            (_WITH_LOGIN if login else _WITHOUT_LOGIN).substitute(
                listen=f"{address_of(host)}:{port}{ssl}", to=to, login=f"{within.public_watch_url}/login",
                credentials="$mlflow" if port == settings.mlflow_port else '""', watch=watch, authorize=AUTHORIZE,
            )
            for host, port, to, login in servers
        ),
    )  # fmt: skip


_CONFIGURATION = Template("""\
pid nginx.pid;
worker_processes 1;
events { worker_connections 1024; }
http {
    access_log off;
    server_tokens off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    client_max_body_size 200m;
    proxy_http_version 1.1;
    proxy_read_timeout 1h;
    $tls
    ssl_protocols TLSv1.2 TLSv1.3;
    add_header X-Content-Type-Options nosniff;
    map $$http_upgrade $$upgrading { default upgrade; '' ''; }
    map $$right $$dagster { operate full; default read_only; }
    map $$right $$mlflow { operate "Basic $operator"; default "Basic $reader"; }
    # MLflow lets each of its users create experiments. Readers may ask (its UI searches by POST) and change nothing.
    map "$$right $$request_method $$uri" $$of_mlflow {
        default nobody;
        "~^operate " mlflow;
        "~^[a-z]* (GET|HEAD) " mlflow;
        "~^[a-z]* POST /(ajax-)?api/[0-9.]+/mlflow/[a-z/-]*search$$" mlflow;
        "~^[a-z]* POST /graphql$$" mlflow;
    }
    upstream full { server 127.0.0.1:$full; }
    upstream read_only { server 127.0.0.1:$read_only; }
    upstream mlflow { server 127.0.0.1:$mlflow; }
    upstream nobody { server unix:nobody.sock; }
    server { listen unix:nobody.sock; return 403; }
$servers}
""")

_WITHOUT_LOGIN = Template("""\
    server {
        listen $listen;
        location / {
            proxy_pass $to;
            proxy_set_header Host $$http_host;
            proxy_set_header X-Forwarded-For $$remote_addr;
        }
    }
""")

_WITH_LOGIN = Template("""\
    server {
        listen $listen;
        location / {
            auth_request /.authorize;
            auth_request_set $$right $$upstream_http_x_assetline_right;
            error_page 401 =302 $login;
            proxy_pass $to;
            proxy_set_header Host $$http_host;
            proxy_set_header Cookie "";
            proxy_set_header Authorization $credentials;
            proxy_set_header Upgrade $$http_upgrade;
            proxy_set_header Connection $$upgrading;
        }
        location = /.authorize {
            internal;
            proxy_pass $watch$authorize;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header X-Original-Path $$uri;
            proxy_set_header X-Forwarded-For $$remote_addr;
        }
    }
""")


def _basic(name: str, password: str) -> str:
    return base64.b64encode(f"{name}:{password}".encode()).decode()


def _free_ports(number: int) -> list[int]:
    ports: set[int] = set()
    while len(ports) < number:
        ports.add(free_port())
    return list(ports)


def _passwords(file: Path) -> dict[str, str]:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileNotFoundError):
        return dict(json.loads(file.read_text()))
    made = {name: secrets.token_urlsafe(24) for name in ("operator", "reader", "session key")}
    with open(file, "x", opener=lambda path, flags: os.open(path, flags, 0o600)) as out:
        json.dump(made, out)
    return made


def _nginx() -> str:
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        raise LoginProxyError("nginx is not installed; install it (Debian: nginx-light), or start without SECURE=1")
    return found


def _refuse_missing(settings: Settings) -> None:
    from importlib.util import find_spec

    _nginx()
    if find_spec("flask_wtf") is None:
        raise LoginProxyError("MLflow's login needs Flask-WTF; pip install 'assetline[secure]'")
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        raise LoginProxyError("ASSETLINE_TLS_CERTIFICATE and ASSETLINE_TLS_KEY belong together; set both, or none")

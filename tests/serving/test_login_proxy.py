"""The login proxy: a real nginx and alerts' page before programs that say what reached them; a real MLflow."""

import contextlib
import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
import uvicorn

from resources.alerts import AlertStore
from resources.audit import AuditLog
from resources.processes import free_port
from resources.service_tokens import TokenFile
from resources.settings import Settings
from serving import login_proxy
from serving.login_proxy import LoginProxyError
from serving.supervisor import SupervisorError, supervise
from serving.watch.alerts_page import create_app
from serving.watch.app import named_tokens

NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
without_nginx = pytest.mark.skipif(NGINX is None, reason="needs the Debian package nginx-light")
PORTS = ("ui_port", "mlflow_port", "service_port", "watch_port")


class Echo(BaseHTTPRequestHandler):
    """Answers with the name of its server, the path and the headers that reached it."""

    def do_GET(self) -> None:
        headers = {name.title(): value for name, value in self.headers.items()}
        body = json.dumps({"server": self.server.name, "path": self.path, **headers}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def settings_of(tmp_path, **given: object) -> Settings:
    settings = Settings.from_env({"ASSETLINE_HOME": str(tmp_path / "home"), "ASSETLINE_SECURE": "1"})
    (tmp_path / "home").mkdir(exist_ok=True)
    return replace(settings, **{name: free_port() for name in PORTS}, **given)


@contextlib.contextmanager
def running(settings: Settings):
    """The proxy of ``settings`` before four programs that echo, and the real alerts' page."""
    inside = login_proxy.inside_of(settings)
    echoes = {"full": inside.settings.ui_port, "read only": inside.read_only_port,
              "mlflow": inside.settings.mlflow_port, "service": inside.settings.service_port}  # fmt: skip
    servers = []
    for name, port in echoes.items():
        server = ThreadingHTTPServer(("127.0.0.1", port), Echo)
        server.name = name
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    app = create_app(
        AlertStore(settings.database_url), "a-token-of-enough-letters", audit=AuditLog(settings.database_url),
        tokens=named_tokens(settings),
    )  # fmt: skip
    watch = uvicorn.Server(uvicorn.Config(app, port=inside.settings.watch_port, log_level="error"))
    thread = threading.Thread(target=watch.run, daemon=True)
    thread.start()
    process = subprocess.Popen(login_proxy.command_of(settings, inside))
    try:
        until = time.monotonic() + 60
        while not login_proxy.answers(settings):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        yield inside
    finally:
        process.terminate()
        process.wait(60)
        watch.should_exit = True
        thread.join(60)
        for server in servers:
            server.shutdown()
            server.server_close()


def person(settings: Settings, role: str, models: tuple[str, ...] = ()) -> httpx.Client:
    """A browser that has logged in with a token of this role."""
    file = TokenFile(settings.service_tokens, settings.first_service_token)
    token = file.create(f"{role}-{len(models)}", role=role, models=models)
    scheme = "https" if settings.tls_certificate else "http"
    one = httpx.Client(verify=False, trust_env=False, timeout=30)
    entered = one.post(f"{scheme}://127.0.0.1:{settings.watch_port}/login", data={"token": token})
    assert entered.status_code == 303
    return one


@pytest.mark.slow
@without_nginx
def test_each_role_reaches_what_it_may(tmp_path):
    settings = settings_of(tmp_path)
    ui, mlflow = (f"http://127.0.0.1:{port}" for port in (settings.ui_port, settings.mlflow_port))
    with running(settings) as inside:
        for address in (ui, mlflow):
            stranger = httpx.get(address, trust_env=False, headers={"authorization": "Bearer wrong"})
            assert stranger.status_code == 302
            assert stranger.headers["location"] == f"http://127.0.0.1:{settings.watch_port}/login"
        reader, operator = person(settings, "reader"), person(settings, "operator")
        seen = {name: one.get(f"{ui}/runs?x=1").json() for name, one in (("reader", reader), ("operator", operator))}
        assert {name: (found["server"], found["path"]) for name, found in seen.items()} == {
            "reader": ("read only", "/runs?x=1"),
            "operator": ("full", "/runs?x=1"),
        }
        assert "Cookie" not in seen["reader"]
        assert not seen["reader"].get("Authorization")
        for role, one in (("reader", reader), ("operator", operator)):
            basic = login_proxy._basic(role, inside.users[role])
            assert one.get(f"{mlflow}/x").json()["Authorization"] == f"Basic {basic}"
        search, create = (f"{mlflow}/ajax-api/2.0/mlflow/{path}" for path in ("runs/search", "experiments/create"))
        assert reader.post(search).json()["server"] == "mlflow"
        assert reader.post(f"{mlflow}/graphql").status_code == 200
        for refused in (reader.post(create), reader.delete(search), reader.post(f"{create}?x=/search")):
            assert refused.status_code == 403
        assert operator.post(create).json()["server"] == "mlflow"
        limited, scorer = person(settings, "operator", ("fraud",)), httpx.Client(trust_env=False)
        assert limited.get(ui).status_code == limited.get(mlflow).status_code == 403
        forged = {"authorization": "Bearer x", "x-assetline-right": "operate", "x-forwarded-for": "10.9.9.9"}
        assert scorer.get(ui, headers=forged).status_code == 302
        service = scorer.get(f"http://127.0.0.1:{settings.service_port}/models", headers=forged).json()
        assert (service["server"], service["Authorization"]) == ("service", "Bearer x")
        assert service["X-Forwarded-For"] == "127.0.0.1"
        lines = [(one.who, one.action, one.subject) for one in AuditLog(settings.database_url).lines()]
    assert ("reader-0", "read", "UI of Dagster or MLflow") in lines
    assert ("operator-1", "denied", "page /authorize") in lines
    assert ("unknown", "denied", "page /authorize") in lines


@pytest.mark.slow
@without_nginx
def test_with_a_certificate_nothing_answers_in_the_clear(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    _make_certificate(key, certificate)
    settings = settings_of(tmp_path, tls_certificate=certificate, tls_key=key)
    with running(settings):
        reader = person(settings, "reader")
        assert reader.get(f"https://127.0.0.1:{settings.ui_port}/").json()["server"] == "read only"
        with httpx.Client(verify=str(certificate), trust_env=False) as checked:
            assert checked.get(f"https://127.0.0.1:{settings.service_port}/").json()["server"] == "service"
        for port in (settings.ui_port, settings.mlflow_port, settings.service_port, settings.watch_port):
            assert httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).status_code == 400


@pytest.mark.slow
def test_mlflow_gets_its_users_once_and_refuses_others(tmp_path, monkeypatch):
    monkeypatch.setattr(login_proxy, "_nginx", lambda: "nginx")
    settings = settings_of(tmp_path)
    inside = login_proxy.inside_of(settings)
    environment = {**os.environ, **login_proxy.variables(inside), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                   "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}  # fmt: skip
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(inside.settings.mlflow_port), "--workers", "1",
               "--app-name", "basic-auth"]  # fmt: skip
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        until = time.monotonic() + 300
        while not login_proxy.provisioned(inside):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.5)
        assert login_proxy.provisioned(inside)
        search = f"{inside.settings.mlflow_url}/api/2.0/mlflow/experiments/search?max_results=5"
        for auth, status in ((("reader", inside.users["reader"]), 200), (("reader", "wrong"), 401), (None, 401)):
            assert httpx.get(search, auth=auth, trust_env=False, timeout=120).status_code == status
    finally:
        os.killpg(process.pid, 15)
        process.wait(120)
    assert login_proxy.inside_of(settings).users == inside.users, "MLflow keeps the first password of its admin"


def test_passwords_and_the_configuration_are_for_their_owner_only(tmp_path, monkeypatch):
    monkeypatch.setattr(login_proxy, "_nginx", lambda: "nginx")
    settings = settings_of(tmp_path)
    inside = login_proxy.inside_of(settings)
    command = login_proxy.command_of(settings, inside)
    folder = login_proxy.folder_of(settings)
    for name in ("mlflow-users.json", "nginx.conf"):
        assert (folder / name).stat().st_mode & 0o077 == 0
    assert not set(inside.users.values()) & set(command)
    assert (folder / "nginx.conf").read_text().count("listen 127.0.0.1:") == 4


def test_what_is_missing_is_named_before_anything_starts(tmp_path, monkeypatch):
    settings = settings_of(tmp_path)
    monkeypatch.setattr("serving.login_proxy.shutil.which", lambda *_, **__: None)
    with pytest.raises(SupervisorError, match=r"nginx is not installed; .*Debian: nginx-light.*; nothing was started"):
        supervise(settings)
    monkeypatch.setattr("serving.login_proxy.shutil.which", lambda *_, **__: "nginx")
    with pytest.raises(LoginProxyError, match="ASSETLINE_TLS_CERTIFICATE and ASSETLINE_TLS_KEY belong together"):
        login_proxy.inside_of(replace(settings, tls_certificate=tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(LoginProxyError, match=r"pip install 'assetline\[secure\]'"):
        login_proxy.inside_of(settings)


def _make_certificate(key_file, certificate_file) -> None:
    """Makes a certificate for 127.0.0.1 that signs itself."""
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    key_file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    certificate_file.write_bytes(certificate.public_bytes(pem))

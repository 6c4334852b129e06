"""Who may ask the service: a real process, with tokens that are made, rotated, revoked and damaged while it runs."""

import time

import httpx
import pytest

from resources.processes import free_port
from resources.service_tokens import TokenFile
from resources.settings import Settings
from serving.scoring.access import OPEN_PATHS, is_loopback, tokens_of
from serving.scoring.service import main
from tests.serving.processes import Service

OPEN = sorted(OPEN_PATHS)
CLOSED = [
    ("GET", "/models"),
    ("GET", "/models/fraud"),
    ("POST", "/models/fraud/predict"),
    ("POST", "/models/fraud/score"),
    ("GET", "/nowhere"),
    ("GET", "/health/"),
    ("DELETE", "/models"),
    ("GET", "//models"),
]


@pytest.fixture(scope="module")
def file(locked) -> TokenFile:
    settings = Settings.from_env({"ASSETLINE_HOME": str(locked.home)})
    return TokenFile(settings.service_tokens, settings.first_service_token)


def status(service: Service, token: str) -> int:
    return service.client.get("/models", headers={"Authorization": f"Bearer {token}"}).status_code


@pytest.mark.closes("service", "unauthorized")
@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_without_a_token_nothing_answers_but_401(locked, method, path):
    answer = httpx.request(method, f"{locked.client.base_url}".rstrip("/") + path, trust_env=False)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="assetline"'
    assert answer.json()["detail"].startswith("send one header Authorization: Bearer TOKEN; ")


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer x"), ("Authorization", "Bearer y")],
        [("Authorization", "Basic YTpi")],
        [("Authorization", "Bearer wrong")],
        [("Authorization", b"Bearer \xff\xfe")],
    ],
)
def test_a_wrong_token_is_refused_and_not_repeated(locked, headers):
    answer = httpx.get(f"{locked.client.base_url}/models", headers=headers, trust_env=False)
    assert answer.status_code == 401
    assert "wrong" not in answer.text


def test_the_first_token_opens_and_any_case_of_the_scheme_will_do(locked):
    token = (locked.home / "service-token").read_text().strip()
    assert status(locked, token) == 200
    assert locked.client.get("/models", headers={"Authorization": f"bearer   {token}"}).status_code == 200
    assert locked.client.get("/nowhere").status_code == 404
    wrong = locked.client.get("/models", headers={"Authorization": f"Bearer {token}x"})
    assert wrong.headers["WWW-Authenticate"] == 'Bearer realm="assetline", error="invalid_token"'


@pytest.mark.parametrize("path", OPEN)
def test_what_machines_read_before_they_have_a_token_is_open(locked, path):
    assert httpx.get(f"{locked.client.base_url}{path}", trust_env=False).status_code in (200, 503)


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_a_model_that_waits_for_its_first_version_keeps_nobody_away(locked, path):
    assert locked.health()["status"] == "waiting"
    answer = locked.client.get(path)
    assert answer.status_code == 200
    assert answer.json() == ({"status": "ok"} if path == "/livez" else {"ready": True, "reasons": []})


def test_refusals_are_counted_without_a_label_for_what_a_stranger_can_invent(locked):
    for n in range(3):
        httpx.get(f"{locked.client.base_url}/invented-{n}", trust_env=False)
    text = locked.client.get("/metrics").text
    counted = [line for line in text.splitlines() if line.startswith("assetline_refused_requests_total")]
    assert {line.split("{")[1].split("}")[0] for line in counted} == {
        'reason="unauthorized"', 'reason="forbidden"', 'reason="rate_limited"',
    }  # fmt: skip
    assert float(counted[0].split()[-1]) >= 3
    assert "invented" not in text


@pytest.mark.closes("service", "forbidden")
@pytest.mark.parametrize(
    ("role", "models", "found"),
    [
        ("scorer", ["other"], 403),
        ("reader", [], 403),
        ("scorer", ["fraud"], 503),
        ("scorer", [], 503),
        ("admin", [], 503),
    ],
)
def test_a_token_scores_the_models_it_is_for_and_no_other(locked, file, role, models, found):
    name = f"{role}-{'-'.join(models)}".strip("-")
    headers = {"Authorization": f"Bearer {file.create(name, role=role, models=models)}"}
    until = time.monotonic() + 60
    while locked.client.get("/models", headers=headers).status_code == 401:  # the file is read once a second
        assert time.monotonic() < until
        time.sleep(0.1)
    answer = locked.client.post("/models/fraud/predict", headers=headers, json=[])
    assert answer.status_code == found
    if found == 403:
        assert answer.json()["detail"].startswith(f"{name} ")
    assert locked.client.get("/models", headers=headers).status_code == (403 if role == "reader" else 200)
    file.revoke(name)


def test_the_document_declares_the_scheme_for_what_needs_it(locked):
    document = locked.client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            needs = path not in OPEN_PATHS
            assert operation.get("security") == ([{"bearer": []}] if needs else None)
            assert ("401" in operation["responses"]) == needs


def test_tokens_change_without_a_restart(locked, file):
    first = (locked.home / "service-token").read_text().strip()
    nightly = file.create("nightly")
    locked.until(lambda: status(locked, nightly) == 200)
    assert status(locked, first) == 200
    rotated = file.rotate("nightly", keep_hours=1)
    locked.until(lambda: status(locked, rotated) == 200)
    assert status(locked, nightly) == 200, "the old one was kept"
    newest = file.rotate("nightly")
    locked.until(lambda: status(locked, nightly) == 401)
    assert status(locked, rotated) == 401
    assert status(locked, newest) == 200
    file.revoke("nightly")
    locked.until(lambda: status(locked, newest) == 401)
    assert status(locked, first) == 200


def test_an_expired_token_is_refused_with_the_day(locked, file):
    token = file.create("brief")
    locked.until(lambda: status(locked, token) == 200)
    before = file.path.read_text()
    file.path.write_text(before + "expires = 2020-01-01T00:00:00Z\n")
    locked.until(lambda: status(locked, token) == 401)
    said = locked.client.get("/models", headers={"Authorization": f"Bearer {token}"}).json()["detail"]
    assert said.startswith("the token 'brief' expired on 2020-01-01 00:00 UTC; `assetline token rotate brief")
    file.path.write_text(before)
    file.revoke("brief")


@pytest.mark.parametrize("damage", ["half", "gone"])
def test_a_damaged_file_leaves_the_last_good_tokens_and_says_so(locked, file, damage):
    token, before = (locked.home / "service-token").read_text().strip(), file.path.read_bytes()
    file.path.unlink() if damage == "gone" else file.path.write_bytes(before[:-40])
    locked.until(lambda: locked.client.get("/health").json()["access"]["problem"] is not None)
    health = locked.client.get("/health").json()
    assert health["status"] == "degraded"
    assert str(file.path) in health["access"]["problem"]
    assert health["access"]["problem"].endswith(" stay valid")
    assert status(locked, token) == 200
    assert status(locked, "wrong") == 401
    file.path.write_bytes(before)
    locked.until(lambda: locked.client.get("/health").json()["access"] == {"auth": "token", "problem": None})
    assert locked.client.get("/health").json()["status"] != "degraded"


def test_no_token_is_in_the_output(locked, file):
    assert "made the first token of the service; it is in " in locked.said()
    assert (locked.home / "service-token").read_text().strip() not in locked.said()


def settings_of(home, **other: str) -> Settings:
    return Settings.from_env({"ASSETLINE_HOME": str(home), **other})


def test_what_would_be_open_to_others_does_not_start(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))
    monkeypatch.setenv("ASSETLINE_SERVICE_AUTH", "off")
    with pytest.raises(SystemExit) as refused:
        main(["--host", "0.0.0.0", "--port", str(free_port())])
    assert refused.value.code == (
        "ASSETLINE_SERVICE_AUTH=off with --host 0.0.0.0: others could ask for scores without a token; "
        "listen on 127.0.0.1, or unset it"
    )
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_at_the_start_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path))
    (tmp_path / "service-tokens.toml").write_text("tokens = 1")
    with pytest.raises(SystemExit) as refused:
        main(["--port", str(free_port())])
    assert str(refused.value.code).startswith(f"the token file {tmp_path}/service-tokens.toml cannot be read (")


def test_on_loopback_tokens_can_be_switched_off(tmp_path):
    off = settings_of(tmp_path, ASSETLINE_SERVICE_AUTH="off")
    assert tokens_of(off, "127.0.0.1", staged=False) is None
    assert not list(tmp_path.iterdir())
    assert tokens_of(settings_of(tmp_path), "127.0.0.1", staged=False) is not None


def test_a_staged_bundle_needs_a_token_only_where_others_can_reach_it(staged, tmp_path):
    assert "Authorization" not in staged.client.headers
    assert staged.client.get("/models").status_code == 200
    assert staged.client.get("/health").json()["access"] == {"auth": "off", "problem": None}
    assert "securitySchemes" not in staged.client.get("/openapi.json").json()["components"]
    assert tokens_of(settings_of(tmp_path), "0.0.0.0", staged=True) is not None


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("example.org", False), ("", False)],
)  # fmt: skip
def test_only_an_interface_of_this_machine_alone_is_loopback(host, loopback):
    assert is_loopback(host) == loopback

"""Request ids and the access log: what is in it, what never is, and what happens as it grows or the disk is full."""

import asyncio
import json
import re
import subprocess
import sys

import httpx
import pytest

from resources.settings import project_root
from serving.scoring.access_log import AccessLog, LineFile
from tests.serving.conftest import payment
from tests.serving.processes import Service

CANARY = "canary-7c1e"


def lines_of(service: Service) -> list[dict]:
    return [json.loads(line) for line in (service.home / "serving" / "access.jsonl").read_text().splitlines()]


def line_of(service: Service, identity: str) -> dict:
    """The line of a request, which is written just after its response was sent."""
    service.until(lambda: any(line["request_id"] == identity for line in lines_of(service)))
    (line,) = [line for line in lines_of(service) if line["request_id"] == identity]
    return line


def test_each_request_is_a_line_with_its_id(locked):
    answer = locked.predict(payment(1))
    identity = answer.headers["X-Request-ID"]
    assert re.fullmatch("[0-9a-f]{32}", identity)
    line = line_of(locked, identity)
    assert set(line) == {"at", "request_id", "client", "token", "method", "path", "status", "ms", "bytes"}
    assert (line["client"], line["token"], line["method"]) == ("127.0.0.1", "default", "POST")
    assert (line["path"], line["status"]) == ("/models/fraud/predict", 503)
    assert line["bytes"] == len(answer.content)
    assert line["ms"] > 0


def test_a_valid_id_of_the_client_is_kept_and_another_one_is_not(locked):
    get = locked.client.get
    kept = get("/models", headers={"X-Request-ID": "trace.4f-2_A"}).headers["X-Request-ID"]
    assert kept == "trace.4f-2_A"
    assert line_of(locked, kept)["status"] == 200
    for wrong in ("", "a b", 'x"y', "x" * 65, "ä".encode()):
        assert re.fullmatch("[0-9a-f]{32}", get("/models", headers={"X-Request-ID": wrong}).headers["X-Request-ID"])


def test_refused_requests_have_an_id_and_a_line_too(locked):
    answer = httpx.get(f"{locked.client.base_url}/models", trust_env=False)
    line = line_of(locked, answer.headers["X-Request-ID"])
    assert (line["status"], line["token"]) == (401, None)


def test_no_payload_token_query_or_invented_path_is_logged(locked):
    service = locked
    token = (service.home / "service-token").read_text().strip()
    service.predict(payment(2, note=CANARY))
    service.client.post("/models/fraud/predict", content=CANARY, headers={"Content-Type": "application/json"})
    service.client.get(f"/models?key={CANARY}", headers={"User-Agent": CANARY, "Cookie": CANARY, "Referer": CANARY})
    service.client.get(f"/models/{CANARY}")
    service.client.get(f"/{CANARY}/{token}")
    wrong = httpx.get(
        f"{service.client.base_url}/models", headers={"Authorization": f"Bearer {CANARY}"}, trust_env=False
    )
    assert wrong.status_code == 401
    line_of(service, wrong.headers["X-Request-ID"])  # it is the last one
    text = (service.home / "serving" / "access.jsonl").read_text()
    assert {line["path"] for line in lines_of(service)} >= {"/models", "/models/fraud/predict", "other"}
    for secret in (CANARY, token):
        assert secret not in text
        assert secret not in service.said()
    assert CANARY not in service.client.get("/metrics").text


def test_the_service_limits_a_token(locked):
    answers = [locked.client.get("/models") for _ in range(300)]  # ten a second, a hundred at once
    assert {answer.status_code for answer in answers} == {200, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.headers["RateLimit-Policy"] == '"token";q=600;w=60'
    assert refused.headers["X-Request-ID"]
    assert locked.client.get("/health").status_code == 200, "open paths are not limited"
    assert 'assetline_refused_requests_total{reason="rate_limited"}' in locked.client.get("/metrics").text


WRITER = """
import json, sys
from pathlib import Path
from resources.settings import project_root
from serving.scoring.access_log import LineFile
file = LineFile(Path(sys.argv[1]), most_bytes=20_000, kept=50)
for n in range(400):
    file.write(json.dumps({"of": sys.argv[2], "n": n, "pad": "x" * 100}).encode() + b"\\n")
    file.look()
"""


def test_two_processes_share_a_file_that_is_rotated_and_lose_no_line(tmp_path):
    command = [sys.executable, "-c", WRITER, str(tmp_path / "access.jsonl")]
    processes = [subprocess.Popen([*command, name], cwd=project_root()) for name in "ab"]
    assert [process.wait(60) for process in processes] == [0, 0]
    files = [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    assert len(files) > 3
    assert sorted((line["of"], line["n"]) for line in lines) == [(name, n) for name in "ab" for n in range(400)]


def test_old_files_are_dropped(tmp_path):
    file = LineFile(tmp_path / "access.jsonl", most_bytes=10, kept=2)
    for n in range(6):
        file.write(f"line number {n}\n".encode())
        file.look()
    file.write(b"the last\n")
    kept = {path.name: path.read_text() for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert kept == {
        "access.jsonl": "the last\n", "access.jsonl.1": "line number 5\n", "access.jsonl.2": "line number 4\n",
    }  # fmt: skip
    file.close()


def through(app, write, failed=lambda: None, headers=()) -> list:
    messages: list = []

    async def send(message) -> None:
        messages.append(message)

    scope = {"type": "http", "headers": list(headers), "path": "/a", "method": "GET", "client": None}
    asyncio.run(AccessLog(app, ["/a"], write, failed)(scope, None, send))
    return messages


async def fine(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"abc"})


def test_a_full_disk_fails_no_request_and_is_counted(caplog):
    failed = []

    def full(line: bytes) -> None:
        raise OSError("no space left on device")

    for _ in range(2):
        assert through(fine, full, lambda: failed.append(1))[0]["status"] == 200
    assert len(failed) == 2
    assert "the access log cannot be written: no space left on device; requests go on" in caplog.text


def test_an_application_that_raises_is_logged_as_500():
    lines: list[bytes] = []

    async def broken(scope, receive, send) -> None:
        raise RuntimeError(CANARY)

    with pytest.raises(RuntimeError):
        through(broken, lines.append)
    (line,) = lines
    assert json.loads(line)["status"] == 500
    assert CANARY.encode() not in line


def test_without_a_log_there_are_still_ids():
    assert dict(through(fine, None)[0]["headers"]).keys() == {b"x-request-id"}

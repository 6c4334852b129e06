"""A failed stage opens an alert of the project, and its channels are told."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cli import main
from pipeline.stages import StageError
from pipeline.telling import job_of, tell
from resources.alerts import AlertStore
from resources.settings import Settings, project_root

GITLAB = {"CI_JOB_URL": "https://gitlab.example.org/job/7", "CI_COMMIT_SHA": "c0ffee" * 6, "CI_COMMIT_REF_NAME": "main",
          "GITLAB_USER_LOGIN": "ada"}  # fmt: skip
GITHUB = {"GITHUB_SERVER_URL": "https://github.example.org", "GITHUB_REPOSITORY": "team/fork", "GITHUB_RUN_ID": "7",
          "GITHUB_SHA": "c0ffee" * 6, "GITHUB_REF_NAME": "main", "GITHUB_ACTOR": "ada"}  # fmt: skip
JENKINS = {"BUILD_URL": "https://jenkins.example.org/7/", "GIT_COMMIT": "c0ffee" * 6, "BRANCH_NAME": "main"}
TRAVIS = {"TRAVIS_JOB_WEB_URL": "https://travis.example.org/7", "TRAVIS_COMMIT": "c0ffee" * 6, "TRAVIS_BRANCH": "main",
          "TRAVIS_PULL_REQUEST": "false"}  # fmt: skip


@pytest.fixture
def listener():
    """A webhook on the loopback interface: its address, and the changes that it got."""
    got: list[dict] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            got.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["changes"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    server.server_close()


@pytest.fixture
def settings(tmp_path) -> Settings:
    channels = tmp_path / "channels.toml"
    channels.write_text('[hook]\nkind = "webhook"\nurl = { env = "HOOK_URL" }\n')
    return Settings.from_env({"ASSETLINE_HOME": str(tmp_path / "home"), "ASSETLINE_CHANNELS": str(channels)})


@pytest.mark.closes("alerts", "pipeline/")
def test_a_failed_stage_is_told_once_and_resolved_when_it_passes(settings, listener, monkeypatch):
    url, got = listener
    monkeypatch.setenv("HOOK_URL", url)
    for _ in range(2):
        assert tell(settings, "smoke", "failed", GITLAB) == "the stage smoke failed; this is alert 1"
    [change] = got
    alert = change["alert"]
    assert (alert["model"], alert["cause"], alert["severity"]) == ("assetline", "pipeline/smoke", "page")
    assert alert["summary"] == "the stage smoke of the pipeline failed on main c0ffeec0ff"
    assert alert["links"]["job"] == "https://gitlab.example.org/job/7"
    assert alert["runbook"].endswith("/runbooks/pipeline")
    assert tell(settings, "smoke", "success", GITLAB) == "the stage smoke passed; its alert is resolved"
    assert [change["change"] for change in got] == ["opened", "resolved"]
    [stored] = AlertStore(settings.database_url).alerts()
    assert stored.count == 2


def test_the_name_of_a_stage_may_begin_with_a_capital(settings, listener, monkeypatch):
    monkeypatch.setenv("HOOK_URL", listener[0])
    tell(settings, " Gate ", "failed", TRAVIS)
    [alert] = AlertStore(settings.database_url).alerts()
    assert (alert.cause, alert.severity) == ("pipeline/gate", "warn")


def test_a_stage_that_passes_on_a_fresh_machine_makes_nothing(settings):
    assert tell(settings, "lint", "success", GITLAB) == "the stage lint passed; there is nothing to tell"
    assert not settings.home.exists()


@pytest.mark.parametrize(
    "request_of",
    [{"CI_MERGE_REQUEST_IID": "3"}, {"GITHUB_HEAD_REF": "idea"}, {"CHANGE_ID": "3"}, {"TRAVIS_PULL_REQUEST": "3"}],
)
def test_the_author_of_a_request_is_told_by_the_provider(settings, request_of):
    assert "so no alert is opened" in tell(settings, "unit", "failed", request_of)
    assert not settings.home.exists()


def test_a_channel_that_cannot_be_reached_fails_and_the_alert_stays(settings, monkeypatch):
    monkeypatch.setenv("HOOK_URL", "http://127.0.0.1:9/secret")
    with pytest.raises(StageError, match="this is alert 1, but not every channel could be reached") as caught:
        tell(settings, "gate", "failed", JENKINS)
    assert "secret" not in str(caught.value)
    assert len(AlertStore(settings.database_url).open_alerts()) == 1


def test_a_stage_without_a_name_is_refused(settings):
    with pytest.raises(StageError, match="STAGE is empty"):
        tell(settings, " ", "failed", {})


@pytest.mark.parametrize(
    ("env", "url"),
    [
        (GITLAB, "https://gitlab.example.org/job/7"),
        (GITHUB, "https://github.example.org/team/fork/actions/runs/7"),
        (JENKINS, "https://jenkins.example.org/7/"),
        (TRAVIS, "https://travis.example.org/7"),
        ({}, ""),
    ],
)
def test_the_page_of_the_job_is_known_of_each_provider(env, url):
    job = job_of(env)
    assert job.url == url
    assert (job.commit, job.branch) == (("c0ffee" * 6, "main") if env else ("", ""))
    assert not job.request


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ASSETLINE_HOME", str(tmp_path / "home"))
    channels = Path(tmp_path / "channels.toml")
    channels.write_text('[hook]\nkind = "webhook"\nurl = { env = "HOOK_URL" }\n')
    monkeypatch.setenv("ASSETLINE_CHANNELS", str(channels))
    monkeypatch.delenv("HOOK_URL", raising=False)
    assert main(["pipeline", "tell-failure", "--stage", "gate"]) == 1
    assert "channel hook: set the environment variable HOOK_URL" in capsys.readouterr().err.splitlines()[-1]


def test_a_stage_that_passes_on_a_fresh_machine_imports_nothing_heavy(tmp_path):
    code = """
import sys, cli
assert cli.main(["pipeline", "tell-failure", "--stage", "lint", "--status", "success"]) == 0
heavy = {"dagster", "pandas", "torch", "mlflow"} & set(sys.modules)
assert not heavy, heavy
"""
    environment = {**os.environ, "ASSETLINE_HOME": str(tmp_path / "home")}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=project_root(), env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr

"""A real Prometheus scrapes a real watch and a real service; every query of every dashboard and rule is run there."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import dagster as dg
import httpx
import pytest
import yaml

from deploy.grafana.dashboards import DASHBOARDS, FOLDER, made, panels
from resources import home as state
from resources.processes import free_port
from resources.settings import Settings, project_root
from tests.resources.alerts.doubles import Doubles
from tests.serving.conftest import payment
from tests.serving.metrics_world import fill

DEPLOY = project_root() / "deploy"
needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")), reason="needs the Debian package prometheus"
)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_dashboards_are_those_that_the_code_makes(name):
    assert (FOLDER / f"{name.lower()}.json").read_text() == made(name), "run `make dashboards`"


def test_every_panel_has_a_name_of_its_own_and_the_provisioned_source():
    for name in DASHBOARDS:
        board = json.loads(made(name))
        shown = [panel for panel in board["panels"] if panel["type"] != "row"]
        assert len({panel["title"] for panel in shown}) == len(shown)
        assert {panel["datasource"]["uid"] for panel in shown} == {"assetline"}
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    assert source["datasources"][0]["uid"] == "assetline"


def test_each_rule_has_its_page():
    for rule in rules():
        if "alert" in rule:
            assert (project_root() / rule["annotations"]["runbook"]).is_file(), rule["alert"]


def rules() -> list[dict]:
    groups = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@needs_prometheus
@pytest.mark.slow
def test_promtool_accepts_the_configuration_and_the_cases_of_the_rules():
    for command in (["check", "config", "prometheus.yml"], ["test", "rules", "rules_test.yml"]):
        where = DEPLOY / "prometheus"
        done = subprocess.run(["promtool", *command], check=False, cwd=where, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    tested = re.findall(r"alertname: (\w+)", (DEPLOY / "prometheus/rules_test.yml").read_text())
    for rule in rules():
        if "alert" in rule:
            assert tested.count(rule["alert"]) >= 2, f"{rule['alert']} needs a case that fires and one that does not"


class Prometheus:
    """The real one, which scrapes two addresses each second."""

    def __init__(self, folder, watch: str, service: str) -> None:
        given = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
        given["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        given["rule_files"] = [str(DEPLOY / "prometheus/rules.yml")]
        for job, address in zip(given["scrape_configs"], (watch, service), strict=True):
            job["static_configs"] = [{"targets": [address]}]
        del given["alerting"]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(given))
        self.url, self.log = f"http://127.0.0.1:{free_port()}", (folder / "prometheus.log").open("w")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}",
             f"--web.listen-address={self.url.removeprefix('http://')}"], stdout=self.log, stderr=self.log,
        )  # fmt: skip

    def ask(self, query: str) -> list:
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query}, trust_env=False).json()
        assert answer["status"] == "success", (query, answer)
        return answer["data"]["result"]

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.log.close()


@needs_prometheus
@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_every_query_finds_its_series(home, bundles, serve, tmp_path, monkeypatch):
    monkeypatch.setenv("ASSETLINE_HOME", str(home))
    doubles, port = Doubles(), free_port()
    (tmp_path / "channels.toml").write_text('[hook]\nkind = "webhook"\nurl = { env = "HOOK" }\n')
    monkeypatch.setenv("ASSETLINE_CHANNELS", str(tmp_path / "channels.toml"))
    monkeypatch.setenv("HOOK", f"{doubles.url}/hook")
    settings = Settings.from_env()
    state.prepare(settings)
    with dg.DagsterInstance.get() as instance:
        fill(settings, instance)
    service = serve(home, "--bundle", str(bundles["1"]))
    log = (tmp_path / "watch.log").open("w")
    watch = subprocess.Popen(
        [sys.executable, "-m", "serving.watch.app", "--port", str(port)], cwd=project_root(), stdout=log, stderr=log,
        env={**os.environ, "NO_PROXY": "127.0.0.1"},
    )  # fmt: skip
    prometheus = Prometheus(tmp_path, f"127.0.0.1:{port}", service.client.base_url.netloc.decode())
    try:
        waiting = {query for panel in panels() for query, _ in panel.queries}
        waiting |= {rule["expr"] for rule in rules() if "record" in rule}
        deadline, number = time.monotonic() + 120, 0
        while waiting and time.monotonic() < deadline:
            for _ in range(20):
                number += 1
                service.predict(payment(number))
            time.sleep(0.5)
            try:
                waiting = {query for query in waiting if not prometheus.ask(query)}
            except httpx.TransportError:
                continue
        assert not waiting, f"no series for {waiting}\n{(tmp_path / 'watch.log').read_text()[-2000:]}"
        for rule in rules():
            if "alert" in rule:
                prometheus.ask(rule["expr"])
        assert doubles.bodies("/hook"), "the watch delivers"
    finally:
        prometheus.end()
        watch.terminate()
        watch.wait(60)
        log.close()
        doubles.shutdown()

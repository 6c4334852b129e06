"""The real `make dev`: its sensors run, its GraphQL materialises, its checks and freshness show, its pages draw."""

import datetime as dt
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import httpx
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType, StepMaterializationData
from dagster._core.events.log import EventLogEntry

import assets.models.fraud  # noqa: F401 - what is played and shown: goes with the example
from docs.screenshots import FLAGS
from resources.alerts import AlertStore
from resources.processes import free_port
from serving.watch import watchdog
from tests.serving.test_supervisor import processes_of, started

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_800)]

YESTERDAY = str(dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1))
LOCATION = {"repositoryLocationName": "assetline", "repositoryName": "__repository__"}

PORTS = ("UI_PORT", "MLFLOW_PORT", "SERVICE_PORT", "WATCH_PORT")

LAUNCH = """mutation($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
RUNS = """query { runsOrError(limit: 50) { ... on Runs { results { runId status jobName
  tags { key value } } } } }"""
CHECKS = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization { status } } } }
  freshnessStatusInfo { freshnessStatus } groupName owners { ... on TeamAssetOwner { team } } kinds } } }"""
SENSORS = """query($repository: RepositorySelector!) {
  sensorsOrError(repositorySelector: $repository) { ... on Sensors { results { name sensorState { status } } } }
}"""


class Ui:
    """A running `make dev` on a fresh state folder, and its GraphQL."""

    def __init__(self, home) -> None:
        self.home, self.ports = home, {name: free_port() for name in PORTS}
        settings = {f"ASSETLINE_{name}": str(port) for name, port in self.ports.items()}
        settings |= {"FRESHNESS_DAEMON_INTERVAL_SECONDS": "2"}
        self.process, _ = started(home, [sys.executable, "-m", "serving.supervisor"], settings)
        self.url = f"http://127.0.0.1:{self.ports['UI_PORT']}"
        self.client = httpx.Client(base_url=self.url, trust_env=False, timeout=30)

    def ask(self, query: str, **variables):
        answer = self.client.post("/graphql", json={"query": query, "variables": variables}).json()
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def runs(self) -> list[dict]:
        return self.ask(RUNS)["runsOrError"]["results"]

    def asset(self, name: str) -> dict:
        return self.ask(CHECKS, key={"path": ["fraud", name]})["assetNodeOrError"]

    def until(self, found, seconds: float = 120):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if answer := found():
                return answer
            time.sleep(0.5)
        raise AssertionError(f"not within {seconds} s; runs: {self.runs()}")

    def alerts(self) -> dict[str, dict]:
        """Open alerts by cause, as the watch says."""
        token = (self.home / "token").read_text()
        answer = httpx.get(f"http://127.0.0.1:{self.ports['WATCH_PORT']}/api/alerts", trust_env=False, timeout=30,
                           headers={"Authorization": f"Bearer {token}"})  # fmt: skip
        return {alert["cause"]: alert for alert in answer.json()}

    def materialize(self, name: str, day: str) -> str:
        """Runs one asset on a day as the Materialize button does; the run's final status."""
        job = {**LOCATION, "pipelineName": "__ASSET_JOB", "assetSelection": [{"path": ["fraud", name]}]}
        tags = [{"key": "dagster/partition", "value": day}]
        launched = self.ask(LAUNCH, params={"selector": job, "executionMetadata": {"tags": tags}, "mode": "default"})
        run = launched["launchPipelineExecution"]["run"]["runId"]

        def ended() -> str:
            status = next(r["status"] for r in self.runs() if r["runId"] == run)
            return status if status in ("SUCCESS", "FAILURE", "CANCELED") else ""

        return self.until(ended)

    def end(self) -> None:
        self.client.close()
        self.process.send_signal(signal.SIGINT)
        self.process.stdout.read()
        self.process.wait(120)
        for pid in processes_of(self.home):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def ui(tmp_path_factory):
    ui = Ui(tmp_path_factory.mktemp("ui") / "home")
    yield ui
    ui.end()


def test_sensors_are_switched_on(ui):
    found = ui.ask(SENSORS, repository=LOCATION)
    states = {s["name"]: s["sensorState"]["status"] for s in found["sensorsOrError"]["results"]}
    assert set(states) >= {
        "fraud_automation", "alerts", "failed_runs", "recovered_runs", "fraud_arrivals", "fraud_missed_days",
        "fraud_retraining",
    }  # fmt: skip
    assert set(states.values()) == {"RUNNING"}


def test_the_arrivals_sensor_lands_yesterday_by_itself(ui):
    def landed():
        return [r for r in ui.runs() if r["jobName"] == "fraud_land" and r["status"] == "SUCCESS"]

    [run] = ui.until(landed)
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    assert tags["dagster/partition"] == YESTERDAY
    assert tags["dagster/sensor_name"] == "fraud_arrivals"


def test_materialising_from_the_ui_shows_the_checks(ui):
    assert ui.materialize("payments", YESTERDAY) == "SUCCESS"
    assert ui.materialize("quarantine", YESTERDAY) == "SUCCESS"
    for asset, checks in {"payments": {"contract"}, "quarantine": {"one_fate", "refused_share"}}.items():
        found = ui.asset(asset)["assetChecksOrError"]["checks"]
        assert {c["name"]: c["executionForLatestMaterialization"]["status"] for c in found} == dict.fromkeys(
            checks, "SUCCEEDED"
        )


def test_the_promotion_alone_is_refused_before_there_is_a_candidate(ui):
    job = {**LOCATION, "pipelineName": "__ASSET_JOB", "assetSelection": [{"path": ["fraud", "deployment"]}]}
    launched = ui.ask(LAUNCH, params={"selector": job, "mode": "default"})["launchPipelineExecution"]["run"]["runId"]
    ui.until(lambda: [r for r in ui.runs() if r["runId"] == launched and r["status"] == "FAILURE"])


def test_groups_owners_and_kinds_are_there(ui):
    node = ui.asset("payments")
    assert node["groupName"] == "fraud/data"
    assert [owner["team"] for owner in node["owners"]] == ["risk"]
    assert {"pandas", "pandera"} <= set(node["kinds"])


def test_a_fresh_table_is_healthy_and_one_of_three_days_ago_is_stale(ui):
    ui.until(lambda: ui.asset("payments")["freshnessStatusInfo"]["freshnessStatus"] == "HEALTHY")
    # The same event as a run writes, three days ago.
    then = time.time() - 3 * 86_400
    event = DagsterEvent(
        event_type_value=DagsterEventType.ASSET_MATERIALIZATION.value, job_name="fraud_features",
        event_specific_data=StepMaterializationData(
            dg.AssetMaterialization(dg.AssetKey(["fraud", "features"]), partition=YESTERDAY)
        ),
    )  # fmt: skip
    entry = EventLogEntry(error_info=None, user_message="", level=20, run_id="three-days-ago", timestamp=then,
                          dagster_event=event)  # fmt: skip
    os.environ["DAGSTER_HOME"] = str(ui.home / "dagster")
    try:
        with dg.DagsterInstance.get() as instance:
            instance.handle_new_event(entry)
    finally:
        del os.environ["DAGSTER_HOME"]
    ui.until(lambda: ui.asset("features")["freshnessStatusInfo"]["freshnessStatus"] == "DEGRADED")
    ui.until(lambda: ui.alerts().get("freshness/features", {}).get("severity") == "page")


def test_a_daemon_that_stops_is_paged_and_is_well_when_it_goes_on(ui, tmp_path, monkeypatch):
    monkeypatch.setattr(watchdog, "DAEMON_SILENT_S", 40.0)  # it beats every 30 s
    store = AlertStore(f"sqlite:///{tmp_path / 'alerts.db'}")
    look = watchdog.dagster_look(ui.url, ["fraud"], started=0.0)
    dog = watchdog.Watchdog(store, {("watchdog/",): look})
    daemons = {"watchdog/daemon/sensor", "watchdog/daemon/asset", "watchdog/daemon/scheduler"}

    def open_() -> set[str]:
        dog.look()
        return {alert.cause for alert in store.open_alerts()} & daemons

    ui.until(lambda: dog.look() is not None and not open_())
    frozen = [pid for pid in processes_of(ui.home) if "dagster-daemon" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert frozen
    try:
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        ui.until(open_)
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    ui.until(lambda: not open_())


def test_the_alerts_table_is_in_the_ui_and_its_jobs_handle_an_alert(ui):
    settings = {"ids": [ui.alerts()["freshness/features"]["id"]], "who": "ada", "comment": "known"}
    config = {"ops": {"acknowledge": {"config": settings}}}
    job = {**LOCATION, "pipelineName": "alerts_acknowledge"}
    params = {"selector": job, "mode": "default", "runConfigData": config}
    run = ui.ask(LAUNCH, params=params)["launchPipelineExecution"]["run"]["runId"]
    ui.until(lambda: [r for r in ui.runs() if r["runId"] == run and r["status"] == "SUCCESS"])
    shown = """query { assetNodeOrError(assetKey: {path: ["assetline", "alerts"]}) { ... on AssetNode {
      assetMaterializations(limit: 1) { metadataEntries { label
        ... on TableMetadataEntry { table { records } } } } } } }"""

    def acknowledged():
        for event in ui.ask(shown)["assetNodeOrError"]["assetMaterializations"]:
            for entry in event["metadataEntries"]:
                if '"acknowledged"' in "".join(entry.get("table", {}).get("records", [])):
                    return True
        return False

    ui.until(acknowledged)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="install the Debian package chromium")
@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("/assets/fraud/payments", ["payments, typed, deduplicated", "fraud/data", "contract"]),
        ("/automation", ["fraud_arrivals", "fraud_retraining"]),
    ],
)
def test_a_browser_draws_the_pages(ui, tmp_path, page, words):
    command = ["chromium", *FLAGS, f"--user-data-dir={tmp_path}", "--dump-dom", ui.url + page]
    drawn = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    assert [word for word in words if word not in drawn] == []


def test_the_service_beside_it_says_that_there_is_no_model_yet(ui):
    url = f"http://127.0.0.1:{ui.ports['SERVICE_PORT']}/models/fraud/predict"
    assert httpx.post(url, json={}, trust_env=False).status_code == 401
    token = (ui.home / "service-token").read_text().strip()
    answer = httpx.post(url, json={}, trust_env=False, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 503
    assert "no version of 'fraud' is deployed yet" in answer.text

"""The launchpad's jobs and the asset of alerts."""

import dagster as dg
import pytest

from assets.alerts import KEY, alert_jobs, alerts_table
from resources.alerts import Alerts

JOBS = {job.name: job for job in alert_jobs()}


@pytest.fixture
def alerts(tmp_path) -> Alerts:
    made = Alerts(database_url=f"sqlite:///{tmp_path / 'alerts.db'}")
    made.store.report("fraud", "drift/drift", severity="page", summary="x")
    return made


def run(name: str, alerts: Alerts, **config):
    op = name.removeprefix("alerts_")
    given = {"ids": [1], "who": "ada", "comment": "known", **config}
    return JOBS[name].execute_in_process(
        run_config={"ops": {op: {"config": given}}}, resources={"alerts": alerts}, raise_on_error=False
    )


@pytest.mark.parametrize(
    ("name", "config", "change"),
    [
        ("alerts_acknowledge", {}, "acknowledged"),
        ("alerts_silence", {"hours": 2.0}, "silenced"),
        ("alerts_resolve", {}, "resolved"),
    ],
)
def test_a_job_does_what_the_command_does(alerts, name, config, change):
    assert run(name, alerts, **config).success
    event = alerts.store.history(1)[-1]
    assert (event.change, event.message, event.who) == (change, "known", "ada")


def test_an_alert_that_is_not_there_fails_the_run(alerts):
    assert not run("alerts_resolve", alerts, ids=[7]).success


def test_the_asset_shows_the_open_ones_first(alerts):
    alerts.store.report("churn", "drift/quality", column="age", severity="warn", summary="y")
    alerts.store.close(1, who="ada")
    result = dg.materialize([alerts_table], resources={"alerts": alerts})
    [event] = result.asset_materializations_for_node(KEY.to_python_identifier())
    shown = [(record.data["id"], record.data["state"]) for record in event.metadata["alerts"].records]
    assert shown == [(2, "open"), (1, "resolved")]
    assert event.metadata["open"].value == 1

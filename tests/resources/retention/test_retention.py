"""What is old and named nowhere goes; what the ledger names, and what a kept table was made from, stays."""

import datetime as dt
import json
import shutil
from dataclasses import replace
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from assets.lifecycle.model.version.bundle import loaded
from assets.retention import retention_job, retention_schedule
from cli import main
from resources.alerts import AlertStore, Route
from resources.backup import maintenance
from resources.dagster_internals import _FACTS
from resources.ledger import Ledger
from resources.request_log import RequestLog
from resources.restore import _move_paths
from resources.retention import Retention, RetentionError, plan, prune
from resources.settings import Settings
from tests.resources.conftest import POSTGRES
from tests.resources.test_request_log import record
from tests.state import DAYS, MODEL, new_version, run_of, small_state, snapshot
from tests.worlds import QUIET, World

SHORT = Retention(latest_runs=1, latest_versions=1, latest_alerts=1)
"""The default periods; nearly nothing stays for being among the latest."""


def later(days: float) -> dt.datetime:
    return dt.datetime.now(dt.UTC) + dt.timedelta(days=days)


@pytest.fixture(scope="module")
def made_once(make_world, tmp_path_factory, toy_bundle) -> World:
    return small_state(make_world, tmp_path_factory.mktemp("state") / "var", toy_bundle)


@pytest.fixture
def world(make_world, tmp_path, made_once) -> World:
    """A copy of the small state folder."""
    folder = tmp_path / "var"
    shutil.copytree(made_once.settings.home, folder)
    _move_paths(folder / "mlflow" / "mlflow.db", str(made_once.settings.home), str(folder))
    return make_world(MODEL, folder)


def rules(world: World, days: float, retention: Retention = SHORT) -> list[str]:
    """The kinds of state that a prune would remove from in so many days."""
    return [removal.rule for removal in plan(world.settings, retention, world.instance, later(days))]


def pruned(world: World, days: float = 10_000, retention: Retention = SHORT) -> list[str]:
    """Prunes in so many days; what was removed."""
    return [removal.what for removal in prune(world.settings, retention, world.instance, later(days))]


def run_ids(world: World) -> set[str]:
    return {run.run_id for run in world.instance.get_runs()}


def events_of(world: World, run_id: str) -> set[str]:
    return {log.dagster_event_type.value for log in world.instance.all_logs(run_id) if log.is_dagster_event}


def files_of(world: World, version: str) -> Path:
    return world.mlflow.download(MODEL.name, version)


# -- what stays ----------------------------------------------------------------------------------------------------


def test_what_the_ledger_names_survives_every_period(world, toy_bundle):
    training = run_of(world, "training")
    refused = new_version(world, toy_bundle, dagster_run_id=training.run_id)
    refusing = run_of(world, "refusing")
    world.ledger.refuse(MODEL.name, refused, reason="worse", verdicts={}, dagster_run=refusing.run_id, who="ada")
    for asset in ("training", "refusing", "deploying"):
        run_of(world, asset)  # supersedes what the named runs made
    latest = [new_version(world, toy_bundle) for _ in range(2)]
    before = world.ledger.history()
    named = {entry.dagster_run for entry in before} | {training.run_id}
    events = {run_id: events_of(world, run_id) for run_id in named}
    X = np.linspace(0, 100, 8, dtype=np.float32).reshape(1, 8)
    scores = loaded(files_of(world, "1")).predict(X).tolist()

    gone = [what.partition(" (")[0] for what in pruned(world)]
    assert [what for what in gone if what.startswith("version")] == [f"version {latest[0]} of meter"]
    assert world.ledger.history() == before
    for version in ("1", refused, latest[1]):
        assert loaded(files_of(world, version)).predict(X).tolist() == scores
        run = world.mlflow.client().get_run(world.mlflow.run_of_version(MODEL.name, version))
        assert run.info.lifecycle_stage == "active"
    assert named <= run_ids(world)
    assert {run_id: events_of(world, run_id) for run_id in named} == events
    assert world.ledger.reconcile(world.mlflow) == {}


def test_a_version_that_is_promoted_while_it_is_pruned_stays(world, toy_bundle):
    chosen, _ = new_version(world, toy_bundle), new_version(world, toy_bundle)
    [removal] = [one for one in plan(world.settings, SHORT, world.instance, later(91)) if one.rule == "versions"]
    world.ledger.promote(MODEL.name, chosen, reason="r", verdicts={}, dagster_run="r", who="ada")
    removal.remove()
    assert files_of(world, chosen).exists()


def test_the_aliased_version_stays_even_if_no_entry_names_it(world, toy_bundle):
    aliased, _ = new_version(world, toy_bundle), new_version(world, toy_bundle)
    world.mlflow.set_alias(MODEL.name, "shadow", aliased)
    pruned(world)
    assert files_of(world, aliased).exists()


def test_a_dry_run_changes_no_byte(world, toy_bundle, monkeypatch, capsys):
    run_of(world, "daily", DAYS[0])
    for _ in range(3):
        new_version(world, toy_bundle)
        run_of(world, "other")
    before = snapshot(world.settings.home)
    assert set(rules(world, 10_000)) == {"runs", "events", "versions"}
    monkeypatch.setenv("ASSETLINE_HOME", str(world.settings.home))
    monkeypatch.setattr("resources.defaults.RETENTION", SHORT)
    monkeypatch.setattr("resources.audit.AuditLog.record", lambda *_, **__: None)  # its line: tests/cli/test_audit.py
    assert main(["prune"]) == 0
    assert capsys.readouterr().out == "nothing is old enough to go\n"
    assert snapshot(world.settings.home) == before


# -- runs and events -----------------------------------------------------------------------------------------------


def test_a_run_that_was_superseded_goes_after_its_period(world):
    old = run_of(world, "other")
    latest = run_of(world, "other")
    output = world.settings.dagster_home / "storage" / old.run_id
    assert output.exists()
    assert "runs" not in rules(world, 89)
    assert "runs" in rules(world, 91)
    assert any(what.startswith(f"run {old.run_id[:8]} ") for what in pruned(world, 91))
    assert old.run_id not in run_ids(world)
    assert latest.run_id in run_ids(world)
    assert world.instance.all_logs(old.run_id) == []
    assert not output.exists()


def test_a_run_that_holds_the_latest_of_a_day_loses_only_its_chatter(world):
    runs = {day: run_of(world, "daily", day) for day in DAYS}
    run_of(world, "other")
    key = dg.AssetKey("daily")
    before = world.instance.get_materialized_partitions(key)
    assert before == set(DAYS)
    assert "events" not in rules(world, 89)
    pruned(world, 91)
    assert world.instance.get_materialized_partitions(key) == before
    for day, run in runs.items():
        left = events_of(world, run.run_id)
        assert "ASSET_MATERIALIZATION" in left
        assert left <= {fact.value for fact in _FACTS}
        assert world.instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.SUCCESS
        [latest] = world.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=key, asset_partitions=[day]), limit=1
        ).records
        assert latest.run_id == run.run_id
    assert rules(world, 91).count("events") == 0, "there is nothing left to remove"


def test_a_check_is_not_forgotten(world):
    @dg.asset_check(asset="daily", name="sound")
    def sound() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False)

    @dg.asset
    def daily() -> None: ...

    checking = dg.materialize([daily, sound], instance=world.instance, run_config=QUIET)
    dg.materialize([daily], instance=world.instance, run_config=QUIET)
    pruned(world)
    [record] = world.instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey("daily"), "sound"), limit=5
    )
    assert record.run_id == checking.run_id
    assert checking.run_id in run_ids(world)
    assert "ASSET_CHECK_EVALUATION" in events_of(world, checking.run_id)


def test_a_run_that_a_sensor_asked_for_keeps_its_key(world):
    @dg.asset
    def asked() -> None: ...

    first = dg.materialize([asked], instance=world.instance, tags={"dagster/run_key": "k"}, run_config=QUIET)
    dg.materialize([asked], instance=world.instance, run_config=QUIET)
    pruned(world)
    assert world.instance.get_run_by_id(first.run_id).tags["dagster/run_key"] == "k"


def test_a_run_that_has_not_ended_and_the_latest_stay(world):
    going = world.instance.create_run_for_job(dg.job(name="going")(lambda: None), status=dg.DagsterRunStatus.STARTED)
    for _ in range(3):
        run_of(world, "other", fails=True)
    pruned(world, retention=SHORT.model_copy(update={"latest_runs": 2}))
    assert going.run_id in run_ids(world)
    assert len([run for run in world.instance.get_runs() if run.job_name != "going"]) >= 3


# -- versions ------------------------------------------------------------------------------------------------------


def test_a_version_that_no_entry_names_goes_with_its_files(world, toy_bundle):
    unnamed, latest = new_version(world, toy_bundle), new_version(world, toy_bundle)
    files, run_id = files_of(world, unnamed), world.mlflow.run_of_version(MODEL.name, unnamed)
    assert "versions" not in rules(world, 89)
    [removal] = [one for one in plan(world.settings, SHORT, world.instance, later(91)) if one.rule == "versions"]
    assert removal.size >= sum(path.stat().st_size for path in toy_bundle.rglob("*") if path.is_file())
    pruned(world, 91)
    assert not files.exists()
    there = {version.version for version in world.mlflow.client().search_model_versions("name = 'meter'")}
    assert {str(version) for version in there} == {"1", latest}
    assert world.mlflow.client().get_run(run_id).info.lifecycle_stage == "deleted"
    assert "versions" not in rules(world, 91)


def test_a_run_of_mlflow_without_a_version_goes_unless_it_has_not_ended(world, toy_bundle):
    client = world.mlflow.client()
    experiment = world.mlflow._experiment_id(client, "backtests")
    ended, going, latest = (client.create_run(experiment, start_time=at).info.run_id for at in (1_000, 2_000, 3_000))
    client.log_text(ended, "x" * 1000, "report.txt")
    for run_id in (ended, latest):
        client.set_terminated(run_id)
    folder = Path(client.get_run(ended).info.artifact_uri)
    assert folder.exists()
    pruned(world, 91)
    stages = {run_id: client.get_run(run_id).info.lifecycle_stage for run_id in (ended, going, latest)}
    assert stages == {ended: "deleted", going: "active", latest: "active"}
    assert not folder.exists()


# -- alerts and deliveries -----------------------------------------------------------------------------------------


def fill_alerts(url: str) -> AlertStore:
    """Two resolved alerts, one resolved of which a message waits, one open."""
    store = AlertStore(url, [Route(channel="pager")])
    for cause in ("one", "two", "waits"):
        store.report("fraud", cause, severity="page", summary=cause)
        store.resolve("fraud", cause, reason="over")
    store.report("fraud", "open", severity="page", summary="open")
    done = [d.id for d in store.outbox.due("pager") if d.alert.cause != "waits"]
    store.outbox.delivered(done, "m")
    return store


def causes(store: AlertStore) -> set[str]:
    return {alert.cause for alert in store.alerts("fraud")}


def count(url: str, table: str) -> int:
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        return connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one()


def check_alerts(world: World) -> None:
    url = world.settings.database_url
    store = fill_alerts(url)
    history = count(url, "alert_events")
    assert "deliveries" not in rules(world, 29)
    assert "alerts" not in rules(world, 364)
    pruned(world, 31)
    assert causes(store) == {"one", "two", "waits", "open"}
    assert count(url, "alert_outbox") == 2, "what waits stays"
    assert count(url, "alert_events") == history
    pruned(world, 366)
    assert causes(store) == {"waits", "open"}
    assert count(url, "alert_events") == history - 4
    for statement in ("UPDATE alert_events SET message = ''", "DELETE FROM alert_events"):
        with pytest.raises(sa.exc.DBAPIError, match="append-only"), sa.create_engine(url).begin() as connection:
            connection.execute(sa.text(statement))
    assert [d.alert.cause for d in store.outbox.due("pager")] == ["waits", "waits"]


def test_resolved_alerts_and_delivered_messages_go_and_the_history_stays_append_only(world):
    check_alerts(world)


@pytest.mark.slow
@pytest.mark.skipif(POSTGRES is None, reason="needs the Debian package postgresql")
def test_alerts_go_from_postgresql_too(world, postgres):
    check_alerts(World(MODEL, replace(world.settings, database_url=postgres("retention")), world.instance))


def test_the_latest_alerts_stay(world):
    store = fill_alerts(world.settings.database_url)
    pruned(world, 366, SHORT.model_copy(update={"latest_alerts": 4}))
    assert causes(store) == {"one", "two", "waits", "open"}
    pruned(world, 366, SHORT.model_copy(update={"latest_alerts": 3}))
    assert causes(store) == {"two", "waits", "open"}


def test_a_removal_that_fails_leaves_the_history_as_it_was(world, monkeypatch):
    url = world.settings.database_url
    fill_alerts(url)
    before = count(url, "alert_events")
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text(
            "CREATE TRIGGER broken BEFORE DELETE ON alerts BEGIN SELECT RAISE(ABORT, 'broken'); END"
        ))  # fmt: skip
    with pytest.raises(sa.exc.IntegrityError, match="broken"):
        pruned(world, 366)
    assert count(url, "alert_events") == before
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("DELETE FROM alert_events"))


# -- tables --------------------------------------------------------------------------------------------------------


def write_lineage(world: World) -> None:
    """raw → clean → scores by day, and frozen rows of the last clean day."""
    frame = pd.DataFrame({"n": [1]})
    for day in DAYS:
        raw = world.tables.write(MODEL.key("raw"), frame, day).data_version
        clean = world.tables.write(MODEL.key("clean"), frame, day, inputs={"meter/raw": {day: raw}}).data_version
        world.tables.write(MODEL.key("scores"), frame, day, inputs={"meter/clean": {day: clean}})
    world.tables.write(MODEL.key("training_set"), frame, inputs={"meter/clean": {DAYS[1]: clean}})


def days_after(world: World, **table_days: int) -> dict[str, list[str]]:
    retention = Retention(table_days={f"meter/{name}": days for name, days in table_days.items()})
    now = dt.datetime(2026, 3, 3, 12, tzinfo=dt.UTC)
    prune(world.settings, retention, world.instance, now)
    return {name: [day[-1] for day in world.tables.days(MODEL.key(name))] for name in ("raw", "clean", "scores")}


def test_no_table_loses_a_day_unless_it_is_declared(world):
    write_lineage(world)
    assert days_after(world) == {"raw": ["1", "2", "3"], "clean": ["1", "2", "3"], "scores": ["1", "2", "3"]}


def test_days_before_the_declared_period_go(world):
    write_lineage(world)
    assert days_after(world, scores=1)["scores"] == ["2", "3"]
    assert days_after(world, scores=100)["scores"] == ["2", "3"]


def test_a_day_stays_while_a_file_that_stays_was_made_from_it(world):
    write_lineage(world)
    assert days_after(world, raw=1) == {"raw": ["1", "2", "3"], "clean": ["1", "2", "3"], "scores": ["1", "2", "3"]}
    now = dt.datetime(2026, 3, 9, tzinfo=dt.UTC)
    everything = Retention(table_days={f"meter/{name}": 1 for name in ("raw", "clean", "scores")})
    prune(world.settings, everything, world.instance, now)
    assert world.tables.days(MODEL.key("scores")) == []
    assert world.tables.days(MODEL.key("clean")) == [DAYS[1]], "the frozen rows were made from it"
    assert world.tables.days(MODEL.key("raw")) == [DAYS[1]]
    assert world.tables.read(MODEL.key("training_set"))["n"].tolist() == [1]


# -- refusals ------------------------------------------------------------------------------------------------------


def test_wrong_periods_are_refused_and_nothing_goes(world):
    for _ in range(2):
        run_of(world, "other")
    before = snapshot(world.settings.home)
    for periods, message in [
        ({"meter/raeding": 3}, "table_days names meter/raeding, but the tables are: meter/readings"),
        ({"meter/readings": 0}, "table_days keeps 0 days of meter/readings; keep at least 1, or leave it out"),
    ]:
        with pytest.raises(RetentionError, match=message):
            pruned(world, retention=SHORT.model_copy(update={"table_days": periods}))
    for name in ("run_days", "version_days", "alert_days", "delivery_days", "latest_runs", "latest_versions",
                 "latest_alerts"):  # fmt: skip
        with pytest.raises(ValidationError, match=name):
            Retention(**{name: 0})
    with maintenance(world.settings, RetentionError), pytest.raises(RetentionError, match="another backup or prune"):
        pruned(world)
    assert snapshot(world.settings.home) == before


def test_a_missing_state_folder_is_named(world, tmp_path, monkeypatch, capsys):
    nowhere = Settings.from_env({"ASSETLINE_HOME": str(tmp_path / "none")})
    for do in (plan, prune):
        with pytest.raises(RetentionError, match=r"there is no state folder .*none; ASSETLINE_HOME names another"):
            do(nowhere, SHORT, world.instance)
    monkeypatch.setenv("ASSETLINE_HOME", str(nowhere.home))
    assert main(["prune", "--yes"]) == 1
    assert capsys.readouterr().err.startswith("assetline prune: there is no state folder")
    assert not nowhere.home.exists()


# -- the command and the job ---------------------------------------------------------------------------------------


@pytest.fixture
def old_delivery(world) -> World:
    """A delivered message of a year ago."""
    store = AlertStore(world.settings.database_url, [Route(channel="pager")])
    store.report("fraud", "one", severity="page", summary="x")
    store.outbox.delivered([d.id for d in store.outbox.due("pager")], "m", later(-365))
    return world


def test_the_command_removes_only_with_yes(old_delivery, monkeypatch, capsys):
    url = old_delivery.settings.database_url
    monkeypatch.setenv("ASSETLINE_HOME", str(old_delivery.settings.home))
    assert main(["prune"]) == 0
    assert main(["prune", "--list"]) == 0
    assert (
        capsys.readouterr().out
        == (
            "deliveries   100 bytes  1 delivered messages\n100 bytes would go; nothing was removed (--yes removes it)\n"
        )
        * 2
    )
    assert count(url, "alert_outbox") == 1
    assert main(["prune", "--yes"]) == 0
    assert capsys.readouterr().out.endswith("\n100 bytes removed\n")
    assert count(url, "alert_outbox") == 0
    assert main(["prune", "--yes"]) == 0
    assert capsys.readouterr().out == "nothing is old enough to go\n"


def test_the_job_logs_what_would_go_and_removes_it_only_where_told(old_delivery, monkeypatch):
    url = old_delivery.settings.database_url
    monkeypatch.setenv("ASSETLINE_HOME", str(old_delivery.settings.home))
    job = retention_job()

    def ran(config: dict) -> bool:
        ops = {"ops": {"retain": {"config": config}}} if config else {}
        return job.execute_in_process(
            run_config={**QUIET, **ops}, instance=old_delivery.instance, raise_on_error=False
        ).success

    assert ran({})
    assert count(url, "alert_outbox") == 1
    assert not ran({"remove": True, "periods": {"table_days": {"no/table": 3}}})
    assert count(url, "alert_outbox") == 1
    assert ran({"remove": True, "periods": {"delivery_days": 400}})
    assert count(url, "alert_outbox") == 1
    scheduled = retention_schedule()
    assert scheduled.default_status == dg.DefaultScheduleStatus.STOPPED
    with dg.build_schedule_context(instance=old_delivery.instance) as context:
        [request] = scheduled.evaluate_tick(context).run_requests
    assert ran(request.run_config["ops"]["retain"]["config"])
    assert count(url, "alert_outbox") == 0


def test_the_ledger_is_never_shortened(world):
    ledger = Ledger(database_url=world.settings.database_url)
    before = json.dumps([entry.to_json() for entry in ledger.history()])
    pruned(world, 100_000)
    assert json.dumps([entry.to_json() for entry in ledger.history()]) == before
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), sa.create_engine(ledger.database_url).begin() as one:
        one.execute(sa.text("DELETE FROM promotions"))


def test_days_of_the_log_go_once_the_table_of_requests_has_them(world):
    log, now = RequestLog(folder=str(world.settings.serving)), dt.datetime.now(dt.UTC).replace(tzinfo=None)
    log.append([record(n, at=now - dt.timedelta(days=n)) for n in (29, 31, 32)])
    days = log.days("meter")
    old = world.settings.serving / "meter" / f"{days[0]}.jsonl"  # as an earlier release has logged
    old.write_text("{}")
    world.tables.write(MODEL.key("requests"), pd.DataFrame({"at": []}), days[1])
    world.tables.write(MODEL.key("requests"), pd.DataFrame({"at": []}), days[2])
    assert [what for what in pruned(world, 0) if "in the log" in what] == [
        f"requests to meter of {days[1]}, in the log",
        f"rows of meter of {days[0]}, in the log of an earlier release",
    ]
    assert log.days("meter") == [days[0], days[2]], "a day went that no table has, or that is young"
    assert not old.exists()
    assert not [what for what in pruned(world, 0) if "in the log" in what]
